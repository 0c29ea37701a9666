"""Three brokers, started at once on an empty database, are one broker."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest

from brokkr.broker.db.keys import create_admin_key
from brokkr.client import BrokerClient
from brokkr.local.process import Server, free_port
from brokkr.wire.bodies import (
    ClaimSome,
    RegisterAgent,
    RegisteredAgent,
    SubmitWork,
    TargetBody,
)
from brokkr.work.errors import BrokerUnavailable
from support.factories import a_build_template
from support.signals import eventually
from support.system import a_broker, kill

pytestmark = pytest.mark.postgres

REPLICAS = 3
AGENTS = 30
WORKS = 300
STALE = 20
WAIT_SECONDS = 10
"""How long a poll waits: the wake of a broker that is killed may be lost, not the poll's end."""


@dataclass
class Replicas:
    """Three brokers on one database, an admin's client for each, and the database itself."""

    servers: Sequence[Server]
    urls: Sequence[str]
    admins: Sequence[BrokerClient]
    database: asyncpg.Connection

    async def an_agent(self, number: int) -> "Agent":
        body = RegisterAgent(name=f"edge-{number}", labels={"any": "yes"})
        registered = await self.admins[number % REPLICAS].register_agent(body)
        first = number % REPLICAS
        return Agent(registered, [*self.urls[first:], *self.urls[:first]])

    async def submit(self, number: int, *, claim_timeout_seconds: int = 3600) -> UUID:
        """Submit a Work to a replica, or to another if that one is gone."""
        body = SubmitWork(
            work_type="build",
            template=a_build_template(),
            target=TargetBody(match_labels={"any": "yes"}),
            claim_timeout_seconds=claim_timeout_seconds,
            idempotency_key=f"work-{number}",
        )
        for admin in [*self.admins, *self.admins][number % REPLICAS :]:
            with suppress(BrokerUnavailable):
                return (await admin.submit_work(body)).id
        raise AssertionError("no replica took it")


class Agent:
    """Polls one broker after the other, and keeps whatever it gets."""

    def __init__(self, registered: RegisteredAgent, urls: Sequence[str]) -> None:
        self._id = registered.id
        self._key = registered.key
        self._urls = urls
        self.claimed: list[UUID] = []

    async def run(self) -> None:
        """Claim for ever; a request that was not answered is repeated elsewhere."""
        request_id = uuid4()
        for url in cycle(self._urls):
            async with BrokerClient(url, self._key) as client:
                with suppress(BrokerUnavailable):
                    while True:
                        body = ClaimSome(wait=WAIT_SECONDS, request_id=request_id)
                        self.claimed += [
                            each.id for each in await client.claim_some(self._id, body)
                        ]
                        request_id = uuid4()

    async def claim(self, number: int) -> None:
        """Claim so many, once, and do nothing with them."""
        async with BrokerClient(self._urls[0], self._key) as client:
            for each in await client.claim_some(self._id, ClaimSome(max=number)):
                self.claimed.append(each.id)


@pytest.fixture
async def replicas(tmp_path: Path, database_url: str) -> AsyncIterator[Replicas]:
    database = await asyncpg.connect(database_url)
    await database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    async with AsyncExitStack() as stack, started(tmp_path, database_url) as brokers:
        key = await create_admin_key(database_url)
        urls = [url for url, _ in brokers]
        admins = [await stack.enter_async_context(BrokerClient(url, key)) for url in urls]
        yield Replicas([server for _, server in brokers], urls, admins, database)
    await database.close()


@asynccontextmanager
async def started(folder: Path, database_url: str) -> AsyncIterator[list[tuple[str, Server]]]:
    """Start all replicas at the same time."""
    async with AsyncExitStack() as stack:
        brokers = []
        for number in range(REPLICAS):
            place = folder / str(number)
            place.mkdir()
            (place / "brokkr.toml").write_text("[broker]\nstale_claim_interval_seconds = 0.2\n")
            brokers.append(a_broker(place, database_url, port=free_port()))
        yield await asyncio.gather(*map(stack.enter_async_context, brokers))


async def test_every_work_is_claimed_once_and_soon_though_one_replica_is_killed(
    replicas: Replicas,
) -> None:
    agents = [await replicas.an_agent(number) for number in range(AGENTS)]
    polling = [asyncio.create_task(each.run()) for each in agents]
    await eventually(partial(waits, replicas, AGENTS // REPLICAS))
    first, rest = range(WORKS // 2), range(WORKS // 2, WORKS)
    submitted = await asyncio.gather(*(replicas.submit(number) for number in first))
    submitting = [asyncio.create_task(replicas.submit(number)) for number in rest]
    await eventually(partial(has_claimed, agents, WORKS // 2))
    kill(replicas.servers[1])
    submitted += await asyncio.gather(*submitting)
    await eventually(partial(has_claimed, agents, WORKS), within=3 * WAIT_SECONDS)
    for each in polling:
        each.cancel()
    await asyncio.gather(*polling, return_exceptions=True)

    got = Counter(work_id for agent in agents for work_id in agent.claimed)
    assert got == Counter(submitted)
    given = await replicas.database.fetch(
        "SELECT work_id, count(*) AS claims FROM work_claims GROUP BY work_id"
    )
    assert {row["work_id"]: row["claims"] for row in given} == got
    waited = await replicas.database.fetchval(
        "SELECT percentile_cont(0.9) WITHIN GROUP"
        " (ORDER BY extract(epoch FROM claimed_at - created_at)) FROM work_queue"
    )
    assert waited < WAIT_SECONDS / 4


async def test_a_lost_claim_is_given_back_once_by_whichever_replica_looks(
    replicas: Replicas,
) -> None:
    agent = await replicas.an_agent(0)
    for number in range(STALE):
        await replicas.submit(number, claim_timeout_seconds=1)
    await agent.claim(STALE)
    assert len(agent.claimed) == STALE

    async def all_are_back() -> bool:
        back = "SELECT count(*) = $1 FROM work_queue WHERE status = 'PENDING'"
        return bool(await replicas.database.fetchval(back, STALE))

    await eventually(all_are_back)
    await asyncio.sleep(1)  # so that each replica has looked again

    lost = await replicas.database.fetch(
        "SELECT work_id, count(*) AS times FROM work_events WHERE kind = 'lease_lost'"
        " GROUP BY work_id"
    )
    assert {row["work_id"]: row["times"] for row in lost} == dict.fromkeys(agent.claimed, 1)
    counted = "SELECT DISTINCT lost_claims FROM work_queue"
    assert [row["lost_claims"] for row in await replicas.database.fetch(counted)] == [1]
    said = "".join(each.log.read_text() for each in replicas.servers)
    assert said.count("claim lost") == STALE


async def waits(replicas: Replicas, number: int) -> bool:
    """Say whether so many polls wait at each replica."""
    async with aiohttp.ClientSession() as http:
        for url in replicas.urls:
            async with http.get(f"{url}/metrics") as answer:
                if f"waiting_polls {number}.0" not in await answer.text():
                    return False
    return True


async def has_claimed(agents: Sequence[Agent], number: int) -> bool:
    return sum(len(each.claimed) for each in agents) >= number

"""Every metric moves when its thing happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from brokkr.broker.api.state import Broker
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.db.pool import open_pool, transaction, use_of
from brokkr.broker.maintenance.retention import prune
from brokkr.broker.maintenance.selectors import SelectorRepair
from brokkr.broker.metrics import MEASURE_EVERY_SECONDS, Metrics
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import (
    ClaimOne,
    ClaimSome,
    CompleteWork,
    RegisterAgent,
    SubmitWork,
    TargetBody,
)
from brokkr.wire.tenants import CreateGenerator, CreateKey
from brokkr.work.errors import DatabaseUnavailable, LimitReached
from support.broker import serving
from support.factories import a_build_template
from support.queue import Queue
from support.signals import eventually

SETTINGS = BrokerSettings(stale_claim_interval_seconds=0.1, handoff_base_delay_seconds=0)

MOVED: dict[str, dict[str, float | None]] = {
    "claims_total": {"": 3},
    "lost_claims_total": {"": 1},
    "finished_work_total": {"outcome=succeeded": 1},
    "handoffs_total": {"": 1},
    "throttled_submissions_total": {"": 1},
    "pruned_total": {"kind=idempotency_key": 1},
    "repaired_agents_total": {"": 1},
    "dispatch_seconds_count": {"": 3},
    "http_request_seconds_count": {"method=POST route=/api/v1/generators status=201": 1},
    "job_seconds_count": {"job=release stale claims result=done": None},
    "waiting_polls": {"": 1},
    "event_streams": {"": 1},
    "pool_connections": {"state=in_use": None, "state=idle": None},
    "pool_connections_limit": {"": 10},
    "pool_waiting_requests": {"": 0},  # moved by a test of its own
    "log_lines_lost_total": {"": 0},  # likewise
    "database_up": {"": 1},
    "queued_work": {
        "generator=ci status=PENDING type=build": 1,
        "generator= status=PENDING type=build": 2,
        "generator= status=CLAIMED type=build": 1,
    },
    "oldest_pending_seconds": {"": None},
    "table_rows": {
        "state=live table=work_queue": None,
        "state=dead table=work_queue": None,
        "state=live table=agents": None,
    },
    "oldest_transaction_seconds": {"": None},
}
"""What the samples are after the scenario; None is anything above zero."""


@dataclass(frozen=True)
class Watched:
    """A broker whose metrics are looked at."""

    url: str
    parts: Broker
    admin: BrokerClient
    http: aiohttp.ClientSession
    clients: AsyncExitStack

    async def client(self, key: str) -> BrokerClient:
        return await self.clients.enter_async_context(BrokerClient(self.url, key))

    async def submit(self, by: BrokerClient | None = None, **fields: Any) -> Any:
        target = TargetBody(match_labels={"any": "yes"})
        body = SubmitWork(work_type="build", template=a_build_template(), target=target, **fields)
        return await (by or self.admin).submit_work(body)

    async def scrape(self, key: str | None = None) -> tuple[int, dict[str, dict[str, float]]]:
        """Return the status, and the samples by name and labels."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with self.http.get(f"{self.url}/metrics", headers=headers) as response:
            text = await response.text()
            return response.status, samples(text) if response.status == 200 else {}


def samples(text: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = " ".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix("brokkr_broker_")
            found.setdefault(name, {})[labels] = sample.value
    return found


@asynccontextmanager
async def watched(database_url: str, settings: BrokerSettings = SETTINGS) -> AsyncIterator[Watched]:
    key = await create_admin_key(database_url)
    async with (
        serving(settings, database_url) as app,
        BrokerClient(app.url, key) as admin,
        aiohttp.ClientSession() as http,
        AsyncExitStack() as clients,
    ):
        yield Watched(app.url, app.parts, admin, http, clients)


@pytest.fixture
async def broker(database_url: str) -> AsyncIterator[Watched]:
    async with watched(database_url) as broker:
        yield broker


async def test_every_metric_moves_when_its_thing_happens(broker: Watched) -> None:
    agent = await broker.admin.register_agent(RegisterAgent(name="a", labels={"any": "yes"}))
    own = await broker.client(agent.key)

    done = await broker.submit(idempotency_key="once")
    claim = await own.claim_work(done.id, ClaimOne())
    await own.complete_work(done.id, CompleteWork(claim_id=claim.claim_id, success=True))

    handed = await broker.submit(max_handoffs=1)
    claim = await own.claim_work(handed.id, ClaimOne())
    report = CompleteWork(claim_id=claim.claim_id, success=False, retryable=True)
    await own.complete_work(handed.id, report)

    lost = await broker.submit(claim_timeout_seconds=1)
    await own.claim_work(lost.id, ClaimOne())
    await eventually(lambda: is_pending(broker, lost.id))

    held = await broker.submit()
    await claim_without_counting(broker, held.id, agent.id)

    body = CreateGenerator(name="ci", max_pending=1)
    generator = await broker.client((await broker.admin.create_generator(body)).key)
    await broker.submit(generator)
    with pytest.raises(LimitReached):
        await broker.submit(generator)

    await maintain(broker, agent.id)
    async with busy(broker, own, lost.id):
        _, found = await broker.scrape()

    for name, expected in MOVED.items():
        for labels, value in expected.items():
            got = found[name][labels]
            assert (name, labels, got) == (name, labels, value if value is not None else got)
            assert value is not None or got > 0, (name, labels, got)


async def is_pending(broker: Watched, work_id: Any) -> bool:
    return (await broker.admin.get_work(work_id)).lost_claims == 1


async def claim_without_counting(broker: Watched, work_id: Any, agent_id: Any) -> None:
    """Claim as at another replica."""
    queue = Queue(broker.parts.pool)
    await queue.claim(work_id, by=await broker.admin.get_agent(agent_id))


async def maintain(broker: Watched, agent_id: Any) -> None:
    """Do now what is done every few minutes, with something to do."""
    pool = broker.parts.pool
    await pool.execute("UPDATE idempotency_keys SET expires_at = now() - interval '1 s'")
    await prune(pool, SETTINGS.retention, metrics=broker.parts.metrics, clock=broker.parts.clock)
    await pool.execute("DELETE FROM agent_selectors WHERE agent_id = $1", agent_id)
    await SelectorRepair(
        pool=pool, dispatcher=broker.parts.dispatcher, metrics=broker.parts.metrics
    )()
    async with transaction(pool) as reader:  # while it looks on, dead rows stay where they are
        await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await reader.fetchval("SELECT count(*) FROM work_queue")
        await pool.execute("UPDATE work_queue SET priority = priority")
        await pool.execute("ANALYZE")  # what it sees is counted at once


@asynccontextmanager
async def busy(broker: Watched, agent: BrokerClient, work_id: Any) -> AsyncIterator[None]:
    """Wait for Work that does not come, follow one, and leave a transaction open."""
    me = (await agent.get_agent("self")).id
    poll = asyncio.create_task(agent.claim_some(me, ClaimSome(wait=60, types=["none"])))
    events = f"{broker.url}/api/v1/work/{work_id}/events?follow=true"
    key = {"Authorization": f"Bearer {await a_key(broker)}"}
    async with broker.http.get(events, headers=key), transaction(broker.parts.pool):
        await eventually(lambda: is_waiting(broker))
        yield
    poll.cancel()
    await asyncio.wait([poll])


async def a_key(broker: Watched) -> str:
    return (await broker.admin.create_key(CreateKey(role="viewer", name="v"))).key


async def is_waiting(broker: Watched) -> bool:
    return broker.parts.dispatcher.waiting == 1 and len(broker.parts.followers) == 1


def test_every_metric_is_among_those_that_are_seen_to_move() -> None:
    registered = {
        family.name.removeprefix("brokkr_broker_") for family in Metrics().registry.collect()
    }

    assert registered == {name.removesuffix("_total").removesuffix("_count") for name in MOVED}


async def test_the_queue_is_counted_now_and_then_however_often_somebody_asks(
    broker: Watched,
) -> None:
    async def pending(later: float) -> dict[str, float]:
        await broker.parts.metrics.measure(broker.parts.pool, now=later)
        return samples(broker.parts.metrics.render().decode()).get("queued_work", {})

    begin = 1e9
    assert await pending(begin) == {}
    work = await broker.submit()
    assert await pending(begin + MEASURE_EVERY_SECONDS - 1) == {}
    assert await pending(begin + MEASURE_EVERY_SECONDS) == {
        "generator= status=PENDING type=build": 1
    }
    await broker.admin.cancel_work(work.id)
    assert await pending(begin + 2 * MEASURE_EVERY_SECONDS) == {}


async def test_metrics_are_told_without_the_database_and_say_that_it_is_away(
    broker: Watched,
) -> None:
    await broker.submit()
    broker.parts.pool.terminate()

    status, found = await broker.scrape()

    assert status == 200
    assert found["database_up"] == {"": 0}
    assert found["http_request_seconds_count"]["method=POST route=/api/v1/work status=201"] == 1


async def test_a_database_that_never_came_is_away() -> None:
    metrics = Metrics()
    async with open_pool("postgresql://nobody@127.0.0.1:1/none") as pool:
        with pytest.raises(DatabaseUnavailable):
            await metrics.measure(pool, now=1e9)

    assert samples(metrics.render().decode())["database_up"] == {"": 0}


async def test_who_waits_for_a_connection_is_counted(database_url: str) -> None:
    async with open_pool(database_url, size=2) as pool:
        async with transaction(pool), transaction(pool):
            third = asyncio.create_task(use_once(pool))
            await asyncio.sleep(0)
            await eventually(lambda: has_waiting(pool))
            full = use_of(pool)
        await third
        metrics = Metrics()
        metrics.note_pool(full, waiting=0)

        assert (full.in_use, full.idle, full.limit, full.waiting) == (2, 0, 2, 1)
        assert samples(metrics.render().decode())["pool_waiting_requests"] == {"": 1}
        assert use_of(pool).waiting == 0


async def use_once(pool: asyncpg.Pool) -> None:
    async with transaction(pool):
        pass


async def has_waiting(pool: asyncpg.Pool) -> bool:
    return use_of(pool).waiting > 0


@pytest.mark.setting("broker.metrics_open")
async def test_metrics_can_be_closed_to_all_but_admins_and_viewers(database_url: str) -> None:
    settings = BrokerSettings(metrics_open=False)
    async with watched(database_url, settings) as broker:
        agent = await broker.admin.register_agent(RegisterAgent(name="a"))
        viewer = await broker.admin.create_key(CreateKey(role="viewer", name="v"))
        admin = await broker.admin.create_key(CreateKey(role="admin", name="a"))

        statuses = [
            (await broker.scrape(key))[0]
            for key in (None, "brokkr_nonsense", agent.key, viewer.key, admin.key)
        ]

    assert statuses == [401, 401, 403, 200, 200]


async def test_a_job_that_fails_is_counted_as_one_that_failed() -> None:
    metrics = Metrics()

    async def fail() -> None:
        raise DatabaseUnavailable

    with pytest.raises(DatabaseUnavailable):
        await metrics.timed(fail, name="a job")()

    assert samples(metrics.render().decode())["job_seconds_count"] == {"job=a job result=failed": 1}

"""
A broker restored from a dump that was made under load goes on, and nothing is run again unseen.

The dump is the documented one, by PostgreSQL's own programs.  Beside a real agent, whose Works
are taken to the states that matter one by one, two played agents keep the queue busy.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from brokkr.agent.kinds import WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.db.postgres_programs import find_programs
from brokkr.client import BrokerClient
from brokkr.local.process import free_port
from brokkr.wire.bodies import (
    ClaimBody,
    ClaimSome,
    CompleteWork,
    Heartbeat,
    RegisterAgent,
    RegisteredAgent,
    SubmitWork,
    TargetBody,
    WorkBody,
    WorkState,
)
from brokkr.work.errors import WorkNotFound
from brokkr.work.names import attempt_name, work_name
from support.factories import a_build_template
from support.postgres import fresh_database
from support.shipwright import PlayedShipwright, never, success
from support.signals import eventually
from support.system import a_broker, an_agent

pytestmark = [pytest.mark.kube, pytest.mark.postgres]

SLOTS = 3
STEP = 20
"""How much load there is before the dump, while it is made, and after it."""


class Load:
    """Works that are submitted, claimed and completed all the time, by agents without a cluster."""

    def __init__(self, url: str, admin: BrokerClient, agents: Sequence[RegisteredAgent]) -> None:
        self._url = url
        self._admin = admin
        self._agents = agents
        self.wanted = STEP
        self.submitted: list[UUID] = []
        self.completed: list[UUID] = []

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._execute(each)) for each in self._agents]
        tasks.append(asyncio.create_task(self._submit()))
        try:
            yield
        finally:
            for each in tasks:
                each.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert [each for each in ends if isinstance(each, Exception)] == []

    async def has_completed(self, least: int) -> bool:
        return len(self.completed) >= least

    async def _submit(self) -> None:
        while True:
            await eventually(self._is_wanted, within=120)
            self.submitted.append((await self._admin.submit_work(a_submission(load="a"))).id)

    async def _is_wanted(self) -> bool:
        return len(self.submitted) < self.wanted

    async def _execute(self, agent: RegisteredAgent) -> None:
        async with BrokerClient(self._url, agent.key) as client:
            answer = await client.heartbeat(agent.id, Heartbeat(incarnation=uuid4()))
            claims: Sequence[ClaimBody] = answer.held or ()
            while True:
                for claim in claims:
                    body = CompleteWork(claim_id=claim.claim_id, outcome="succeeded")
                    await client.complete_work(claim.id, body)
                    self.completed.append(claim.id)
                claims = await client.claim_some(agent.id, ClaimSome(wait=1))


def a_submission(*, priority: int = 0, **labels: str) -> SubmitWork:
    return SubmitWork(
        work_type="build",
        template=a_build_template(),
        target=TargetBody(match_labels=labels),
        priority=priority,
    )


async def postgres_program(name: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        find_programs() / name, *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()


def names_of(works: Iterable[WorkBody], *, round: int = 1) -> list[str]:
    return [attempt_name(work_name(each.id, round=round), 1) for each in works]


async def run(played: PlayedShipwright, works: Sequence[WorkBody]) -> None:
    """Wait until these run in the cluster."""

    async def are_running() -> bool:
        running = {each["metadata"]["name"] for each in played.seen.values()}
        return running >= set(names_of(works))

    await eventually(are_running, within=60)


async def succeed(
    played: PlayedShipwright, admin: BrokerClient, works: Sequence[WorkBody]
) -> list[WorkBody]:
    """Let these, which run, succeed; return them as the broker has logged them."""
    for name in names_of(works):
        await played.end(name)
    return await finished(admin, [each.id for each in works])


async def finished(admin: BrokerClient, ids: Iterable[UUID]) -> list[WorkBody]:
    async def ends() -> list[WorkBody]:
        found = [await admin.get_work(each) for each in ids]
        return found if all(each.status.is_finished for each in found) else []

    return await eventually(ends, within=60)


async def test_a_restored_broker_and_its_agents_run_nothing_again_unseen(  # noqa: PLR0917
    tmp_path: Path,
    postgres_server: str,
    database_url: str,
    agent_kubeconfig: Path,
    kube: KubeClient,
    namespace: str,
) -> None:
    port, admin_key = free_port(), await create_admin_key(database_url)
    url, dump = f"http://127.0.0.1:{port}", tmp_path / "brokkr.dump"
    played = PlayedShipwright(kube, namespace, never)
    playing = asyncio.create_task(played.run())

    async with BrokerClient(url, admin_key) as admin:
        async with a_broker(tmp_path, database_url, port=port):
            agent = await admin.register_agent(RegisterAgent(name="edge", labels={"a": "b"}))
            an_agent_again = partial(
                an_agent,
                tmp_path,
                broker_url=url,
                key=agent.key,
                kubeconfig=agent_kubeconfig,
                namespace=namespace,
                settings={"AGENT__WORK_QUEUE__MAX_CONCURRENT": str(SLOTS)},
            )
            before, held, pending, begun = [
                [await admin.submit_work(a_submission(a="b")) for _ in range(number)]
                for number in (SLOTS, SLOTS, SLOTS, SLOTS - 1)
            ]
            load = Load(
                url,
                admin,
                [
                    await admin.register_agent(RegisterAgent(name=name, labels={"load": "a"}))
                    for name in ("load-1", "load-2")
                ],
            )
            async with an_agent_again(), load.going_on():
                await run(played, before)
                before = await succeed(played, admin, before)
                await run(played, held)
                await eventually(partial(load.has_completed, STEP // 2), within=60)
                load.wanted += STEP
                await postgres_program(
                    "pg_dump", "--format", "custom", "--file", str(dump), database_url
                )
                load.wanted += STEP
                # What comes now the dump does not know of.
                new = [await admin.submit_work(a_submission(a="b"))]
                held = await succeed(played, admin, held)
                await run(played, pending)
                pending = await succeed(played, admin, pending)
                await run(played, [*begun, *new])
                await eventually(partial(load.has_completed, 3 * STEP), within=60)

        async with fresh_database(postgres_server, "template0") as restored:
            await postgres_program(
                *("pg_restore", "--no-owner", "--exit-on-error"),
                *("--dbname", restored, str(dump)),
            )
            played.outcome = success
            async with a_broker(tmp_path, restored, port=port), an_agent_again():
                kept = [await admin.get_work(each.id) for each in before]
                held_again = await finished(admin, [each.id for each in held])
                pending_again = await finished(admin, [each.id for each in pending])
                begun_again = await finished(admin, [each.id for each in begun])
                history = [(await admin.list_events(each.id)).items for each in begun]
                with pytest.raises(WorkNotFound):
                    await admin.get_work(new[0].id)
                await eventually(partial(is_stopped, kube, namespace, new[0]))
                await check_the_load(load, admin, restored)
    playing.cancel()

    # What was finished in the dump is what it was; what was finished later is told again.
    assert kept == before
    assert [*map(the_end, held_again)] == [*map(the_end, held)]
    assert [each.claimed_at for each in held_again] == [each.claimed_at for each in held]
    assert [*map(the_end, pending_again)] == [*map(the_end, pending)]
    # What was under way is run a second time, and that is on record.
    assert [each.round for each in begun_again] == [2] * len(begun)
    assert [each.status for each in begun_again] == [WorkState.SUCCEEDED] * len(begun)
    for events in history:
        assert [each.kind for each in events if each.kind != "progress"] == [
            "submitted", "claimed", "released", "claimed", "completed"
        ]  # fmt: skip
        assert "was begun and stopped before" in events[2].detail["message"]
    once = names_of([*before, *held, *pending, *begun, *new])
    runs = [each["metadata"]["name"] for each in played.seen.values()]
    assert sorted(runs) == sorted([*once, *names_of(begun, round=2)])


def the_end(work: WorkBody) -> object:
    """Return how a Work went, without the times."""
    return work.status, work.agent, work.round, work.lost_claims, work.result


async def is_stopped(kube: KubeClient, namespace: str, work: WorkBody) -> bool:
    resource = await kube.get(WORKS, namespace, work_name(work.id, round=1))
    return bool(resource.get("status", {}).get("phase") == "Cancelled")


async def check_the_load(load: Load, admin: BrokerClient, database_url: str) -> None:
    """See the rest of the load through; compare history and state of all that is known of it."""
    database = await asyncpg.connect(database_url)
    known = await database.fetch(
        "SELECT id FROM work_queue UNION SELECT id FROM work_execution_log"
    )
    await database.close()
    ids = {row["id"] for row in known}.intersection(load.submitted)
    assert 0 < len(ids) < len(load.submitted)
    logged_before = [
        work.id for each in ids if (work := await admin.get_work(each)).status.is_finished
    ]
    assert logged_before
    assert set(logged_before) <= set(load.completed)
    async with load.going_on():
        ends = await finished(admin, ids)
    assert {each.status for each in ends} == {WorkState.SUCCEEDED}
    for each in ids:
        kinds = [event.kind for event in (await admin.list_events(each)).items]
        assert kinds.count("completed") == 1
        assert (kinds.count("claimed") > 1) is ("released" in kinds or "lease_lost" in kinds)

"""
Brokers and agents of an earlier revision and of this one share a database, and nothing is lost.

The earlier one is the last tag, or else ``VERSION_BEFORE``; ``UPGRADE_FROM=<revision>``
names another and ``UPGRADE_WORKS=<number>`` asks for more Works than these few.  It is run with
the packages that are installed for this one.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from brokkr.agent.kube.client import KubeClient
from brokkr.client import BrokerClient
from brokkr.local.process import free_port
from brokkr.wire.bodies import RegisterAgent, SubmitWork, TargetBody, WorkBody, WorkState
from support.earlier import sources_of_earlier
from support.factories import a_build_template
from support.postgres import fresh_database
from support.shipwright import PlayedShipwright, evicted_at_first
from support.signals import eventually
from support.system import a_broker, an_agent, brokkr, environment, from_source

pytestmark = [pytest.mark.kube, pytest.mark.postgres]

WORKS = int(os.environ.get("UPGRADE_WORKS", "20"))
EACH = {"AGENT__WORK_QUEUE__MAX_CONCURRENT": "4"}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The sources of the earlier revision."""
    return sources_of_earlier(tmp_path)


@pytest.fixture
async def empty_database(postgres_server: str) -> AsyncIterator[str]:
    """A database that the earlier broker migrates, as it would have then."""
    async with fresh_database(postgres_server, "template0") as url:
        yield url


async def test_works_of_both_revisions_end_once_during_a_rolling_update(  # noqa: PLR0917
    tmp_path: Path,
    earlier: Path,
    empty_database: str,
    agent_kubeconfig: Path,
    kube: KubeClient,
    namespace: str,
) -> None:
    played = PlayedShipwright(kube, namespace, evicted_at_first)
    playing = asyncio.create_task(played.run())
    works: list[WorkBody] = []
    async with AsyncExitStack() as new_ones:
        async with AsyncExitStack() as old_ones:
            old_url, _ = await old_ones.enter_async_context(
                a_broker(folder(tmp_path, "old"), empty_database, port=free_port(), source=earlier)
            )
            key = await an_admin_key(empty_database, earlier)
            admin = await new_ones.enter_async_context(BrokerClient(old_url, key))
            start_agent = partial(
                an_agent, kubeconfig=agent_kubeconfig, namespace=namespace, settings=EACH
            )
            old_key = (await admin.register_agent(an_agent_named("old"))).key
            new_key = (await admin.register_agent(an_agent_named("new"))).key
            await old_ones.enter_async_context(
                start_agent(tmp_path / "old", broker_url=old_url, key=old_key, source=earlier)
            )
            # The broker of now migrates; from here on both serve.
            new_url, _ = await new_ones.enter_async_context(
                a_broker(folder(tmp_path, "new"), empty_database, port=free_port())
            )
            new_admin = await new_ones.enter_async_context(BrokerClient(new_url, key))
            await new_ones.enter_async_context(
                start_agent(tmp_path / "new", broker_url=new_url, key=new_key)
            )
            for number in range(WORKS):
                through = (admin, new_admin)[number % 2]
                works.append(await through.submit_work(a_submission()))
            await eventually(partial(are_finished, new_admin, works, WORKS // 2), within=60)
        # The earlier ones are gone; a process of now takes the earlier agent's place.
        await new_ones.enter_async_context(
            start_agent(folder(tmp_path, "successor"), broker_url=new_url, key=old_key)
        )
        works += [await new_admin.submit_work(a_submission()) for _ in range(WORKS // 4)]
        await eventually(partial(are_finished, new_admin, works, len(works)), within=120)
        ends = [await new_admin.get_work(each.id) for each in works]
    playing.cancel()

    assert {each.status for each in ends} == {WorkState.SUCCEEDED}
    assert {each.agent for each in ends} == {"old", "new"}
    assert sum(each.lost_claims for each in ends) == 0
    assert Counter(await completions(empty_database)) == Counter(each.id for each in works)
    # Two attempts each, the first one evicted: none was begun twice.
    assert len(played.seen) == 2 * len(works)


def folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


def an_agent_named(name: str) -> RegisterAgent:
    return RegisterAgent(name=name, labels={"a": "b"})


def a_submission() -> SubmitWork:
    return SubmitWork(
        work_type="build", template=a_build_template(), target=TargetBody(match_labels={"a": "b"})
    )


async def an_admin_key(database_url: str, source: Path) -> str:
    """Have a key made as the earlier revision makes it."""
    process = await asyncio.create_subprocess_exec(
        *brokkr("broker", "create-admin-key"),
        env=environment(DATABASE__URL=database_url) | from_source(source),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode().strip().splitlines()[-1]


async def are_finished(admin: BrokerClient, works: list[WorkBody], least: int) -> bool:
    found = [await admin.get_work(each.id) for each in works]
    return sum(each.status.is_finished for each in found) >= least


async def completions(database_url: str) -> list[UUID]:
    """Return the Work of each completion that the history tells of."""
    database = await asyncpg.connect(database_url)
    rows = await database.fetch("SELECT work_id FROM work_events WHERE kind = 'completed'")
    await database.close()
    return [row["work_id"] for row in rows]

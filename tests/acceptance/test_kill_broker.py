"""A broker that is killed again and again while Works go through loses none of them."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from brokkr.agent.kube.client import KubeClient
from brokkr.broker.db.keys import create_admin_key
from brokkr.client import BrokerClient
from brokkr.local.process import free_port
from brokkr.wire.bodies import RegisterAgent, SubmitWork, TargetBody, WorkBody, WorkState
from brokkr.work.errors import BrokerUnavailable
from support.factories import a_build_template
from support.shipwright import PlayedShipwright, evicted_at_first
from support.signals import eventually
from support.system import a_broker, an_agent, kill

pytestmark = [pytest.mark.kube, pytest.mark.postgres]

WORKS = 6
KILLS = 3


async def test_every_work_ends_once_though_the_broker_is_killed_meanwhile(
    tmp_path: Path,
    database_url: str,
    agent_kubeconfig: Path,
    kube: KubeClient,
    namespace: str,
) -> None:
    port, admin_key = free_port(), await create_admin_key(database_url)
    shipwright = PlayedShipwright(kube, namespace, evicted_at_first)
    playing = asyncio.create_task(shipwright.run())
    async with BrokerClient(f"http://127.0.0.1:{port}", admin_key) as admin:
        async with a_broker(tmp_path, database_url, port=port) as (broker_url, _):
            agent = await admin.register_agent(RegisterAgent(name="edge", labels={"a": "b"}))
            works = [await admin.submit_work(a_submission()) for _ in range(WORKS)]

        async with an_agent(
            tmp_path,
            broker_url=broker_url,
            key=agent.key,
            kubeconfig=agent_kubeconfig,
            namespace=namespace,
            settings={"AGENT__WORK_QUEUE__MAX_CONCURRENT": "2"},
        ):
            for number in range(KILLS):
                async with a_broker(tmp_path, database_url, port=port) as (_, server):
                    await eventually(partial(finished, admin, works, least=number + 1))
                    kill(server)
            async with a_broker(tmp_path, database_url, port=port):
                await eventually(partial(finished, admin, works, least=WORKS), within=60)
                ends = [await admin.get_work(work.id) for work in works]
    playing.cancel()

    assert [(end.status, end.round, end.retries_attempted) for end in ends] == [
        (WorkState.SUCCEEDED, 1, 0)
    ] * WORKS
    assert len(shipwright.seen) == 2 * WORKS


def a_submission() -> SubmitWork:
    return SubmitWork(
        work_type="build", template=a_build_template(), target=TargetBody(match_labels={"a": "b"})
    )


async def finished(admin: BrokerClient, works: list[WorkBody], *, least: int) -> bool:
    """Say whether at least so many Works are in the log."""
    try:
        found = [await admin.get_work(work.id) for work in works]
    except BrokerUnavailable:
        return False
    return sum(each.status.is_finished for each in found) >= least

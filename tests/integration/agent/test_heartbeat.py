"""Which leases a heartbeat renews."""

import asyncio
import time
from datetime import datetime, timedelta

import pytest

from brokkr import __version__
from brokkr.agent.access import Access, Timing
from brokkr.agent.claims import HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.decide import Policy
from brokkr.agent.controller.loop import Controller
from brokkr.agent.controller.workqueue import Workqueue
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.registry import handlers
from brokkr.agent.heartbeat import Heart
from brokkr.agent.intake import Intake
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.metrics import Metrics
from brokkr.agent.prerequisites import Prerequisites
from brokkr.agent.resources import create_work
from brokkr.agent.settings import WorkQueueSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import (
    Capabilities,
    Capacity,
    ClaimOne,
    RegisterAgent,
    SubmitWork,
    TargetBody,
    WorkState,
)
from brokkr.work.backoff import Backoff
from brokkr.work.names import work_name
from support.broker import RunningBroker
from support.factories import NOON, a_build_template
from support.signals import eventually

pytestmark = [pytest.mark.kube, pytest.mark.postgres]

PATIENCE = timedelta(minutes=1)


def no_trouble() -> Access:
    return Access(
        [], namespace="any", clock=time.monotonic, timing=Timing(), on_change=lambda: None
    )


async def test_an_agent_without_a_slot_takes_in_a_claim_that_it_has_a_resource_of_and_no_other(
    broker: RunningBroker, agent_kube: KubeClient, namespace: str
) -> None:
    """It has started anew, and is told what it holds."""
    agent = await broker.admin.register_agent(RegisterAgent(name="edge"))
    body = SubmitWork(
        work_type="build", template=a_build_template(), target=TargetBody(agents=["edge"])
    )
    works = [await broker.admin.submit_work(body) for _ in range(2)]

    async with BrokerClient(broker.url, agent.key) as client:
        known, unknown = [await client.claim_work(each.id, ClaimOne()) for each in works]
        await create_work(agent_kube, namespace, known, agent_id=agent.id)
        metrics = Metrics()
        caches = Caches(
            agent_kube, namespace, agent_id=agent.id, handlers=(), on_change=lambda _: None
        )
        intake = Intake(
            agent=agent,
            client=client,
            kube=agent_kube,
            caches=caches,
            held=HeldClaims(),
            namespace=namespace,
            prerequisites=Prerequisites(
                kube=agent_kube,
                namespace=namespace,
                handlers={},
                objection="",
                interval=timedelta(hours=1),
                metrics=metrics,
                on_change=lambda: None,
            ),
            access=no_trouble(),
            clock=time.monotonic,
            settings=WorkQueueSettings(max_concurrent=1),
            news=asyncio.Event(),
            jitter=lambda: 1.0,
            metrics=metrics,
        )
        watching = asyncio.create_task(caches.run())
        await caches.until_synced()

        assert intake.take_in(unknown) is None
        held = intake.take_in(known)
        watching.cancel()
        await asyncio.wait([watching])

    assert held is not None
    assert held.claim_id == known.claim_id


async def test_a_controller_that_is_stuck_loses_its_leases_and_gets_them_back(
    broker: RunningBroker, agent_kube: KubeClient, namespace: str
) -> None:
    agent = await broker.admin.register_agent(RegisterAgent(name="edge"))
    work = await broker.admin.submit_work(
        SubmitWork(
            work_type="build",
            template=a_build_template(),
            target=TargetBody(agents=["edge"]),
            claim_timeout_seconds=1,
        )
    )
    now = NOON

    def clock() -> datetime:
        return now

    async with BrokerClient(broker.url, agent.key) as client:
        claim = await client.claim_work(work.id, ClaimOne())
        await create_work(agent_kube, namespace, claim, agent_id=agent.id)
        queue, held = Workqueue(jitter=lambda: 1.0), HeldClaims()
        metrics = Metrics()
        caches = Caches(agent_kube, namespace, agent_id=agent.id, handlers=(), on_change=queue.add)
        prerequisites = Prerequisites(
            kube=agent_kube,
            namespace=namespace,
            handlers=handlers(BuildDefaults()),
            objection="nobody should",
            interval=timedelta(hours=1),
            metrics=metrics,
            on_change=lambda: None,
        )
        await prerequisites.look()
        controller = Controller(
            kube=agent_kube,
            caches=caches,
            handlers={},
            policy=Policy(backoff=Backoff(), keep_succeeded=timedelta(1), keep_failed=timedelta(1)),
            is_held=held.holds,
            clock=clock,
            workqueue=queue,
            resync_interval=timedelta(hours=1),
            metrics=metrics,
        )
        heart = Heart(
            agent=agent,
            client=client,
            kube=agent_kube,
            caches=caches,
            access=no_trouble(),
            held=held,
            controller=controller,  # it is never run
            intake=Intake(
                agent=agent,
                client=client,
                kube=agent_kube,
                caches=caches,
                held=held,
                namespace=namespace,
                prerequisites=prerequisites,
                access=no_trouble(),
                clock=time.monotonic,
                settings=WorkQueueSettings(enabled=False),
                news=asyncio.Event(),
                jitter=lambda: 1.0,
                metrics=metrics,
            ),
            namespace=namespace,
            clock=clock,
            monotonic=time.monotonic,
            patience=PATIENCE,
            grace=timedelta(minutes=10),
            stops_when_cut_off=False,
            on_return=lambda _: None,
            jitter=lambda: 1.0,
        )
        watching = asyncio.create_task(caches.run())
        await caches.until_synced()

        async def beats_into(state: WorkState) -> bool:
            await heart.beat()
            return (await broker.admin.get_work(work.id)).status is state

        assert await beats_into(WorkState.CLAIMED)
        said = await broker.admin.get_agent(agent.id)
        assert said.capabilities == Capabilities(
            types=[],
            unavailable={"build": "nobody should"},
            strategies=prerequisites.strategies,
            version=__version__,
        )
        # It is not to claim anything, so it has no room, either.
        assert said.capacity == Capacity(max_concurrent=4, free=0)
        now += PATIENCE
        await eventually(lambda: beats_into(WorkState.PENDING))
        controller.last_looked_at[work_name(work.id, round=1)] = now
        assert await beats_into(WorkState.CLAIMED)
        watching.cancel()

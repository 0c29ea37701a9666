"""A controller of the agent's against a real API server, with Shipwright played."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.decide import Policy
from brokkr.agent.controller.loop import Controller
from brokkr.agent.controller.workqueue import Workqueue
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.registry import handlers
from brokkr.agent.kinds import WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.metrics import Metrics
from brokkr.agent.resources import create_work
from brokkr.wire.bodies import ClaimBody
from brokkr.wire.custom_resource import render_spec, work_from_resource
from brokkr.work.backoff import Backoff
from brokkr.work.model import Manifest, Phase, Work
from brokkr.work.names import work_name
from support.factories import AGENT_ID, a_build_template
from support.shipwright import (
    Outcome,
    PlayedShipwright,
)
from support.signals import eventually

POLICY = Policy(
    backoff=Backoff(base=timedelta(milliseconds=20), cap=timedelta(milliseconds=100)),
    keep_succeeded=timedelta(0),
    keep_failed=timedelta(hours=1),
    stop_grace=timedelta(seconds=1),
)
DEFAULTS = BuildDefaults()


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


async def a_claimed_work(
    kube: KubeClient, namespace: str, *, max_retries: int = 2, template: Manifest | None = None
) -> str:
    """Write the Work resource of a claim; return its name."""
    claim = ClaimBody(
        id=uuid4(),
        claim_id=uuid4(),
        round=1,
        work_type="build",
        broker="the-broker",
        lease_seconds=3600,
        resource={
            "spec": render_spec(
                work_type="build",
                max_retries=max_retries,
                claim_timeout=timedelta(hours=1),
                template=template or a_build_template(),
            )
        },
    )
    await create_work(kube, namespace, claim, agent_id=AGENT_ID)
    return work_name(claim.id, round=1)


async def read(kube: KubeClient, namespace: str, name: str) -> Work:
    """Read a Work from the API server."""
    return work_from_resource(await kube.get(WORKS, namespace, name))


@asynccontextmanager
async def watching(
    agent_kube: KubeClient, namespace: str, *, defaults: BuildDefaults = DEFAULTS
) -> AsyncIterator[tuple[Caches, Controller]]:
    """Put a controller and its caches together, as the agent's start does."""
    workqueue = Workqueue(jitter=lambda: 1.0)
    kinds = handlers(defaults)
    caches = Caches(
        agent_kube,
        namespace,
        agent_id=AGENT_ID,
        handlers=kinds.values(),
        on_change=workqueue.add,
    )
    controller = Controller(
        kube=agent_kube,
        caches=caches,
        handlers=kinds,
        policy=POLICY,
        is_held=lambda _: True,
        clock=now,
        workqueue=workqueue,
        resync_interval=timedelta(seconds=1),
        metrics=Metrics(),
    )
    watching = asyncio.create_task(caches.run())
    await caches.until_synced()
    yield caches, controller
    watching.cancel()


@asynccontextmanager
async def shipwright(
    kube: KubeClient, namespace: str, outcome: Outcome, **faults: bool
) -> AsyncIterator[PlayedShipwright]:
    """Play Shipwright for the length of the block."""
    played = PlayedShipwright(kube, namespace, outcome, **faults)
    task = asyncio.create_task(played.run())
    try:
        yield played
    finally:
        task.cancel()


@asynccontextmanager
async def driven(
    kube: KubeClient,
    agent_kube: KubeClient,
    namespace: str,
    outcome: Outcome,
    *,
    defaults: BuildDefaults = DEFAULTS,
    **faults: bool,
) -> AsyncIterator[PlayedShipwright]:
    """Run a controller, with Shipwright played."""
    async with (
        shipwright(kube, namespace, outcome, **faults) as played,
        watching(agent_kube, namespace, defaults=defaults) as (_, controller),
    ):
        loop = asyncio.create_task(controller.run())
        yield played
        loop.cancel()


async def until(kube: KubeClient, namespace: str, name: str, *phases: Phase) -> Work:
    """Wait until a Work is in one of these phases."""

    async def work_in_phase() -> Work | None:
        work = await read(kube, namespace, name)
        return work if work.status.phase in phases else None

    return await eventually(work_in_phase)

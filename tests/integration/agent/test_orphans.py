"""
What is swept, and what never is.

No object here has an owner, so that nobody but the sweep deletes any.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from brokkr.agent.claims import HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.handlers.build.handler import BuildHandler
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.kinds import BUILD_RUNS, BUILDS, CONFIG_MAPS, WORKS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.metrics import Metrics
from brokkr.agent.orphans import OrphanSweep
from brokkr.wire.custom_resource import (
    ANNOTATION_ACKNOWLEDGED,
    LABEL_ATTEMPT,
    LABEL_ROUND,
    LABEL_WORK,
    LABEL_WORK_ID,
    render_claimed,
    render_spec,
)
from brokkr.work.model import Claim
from brokkr.work.names import attempt_name, work_name
from support.factories import AGENT_ID, a_build_template

pytestmark = pytest.mark.kube

GRACE = timedelta(minutes=10)
LATER = GRACE + timedelta(minutes=1)
MADE = {
    BUILDS: a_build_template()["spec"],
    BUILD_RUNS: {"build": {"name": "hello"}},
    CONFIG_MAPS: None,
}


class Sweeper:
    """An agent of which nothing runs but the sweep, now or later."""

    def __init__(self, kube: KubeClient, agent_kube: KubeClient, namespace: str) -> None:
        self.kube = kube
        self.agent_kube = agent_kube
        self.namespace = namespace
        self.metrics = Metrics()

    async def sweep(self, *, after: timedelta) -> None:
        held = HeldClaims()
        held.broker = "the-broker"
        caches = Caches(
            self.agent_kube,
            self.namespace,
            agent_id=AGENT_ID,
            handlers=[BuildHandler(BuildDefaults())],
            on_change=lambda _: None,
        )
        watching = asyncio.create_task(caches.run())
        await caches.until_synced()
        await OrphanSweep(
            kube=self.agent_kube,
            caches=caches,
            held=held,
            namespace=self.namespace,
            grace=GRACE,
            unreported_retention=timedelta(days=30),
            clock=lambda: datetime.now(UTC) + after,
            metrics=self.metrics,
        ).sweep()
        watching.cancel()
        await asyncio.wait([watching])

    async def make_objects_of(self, work_id: UUID) -> str:
        """Make what an attempt consists of; return the name of its Work."""
        work = work_name(work_id, round=1)
        labels = {
            LABEL_WORK: work,
            LABEL_WORK_ID: str(work_id),
            LABEL_ROUND: "1",
            LABEL_ATTEMPT: "1",
        }
        for resource in MADE:
            await self.make(resource, attempt_name(work, 1), labels=labels)
        return work

    async def make(
        self, resource: Resource, name: str, *, labels: dict[str, str] | None = None
    ) -> None:
        spec = MADE[resource]
        await self.kube.create(
            resource,
            self.namespace,
            {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {"name": name, "labels": labels or {}},
                **({} if spec is None else {"spec": spec}),
            },
        )

    async def make_work(
        self,
        work_id: UUID,
        *,
        agent_id: UUID = AGENT_ID,
        status: dict[str, Any] | None = None,
        is_acknowledged: bool = False,
    ) -> None:
        spec = render_spec(
            work_type="build",
            max_retries=0,
            claim_timeout=timedelta(hours=1),
            template=a_build_template(),
        )
        claim = Claim(
            work_id=work_id, claim_id=uuid4(), round=1, agent_id=agent_id, broker="the-broker"
        )
        resource = render_claimed(spec, claim)
        if is_acknowledged:
            resource["metadata"]["annotations"][ANNOTATION_ACKNOWLEDGED] = "2026-03-01T12:00:00Z"
        made = await self.kube.create(WORKS, self.namespace, resource)
        if status is not None:
            await self.kube.replace_status(WORKS, self.namespace, {**made, "status": status})

    async def left_of(self, work: str) -> set[str]:
        """Return the kinds of which the attempt has an object still."""
        name = attempt_name(work, 1)
        return {
            each.kind
            for each in MADE
            if await self.kube.find(each, self.namespace, name) is not None
        }


@pytest.fixture
async def sweeper(kube: KubeClient, agent_kube: KubeClient, namespace: str) -> Sweeper:
    return Sweeper(kube, agent_kube, namespace)


EVERYTHING = {"Build", "BuildRun", "ConfigMap"}


async def test_what_is_left_of_a_work_that_is_gone_is_deleted(sweeper: Sweeper) -> None:
    work = await sweeper.make_objects_of(uuid4())
    await sweeper.sweep(after=LATER)

    assert await sweeper.left_of(work) == set()
    assert b"brokkr_agent_orphans_deleted_total 3.0" in sweeper.metrics.render()


async def test_what_is_younger_than_the_grace_is_left_alone(sweeper: Sweeper) -> None:
    """Its Work may have been created just now, and not be seen here yet."""
    work = await sweeper.make_objects_of(uuid4())
    await sweeper.sweep(after=GRACE - timedelta(minutes=1))

    assert await sweeper.left_of(work) == EVERYTHING


async def test_what_is_no_works_is_nobodys_here_to_delete(sweeper: Sweeper) -> None:
    for resource in MADE:
        await sweeper.make(resource, attempt_name("theirs", 1))
    await sweeper.sweep(after=timedelta(days=365))

    assert await sweeper.left_of("theirs") == EVERYTHING


async def test_what_another_agent_made_is_left_alone_while_its_work_is_there(
    sweeper: Sweeper,
) -> None:
    work_id = uuid4()
    await sweeper.make_work(work_id, agent_id=uuid4())
    work = await sweeper.make_objects_of(work_id)
    await sweeper.sweep(after=LATER)
    assert await sweeper.left_of(work) == EVERYTHING

    await sweeper.kube.delete(WORKS, sweeper.namespace, work)
    await sweeper.sweep(after=LATER)
    assert await sweeper.left_of(work) == set()


@pytest.mark.parametrize(
    ("phase", "is_acknowledged"),
    [
        (None, False),
        ("Running", False),
        ("Succeeded", False),
        ("Failed", False),
        ("Succeeded", True),
        ("Cancelled", True),
    ],
)
async def test_a_work_of_this_broker_and_its_objects_are_left_alone_whatever_its_age(
    sweeper: Sweeper, phase: str | None, is_acknowledged: bool
) -> None:
    """What is acknowledged goes in its own time; the result of the rest is nowhere else."""
    work_id = uuid4()
    status = None if phase is None else {"phase": phase, "retries": 0}
    await sweeper.make_work(work_id, status=status, is_acknowledged=is_acknowledged)
    work = await sweeper.make_objects_of(work_id)
    await sweeper.sweep(after=timedelta(days=365))

    assert await sweeper.left_of(work) == EVERYTHING
    assert await sweeper.kube.find(WORKS, sweeper.namespace, work) is not None

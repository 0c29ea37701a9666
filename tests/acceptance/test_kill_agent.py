"""
An agent that is killed between any two steps of a Work's life loses nothing but time.

The agent talks to both its servers through a proxy, which kills it just before, or just
after, its n-th changing request reaches the server.  Then it is started again, and the
Work must end as if nothing had happened: one object per attempt, one result.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from brokkr.agent.kinds import WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.local.process import Server
from brokkr.wire.bodies import RegisterAgent, SubmitWork, TargetBody, WorkBody, WorkState
from brokkr.wire.custom_resource import ANNOTATION_ACKNOWLEDGED
from brokkr.work.names import work_name
from support.broker import RunningBroker
from support.factories import a_build_template
from support.proxy import proxy
from support.shipwright import PlayedShipwright, evicted_at_first, never
from support.signals import eventually
from support.system import an_agent, kill, proxied_kubeconfig

pytestmark = [pytest.mark.kube, pytest.mark.postgres]

STEPS = 14
"""How many changing requests a run with one retry makes, besides those that may be left out."""

STEPS_CANCELLED = 12
"""The same of a run that is cancelled while it builds."""

MORE = 6
"""A write that is refused, because somebody was faster, is made again."""

LEFT_OUT = ("/heartbeat", "/events", "/progress")
"""How often there are these depends on how fast all goes."""


@dataclass
class Executioner:
    """Kills the agent at one of its changing requests; counts them all.

    Attributes:
        only: What the path of a request must end with to count; all do that are not left out.
    """

    at: int
    when: str
    only: str = ""
    victim: Server | None = None
    steps: list[str] = field(default_factory=list)
    struck: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def around_write(self, method: str, path: str) -> AsyncIterator[None]:
        """Count a request, and strike if it is the one."""
        step = f"{method} {path}"
        waits = path.endswith("/work/claim") and step in self.steps
        counts = path.endswith(self.only) if self.only else not path.endswith(LEFT_OUT)
        if waits or not counts:
            yield
            return
        self.steps.append(step)
        number = len(self.steps)
        await self._strike(number, "before")
        yield
        await self._strike(number, "after")

    async def _strike(self, number: int, when: str) -> None:
        if number == self.at and when == self.when and self.victim is not None:
            kill(self.victim)
            self.struck.set()
            await asyncio.sleep(3600)  # the request hangs with its sender gone


@dataclass
class Stage:
    """What a run needs, and what can be asked afterwards."""

    folder: Path
    broker: RunningBroker
    key: str
    kubeconfig: Path
    namespace: str
    shipwright: PlayedShipwright


@pytest.fixture
async def stage(
    tmp_path: Path,
    broker: RunningBroker,
    agent_kubeconfig: Path,
    kube: KubeClient,
    namespace: str,
) -> AsyncIterator[Stage]:
    agent = await broker.admin.register_agent(
        RegisterAgent(name=namespace, labels={"stage": namespace})
    )
    shipwright = PlayedShipwright(kube, namespace, evicted_at_first)
    playing = asyncio.create_task(shipwright.run())
    yield Stage(
        folder=tmp_path,
        broker=broker,
        key=agent.key,
        kubeconfig=agent_kubeconfig,
        namespace=namespace,
        shipwright=shipwright,
    )
    playing.cancel()


async def submit(stage: Stage, *, claim_timeout_seconds: int = 3600) -> WorkBody:
    return await stage.broker.admin.submit_work(
        SubmitWork(
            work_type="build",
            template=a_build_template(),
            target=TargetBody(match_labels={"stage": stage.namespace}),
            max_retries=2,
            claim_timeout_seconds=claim_timeout_seconds,
        )
    )


async def run_under(
    stage: Stage, executioner: Executioner, work_id: UUID, *, cancel: bool = False
) -> None:
    """
    Run the agent behind the proxies until it is killed, or the Work has ended.

    Args:
        cancel: Whether the Work is cancelled as soon as it builds.
    """
    config = KubeConfig.load(stage.kubeconfig)
    async with AsyncExitStack() as stack:
        broker_url = await stack.enter_async_context(
            proxy(stage.broker.url, executioner.around_write)
        )
        kube_url = await stack.enter_async_context(
            proxy(config.server, executioner.around_write, tls=config.tls)
        )
        executioner.victim = await stack.enter_async_context(
            an_agent(
                stage.folder,
                broker_url=broker_url,
                key=stage.key,
                kubeconfig=proxied_kubeconfig(
                    stage.kubeconfig, kube_url, stage.folder / "kubeconfig"
                ),
                namespace=stage.namespace,
            )
        )

        if cancel:

            async def builds() -> bool:
                return executioner.struck.is_set() or bool(stage.shipwright.seen)

            await eventually(builds, within=60)
            await stage.broker.admin.cancel_work(work_id)

        async def is_over() -> bool:
            if executioner.struck.is_set():
                return True
            return await is_reported(stage, work_id)

        await eventually(is_over, within=60)


async def is_reported(stage: Stage, work_id: UUID) -> bool:
    """Say whether the result is in the log and the resource knows that it is."""
    if not (await stage.broker.admin.get_work(work_id)).status.is_finished:
        return False
    resource = await stage.shipwright.kube.get(WORKS, stage.namespace, work_name(work_id, round=1))
    return ANNOTATION_ACKNOWLEDGED in resource["metadata"]["annotations"]


async def test_the_steps_that_are_killed_at_are_all_that_there_are(stage: Stage) -> None:
    executioner = Executioner(at=0, when="never")
    submitted = await submit(stage)
    await run_under(stage, executioner, submitted.id)

    steps = executioner.steps
    assert STEPS <= len(steps) <= STEPS + MORE, "\n".join(steps)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("at", "only"), [*((at, "") for at in range(1, STEPS + 1)), (1, "/progress")]
)
async def test_an_agent_killed_at_any_step_loses_only_time(
    stage: Stage, at: int, only: str, when: str
) -> None:
    executioner = Executioner(at=at, when=when, only=only)
    submitted = await submit(stage)
    await run_under(stage, executioner, submitted.id)
    assert executioner.struck.is_set()

    async with an_agent(
        stage.folder,
        broker_url=stage.broker.url,
        key=stage.key,
        kubeconfig=stage.kubeconfig,
        namespace=stage.namespace,
    ):

        async def is_over() -> bool:
            return await is_reported(stage, submitted.id)

        await eventually(is_over, within=60)
    work = await stage.broker.admin.get_work(submitted.id)

    name = work_name(work.id, round=1)
    attempts = [f"{name}-a1", f"{name}-a2"]
    assert (work.status, work.round, work.retries_attempted) == (WorkState.SUCCEEDED, 1, 0)
    assert sorted(each["metadata"]["name"] for each in stage.shipwright.seen.values()) == attempts
    assert (
        sorted(each["metadata"]["name"] for each in stage.shipwright.builds_seen.values())
        == attempts
    )


def has_ended(run: Mapping[str, Any]) -> bool:
    conditions = run.get("status", {}).get("conditions", [{}])
    return bool(conditions[0].get("status") == "False")


async def test_the_steps_of_a_cancelled_work_are_all_that_there_are(stage: Stage) -> None:
    stage.shipwright.outcome = never
    executioner = Executioner(at=0, when="never")
    submitted = await submit(stage, claim_timeout_seconds=6)
    await run_under(stage, executioner, submitted.id, cancel=True)

    steps = executioner.steps
    assert STEPS_CANCELLED <= len(steps) <= STEPS_CANCELLED + MORE, "\n".join(steps)


@pytest.mark.parametrize("at", range(1, STEPS_CANCELLED + 1))
async def test_an_agent_killed_at_any_step_of_a_cancelled_work_cancels_it_once(
    stage: Stage, at: int
) -> None:
    """Killed after the server did what it was asked, and before the agent heard so."""
    stage.shipwright.outcome = never
    executioner = Executioner(at=at, when="after")
    submitted = await submit(stage, claim_timeout_seconds=20)
    await run_under(stage, executioner, submitted.id, cancel=True)
    assert executioner.struck.is_set()

    async with an_agent(
        stage.folder,
        broker_url=stage.broker.url,
        key=stage.key,
        kubeconfig=stage.kubeconfig,
        namespace=stage.namespace,
    ):

        async def is_cancelled() -> bool:
            return (await stage.broker.admin.get_work(submitted.id)).status.is_finished

        async def has_stopped() -> bool:
            runs = stage.shipwright.seen.values()
            return all(has_ended(each) for each in runs) and await is_cancelled()

        await eventually(has_stopped, within=60)
    work = await stage.broker.admin.get_work(submitted.id)

    assert (work.status, work.retries_attempted) == (WorkState.CANCELLED, 0)
    assert len(stage.shipwright.seen) <= 1

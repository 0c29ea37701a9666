"""
An agent that is killed between any two steps of a Work's life loses nothing but time.

The agent talks to both its servers through a proxy, which kills it just before, or just
after, its n-th changing request reaches the server.  Then it is started again, and the
Work must end as if nothing had happened: one object per attempt, one result.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.factories import a_build_template
from support.proxy import proxy
from support.shipwright import PlayedShipwright, evicted_at_first
from support.signals import eventually
from support.system import a_broker, an_agent, kill, proxied_kubeconfig

from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.client import BrokerClient
from brokkr.local.control_plane import ControlPlane
from brokkr.local.process import Server
from brokkr.wire.bodies import RegisterAgent, SubmitWork, TargetBody, WorkBody, WorkState

pytestmark = [pytest.mark.kube, pytest.mark.postgres]

FEWEST_STEPS = 12
"""A run with one retry cannot do with fewer changing requests than these."""


@dataclass
class Executioner:
    """Kills the agent at one of its changing requests; counts them all."""

    at: int
    when: str
    victim: Server | None = None
    steps: list[str] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def on_write(self, when: str, method: str, path: str) -> None:
        """Count a request, and strike if it is the one."""
        if path.endswith(("/heartbeat", "/events")) or self.done.is_set():
            return
        if when == "before":
            self.steps.append(f"{method} {path}")
        if len(self.steps) == self.at and when == self.when and self.victim is not None:
            kill(self.victim)
            self.done.set()
            await asyncio.sleep(3600)  # the request hangs with its sender gone


@dataclass
class Stage:
    """What a run needs, and what can be asked afterwards."""

    folder: Path
    broker_url: str
    key: str
    kubeconfig: Path
    namespace: str
    client: BrokerClient
    shipwright: PlayedShipwright


@asynccontextmanager
async def a_stage(
    folder: Path,
    broker_url: str,
    admin_key: str,
    control_plane: ControlPlane,
    kube: KubeClient,
    namespace: str,
) -> AsyncIterator[Stage]:
    async with BrokerClient(broker_url, admin_key) as client:
        agent = await client.register_agent(
            RegisterAgent(name=namespace, labels={"stage": namespace})
        )
        shipwright = PlayedShipwright(kube, namespace, evicted_at_first)
        playing = asyncio.create_task(shipwright.run())
        yield Stage(
            folder=folder,
            broker_url=broker_url,
            key=agent.key,
            kubeconfig=control_plane.kubeconfig,
            namespace=namespace,
            client=client,
            shipwright=shipwright,
        )
        playing.cancel()


async def run_and_kill(stage: Stage, executioner: Executioner) -> WorkBody:
    """Submit a Work, kill the agent at the given step, start it again, await the end."""
    submitted = await stage.client.submit_work(
        SubmitWork(
            work_type="build",
            template=a_build_template(),
            target=TargetBody(match_labels={"stage": stage.namespace}),
            max_retries=2,
        )
    )

    async def is_finished() -> WorkBody | None:
        work = await stage.client.get_work(submitted.id)
        return work if work.status.is_finished else None

    config = KubeConfig.load(stage.kubeconfig)
    async with AsyncExitStack() as stack:
        broker_url = await stack.enter_async_context(
            proxy(stage.broker_url, executioner.on_write)
        )
        kube_url = await stack.enter_async_context(
            proxy(config.server, executioner.on_write, tls=config.tls)
        )
        kubeconfig = proxied_kubeconfig(stage.kubeconfig, kube_url, stage.folder / "kubeconfig")
        async with an_agent(
            stage.folder,
            broker_url=broker_url,
            key=stage.key,
            kubeconfig=kubeconfig,
            namespace=stage.namespace,
        ) as server:
            executioner.victim = server
            finished = asyncio.create_task(eventually(is_finished, within=60))
            struck = asyncio.create_task(executioner.done.wait())
            await asyncio.wait({finished, struck}, return_when=asyncio.FIRST_COMPLETED)
            struck.cancel()
            with suppress(asyncio.CancelledError):
                finished.cancel()
                await finished

    async with an_agent(
        stage.folder,
        broker_url=stage.broker_url,
        key=stage.key,
        kubeconfig=stage.kubeconfig,
        namespace=stage.namespace,
    ):
        return await eventually(is_finished, within=60)  # type: ignore[return-value]

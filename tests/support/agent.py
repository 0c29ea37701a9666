"""A whole agent between a real broker and a real API server, with Shipwright played."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from brokkr.agent.access import Timing
from brokkr.agent.app import run
from brokkr.agent.kinds import WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.settings import AgentSettings, WorkCrdSettings, WorkQueueSettings
from brokkr.client import BrokerClient
from brokkr.local.process import Server
from brokkr.wire.bodies import RegisterAgent, SubmitWork, TargetBody, WorkBody, WorkState
from brokkr.work.names import work_name
from support.broker import RunningBroker
from support.factories import a_build_template
from support.proxy import ApiLine, AroundWrite, Streams, proxy
from support.shipwright import Outcome, PlayedShipwright
from support.signals import eventually
from support.system import an_agent, proxied_kubeconfig

QUICK = Timing(probe=0.3, confirm=1.0, forget=30.0, announce=0.5)
"""For an agent whose cluster is about to be taken away, so that a test need not wait."""


@dataclass
class Stage:
    """A broker, a namespace, and an agent that is registered for it.

    Attributes:
        kube: The administrator's client; the agent has a kubeconfig of its own.
    """

    broker: RunningBroker
    kube: KubeClient
    namespace: str
    agent_kubeconfig: Path
    settings: AgentSettings
    agent_id: UUID
    key: str

    async def submit(
        self,
        *,
        max_retries: int = 2,
        claim_timeout_seconds: int = 60,
        template: dict[str, Any] | None = None,
    ) -> WorkBody:
        """Submit a build that this agent may claim."""
        return await self.broker.admin.submit_work(
            SubmitWork(
                work_type="build",
                template=template or a_build_template(),
                target=TargetBody(match_labels={"stage": self.namespace}),
                max_retries=max_retries,
                claim_timeout_seconds=claim_timeout_seconds,
            )
        )

    async def finished(self, work: WorkBody, *, within: float = 20) -> WorkBody:
        """Wait until a Work is in the log."""

        async def is_finished() -> WorkBody | None:
            found = await self.broker.admin.get_work(work.id)
            return found if found.status.is_finished else None

        return await eventually(is_finished, within=within)

    async def in_state(self, work: WorkBody, state: WorkState) -> None:
        """Wait until the broker says that a Work is in this state."""

        async def is_so() -> bool:
            return (await self.broker.admin.get_work(work.id)).status is state

        await eventually(is_so)

    async def resource(self, work: WorkBody, *, round: int = 1) -> dict[str, Any]:
        """Return the Work resource of a claim, as soon as there is one."""
        name = work_name(work.id, round=round)
        return await eventually(lambda: self.kube.find(WORKS, self.namespace, name))

    async def running(self, played: PlayedShipwright, *, runs: int = 1, within: float = 20) -> None:
        """Wait until there have been so many BuildRuns."""

        async def are_there() -> bool:
            return len(played.seen) >= runs

        await eventually(are_there, within=within)

    async def until_heard_of(self) -> None:
        """Wait until the broker has heard of the agent."""

        async def has_come() -> bool:
            seen = await self.broker.admin.get_agent(self.agent_id)
            return seen.last_seen_at is not None

        await eventually(has_come)

    @asynccontextmanager
    async def shipwright(self, outcome: Outcome) -> AsyncIterator[PlayedShipwright]:
        """Play Shipwright for the length of the block."""
        played = PlayedShipwright(self.kube, self.namespace, outcome)
        task = asyncio.create_task(played.run())
        try:
            yield played
        finally:
            task.cancel()

    @asynccontextmanager
    async def proxied_cluster(
        self, around_write: AroundWrite, *, streams: Streams | None = None
    ) -> AsyncIterator[None]:
        """Stand between the agents of this block and the API server."""
        config = KubeConfig.load(self.agent_kubeconfig)
        before = self.settings, self.agent_kubeconfig
        async with proxy(config.server, around_write, tls=config.tls, streams=streams) as url:
            to = self.agent_kubeconfig.with_name("proxied")
            self.agent_kubeconfig = proxied_kubeconfig(self.agent_kubeconfig, url, to)
            self.settings = self.settings.model_copy(update={"kubeconfig": to})
            try:
                yield
            finally:
                self.settings, self.agent_kubeconfig = before

    @asynccontextmanager
    async def harmed_cluster(self, line: ApiLine) -> AsyncIterator[None]:
        """Let the agents of this block reach the API server by a line that can be harmed."""

        @asynccontextmanager
        async def unchanged(method: str, path: str) -> AsyncIterator[None]:
            yield

        config = KubeConfig.load(self.agent_kubeconfig)
        before = self.settings, self.agent_kubeconfig
        async with proxy(
            config.server, unchanged, tls=config.tls, streams=line.streams, harm=line.harm
        ) as url:
            to = self.agent_kubeconfig.with_name("harmed")
            self.agent_kubeconfig = proxied_kubeconfig(self.agent_kubeconfig, url, to)
            self.settings = self.settings.model_copy(update={"kubeconfig": to})
            try:
                yield
            finally:
                self.settings, self.agent_kubeconfig = before

    @asynccontextmanager
    async def agent(self, timing: Timing | None = None) -> AsyncIterator[asyncio.Task[None]]:
        """Run the agent in this process for the length of the block."""
        task = asyncio.create_task(run(self.settings, timing=timing or Timing()))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])

    @asynccontextmanager
    async def agent_process(
        self,
        folder: Path,
        *,
        broker_url: str | None = None,
        kubeconfig: Path | None = None,
        **settings: str,
    ) -> AsyncIterator[Server]:
        """Run the agent as a process, with these settings by their names as variables."""
        async with an_agent(
            folder,
            broker_url=broker_url or self.broker.url,
            key=self.key,
            kubeconfig=kubeconfig or self.agent_kubeconfig,
            namespace=self.namespace,
            settings=settings,
        ) as server:
            yield server

    def as_agent(self) -> BrokerClient:
        """Return a client with the agent's own key."""
        return BrokerClient(self.broker.url, self.key)


async def a_stage(
    broker: RunningBroker, kube: KubeClient, agent_kubeconfig: Path, namespace: str
) -> Stage:
    """Register an agent for a namespace."""
    registered = await broker.admin.register_agent(
        RegisterAgent(name=namespace, labels={"stage": namespace})
    )
    return Stage(
        broker=broker,
        kube=kube,
        namespace=namespace,
        agent_kubeconfig=agent_kubeconfig,
        agent_id=registered.id,
        key=registered.key,
        settings=AgentSettings(
            broker_url=broker.url,
            key=SecretStr(registered.key),
            kubeconfig=agent_kubeconfig,
            work_queue=WorkQueueSettings(max_concurrent=2, poll_interval_seconds=1),
            work_crd=WorkCrdSettings(
                namespace=namespace,
                reconcile_interval_seconds=0.5,
                retry_base_delay_seconds=0.05,
            ),
        ),
    )


@pytest.fixture
async def stage(
    broker: RunningBroker, kube: KubeClient, agent_kubeconfig: Path, namespace: str
) -> Stage:
    """A stage of the test's own."""
    return await a_stage(broker, kube, agent_kubeconfig, namespace)

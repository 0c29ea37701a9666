"""
Ask for as much as there is room for, claim it, and write its Work resources.

A claim's answer may be lost, so each request has an id, and is repeated under the same
one until it is answered: the broker then gives the same claims again.
"""

import asyncio
from collections.abc import Callable
from uuid import uuid4

import structlog

from brokkr import __version__
from brokkr.agent.claims import HeldClaim, HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeError
from brokkr.agent.log_fields import about_claim
from brokkr.agent.resources import create_work
from brokkr.agent.settings import WorkQueueSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import (
    AgentBody,
    Capabilities,
    Capacity,
    ClaimBody,
    ClaimSome,
    CompleteWork,
)
from brokkr.wire.custom_resource import work_from_resource
from brokkr.work.errors import BrokerUnavailable, BrokkrError, Conflict, InvalidWork, NotFound

log = structlog.get_logger()

WAIT_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.5


class Intake:
    """Brings claims into the cluster."""

    def __init__(
        self,
        *,
        agent: AgentBody,
        client: BrokerClient,
        kube: KubeClient,
        caches: Caches,
        held: HeldClaims,
        namespace: str,
        types: list[str],
        settings: WorkQueueSettings,
        news: asyncio.Event,
        jitter: Callable[[], float],
    ) -> None:
        """
        Put it together; :meth:`run` starts it.

        Args:
            news: Set when a Work has changed, so that there may be room for another.
        """
        self._agent = agent
        self._client = client
        self._kube = kube
        self._caches = caches
        self._held = held
        self._namespace = namespace
        self._types = types
        self._settings = settings
        self._jitter = jitter
        self._news = news
        self._unwritten: asyncio.Queue[HeldClaim] = asyncio.Queue()

    async def run(self) -> None:
        """Claim and write for ever."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._settings.max_concurrent):
                tasks.create_task(self._write_resources())
            if self._settings.enabled:
                tasks.create_task(self._claim())

    def take_in(self, claim: ClaimBody) -> HeldClaim:
        """Have the Work resource of a claim written, unless it is there already."""
        held = self._held.confirm(
            claim.id, claim.claim_id, round=claim.round, lease_seconds=claim.lease_seconds
        )
        if held.unwritten is None:
            held.unwritten = claim
            self._unwritten.put_nowait(held)
        return held

    @property
    def capacity(self) -> Capacity:
        """Return how much is executed at once, and how much more would be claimed now."""
        most = self._settings.max_concurrent
        free = max(0, most - self._active()) if self._settings.enabled else 0
        return Capacity(max_concurrent=most, free=free)

    @property
    def capabilities(self) -> Capabilities:
        """Return what this agent can execute."""
        return Capabilities(types=self._types, version=__version__)

    async def _claim(self) -> None:
        while True:
            self._news.clear()
            free = self.capacity.free
            if free == 0:
                await self._news.wait()
                continue
            request = ClaimSome(
                max=free,
                wait=WAIT_SECONDS * self._jitter(),
                types=self._types,
                request_id=uuid4(),
            )
            for claim in await self._ask(request):
                held = self.take_in(claim)
                log.info("work claimed", **about_claim(claim.id, round=claim.round, span=held.span))

    async def _ask(self, request: ClaimSome) -> list[ClaimBody]:
        """Repeat one request until it is answered; its id makes that harmless."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return list(await self._client.claim_some(self._agent.id, request))
            except BrokkrError as error:
                log.warning("claims not answered", error=str(error), seconds=round(pause, 1))
            await asyncio.sleep(pause * self._jitter())
            pause = min(pause * 2, self._settings.poll_interval_seconds)

    def _active(self) -> int:
        """Count what takes up a slot: unfinished resources, and claims without one yet."""
        works = self._caches.works.cache
        unfinished = {name for name, resource in works.items() if not _is_finished(resource)}
        return len(unfinished | {held.name for held in self._held if held.name not in works})

    async def _write_resources(self) -> None:
        while True:
            held = await self._unwritten.get()
            if held.unwritten is not None:
                fields = about_claim(held.work_id, round=held.round, span=held.span)
                with structlog.contextvars.bound_contextvars(**fields):
                    await self._write(held, held.unwritten)
                held.unwritten = None
                self._news.set()

    async def _write(self, held: HeldClaim, claim: ClaimBody) -> None:
        """Write one resource, however long the API server takes to be there."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await create_work(self._kube, self._namespace, claim, agent_id=self._agent.id)
            except InvalidWork as error:
                await self._refuse(held, error)
            except KubeError as error:
                log.warning("work resource delayed", error=str(error))
                await asyncio.sleep(pause * self._jitter())
                pause = min(pause * 2, self._settings.poll_interval_seconds)
                continue
            return

    async def _refuse(self, held: HeldClaim, error: InvalidWork) -> None:
        """Tell the broker at once: there will never be a resource to report from."""
        log.warning("work refused", error=str(error))
        await complete_without_resource(self._client, held, f"WorkRefused: {error}")
        self._held.drop(held.claim_id)


async def complete_without_resource(client: BrokerClient, held: HeldClaim, message: str) -> None:
    """Complete a claim as failed that no Work resource can speak for."""
    pause = FIRST_PAUSE_SECONDS
    body = CompleteWork(claim_id=held.claim_id, outcome="failed", message=message[:4096])
    while True:
        try:
            await client.complete_work(held.work_id, body, trace=held.span)
        except (Conflict, NotFound) as error:
            log.warning("completion not taken", error=str(error))
        except BrokerUnavailable:
            await asyncio.sleep(pause)
            pause = min(pause * 2, WAIT_SECONDS)
            continue
        return


def _is_finished(resource: dict[str, object]) -> bool:
    try:
        return work_from_resource(resource).status.phase.is_terminal
    except InvalidWork:
        return True  # not ours; it takes no slot

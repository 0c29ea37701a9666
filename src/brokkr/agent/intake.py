"""
Ask for as much as there is room for, claim it, and write its Work resources.

A claim's answer may be lost, so each request has an id, and is repeated under the same
one until it is answered: the broker then gives the same claims again.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from typing import Final
from uuid import uuid4

import structlog

from brokkr import __version__
from brokkr.agent.access import Access, Obstacle, Reason
from brokkr.agent.claims import HeldClaim, HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeError
from brokkr.agent.log_fields import about_claim
from brokkr.agent.metrics import Metrics
from brokkr.agent.prerequisites import Prerequisites
from brokkr.agent.resources import create_work, delete_untouched
from brokkr.agent.settings import WorkQueueSettings
from brokkr.client import BrokerClient
from brokkr.client.transport import retry_after_of
from brokkr.wire.bodies import (
    MAX_REASON,
    UNABLE_PREFIX,
    AgentBody,
    Capabilities,
    Capacity,
    ClaimBody,
    ClaimSome,
    CompleteWork,
    ReleaseWork,
    Unable,
)
from brokkr.work.errors import BrokerUnavailable, BrokkrError, InvalidWork
from brokkr.work.model import WorkStatus
from brokkr.work.names import work_name

log = structlog.get_logger()

WAIT_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.5
_STARTING: Final = "it is not known yet what is in the cluster: no list has been read"
GIVE_BACK_DELAY_SECONDS = 30.0
"""Until what was given back may be claimed again: a few heartbeats."""


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
        prerequisites: Prerequisites,
        access: Access,
        clock: Callable[[], float],
        settings: WorkQueueSettings,
        news: asyncio.Event,
        jitter: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        """
        Put it together; :meth:`run` starts it.

        Args:
            clock: That of the access, in seconds.
            news: Set when a Work or what the cluster can do has changed, so that there may
                be room for another.
        """
        self._agent = agent
        self._client = client
        self._kube = kube
        self._caches = caches
        self._held = held
        self._namespace = namespace
        self._prerequisites = prerequisites
        self._settings = settings
        self._metrics = metrics
        self._jitter = jitter
        self._news = news
        self._access = access
        self._clock = clock
        self._began_at = clock()
        self._has_begun = False
        self._alarm = asyncio.Event()
        self._unwritten: asyncio.Queue[HeldClaim] = asyncio.Queue()

    async def run(self) -> None:
        """Claim and write for ever."""
        self._has_begun = True
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._settings.max_concurrent):
                tasks.create_task(self._write_resources())
            tasks.create_task(self._give_up_unable())
            if self._settings.enabled:
                tasks.create_task(self._claim())

    def take_in(self, claim: ClaimBody) -> HeldClaim | None:
        """
        Have the Work resource of a claim written, unless it is there already.

        None if it is not taken: its claim id is another Work's, or there is no slot for it.
        Nothing is made of it then, and when its lease has run out others may have it.
        """
        known, name = self._held.find(claim.claim_id), work_name(claim.id, round=claim.round)
        if known is not None and known.name != name:
            log.warning("claim id of another work ignored", claim_id=str(claim.claim_id))
            return None
        active = self._active()
        takes_a_slot = name not in active and name not in self._caches.works
        if takes_a_slot and len(active) >= self._settings.max_concurrent:
            log.warning("claim without a slot ignored", claim_id=str(claim.claim_id))
            return None
        held = self._held.confirm(
            claim.id,
            claim.claim_id,
            round=claim.round,
            broker=claim.broker,
            lease_seconds=claim.lease_seconds,
        )
        held.work_type = claim.work_type
        if held.unwritten is None and (known is None or name not in self._caches.works):
            held.unwritten = claim
            self._unwritten.put_nowait(held)
        return held

    @property
    def capacity(self) -> Capacity:
        """Return how much is executed at once, and how much more would be claimed now."""
        most = self._settings.max_concurrent
        free = max(0, most - len(self._active())) if self._settings.enabled else 0
        return Capacity(max_concurrent=most, free=free)

    @property
    def capabilities(self) -> Capabilities:
        """Return what this agent can execute, and what not and why."""
        unavailable = {
            **{key: each.cause for key, each in self._access.unavailable.items()},
            **self._prerequisites.lacking,
        }
        unable = self.unable
        if unable is not None:
            # For brokers that do not know the other field, too: they offer nothing then.
            why = f"the agent cannot work in its cluster: {unable.cause}"[:MAX_REASON]
            unavailable = dict.fromkeys(self._prerequisites.all_types, why)
        told = Capabilities(
            types=[each for each in self._prerequisites.all_types if each not in unavailable],
            unavailable={key: each[:MAX_REASON] for key, each in unavailable.items()},
            strategies=self._prerequisites.strategies,
            version=__version__,
        )
        if unable is None:
            return told
        seconds = round(max(0.0, self._clock() - unable.since), 1)
        cause = unable.cause[:MAX_REASON]
        return told.model_copy(
            update={"unable": Unable(reason=unable.reason, cause=cause, seconds=seconds)}
        )

    @property
    def unable(self) -> Obstacle | None:
        """Return why the agent can do no work in its cluster at all, as far as it is told."""
        if self._access.unable is None and not (self._has_begun or self._caches.is_synced):
            return Obstacle(Reason.STARTING, _STARTING, self._began_at)
        return self._access.unable

    def lack_of(self, work_type: str) -> Obstacle | None:
        """Return what the cluster lacks for a type, since when."""
        since = self._prerequisites.lacking_since.get(work_type)
        if since is None:
            return None
        return Obstacle(Reason.DEFINITION_MISSING, self._prerequisites.lacking[work_type], since)

    def note_free_slot(self) -> None:
        """Have it looked whether more can be claimed."""
        self._news.set()

    async def release_untouched(self) -> None:
        """Give back what nothing was made of yet, so that others need not wait for it."""
        for held in self._held:
            fields = about_claim(held.work_id, round=held.round, span=held.span)
            body = ReleaseWork(claim_id=held.claim_id, reason="the agent was stopped")
            try:
                if not await self._is_untouched(held):
                    continue
                await self._client.release_work(held.work_id, body)
            except (KubeError, BrokkrError) as error:  # for one of them; others may be luckier
                log.warning("untouched work not given back", error=str(error), **fields)
            else:
                log.info("work released", **fields)

    async def _is_untouched(self, held: HeldClaim) -> bool:
        """Say whether nothing was made of a claim; delete its Work resource, if there is one."""
        work = self._caches.works.get(held.name)
        if held.unwritten is None and (work is None or work.status != WorkStatus()):
            return False
        # Without its resource the claim is a claim that this agent never acted on.
        held.is_given_back = True  # or the heartbeat would find that somebody has deleted it
        try:
            held.is_given_back = work is None or await delete_untouched(self._kube, work)
        except KubeError:
            held.is_given_back = False
            raise
        return held.is_given_back

    async def _give_up_unable(self) -> None:
        """Give back at once what is not begun, whenever it has turned out that it cannot be."""
        while True:
            alarm = self._alarm
            for held in self._held:
                work = self._caches.works.get(held.name)
                if work is None or held.unwritten is not None:  # that one is being written
                    continue
                obstacle = self._access.obstacle_to(work.work_type, begun=True) or self.lack_of(
                    work.work_type
                )
                if obstacle is None:
                    continue
                fields = about_claim(held.work_id, round=held.round, span=held.span)
                with structlog.contextvars.bound_contextvars(**fields):
                    try:
                        if await self._is_untouched(held):
                            await self._give_back(held, _because_of(obstacle), delay_seconds=0)
                    except KubeError as error:
                        # Whether it was begun cannot be known then: it counts as begun.
                        log.info("work kept", reason=str(error))
            await alarm.wait()

    def note_trouble(self) -> None:
        """Have what is not begun given back, if it cannot be."""
        alarm, self._alarm = self._alarm, asyncio.Event()
        alarm.set()
        self._news.set()

    async def _claim(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self._news.clear()
            free = self._free_by_type()
            is_on_trial = not self._access.is_proven
            if not free or (is_on_trial and any(held.unwritten for held in self._held)):
                await self._news.wait()
                continue
            # An answer may be all of one type: it must not be more than that has room for.
            request = ClaimSome(
                max=1 if is_on_trial else min(free.values()),
                wait=WAIT_SECONDS * self._jitter(),
                types=sorted(free),
                request_id=uuid4(),
            )
            asked_at = clock()
            claims = await self._ask(request)
            if len(claims) > request.max:
                log.warning("more claims than asked for", count=len(claims))
            taken = 0
            for claim in claims[: request.max]:
                held = self.take_in(claim)
                if held is None or held.unwritten is not claim:
                    continue
                taken += 1
                self._metrics.claims.labels(_known(claim.work_type, free)).inc()
                log.info("work claimed", **about_claim(claim.id, round=claim.round, span=held.span))
            if not taken and clock() - asked_at < FIRST_PAUSE_SECONDS:
                # A broker that makes nobody wait must not be asked all the time.
                await asyncio.sleep(FIRST_PAUSE_SECONDS * self._jitter())

    def _free_by_type(self) -> dict[str, int]:
        """Return how many more of each type would be claimed now; none of those without room."""
        free = self.capacity.free
        limits = self._settings.max_concurrent_by_type
        works = self._caches.works
        active = Counter(works[name].work_type for name in self._caches.unfinished)
        active.update(held.work_type for held in self._held if held.name not in works)
        rooms = {
            each: min(free, limits[each] - active[each]) if each in limits else free
            for each in self._prerequisites.available
            if self.unable is None and self._access.obstacle_to(each) is None
        }
        return {each: room for each, room in rooms.items() if room > 0}

    async def _ask(self, request: ClaimSome) -> list[ClaimBody]:
        """Repeat one request until it is answered; its id makes that harmless."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            await self._held.heard.wait()
            try:
                return list(await self._client.claim_some(self._agent.id, request))
            except BrokkrError as error:
                log.warning("claims not answered", error=str(error), seconds=round(pause, 1))
                if isinstance(error, BrokerUnavailable):
                    self._held.note_outage()
                asked_for = min(retry_after_of(error), WAIT_SECONDS)
            await asyncio.sleep(max(pause * self._jitter(), asked_for))
            pause = min(pause * 2, self._settings.poll_interval_seconds)

    def _active(self) -> set[str]:
        """Name what takes up a slot: unfinished resources, and claims without one yet."""
        works = self._caches.works
        without = {held.name for held in self._held if held.name not in works}
        return self._caches.unfinished | without

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
        if claim.broker != self._held.broker:
            # After a broker was replaced, the next heartbeat says so; its Work may wait for it.
            await self._give_back(
                held,
                "it is not from the broker that the heartbeat knows",
                delay_seconds=GIVE_BACK_DELAY_SECONDS,
            )
            return
        pause = FIRST_PAUSE_SECONDS
        while True:
            obstacle = self._access.obstacle_to(claim.work_type) or self.lack_of(claim.work_type)
            if obstacle is not None:
                # If a request that was not answered has written it: nothing is started under
                # a claim that is over, and the next heartbeat has the resource stopped.
                await self._give_back(held, _because_of(obstacle), delay_seconds=0)
                return
            try:
                is_written = await create_work(
                    self._kube, self._namespace, claim, agent_id=self._agent.id
                )
                self._access.is_proven = True
                if not is_written:
                    # The next claim is of another round, whose name nothing stands in the way of.
                    reason = f"{held.name} was begun and stopped before, under a claim that is over"
                    await self._give_back(held, reason, delay_seconds=0)
            except InvalidWork as error:
                await self._refuse(held, error)
            except KubeError as error:
                log.warning("work resource delayed", error=str(error))
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause * self._jitter()):
                        await self._alarm.wait()
                pause = min(pause * 2, self._settings.poll_interval_seconds)
                continue
            return

    async def _give_back(self, held: HeldClaim, reason: str, *, delay_seconds: float) -> None:
        log.warning("work given back", reason=reason)
        await self._tell(held, lambda: self.release(held, reason, delay_seconds=delay_seconds))

    async def release(self, held: HeldClaim, reason: str, *, delay_seconds: float = 0) -> bool:
        """Give a claim back; say whether the broker has heard of it, or it is over."""
        body = ReleaseWork(claim_id=held.claim_id, reason=reason, delay_seconds=delay_seconds)
        try:
            await self._client.release_work(held.work_id, body)
        except BrokkrError as error:
            log.warning("release not taken", error=str(error))
            # The one that answers heartbeats, also if the claim is another one's: nothing
            # was made of it, and its lease runs out by itself.
            return self._held.ends(error, held.work_id, self._held.broker)
        return True

    async def _refuse(self, held: HeldClaim, error: InvalidWork) -> None:
        """Tell the broker at once: there will never be a resource to report from."""
        log.warning("work refused", error=str(error))
        message = f"WorkRefused: {error}"
        await self._tell(
            held,
            lambda: complete_without_resource(self._client, self._held, held, message),
        )

    async def _tell(self, held: HeldClaim, tell: Callable[[], Awaitable[bool]]) -> None:
        """Tell the broker what becomes of a claim until it has heard, or has ended it."""
        pause = FIRST_PAUSE_SECONDS
        while self._held.find(held.claim_id) is held and not await tell():
            await asyncio.sleep(pause * self._jitter())
            pause = min(pause * 2, WAIT_SECONDS)
        self._held.drop(held.claim_id)


async def complete_without_resource(
    client: BrokerClient, claims: HeldClaims, held: HeldClaim, message: str
) -> bool:
    """
    Complete a claim as failed that no Work resource can speak for.

    Returns:
        Whether the broker has heard of it, or the claim is over.
    """
    body = CompleteWork(claim_id=held.claim_id, outcome="failed", message=message[:4096])
    try:
        await client.complete_work(held.work_id, body, trace=held.span)
    except BrokkrError as error:
        log.warning("completion not taken", error=str(error))
        return claims.ends(error, held.work_id, held.broker)
    return True


def _because_of(obstacle: Obstacle) -> str:
    return f"{UNABLE_PREFIX}{obstacle.cause}"


def _known(work_type: str, types: Container[str]) -> str:
    """Return a type as a metric may name it: what a broker makes up is no label."""
    return work_type if work_type in types else "unknown"

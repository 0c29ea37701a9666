"""
Keep the claims that are executed here alive, and hear what the broker has to say.

Renews exactly the claims that are listed: those whose Work the controller has looked at
recently, and those whose Work resource is about to be written.  With them goes what this
agent can execute, and how much more of it.
"""

import asyncio
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog

from brokkr.agent.access import Access, Obstacle
from brokkr.agent.claims import HeldClaim, HeldClaims, sensible_lease
from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.loop import Controller
from brokkr.agent.intake import Intake, complete_without_resource
from brokkr.agent.kinds import NAMESPACES, WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeError
from brokkr.agent.log_fields import about, about_claim
from brokkr.agent.resources import CANCEL_REQUESTED, CLAIM_LOST, CUT_OFF, mark_cancelled
from brokkr.client import BrokerClient
from brokkr.client.transport import retry_after_of
from brokkr.wire.bodies import (
    MAX_REASON,
    UNABLE_PREFIX,
    UNWORKABLE,
    AgentBody,
    ClaimBody,
    Heartbeat,
    HeartbeatAnswer,
    RenewedLease,
)
from brokkr.work.errors import AgentSuperseded, BrokkrError
from brokkr.work.model import Work
from brokkr.work.names import work_name

log = structlog.get_logger()

LONGEST_INTERVAL = timedelta(seconds=10)
AWAY_INTERVAL = timedelta(seconds=1)
"""Until the first repetition while the broker does not answer; it doubles with each."""
MAX_HELD = 1000
"""No agent holds more, whatever its broker says."""
LEASE_FRACTION = 3
"""A lease is renewed this many times before it would run out."""


class Heart:
    """Beats for one incarnation of an agent."""

    def __init__(
        self,
        *,
        agent: AgentBody,
        client: BrokerClient,
        kube: KubeClient,
        caches: Caches,
        access: Access,
        held: HeldClaims,
        controller: Controller,
        intake: Intake,
        namespace: str,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        patience: timedelta,
        grace: timedelta,
        stops_when_cut_off: bool,
        on_return: Callable[[str], None],
        jitter: Callable[[], float],
    ) -> None:
        """
        Put it together; :meth:`run` starts it.

        Args:
            patience: How long the controller may leave a Work unlooked at before its
                claim is no longer renewed.
            monotonic: The clock of what keeps the agent from working, in seconds.
            grace: How long claims are kept that cannot be worked on.
            stops_when_cut_off: Whether Work is stopped whose lease ran out while the broker
                was away.
            on_return: Called with the name of each Work that is not reported, when the broker
                answers again.
            jitter: A factor near 1 for each pause without a broker: agents that lost it
                together must not come back together.
        """
        self._agent = agent
        self._incarnation: UUID | None = None
        self._client = client
        self._kube = kube
        self._caches = caches
        self._access = access
        self._held = held
        self._controller = controller
        self._intake = intake
        self._namespace = namespace
        self._clock = clock
        self._patience = patience
        self._monotonic = monotonic
        self._grace = grace
        self._old: dict[UUID, ClaimBody] = {}
        self._given_up: set[UUID] = set()
        self._stops_when_cut_off = stops_when_cut_off
        self._on_return = on_return
        self._jitter = jitter
        self._is_due = False
        self._failures = 0
        self._retry_after = 0.0
        self.answered_at: datetime | None = None
        self.problem: str | None = None

    async def run(self) -> None:
        """
        Beat for ever.

        Raises:
            AgentSuperseded: A newer process of this agent is at work, says its broker.
        """
        telling: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    await self.beat()
                except (BrokkrError, KubeError) as error:
                    if self._is_superseded(error):
                        raise
                    # What runs goes on: a broker that is away costs latency, no results.
                    log.warning("heartbeat failed", error=str(error))
                    self.note_failure(error)
                    if self._stops_when_cut_off:
                        await self._stop_lapsed()
                else:
                    if telling is None or telling.done():
                        # Beside the heartbeats: a completion that hangs must cost no leases.
                        telling = tasks.create_task(self._report_deleted())
                await self._until_the_next()

    def _is_superseded(self, error: BrokkrError | KubeError) -> bool:
        """Say whether the broker that this agent knows has said it, and of this agent."""
        if not isinstance(error, AgentSuperseded):
            return False
        # A broker of the version before does not say of whom.
        is_about_it = getattr(error, "agent", str(self._agent.id)) == str(self._agent.id)
        return is_about_it and self._held.has_said(error, self._held.broker)

    def note_failure(self, error: BrokkrError | KubeError) -> None:
        """Note that a heartbeat came to nothing; the next one waits longer if it was refused."""
        self.problem = str(error)
        if isinstance(error, BrokkrError):
            self._held.note_outage()
            self._failures += 1
            self._retry_after = retry_after_of(error)

    def wake(self) -> None:
        """Send the next heartbeat now: there is something to tell."""
        self._is_due = True
        self._held.has_new.set()

    async def beat(self) -> None:
        """Send one heartbeat and do what its answer asks for."""
        works = {work.name: work for work in self._unacknowledged()}
        listed, unworkable = self._sort(works)
        given_up = unworkable.keys() - self._given_up
        if given_up:
            log.warning("claims given up", claims=[str(each) for each in sorted(given_up)])
        answer = await self._send(listed, unworkable)
        self._held.note_answer(answer)
        self._given_up = set(unworkable)
        for claim_id in given_up:
            self._held.drop(claim_id)
        for claim_id in given_up.union(answer.lost):
            self._old.pop(claim_id, None)
        self.answered_at = self._clock()
        self._failures, self._retry_after, self.problem = 0, 0.0, None
        if not self._held.heard.is_set():
            self._held.heard.set()
            for name in works:
                self._on_return(name)
        # Of other claims, and of those of another broker, this one has nothing to say: after
        # a restore, or behind a name that leads to two, it does not know them.
        theirs = {work.claim.claim_id: work for work in works.values()}
        for lease in answer.renewed:
            if lease.claim_id in listed and lease.claim_id not in self._old:
                await self._take_renewal(lease, theirs.get(lease.claim_id), answer.broker)
        for claim_id in listed.intersection(answer.lost):
            await self._take_loss(claim_id, theirs.get(claim_id), answer.broker)

    def adopt(self) -> None:
        """
        Take over what the broker says that an earlier process holds.

        It must be known what is in the cluster, or what runs there would be started again.
        """
        for claim in self._old.values():
            known = self._caches.works.get(work_name(claim.id, round=claim.round))
            # The broker does not know what it was told: it was restored from a backup.
            if known is None or known.acknowledged_at is not None:
                self._intake.take_in(claim)
        self._old.clear()

    def _sort(self, works: Mapping[str, Work]) -> tuple[set[UUID], dict[UUID, str]]:
        """Return the claims to renew, and those that nothing can be done for, with the reason."""
        listed = {held.claim_id for held in self._held if held.unwritten is not None}
        hindered = self._without_resource()
        for work in works.values():
            is_looked_after = self._is_looked_after(work)
            obstacle = self._obstacle_to(work, is_looked_after=is_looked_after)
            if obstacle is not None:
                hindered[work.claim.claim_id] = obstacle
            elif is_looked_after:
                listed.add(work.claim.claim_id)
        since = self._monotonic() - self._grace.total_seconds()
        listed |= {each for each, obstacle in hindered.items() if obstacle.since >= since}
        unworkable = {
            each: obstacle.cause[:MAX_REASON]
            for each, obstacle in hindered.items()
            if each not in listed
        }
        return listed, unworkable

    def _obstacle_to(self, work: Work, *, is_looked_after: bool) -> Obstacle | None:
        """Return what keeps a Work from going on, if it has not ended."""
        if work.status.phase.is_terminal:
            return None
        obstacle = self._access.obstacle_to(work.work_type, begun=True)
        if obstacle is None and not is_looked_after:
            obstacle = self._intake.lack_of(work.work_type)
        return obstacle

    def _without_resource(self) -> dict[UUID, Obstacle]:
        """Return what keeps claims from going on whose Work resource is not seen now."""
        found = {
            held.claim_id: self._access.obstacle_to(held.work_type, begun=True)
            for held in self._held
            if held.unwritten is None
            and not held.is_given_back
            and held.name not in self._caches.works
        }
        found |= dict.fromkeys(self._old, self._intake.unable)
        return {claim_id: each for claim_id, each in found.items() if each is not None}

    async def _send(
        self, listed: AbstractSet[UUID], unworkable: Mapping[UUID, str]
    ) -> HeartbeatAnswer:
        # The first answer tells of all claims that are held; until one has arrived, each
        # heartbeat is the first one of a new incarnation.
        incarnation = self._incarnation or uuid4()
        beat = Heartbeat(
            incarnation=incarnation,
            claims=sorted(listed),
            capacity=self._intake.capacity,
            capabilities=self._intake.capabilities,
        )
        if unworkable and UNWORKABLE in self._held.features:  # another broker refuses the field
            beat = beat.model_copy(update={"unworkable": dict(unworkable)})
        answer = await self._client.heartbeat(self._agent.id, beat)
        if self._incarnation is None:
            self._incarnation = incarnation
            self._held.note_answer(answer)
            self._old = {each.claim_id: each for each in (answer.held or ())[:MAX_HELD]}
            if self._caches.is_synced:
                self.adopt()
        return answer

    async def _take_renewal(self, lease: RenewedLease, work: Work | None, broker: str) -> None:
        held = self._held.find(lease.claim_id)
        known = {held.broker if held else broker, work.claim.broker if work else broker}
        if known != {broker}:
            return
        held = self._held.confirm(
            lease.work_id,
            lease.claim_id,
            round=lease.round,
            broker=broker,
            lease_seconds=lease.lease_seconds,
        )
        if work is None or work.name != held.name:
            return
        if lease.cancel_requested:
            await mark_cancelled(self._kube, work, CANCEL_REQUESTED)
        self._controller.workqueue.add(work.name)

    async def _take_loss(self, claim_id: UUID, work: Work | None, broker: str) -> None:
        """Stop what the broker has given to somebody else; its result counts no more."""
        held = self._held.find(claim_id)
        if work is not None and work.claim.broker != broker:
            log.warning("claim of another broker left alone", **about(work))
            return
        if held is not None and held.broker == broker:
            self._held.drop(claim_id)
            self._intake.note_free_slot()
        if work is not None:
            log.warning("claim lost", **about(work))
            await mark_cancelled(self._kube, work, CLAIM_LOST)

    async def _stop_lapsed(self) -> None:
        works = {work.name: work for work in self._unacknowledged()}
        for held in self._held:
            work = works.get(held.name)
            if work is not None and self._held.is_lapsed(held):
                try:
                    await mark_cancelled(self._kube, work, CUT_OFF)
                except KubeError as error:
                    log.warning("work not stopped", error=str(error), **about(work))

    async def _report_deleted(self) -> None:
        """Complete the claims whose Work resource somebody has deleted."""
        for held in self._held:
            fields = about_claim(held.work_id, round=held.round, span=held.span)
            with structlog.contextvars.bound_contextvars(**fields):
                try:
                    is_over = await self._is_deleted(held) and await self._is_told(held)
                except KubeError as error:
                    log.warning("work resource not looked for", error=str(error))
                    continue
                if is_over:  # if not, it is tried again
                    self._held.drop(held.claim_id)
                    self._intake.note_free_slot()

    async def _is_deleted(self, held: HeldClaim) -> bool:
        return (
            held.unwritten is None
            and not held.is_given_back
            and held.name not in self._caches.works
            and held.name not in self._caches.departed_works
            and await self._kube.find(WORKS, self._namespace, held.name) is None
        )

    async def _is_told(self, held: HeldClaim) -> bool:
        """Tell the broker of a Work that is gone; say whether there is nothing more to do."""
        if held.broker != self._held.broker:
            # The one that has to hear it is not the one that answers now.
            return self._held.is_lapsed(held)
        log.warning("work resource was deleted")
        if await self._is_namespace_gone():  # nobody meant this Work: it can be done elsewhere
            reason = f"{UNABLE_PREFIX}namespace {self._namespace} was deleted, and the Work with it"
            return await self._intake.release(held, reason)
        message = f"WorkResourceDeleted: somebody deleted {held.name}"
        return await complete_without_resource(self._client, self._held, held, message)

    async def _is_namespace_gone(self) -> bool:
        """Say whether it was everything that was deleted, or is being deleted."""
        if f"get {NAMESPACES}" in self._access.warnings:  # nobody lets the agent see it
            return False
        found = await self._kube.find(NAMESPACES, None, self._namespace)
        return found is None or (found.get("status") or {}).get("phase") == "Terminating"

    def _unacknowledged(self) -> list[Work]:
        """Return the Works whose claims are not over, as far as is known here."""
        return [self._caches.works[name] for name in self._caches.unacknowledged]

    def _is_looked_after(self, work: Work) -> bool:
        now = self._clock()
        return now - self._controller.last_looked_at.setdefault(work.name, now) < self._patience

    async def _until_the_next(self) -> None:
        """Wait for a part of the shortest lease, also if that is claimed meanwhile."""
        clock = asyncio.get_running_loop().time
        began, jitter = clock(), self._jitter()
        while not self._is_due:
            left = began + self._pause(jitter).total_seconds() - clock()
            if left <= 0:
                break
            self._held.has_new.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._held.has_new.wait()
        self._is_due = False

    def _pause(self, jitter: float) -> timedelta:
        leases = [held.lease_seconds for held in self._held]
        leases += [sensible_lease(each.lease_seconds) for each in self._old.values()]
        shortest = min(leases, default=3600.0)
        usual = min(LONGEST_INTERVAL, timedelta(seconds=shortest / LEASE_FRACTION))
        if self._held.heard.is_set():
            return usual
        return pause_without_broker(
            self._failures, usual=usual, retry_after=self._retry_after, jitter=jitter
        )


def pause_without_broker(
    failures: int, *, usual: timedelta, retry_after: float, jitter: float
) -> timedelta:
    """
    Return how long to wait until the next heartbeat while the broker does not answer.

    It doubles from :data:`AWAY_INTERVAL` up to the usual interval: if the broker is there and
    only out of reach, leases go on, so they must be renewed as soon as they can be.

    Args:
        failures: How many heartbeats in a row were not answered.
        usual: The interval while the broker answers: a part of the shortest lease.
        retry_after: Seconds for which the broker asks; 0 if it does not.  It is not given
            more than the usual interval, and has it from no agent at the same time.
        jitter: A factor from 0.75 to 1.
    """
    longest = max(usual, AWAY_INTERVAL)
    doubled: timedelta = AWAY_INTERVAL * 2.0 ** min(max(failures - 1, 0), 20)
    asked_for = min(timedelta(seconds=min(retry_after, 3600.0)), longest)
    return max(min(doubled, longest) * jitter, asked_for * (2 - jitter))

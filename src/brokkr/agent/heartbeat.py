"""
Keep the claims that are executed here alive, and hear what the broker has to say.

Renews exactly the claims that are listed: those whose Work the controller has looked at
recently, and those whose Work resource is about to be written.  With them goes what this
agent can execute, and how much more of it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog

from brokkr.agent.claims import HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.loop import Controller
from brokkr.agent.intake import Intake, complete_without_resource
from brokkr.agent.kinds import WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeError
from brokkr.agent.log_fields import about, about_claim
from brokkr.agent.resources import CANCEL_REQUESTED, CLAIM_LOST, CUT_OFF, mark_cancelled
from brokkr.client import BrokerClient
from brokkr.wire.bodies import AgentBody, Heartbeat, HeartbeatAnswer, RenewedLease
from brokkr.work.errors import AgentSuperseded, BrokkrError
from brokkr.work.model import Work
from brokkr.work.names import work_name

log = structlog.get_logger()

LONGEST_INTERVAL = timedelta(seconds=10)
AWAY_INTERVAL = timedelta(seconds=2)
"""While the broker does not answer: nothing is claimed before it has heard of what runs."""
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
        held: HeldClaims,
        controller: Controller,
        intake: Intake,
        namespace: str,
        clock: Callable[[], datetime],
        patience: timedelta,
        stops_when_cut_off: bool,
        on_return: Callable[[str], None],
    ) -> None:
        """
        Put it together; :meth:`run` starts it.

        Args:
            patience: How long the controller may leave a Work unlooked at before its
                claim is no longer renewed.
            stops_when_cut_off: Whether Work is stopped whose lease ran out while the broker
                was away.
            on_return: Called with the name of each Work that is not reported, when the broker
                answers again.
        """
        self._agent = agent
        self._incarnation: UUID | None = None
        self._client = client
        self._kube = kube
        self._caches = caches
        self._held = held
        self._controller = controller
        self._intake = intake
        self._namespace = namespace
        self._clock = clock
        self._patience = patience
        self._stops_when_cut_off = stops_when_cut_off
        self._on_return = on_return
        self._is_due = False
        self.answered_at: datetime | None = None

    async def run(self) -> None:
        """
        Beat for ever.

        Raises:
            AgentSuperseded: A newer process of this agent is at work.
        """
        while True:
            try:
                await self.beat()
            except AgentSuperseded:
                raise
            except (BrokkrError, KubeError) as error:
                # What runs goes on: a broker that is away costs latency, no results.
                log.warning("heartbeat failed", error=str(error))
                if isinstance(error, BrokkrError):
                    self._held.note_outage()
                if self._stops_when_cut_off:
                    await self._stop_lapsed()
            await self._until_the_next()

    def wake(self) -> None:
        """Send the next heartbeat now: there is something to tell."""
        self._is_due = True
        self._held.has_new.set()

    async def beat(self) -> None:
        """Send one heartbeat and do what its answer asks for."""
        works = {work.name: work for work in self._unacknowledged()}
        listed = {work.claim.claim_id for work in works.values() if self._is_looked_after(work)}
        listed |= {held.claim_id for held in self._held if held.unwritten is not None}
        answer = await self._send(listed)
        if not self._held.heard.is_set():
            self._held.heard.set()
            for name in works:
                self._on_return(name)
        self._held.broker = answer.broker
        self._held.features = frozenset(answer.features)
        self.answered_at = self._clock()
        for lease in answer.renewed:
            if lease.claim_id in listed:
                await self._take_renewal(lease, works)
        await self._take_losses(answer.lost, works)
        await self._report_deleted()

    async def _send(self, listed: AbstractSet[UUID]) -> HeartbeatAnswer:
        # The first answer tells of all claims that are held; until one has arrived, each
        # heartbeat is the first one of a new incarnation.
        incarnation = self._incarnation or uuid4()
        answer = await self._client.heartbeat(
            self._agent.id,
            Heartbeat(
                incarnation=incarnation,
                claims=sorted(listed),
                capacity=self._intake.capacity,
                capabilities=self._intake.capabilities,
            ),
        )
        if self._incarnation is None:
            self._incarnation = incarnation
            self._held.broker = answer.broker
            for claim in (answer.held or ())[:MAX_HELD]:
                known = self._caches.works.get(work_name(claim.id, round=claim.round))
                # The broker does not know what it was told: it was restored from a backup.
                if known is None or known.acknowledged_at is not None:
                    self._intake.take_in(claim)
        return answer

    async def _take_renewal(self, lease: RenewedLease, works: Mapping[str, Work]) -> None:
        held = self._held.confirm(
            lease.work_id,
            lease.claim_id,
            round=lease.round,
            lease_seconds=lease.lease_seconds,
        )
        work = works.get(held.name)
        if work is None:
            return
        if lease.cancel_requested:
            await mark_cancelled(self._kube, work, CANCEL_REQUESTED)
        self._controller.workqueue.add(work.name)

    async def _take_losses(self, lost: Sequence[UUID], works: Mapping[str, Work]) -> None:
        """Stop what the broker has given to somebody else; its result counts no more."""
        gone = set(lost)
        for claim_id in gone:
            self._held.drop(claim_id)
        for work in works.values():
            if work.claim.claim_id not in gone:
                continue
            if self._held.is_from_elsewhere(work):
                log.warning("claim of another broker left alone", **about(work))
                continue
            log.warning("claim lost", **about(work))
            await mark_cancelled(self._kube, work, CLAIM_LOST)
        if lost:
            self._intake.note_free_slot()

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
            if (
                held.unwritten is None
                and held.name not in self._caches.works
                and held.name not in self._caches.departed_works
                and await self._kube.find(WORKS, self._namespace, held.name) is None
            ):
                fields = about_claim(held.work_id, round=held.round, span=held.span)
                with structlog.contextvars.bound_contextvars(**fields):
                    log.warning("work resource was deleted")
                    await complete_without_resource(
                        self._client, held, f"WorkResourceDeleted: somebody deleted {held.name}"
                    )
                self._held.drop(held.claim_id)
                self._intake.note_free_slot()

    def _unacknowledged(self) -> list[Work]:
        """Return the Works whose claims are not over, as far as is known here."""
        return [self._caches.works[name] for name in self._caches.unacknowledged]

    def _is_looked_after(self, work: Work) -> bool:
        now = self._clock()
        return now - self._controller.last_looked_at.setdefault(work.name, now) < self._patience

    async def _until_the_next(self) -> None:
        """Wait for a part of the shortest lease, also if that is claimed meanwhile."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while not self._is_due and (left := began + self._interval().total_seconds() - clock()) > 0:
            self._held.has_new.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._held.has_new.wait()
        self._is_due = False

    def _interval(self) -> timedelta:
        if not self._held.heard.is_set():
            return AWAY_INTERVAL
        shortest = min((held.lease_seconds for held in self._held), default=3600.0)
        return min(LONGEST_INTERVAL, timedelta(seconds=shortest / LEASE_FRACTION))

"""
Which claims the broker has confirmed to this process as this agent's.

Only these are run: a Work resource proves nothing, for anybody who may create one can
forge its labels.  The broker's word is had again by the first heartbeat after a start.

Here is decided, too, whether somebody who says that a claim is over is that broker.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from brokkr.wire.bodies import PROBLEM_BROKER, ClaimBody, HeartbeatAnswer
from brokkr.wire.custom_resource import trace_of
from brokkr.work.errors import (
    BrokkrError,
    ClaimLost,
    WorkFinished,
    WorkNotFound,
    WorkNotHeld,
)
from brokkr.work.model import Work
from brokkr.work.names import work_name
from brokkr.work.trace import TraceContext

SHORTEST_LEASE_SECONDS: Final = 1.0
LONGEST_LEASE_SECONDS: Final = 7 * 86400.0
CONFIRMED_SECONDS: Final = 60.0
"""For so long after a heartbeat a broker that does not name itself in problems is trusted."""

_OVER: Final = (ClaimLost, WorkNotFound, WorkFinished, WorkNotHeld)
"""What ends a claim.  What else there is, or comes to be, ends none."""


@dataclass(slots=True)
class HeldClaim:
    """One confirmed claim.

    Attributes:
        broker: The id of the broker that has confirmed it; nobody else can end it.
        lease_seconds: How long it lives without being renewed, from when the broker said so.
        renewed_at: When that was, in seconds of a clock that nobody sets.
        work_type: As the claim's answer said, if it came to this process.
        unwritten: The claim's answer, while its Work resource has yet to be created.
        is_given_back: Whether the broker is being told that it is not wanted any more.
    """

    work_id: UUID
    claim_id: UUID
    round: int
    broker: str
    lease_seconds: float
    renewed_at: float
    work_type: str = ""
    unwritten: ClaimBody | None = None
    is_given_back: bool = False

    @property
    def name(self) -> str:
        """Return the name of the one Work resource that stands for it."""
        return work_name(self.work_id, round=self.round)

    @property
    def span(self) -> TraceContext | None:
        """Return the span that is its execution, while that is known from the claim alone."""
        trace = None if self.unwritten is None else trace_of(self.unwritten.resource)
        return None if trace is None else trace.child(self.claim_id)


class HeldClaims:
    """
    The confirmed claims by claim id, and the broker that confirmed them.

    Attributes:
        broker: The id of the broker instance that answered the last heartbeat.
        features: What that broker announced in the same answer; see ``HeartbeatAnswer``.
        has_new: Set when one is added; whoever waits for it clears it first.
        heard: Set while the broker answers.  After an outage a heartbeat goes first: claims
            that have lapsed are revived by it, and not claimed anew.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know of nothing yet; the clock is in seconds and only goes on."""
        self.broker: str | None = None
        self.features: frozenset[str] = frozenset()
        self._confirmed_at = -math.inf
        self._clock = clock
        self.has_new = asyncio.Event()
        self.heard = asyncio.Event()
        self._by_id: dict[UUID, HeldClaim] = {}

    def __iter__(self) -> Iterator[HeldClaim]:
        """Iterate over a copy, so that claims may come and go meanwhile."""
        return iter(list(self._by_id.values()))

    def note_answer(self, answer: HeartbeatAnswer) -> None:
        """Note which broker has answered a heartbeat, and what it understands."""
        self.broker = answer.broker
        self.features = frozenset(answer.features)
        self._confirmed_at = self._clock()

    def has_said(self, error: BrokkrError, broker: str | None) -> bool:
        """
        Say whether it is this broker that says this.

        A broker of the version before does not name itself.  It is taken for the one that has
        just answered a heartbeat.  :mod:`brokkr.wire.problem` says why whose word it is matters.
        """
        if error.broker is not None:
            return error.broker == broker
        return (
            broker == self.broker
            and PROBLEM_BROKER not in self.features
            and self._clock() - self._confirmed_at <= CONFIRMED_SECONDS
        )

    def ends(self, error: BrokkrError, work_id: UUID, broker: str | None) -> bool:
        """Say whether this broker says, with this, that a claim on this Work is over."""
        is_about_it = getattr(error, "work_id", None) == str(work_id)
        return isinstance(error, _OVER) and is_about_it and self.has_said(error, broker)

    def confirm(
        self, work_id: UUID, claim_id: UUID, *, round: int, broker: str, lease_seconds: float
    ) -> HeldClaim:
        """Note that a broker says that this claim is held."""
        lease_seconds = sensible_lease(lease_seconds)
        held = self._by_id.get(claim_id)
        if held is None:
            held = HeldClaim(work_id, claim_id, round, broker, lease_seconds, self._clock())
            self._by_id[claim_id] = held
            self.has_new.set()
        held.lease_seconds, held.renewed_at = lease_seconds, self._clock()
        return held

    def find(self, claim_id: UUID) -> HeldClaim | None:
        """Return a confirmed claim; None if there is none of this id."""
        return self._by_id.get(claim_id)

    def is_lapsed(self, held: HeldClaim) -> bool:
        """Say whether its lease has run out, as far as is known here."""
        return self._clock() - held.renewed_at > held.lease_seconds

    def note_outage(self) -> None:
        """Note that the broker does not answer."""
        self.heard.clear()
        self.has_new.set()

    def drop(self, claim_id: UUID) -> None:
        """Forget a claim that is over."""
        self._by_id.pop(claim_id, None)

    def holds(self, work: Work) -> bool:
        """Say whether the claim on a Work resource is confirmed."""
        held = self._by_id.get(work.claim.claim_id)
        return held is not None and held.name == work.name and work.claim.broker == self.broker

    def is_from_elsewhere(self, work: Work) -> bool:
        """
        Say whether another broker's claim is on the resource, as far as is known.

        What this broker says of such a claim counts for nothing: a broker restored from
        a backup must not erase results that it does not remember asking for.
        """
        return work.claim.broker != self.broker


def sensible_lease(lease_seconds: float) -> float:
    """Return a lease that can be lived by, whatever the broker said; NaN is no longer than 1."""
    if not lease_seconds > SHORTEST_LEASE_SECONDS:
        return SHORTEST_LEASE_SECONDS
    return min(lease_seconds, LONGEST_LEASE_SECONDS)

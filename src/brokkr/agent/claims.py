"""
Which claims the broker has confirmed to this process as this agent's.

Only these are run: a Work resource proves nothing, for anybody who may create one can
forge its labels.  The broker's word is had again by the first heartbeat after a start.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from brokkr.wire.bodies import ClaimBody
from brokkr.wire.custom_resource import trace_of
from brokkr.work.model import Work
from brokkr.work.names import work_name
from brokkr.work.trace import TraceContext

SHORTEST_LEASE_SECONDS: Final = 1.0
LONGEST_LEASE_SECONDS: Final = 7 * 86400.0


@dataclass(slots=True)
class HeldClaim:
    """One confirmed claim.

    Attributes:
        lease_seconds: How long it lives without being renewed, from when the broker said so.
        renewed_at: When that was, in seconds of a clock that nobody sets.
        work_type: As the claim's answer said, if it came to this process.
        unwritten: The claim's answer, while its Work resource has yet to be created.
    """

    work_id: UUID
    claim_id: UUID
    round: int
    lease_seconds: float
    renewed_at: float
    work_type: str = ""
    unwritten: ClaimBody | None = None

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
        self._clock = clock
        self.has_new = asyncio.Event()
        self.heard = asyncio.Event()
        self._by_id: dict[UUID, HeldClaim] = {}

    def __iter__(self) -> Iterator[HeldClaim]:
        """Iterate over a copy, so that claims may come and go meanwhile."""
        return iter(list(self._by_id.values()))

    def confirm(
        self, work_id: UUID, claim_id: UUID, *, round: int, lease_seconds: float
    ) -> HeldClaim:
        """Note that the broker says that this claim is held."""
        lease_seconds = _sensible(lease_seconds)
        held = self._by_id.get(claim_id)
        if held is None:
            held = HeldClaim(work_id, claim_id, round, lease_seconds, self._clock())
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


def _sensible(lease_seconds: float) -> float:
    """Return a lease that can be lived by, whatever the broker said; NaN is no longer than 1."""
    if not lease_seconds > SHORTEST_LEASE_SECONDS:
        return SHORTEST_LEASE_SECONDS
    return min(lease_seconds, LONGEST_LEASE_SECONDS)

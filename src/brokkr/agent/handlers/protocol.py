"""The seam for work types: what one of them means, without doing any of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from brokkr.agent.handlers.verdict import Verdict
from brokkr.work.model import Manifest, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """A merge patch that asks for one object to stop."""

    kind: str
    name: str
    patch: Manifest


class Handler(Protocol):
    """What one work type means.  Pure: the controller reads and writes for it.

    Attributes:
        executor: The kind of the object that *is* the attempt; its uid is recorded, and
            once recorded, its disappearance is a failure and not a reason to start over.
    """

    executor: str

    def assess(self, work: Work, attempt: int, seen: Sequence[Manifest]) -> Verdict:
        """
        Say what the objects of this attempt, as read from the cluster, have come to.

        ``seen`` holds those objects of the handler's kinds that exist and are this
        attempt's own.  With nothing seen, the answer says what to create first.

        Raises:
            InvalidWork: No attempt could ever be made from this template.
        """

    def cancel(self, seen: Sequence[Manifest]) -> Cancellation | None:
        """Return what to patch to stop the attempt; None if nothing runs or it was asked."""

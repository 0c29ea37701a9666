"""What the controller will do: a value, so that choosing and doing are two things."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from brokkr.agent.handlers.protocol import Cancellation
from brokkr.work.model import Manifest, WorkStatus


@dataclass(frozen=True, slots=True)
class CreateObjects:
    """Create objects of the current attempt; those that exist and are ours will do."""

    manifests: tuple[Manifest, ...]


@dataclass(frozen=True, slots=True)
class CancelAttempt:
    """Ask the current attempt to stop."""

    cancellation: Cancellation


@dataclass(frozen=True, slots=True)
class DeleteAttempt:
    """Delete the object that executes the current attempt, if there is one; it stops with it."""


@dataclass(frozen=True, slots=True)
class DeleteWork:
    """Delete the Work resource; what it owns goes with it."""


Action: TypeAlias = CreateObjects | CancelAttempt | DeleteAttempt | DeleteWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A Kubernetes Event on the Work, for ``kubectl describe``."""

    reason: str
    message: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Actions in order, then one status write, then the notes.

    Attributes:
        requeue_after: When to look again without news; a hint that saves polling, for
            due times are in the status and the resync would find them too.
    """

    status: WorkStatus
    actions: tuple[Action, ...] = ()
    notes: tuple[Note, ...] = ()
    requeue_after: timedelta | None = None

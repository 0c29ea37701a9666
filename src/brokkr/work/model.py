"""
The Work resource as the agent sees it: frozen values, with units in the types.

:mod:`brokkr.wire.custom_resource` makes these from what the API server sends, and
turns them back; nothing else knows the resource's ``camelCase``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias
from uuid import UUID

from brokkr.work.trace import TraceContext

Manifest: TypeAlias = Mapping[str, Any]
"""A Kubernetes object as JSON has it.  Opaque but to handlers and to ``wire``."""


class Phase(StrEnum):
    """Where a Work resource stands, for people; ``conditions`` are for programs."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def is_terminal(self) -> bool:
        """Say whether the Work is over: the first terminal phase is final."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Which claim of which broker a Work resource stands for.

    Attributes:
        round: The number of this claim in the Work's life, from 1.
        agent_id: Whose claim it is; agents that share a namespace leave each other's be.
        broker: The id of the broker's database; another broker's word about this
            claim counts for nothing.
    """

    work_id: UUID
    claim_id: UUID
    round: int
    agent_id: UUID
    broker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One execution of the template.

    Attributes:
        number: Counted from 1, whoever pays for the retries.
        name: The name of its objects (:func:`brokkr.work.names.attempt_name`).
        uid: The uid of the object that executes it, once it was seen to exist.
        stopping_at: When it was first told to stop; None if it was not.
        reason: Why it ended, in one CamelCase word; empty while it runs.
        failure_class: Which class of failures that is; empty if it is none.
        fault: Whose failure it was, a word of :class:`~brokkr.work.fault.Fault`.
    """

    number: int
    name: str
    uid: str | None = None
    started_at: datetime | None = None
    stopping_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str = ""
    message: str = ""
    failure_class: str = ""
    fault: str = ""
    retryable: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One machine-readable fact; ``changed_at`` moves only when ``status`` does."""

    type: str
    status: bool | None
    reason: str
    message: str
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkStatus:
    """
    What the controller has recorded about a Work resource.

    Attributes:
        retries: How many failed attempts were forgiven at the cost of the Work's own budget.
        infrastructure_retries: How many beside them were forgiven because the cluster or a
            node was to blame.
    """

    phase: Phase = Phase.PENDING
    retries: int = 0
    infrastructure_retries: int = 0
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    completed_at: datetime | None = None
    retry_at: datetime | None = None
    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One Work resource, as last read from the API server.

    Attributes:
        template: The user's object, or a ``List`` of them; only a handler looks inside.
        claim_timeout: How long the claim lives without being renewed.
        infrastructure_retries_before: How many infrastructure retries earlier claims of this
            Work have spent.
        cancel_reason: Why it is to stop, in words; empty while it is to go on.
        acknowledged_at: When the broker took the completion; None before that.
        trace: The span that it was submitted in, if that is part of a trace.
    """

    name: str
    namespace: str
    uid: str
    resource_version: str
    generation: int
    created_at: datetime
    is_deleting: bool
    work_type: str
    max_retries: int
    claim_timeout: timedelta
    template: Manifest
    claim: Claim
    cancel_reason: str
    acknowledged_at: datetime | None
    status: WorkStatus
    trace: TraceContext | None = None
    infrastructure_retries_before: int = 0

    @property
    def attempt(self) -> int:
        """Return the number of the current attempt, counted from 1."""
        return self.status.retries + self.status.infrastructure_retries + 1

    @property
    def infrastructure_retries(self) -> int:
        """Return how many infrastructure retries were spent, by earlier claims too."""
        return self.infrastructure_retries_before + self.status.infrastructure_retries

    @property
    def span(self) -> TraceContext | None:
        """Return the span that is the execution of its claim."""
        return None if self.trace is None else self.trace.child(self.claim.claim_id)

    @property
    def cancel_requested(self) -> bool:
        """Say whether the Work is to stop as soon as it can."""
        return bool(self.cancel_reason)

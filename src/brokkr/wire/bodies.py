"""
Request and response bodies of ``/api/v1``.

Requests refuse unknown fields, so that a misspelt one is an error and not a default.
Answers are read leniently, so that an agent understands a newer broker.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from brokkr.work.selectors import MatchExpression, Operator, Target

MAX_RESULT_BYTES = 64 * 1024
MAX_MESSAGE = 4096
MAX_WAIT_SECONDS = 60


class Request(BaseModel):
    """A body that comes from outside: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """A body that the broker sends."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class WorkState(StrEnum):
    """Where a Work is: two states in the queue, and how it ended in the log."""

    PENDING = "PENDING"
    CLAIMED = "CLAIMED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    QUARANTINED = "QUARANTINED"

    @property
    def is_finished(self) -> bool:
        """Say whether the Work is in the execution log."""
        return self not in (WorkState.PENDING, WorkState.CLAIMED)


# -- submitting ------------------------------------------------------------------------

LabelKey = Annotated[str, Field(max_length=317)]
Text63 = Annotated[str, Field(max_length=63)]


class MatchExpressionBody(Request):
    """One requirement on one label, as in Kubernetes' label selectors."""

    key: LabelKey
    operator: Operator
    values: Annotated[list[Text63], Field(max_length=100)] = []

    @model_validator(mode="after")
    def _values_fit_the_operator(self) -> Self:
        wants = self.operator in (Operator.IN, Operator.NOT_IN)
        if wants != bool(self.values):
            must = "needs at least one value" if wants else "takes no values"
            raise ValueError(f"operator {self.operator} {must}")
        return self


class TargetBody(Request):
    """Which agents may claim a Work; all that is given must hold."""

    agents: Annotated[list[Text63], Field(max_length=1000)] = []
    match_labels: Annotated[dict[LabelKey, Text63], Field(max_length=64)] = {}
    match_expressions: Annotated[list[MatchExpressionBody], Field(max_length=64)] = []
    match_annotations: Annotated[
        dict[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=64)
    ] = {}

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if not (
            self.agents or self.match_labels or self.match_expressions or self.match_annotations
        ):
            raise ValueError(
                "an empty target selects nothing: give agents, match_labels, "
                "match_expressions or match_annotations"
            )
        return self

    def to_target(self) -> Target:
        """Return what the body means."""
        return Target(
            agents=frozenset(self.agents),
            match_labels=self.match_labels,
            match_expressions=tuple(
                MatchExpression(key=each.key, operator=each.operator, values=frozenset(each.values))
                for each in self.match_expressions
            ),
            match_annotations=self.match_annotations,
        )


Targets = Annotated[list[TargetBody], Field(min_length=1, max_length=100)]


class SubmitWork(Request):
    """``POST /work``."""

    work_type: Annotated[str, Field(min_length=1, max_length=50)]
    template: dict[str, Any] | list[dict[str, Any]] | str = Field(
        description="An object, a list of objects, or YAML text (several documents too)."
    )
    target: TargetBody | Targets
    max_retries: Annotated[int, Field(ge=0, le=20)] = 3
    claim_timeout_seconds: Annotated[int, Field(ge=1, le=7 * 86400)] = 3600
    max_handoffs: Annotated[int, Field(ge=0, le=0)] = Field(
        default=0, description="How often another agent may try; this version knows only 0."
    )
    priority: Annotated[int, Field(ge=-100, le=100)] = 0

    @property
    def targets(self) -> list[TargetBody]:
        """Return the alternatives, of which one must hold."""
        return self.target if isinstance(self.target, list) else [self.target]


# -- what is known of a Work -----------------------------------------------------------


class Progress(Answer):
    """What the agent last said of a Work that it holds."""

    phase: str
    attempt: int
    retries: int
    message: str = ""
    retry_at: datetime | None = None
    reported_at: datetime


class WorkBody(Answer):
    """One Work, wherever it is: in the queue or in the execution log."""

    id: UUID
    work_type: str
    status: WorkState
    created_at: datetime
    claimed_at: datetime | None = None
    completed_at: datetime | None = None
    claimed_by: UUID | None = None
    agent: str | None = Field(default=None, description="The name of that agent.")
    round: int = Field(default=0, description="The number of the current claim, from 1.")
    priority: int = 0
    max_retries: int
    claim_timeout_seconds: int
    lease_seconds: float | None = Field(
        default=None, description="What is left of the claim's lease."
    )
    lost_claims: int = 0
    cancel_requested_at: datetime | None = None
    target: list[dict[str, Any]] = []
    eligible_agents: int | None = Field(
        default=None, description="How many agents the target selects now."
    )
    progress: Progress | None = None
    success: bool | None = None
    retries_attempted: int | None = None
    result_message: str | None = None
    result: dict[str, Any] | None = None
    resource: dict[str, Any] | None = Field(
        default=None, description="The Work resource, where one Work is asked for."
    )


class WorkPage(Answer):
    """``GET /work``, newest first."""

    items: list[WorkBody]
    next_cursor: str | None = None


# -- claiming and executing ------------------------------------------------------------


class PendingWork(Answer):
    """One line of ``GET /agents/{id}/work/pending``."""

    id: UUID
    work_type: str
    priority: int
    created_at: datetime


class PendingPage(Answer):
    """``GET /agents/{id}/work/pending``: highest priority first, then oldest."""

    items: list[PendingWork]


class ClaimOne(Request):
    """``POST /work/{id}/claim``; the same ``request_id`` gets the same answer again."""

    request_id: UUID | None = None


class ClaimSome(Request):
    """``POST /agents/{id}/work/claim``."""

    max: Annotated[int, Field(ge=1, le=100)] = 1
    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS)] = Field(
        default=0, description="Seconds to wait for work if there is none."
    )
    types: Annotated[list[str], Field(max_length=50)] | None = None
    request_id: UUID | None = None


class ClaimBody(Answer):
    """A claim, and all that its holder needs."""

    id: UUID
    claim_id: UUID
    round: int
    work_type: str
    broker: str = Field(description="The id of the broker's database.")
    lease_seconds: float
    cancel_requested: bool = False
    resource: dict[str, Any]


class Claims(Answer):
    """``POST /agents/{id}/work/claim``."""

    claims: list[ClaimBody]


class ReportProgress(Request):
    """``POST /work/{id}/progress``."""

    claim_id: UUID
    phase: Annotated[str, Field(max_length=20)]
    attempt: Annotated[int, Field(ge=1, le=1000)]
    retries: Annotated[int, Field(ge=0, le=1000)] = 0
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = ""
    retry_at: datetime | None = None


class CompleteWork(Request):
    """``POST /work/{id}/complete``; give ``success`` or ``outcome``."""

    claim_id: UUID
    success: bool | None = None
    outcome: Literal["succeeded", "failed", "cancelled"] | None = None
    retries: Annotated[int, Field(ge=0, le=1000)] = 0
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = ""
    result: dict[str, Any] = {}
    retryable: bool = False

    @model_validator(mode="after")
    def _says_how_it_ended(self) -> Self:
        if self.success is None and self.outcome is None:
            raise ValueError("give success (true or false) or outcome")
        if None not in (self.success, self.outcome) and self.success != (
            self.outcome == "succeeded"
        ):
            raise ValueError(f"success {self.success} and outcome {self.outcome!r} disagree")
        return self

    @property
    def ended_as(self) -> str:
        """Return the outcome, however it was given."""
        return self.outcome or ("succeeded" if self.success else "failed")


# -- agents ----------------------------------------------------------------------------


class RegisterAgent(Request):
    """``POST /agents``."""

    name: str
    cluster_name: Annotated[str, Field(max_length=253)] = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class RelabelAgent(Request):
    """``PATCH /agents/{id}``: keys given are set, keys with null are removed."""

    labels: dict[str, str | None] = {}
    annotations: dict[str, str | None] = {}


class AgentBody(Answer):
    """One agent."""

    id: UUID
    name: str
    cluster_name: str
    labels: dict[str, str]
    annotations: dict[str, str]
    created_at: datetime
    last_seen_at: datetime | None = None
    claimed: int = Field(default=0, description="How many Works it holds.")


class RegisteredAgent(AgentBody):
    """The only answer that ever carries an agent's key."""

    key: str


class AgentPage(Answer):
    """``GET /agents``, by name."""

    items: list[AgentBody]
    next_cursor: str | None = None


class Heartbeat(Request):
    """``POST /agents/{id}/heartbeat``: renews exactly the claims that are listed.

    Attributes:
        incarnation: A new random id for each process.  The one that the broker heard of
            last is the agent; an older one is told ``agent_superseded``.
    """

    incarnation: UUID
    claims: Annotated[list[UUID], Field(max_length=10_000)] = []


class RenewedLease(Answer):
    """One claim that is still held, for so much longer."""

    work_id: UUID
    claim_id: UUID
    round: int
    lease_seconds: float
    cancel_requested: bool = False


class HeartbeatAnswer(Answer):
    """What the broker knows of the claims that were listed, and of those that were not.

    Attributes:
        lost: Listed claims that are over; stop their execution.
        held: All claims of this agent, in the first answer to an incarnation only:
            a process that died before it wrote the Work resource finds its claim here.
    """

    broker: str
    renewed: list[RenewedLease]
    lost: list[UUID]
    held: list[ClaimBody] | None = None

"""
Request and response bodies of ``/api/v1``.

Requests refuse unknown fields, so that a misspelt one is an error and not a default.
Answers are read leniently, so that an agent understands a newer broker.

Of a list with many wrong items the first is named (``fail_fast``): a complaint about each
would cost more than the body.
"""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    model_validator,
)
from pydantic_core import PydanticCustomError

from brokkr.work.redaction import redact, redact_all
from brokkr.work.selectors import MatchExpression, Operator, Target

MAX_RESULT_BYTES = 64 * 1024
MAX_MESSAGE = 4096
MAX_REASON = 500
MAX_STEP = 100
MAX_RETRIES_TOLD = 1000
MAX_WAIT_SECONDS = 60
MAX_BATCH = 100

UNWORKABLE: Final = "unworkable"
"""The feature of a broker that understands :attr:`Heartbeat.unworkable`."""
UNABLE_PREFIX: Final = "unable: "
"""How the reason of a release begins if the agent cannot work, whatever the Work is."""

Words = Annotated[
    str,
    Field(max_length=MAX_MESSAGE),
    AfterValidator(lambda text: redact(text)[:MAX_MESSAGE]),
]
"""What somebody says of a Work; it is kept, and shown to others, so without credentials."""

WorkType = Annotated[str, Field(max_length=50)]
Reason = Annotated[
    str,
    Field(max_length=MAX_REASON),
    AfterValidator(lambda text: redact(text)[:MAX_REASON]),
]
Step = Annotated[
    str,
    Field(max_length=MAX_STEP),
    AfterValidator(lambda text: redact(text)[:MAX_STEP]),
]


def _number(value: Any) -> Any:
    """Refuse what is no number in JSON or YAML, though it could be read as one."""
    if isinstance(value, bool | str | bytes):
        kind = "a string: leave out the quotes" if isinstance(value, str) else "true or false"
        raise PydanticCustomError("number_type", "must be a number, and is {kind}", {"kind": kind})
    return value


def _time(value: Any) -> Any:
    if isinstance(value, int | float):
        raise PydanticCustomError("time_type", "must be a time such as 2030-01-31T12:00:00Z")
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
Truth = Annotated[bool, Strict()]

Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_time),
    Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC)),
]
"""A time that somebody may mean; the ends of the calendar do not survive a time zone."""


def _check_result(result: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(result)) > MAX_RESULT_BYTES:
        raise ValueError(f"is larger than {MAX_RESULT_BYTES} bytes")
    return result


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
    values: Annotated[list[Text63], Field(max_length=100, fail_fast=True)] = []

    @model_validator(mode="after")
    def _values_fit_the_operator(self) -> Self:
        wants = self.operator in (Operator.IN, Operator.NOT_IN)
        if wants != bool(self.values):
            must = "needs at least one value" if wants else "takes no values"
            raise ValueError(f"operator {self.operator} {must}")
        return self


class TargetBody(Request):
    """Which agents may claim a Work; all that is given must hold."""

    agents: Annotated[list[Text63], Field(max_length=1000, fail_fast=True)] = []
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


Targets = Annotated[list[TargetBody], Field(min_length=1, max_length=100, fail_fast=True)]


class SubmitWork(Request):
    """``POST /work``."""

    work_type: Annotated[str, Field(min_length=1, max_length=50)] = Field(
        description="`build`, or one that the broker's `[broker.work_types]` names."
    )
    template: dict[str, Any] | Annotated[list[dict[str, Any]], Field(max_length=20)] | str = Field(
        description="An object, a list of objects, or YAML text (several documents too)."
    )
    target: TargetBody | Targets
    max_retries: Annotated[Whole, Field(ge=0, le=20)] = 3
    claim_timeout_seconds: Annotated[Whole, Field(ge=1, le=7 * 86400)] = 3600
    max_handoffs: Annotated[Whole, Field(ge=0, le=20)] = Field(
        default=0, description="How often another agent may try after a retryable failure."
    )
    priority: Annotated[Whole, Field(ge=-100, le=100)] = Field(
        default=0, description="Higher goes first; of the same priority the oldest does."
    )
    not_before: Moment | None = Field(default=None, description="Not to be claimed earlier.")
    start_within_seconds: Annotated[Whole, Field(ge=1, le=365 * 86400)] | None = Field(
        default=None,
        description="If nobody claims it for so long, counted from when it may start, "
        "it ends as expired.",
    )
    labels: Annotated[dict[LabelKey, Text63], Field(max_length=64)] = Field(
        default={}, description="To find it by; Kubernetes' syntax of labels."
    )
    idempotency_key: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        default=None,
        description="The same key gets the same Work again; also as header Idempotency-Key.",
    )

    @property
    def targets(self) -> list[TargetBody]:
        """Return the alternatives, of which one must hold."""
        return self.target if isinstance(self.target, list) else [self.target]


class SubmitBatch(Request):
    """``POST /work/batch``: each item is what ``POST /work`` takes."""

    items: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_BATCH)]


# -- what is known of a Work -----------------------------------------------------------


class Progress(Answer):
    """What the agent last said of a Work that it holds."""

    phase: str
    attempt: int
    retries: int
    infrastructure_retries: int = Field(
        default=0,
        description="How many attempts of the Work the cluster or a node was to blame for, and "
        "were repeated.",
    )
    step: str | None = Field(default=None, description="What the attempt is doing now.")
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
    max_handoffs: int = 0
    handoffs: int = Field(default=0, description="How often another agent has taken over.")
    not_before: datetime | None = None
    start_deadline: datetime | None = None
    requeued_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    labels: dict[str, str] = {}
    generator: str | None = Field(default=None, description="Who submitted it, if no admin.")
    generator_id: UUID | None = None
    traceparent: str | None = Field(
        default=None, description="The span that it was submitted in, if that was traced."
    )
    target: list[dict[str, Any]] = []
    eligible_agents: int | None = Field(
        default=None, description="How many agents the target selects now."
    )
    progress: Progress | None = None
    success: bool | None = None
    retries_attempted: int | None = None
    result_message: str | None = None
    result: dict[str, Any] | None = None
    queue_seconds: float | None = Field(
        default=None, description="From its submission to its last claim, or to its end."
    )
    run_seconds: float | None = Field(default=None, description="From that claim to its end.")
    resource: dict[str, Any] | None = Field(
        default=None, description="The Work resource, where one Work is asked for."
    )


class WorkPage(Answer):
    """``GET /work``, newest first."""

    items: list[WorkBody]
    next_cursor: str | None = None


class BatchItem(Answer):
    """What became of one item of a batch: a Work, or a problem document."""

    status: int = Field(description="The HTTP status that the item alone would have got.")
    work: WorkBody | None = None
    problem: dict[str, Any] | None = None


class BatchAnswer(Answer):
    """One answer for each item of a batch, in the order of the items."""

    items: list[BatchItem]


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

    max: Annotated[Whole, Field(ge=1, le=100)] = 1
    wait: Annotated[Number, Field(ge=0, le=MAX_WAIT_SECONDS)] = Field(
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


class ReleaseWork(Request):
    """``POST /work/{id}/release``; an agent sends the claim, an admin need not."""

    claim_id: UUID | None = None
    reason: Words = ""
    delay_seconds: Annotated[Number, Field(ge=0, le=86400)] = Field(
        default=0, description="Until it may be claimed again."
    )


class RequeueWork(Request):
    """``POST /work/{id}/requeue``."""

    reason: Words = ""


class ReportProgress(Request):
    """``POST /work/{id}/progress``."""

    claim_id: UUID
    phase: Annotated[str, Field(max_length=20)]
    attempt: Annotated[Whole, Field(ge=1, le=MAX_RETRIES_TOLD)]
    retries: Annotated[Whole, Field(ge=0, le=MAX_RETRIES_TOLD)] = 0
    infrastructure_retries: Annotated[Whole, Field(ge=0, le=MAX_RETRIES_TOLD)] | None = Field(
        default=None,
        description="How many attempts of the Work, of all its claims, the cluster or a node was "
        "to blame for, and were repeated. Only for brokers that announce "
        "`infrastructure_retries`.",
    )
    step: Step | None = Field(
        default=None, description="What the attempt is doing now, as a name: `build`."
    )
    message: Words = ""
    retry_at: Moment | None = None


class CompleteWork(Request):
    """``POST /work/{id}/complete``; give ``success`` or ``outcome``."""

    claim_id: UUID
    success: Truth | None = None
    outcome: Literal["succeeded", "failed", "cancelled"] | None = None
    retries: Annotated[Whole, Field(ge=0, le=MAX_RETRIES_TOLD)] = 0
    message: Words = ""
    result: Annotated[
        dict[str, Any], AfterValidator(_check_result), AfterValidator(redact_all)
    ] = {}
    retryable: Truth = False

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


class CompleteOne(CompleteWork):
    """One item of ``POST /agents/{id}/work/complete``."""

    work_id: UUID


class CompleteBatch(Request):
    """``POST /agents/{id}/work/complete``: what ``POST /work/{id}/complete`` takes, often."""

    items: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_BATCH)]


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


class Capacity(Answer):
    """How much an agent executes at once, and how much more it would take now."""

    max_concurrent: Annotated[Whole, Field(ge=0, le=100_000)]
    free: Annotated[Whole, Field(ge=0, le=100_000)]


class Unable(Answer):
    """Why an agent can execute nothing at all.

    Attributes:
        reason: One word: ``unreachable``, ``unauthorized``, ``forbidden``, and so on.
        cause: The same in a sentence.
    """

    reason: Annotated[str, Field(max_length=50)]
    cause: Reason
    seconds: Annotated[Number, Field(ge=0, allow_inf_nan=False)] = Field(
        description="For how long, as of the agent's last heartbeat."
    )


class Capabilities(Answer):
    """What an agent can execute."""

    types: Annotated[list[WorkType], Field(max_length=50)] = Field(
        description="What it can execute now."
    )
    unavailable: Annotated[dict[WorkType, Reason], Field(max_length=50)] = Field(
        default={},
        description="By type, why it cannot execute now what it could otherwise; "
        "it is offered none of that.",
    )
    unable: Unable | None = Field(
        default=None,
        description="Why it cannot work in its cluster at all; null if it can. "
        "All its types are unavailable then.",
    )
    strategies: Annotated[
        list[Annotated[str, Field(max_length=320)]], Field(max_length=200, fail_fast=True)
    ] = Field(
        default=[],
        description="The build strategies that its cluster has, for people: `buildah (cluster)`.",
    )
    version: Annotated[str, Field(max_length=50)] = ""


class AgentBody(Answer):
    """One agent."""

    id: UUID
    name: str
    cluster_name: str
    labels: dict[str, str]
    annotations: dict[str, str]
    created_at: datetime
    last_seen_at: datetime | None = None
    drained_at: datetime | None = Field(
        default=None, description="Since when it is offered nothing."
    )
    capacity: Capacity | None = None
    capabilities: Capabilities | None = None
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
        unworkable: Claims that the agent cannot work on, by id, each with the reason.  The
            Work is given back without counting as lost.  Until another agent has claimed
            it, the agent revives its claim by listing it in ``claims`` again.  Only for
            brokers with the feature ``unworkable``.
    """

    incarnation: UUID
    claims: Annotated[list[UUID], Field(max_length=10_000, fail_fast=True)] = []
    unworkable: Annotated[dict[UUID, Reason], Field(max_length=1000)] = {}
    capacity: Capacity | None = None
    capabilities: Capabilities | None = None


class RenewedLease(Answer):
    """One claim that is still held, for so much longer."""

    work_id: UUID
    claim_id: UUID
    round: int
    lease_seconds: float
    cancel_requested: bool = False


INFRASTRUCTURE_RETRIES: Final = "infrastructure_retries"
"""A feature: progress may say how many infrastructure retries a Work has spent."""

PROBLEM_BROKER: Final = "problem_broker"
"""A feature: all problem documents of this broker say whose they are, as ``broker``."""


class HeartbeatAnswer(Answer):
    """What the broker knows of the claims that were listed, and of those that were not.

    Attributes:
        features: What this broker understands that earlier ones do not, as words.  An
            agent uses a new field or rule only after the last answer
            announced it, so that it can talk to a broker of the version before.
        lost: Listed claims that are over; stop their execution.
        held: All claims of this agent, in the first answer to an incarnation only:
            a process that died before it wrote the Work resource finds its claim here.
    """

    broker: str
    renewed: list[RenewedLease]
    lost: list[UUID]
    held: list[ClaimBody] | None = None
    features: list[str] = []

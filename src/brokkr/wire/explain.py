"""Why a Work is where it is, as ``GET /work/{id}/explain`` says it."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from brokkr.wire.bodies import WorkBody
from brokkr.work.explain import Rule


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Counted(_Answer):
    """A number of Works; counting stops somewhere, for nobody reads on."""

    count: int
    is_exact: bool = Field(description="If not, there are at least so many.")


class UnmetTermBody(_Answer):
    """One thing that a target asks for and an agent is not."""

    target: int = Field(description="Of the alternatives the one that is nearest, from 0.")
    term: str = Field(
        description="agents, match_labels.KEY, match_expressions.KEY or match_annotations.KEY."
    )
    wanted: str
    actual: str | None = Field(
        description="What the agent has there; null if nothing, and for a generator."
    )


class AgentStanding(_Answer):
    """How one agent stands to a pending Work."""

    id: UUID
    name: str
    rule: Rule = Field(description="The first that keeps it from claiming; or may_claim.")
    sentence: str
    unmet: list[UnmetTermBody] = []
    ahead: Counted | None = Field(
        default=None,
        description="Of the first few that may claim: how much they would claim before.",
    )


class Waiting(_Answer):
    """What a pending Work waits for."""

    not_due_until: datetime | None = Field(
        default=None, description="Nobody may claim it before; null if it is time."
    )
    not_due_because: Literal["delay", "backoff"] | None = Field(
        default=None,
        description="delay: it was submitted so; backoff: it was handed on or given back.",
    )
    start_deadline: datetime | None = Field(
        default=None, description="If nobody has claimed it by then, it expires."
    )
    ahead: Counted = Field(description="Works of the same type and target that go first.")
    counts: dict[Rule, int] = Field(
        description="How many agents stand how; for a generator, of those that its target selects."
    )
    unmet: list[UnmetTermBody] = Field(
        default=[], description="If the target selects no agent: what the nearest one is not."
    )
    agents: list[AgentStanding] = Field(
        description="The first few of them, those nearest to claiming first; for a generator, "
        "of those that its target selects."
    )


class Explanation(_Answer):
    """``GET /work/{id}/explain``.

    Attributes:
        work: As ``GET /work/{id}`` shows it, without its resource.
    """

    work: WorkBody
    summary: str = Field(description="All of this in one sentence, for people.")
    could_ever: bool | None = Field(
        default=None,
        description="Of pending Work: whether any agent matches it and supports its type, "
        "if perhaps not now.",
    )
    waiting: Waiting | None = None

"""Bodies of ``/api/v1`` about generators and keys: who may call, and how much."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from brokkr.wire.bodies import Answer, Request, Whole

MaxPending = Annotated[Whole, Field(ge=0, le=1_000_000)]
MaxPerMinute = Annotated[Whole, Field(ge=1, le=1_000_000)]


class CreateGenerator(Request):
    """``POST /generators``; a limit that is null does not exist."""

    name: str
    max_pending: MaxPending | None = Field(
        default=None, description="How many of its Works may be pending at once; 0 stops it."
    )
    max_submissions_per_minute: MaxPerMinute | None = Field(
        default=None, description="How many it may submit; as many at once, if it paused before."
    )


class LimitGenerator(Request):
    """``PATCH /generators/{id}``: limits given are set, those given as null are removed."""

    max_pending: MaxPending | None = None
    max_submissions_per_minute: MaxPerMinute | None = None


class GeneratorBody(Answer):
    """One generator: a tenant, who submits Work and sees its own."""

    id: UUID
    name: str
    created_at: datetime
    max_pending: int | None = None
    max_submissions_per_minute: int | None = None
    pending: int = Field(
        default=0,
        description="How many of its Works are pending now; no more than 100,000 are counted.",
    )


class CreatedGenerator(GeneratorBody):
    """The only answer that ever carries a generator's key."""

    key: str


class GeneratorPage(Answer):
    """``GET /generators``, by name."""

    items: list[GeneratorBody]
    next_cursor: str | None = None


class CreateKey(Request):
    """``POST /keys``: agents and generators get theirs when they are made."""

    role: Literal["admin", "viewer"]
    name: Annotated[str, Field(min_length=1, max_length=63)] = Field(
        description="What it is for, or who has it."
    )


class KeyBody(Answer):
    """What is known of a key; its secret is not."""

    short_id: str = Field(description="The key's own name: the ten characters after its kind.")
    role: str
    name: str = Field(description="Whose it is: an agent's, a generator's, or the one given.")
    created_at: datetime
    last_used_at: datetime | None = Field(
        default=None, description="To a few minutes; null if it was never used."
    )
    revoked_at: datetime | None = None


class CreatedKey(KeyBody):
    """The only answer that ever carries the key itself."""

    key: str


class KeyPage(Answer):
    """``GET /keys``, newest first, with those that are revoked."""

    items: list[KeyBody]
    next_cursor: str | None = None

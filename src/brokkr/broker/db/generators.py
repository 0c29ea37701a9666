"""
Generators: tenants who submit Work, and how much each may.

Limits are looked at in the transaction of the submission, under the lock of the
generator's row: nothing is counted that could be wrong after a crash.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from brokkr.broker.db.keys import Role, issue_key, revoke_generator_keys
from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_all, fetch_one, fetch_value
from brokkr.wire.tenants import CreatedGenerator, CreateGenerator, GeneratorBody, LimitGenerator
from brokkr.work.errors import GeneratorNameTaken, GeneratorNotFound, LimitReached

_PENDING_RETRY_SECONDS = 10
"""When a generator is told to try again whose Work does not get claimed: nobody knows."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """What a generator may still submit in this transaction; a limit that is None is none.

    Attributes:
        pending: How many more of its Works may be pending.
        tokens: How many it may submit now; fractions are on their way.
        tokens_at: When that was.
    """

    name: str = ""
    max_pending: int | None = None
    per_minute: int | None = None
    pending: int = 0
    tokens: float = 0
    tokens_at: datetime | None = None

    def problem(self) -> LimitReached | None:
        """Say which limit is in the way of one more Work; None if there is room."""
        if self.max_pending is not None and self.pending < 1:
            return LimitReached(
                f"generator {self.name!r} may have {self.max_pending} pending at once, and has",
                retry_after=_PENDING_RETRY_SECONDS,
            )
        if self.per_minute is not None and self.tokens < 1:
            return LimitReached(
                f"generator {self.name!r} may submit {self.per_minute} in a minute, and did",
                retry_after=(1 - self.tokens) * 60 / self.per_minute,
            )
        return None

    def spend(self) -> None:
        """Count one Work."""
        self.pending -= 1
        self.tokens -= 1


async def create_generator(db: Connection, body: CreateGenerator) -> CreatedGenerator:
    """
    Store a new generator and make its key.

    Raises:
        GeneratorNameTaken: A living generator has the name.
    """
    generator_id: UUID | None = await fetch_value(
        db,
        "insert_generator",
        id=uuid4(),
        name=body.name,
        max_pending=body.max_pending,
        max_submissions_per_minute=body.max_submissions_per_minute,
    )
    if generator_id is None:
        raise GeneratorNameTaken(body.name)
    return await _with_new_key(db, generator_id)


async def get_generator(db: Connection, ref: str) -> GeneratorBody:
    """
    Return a living generator by id or name.

    Raises:
        GeneratorNotFound: There is none.
    """
    row = await fetch_one(db, "find_generator", id=_uuid_or_none(ref), name=ref)
    if row is None:
        raise GeneratorNotFound(ref)
    return GeneratorBody.model_validate(dict(row))


async def list_generators(db: Connection, *, after: str | None, limit: int) -> list[GeneratorBody]:
    """List living generators by name, from behind ``after`` on."""
    rows = await fetch_all(db, "list_generators", after=after, limit=limit)
    return [GeneratorBody.model_validate(dict(row)) for row in rows]


async def limit_generator(db: Connection, ref: str, body: LimitGenerator) -> GeneratorBody:
    """
    Set and remove limits of a generator; they hold from its next submission on.

    Raises:
        GeneratorNotFound: There is none.
    """
    limits = {**await _lock(db, ref), **body.model_dump(exclude_unset=True)}
    await fetch_value(
        db,
        "update_generator",
        id=limits["id"],
        max_pending=limits["max_pending"],
        max_submissions_per_minute=limits["max_submissions_per_minute"],
    )
    return await get_generator(db, str(limits["id"]))


async def delete_generator(db: Connection, ref: str) -> None:
    """
    Delete a generator softly: keys revoked, name free; its Work goes on, history stays.

    Raises:
        GeneratorNotFound: There is none.
    """
    generator_id = (await _lock(db, ref))["id"]
    await revoke_generator_keys(db, generator_id)
    await fetch_value(db, "delete_generator", id=generator_id)


async def rotate_generator_key(db: Connection, ref: str) -> CreatedGenerator:
    """
    Revoke a generator's key and make another.

    Raises:
        GeneratorNotFound: There is none.
    """
    generator_id = (await _lock(db, ref))["id"]
    await revoke_generator_keys(db, generator_id)
    return await _with_new_key(db, generator_id)


async def lock_budget(db: Connection, generator_id: UUID | None) -> Budget:
    """Return what may be submitted; nobody else submits for this generator meanwhile."""
    if generator_id is None:
        return Budget()
    row = await fetch_one(db, "lock_generator_limits", id=generator_id)
    if row is None:
        return Budget()
    budget = Budget(
        name=row["name"],
        max_pending=row["max_pending"],
        per_minute=row["max_submissions_per_minute"],
        tokens=row["tokens"] or 0,
        tokens_at=row["tokens_at"],
    )
    if budget.max_pending is not None:
        pending = await fetch_value(
            db, "count_pending_work", generator_id=generator_id, enough=budget.max_pending
        )
        budget.pending = budget.max_pending - pending
    return budget


async def keep_budget(db: Connection, generator_id: UUID | None, budget: Budget) -> None:
    """Store what is left of it; the rest is counted anew the next time."""
    if budget.per_minute is not None:
        await fetch_value(
            db,
            "set_generator_tokens",
            id=generator_id,
            tokens=budget.tokens,
            tokens_at=budget.tokens_at,
        )


async def _lock(db: Connection, ref: str) -> Mapping[str, Any]:
    row = await fetch_one(db, "lock_generator", id=_uuid_or_none(ref), name=ref)
    if row is None:
        raise GeneratorNotFound(ref)
    return dict(row)


async def _with_new_key(db: Connection, generator_id: UUID) -> CreatedGenerator:
    key = await issue_key(db, Role.GENERATOR, generator_id=generator_id)
    generator = await get_generator(db, str(generator_id))
    return CreatedGenerator(**generator.model_dump(), key=key.key)


def _uuid_or_none(ref: str) -> UUID | None:
    try:
        return UUID(ref)
    except ValueError:
        return None

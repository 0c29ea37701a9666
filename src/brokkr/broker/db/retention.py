"""
Forgetting what is old enough: each function deletes one batch, the oldest first.

The caller owns the transaction, and goes on until a batch is not full.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_all, fetch_one, fetch_value

OUTCOMES: Final = ("succeeded", "failed", "cancelled", "expired", "quarantined")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one batch has come to.

    Attributes:
        pruned: How much is gone.
        is_last: Whether nothing is left that is old enough.
    """

    pruned: int
    is_last: bool


async def lock_retention(db: Connection) -> bool:
    """Take the turn to prune, until the transaction ends, if it is free."""
    return bool(await fetch_value(db, "lock_retention"))


async def prune_log(db: Connection, outcome: str, *, age: timedelta, limit: int) -> Batch:
    """Delete Works that ended so long ago, with their events, claims and labels."""
    count = await fetch_value(db, "prune_log", outcome=outcome, age=age, limit=limit)
    return Batch(pruned=count, is_last=count < limit)


async def prune_payloads(db: Connection, outcome: str, *, age: timedelta, limit: int) -> Batch:
    """Forget the templates of Works that ended so long ago."""
    row = await fetch_one(db, "prune_payloads", outcome=outcome, age=age, limit=limit)
    assert row is not None
    return Batch(pruned=row["pruned"], is_last=row["seen"] < limit)


async def prune_events(db: Connection, outcome: str, *, age: timedelta, limit: int) -> Batch:
    """Delete the events of Works that ended so long ago."""
    row = await fetch_one(db, "prune_events", outcome=outcome, age=age, limit=limit)
    assert row is not None
    return Batch(pruned=row["pruned"], is_last=row["seen"] < limit)


async def prune_idempotency_keys(db: Connection, *, limit: int) -> Batch:
    """Delete idempotency keys that have expired."""
    count = await fetch_value(db, "prune_idempotency_keys", limit=limit)
    return Batch(pruned=count, is_last=count < limit)


async def prune_incarnations(db: Connection, *, age: timedelta, limit: int) -> Batch:
    """Forget processes of agents that were first seen so long ago, and are superseded."""
    count = await fetch_value(db, "prune_incarnations", age=age, limit=limit)
    return Batch(pruned=count, is_last=count < limit)


async def prune_selectors(
    db: Connection, *, after: int, age: timedelta, limit: int
) -> tuple[Batch, int]:
    """
    Delete selectors that were made so long ago and that nothing refers to.

    Returns:
        What the batch has come to, and the id of the selector behind which to go on.
    """
    # Shared, as for a new selector: who relabels an agent puts it into those that it has read.
    await fetch_value(db, "lock_selectors_shared")
    rows = await fetch_all(db, "list_old_selectors", after=after, age=age, limit=limit)
    unused = [row["id"] for row in rows if row["is_unused"]]
    locked = [row["id"] for row in await fetch_all(db, "lock_selector_rows", ids=unused)]
    # A statement of its own: only what begins after the lock sees all that came before it.
    pruned = await fetch_value(db, "prune_selectors", ids=locked)
    return Batch(pruned=pruned, is_last=len(rows) < limit), rows[-1]["id"] if rows else after

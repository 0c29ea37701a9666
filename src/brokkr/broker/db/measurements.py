"""
What is measured in the database, because no single broker could count it.

Counting a million pending Works takes a while: callers ask now and then, not always.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_all, fetch_value

HOT_TABLES: Final = ("work_queue", "work_claims", "work_events", "agents", "agent_selectors")
"""Those that are written to all the time, and grow if they are not cleaned up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """How much of one kind is queued; an admin's Work has no ``generator``."""

    work_type: str
    generator: str
    status: str
    works: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSize:
    """How many rows of a table are live, and how many are dead."""

    name: str
    live: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The state of the queue and its tables at one time.

    Attributes:
        longest_wait: Of what could be claimed; zero if there is nothing.
        oldest_transaction: How long it has been open.
    """

    queued: list[Queued]
    longest_wait: timedelta
    tables: list[TableSize]
    oldest_transaction: timedelta


async def measure(db: Connection) -> Measured:
    """Measure all of it."""
    wait = await fetch_value(db, "find_longest_wait")
    oldest = await fetch_value(db, "find_oldest_transaction")
    tables = await fetch_all(db, "list_table_sizes", tables=HOT_TABLES)
    return Measured(
        queued=[Queued(**row) for row in await fetch_all(db, "count_queue")],
        longest_wait=timedelta(seconds=wait or 0),
        tables=[TableSize(**row) for row in tables],
        oldest_transaction=timedelta(seconds=oldest),
    )

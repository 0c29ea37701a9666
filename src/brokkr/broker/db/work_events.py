"""
What happened to Works, as the statements that did it have written it down.

Only read here: an event is written by the statement that makes the change.  The caller owns
the transaction.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_all
from brokkr.wire.events import WorkEvent

Place: TypeAlias = tuple[UUID, int]
"""A Work, and the number of the last event that somebody has of it."""


@dataclass(slots=True)
class News:
    """The next events of one Work.

    Attributes:
        is_over: Whether nothing comes after these: the Work is finished.
    """

    events: list[WorkEvent] = field(default_factory=list)
    is_over: bool = False


async def list_news(db: Connection, places: Collection[Place], *, limit: int) -> dict[Place, News]:
    """Return the next ``limit`` events of each place, where there is anything to say."""
    distinct = set(places)
    rows = await fetch_all(
        db,
        "list_news",
        work_ids=[work_id for work_id, _ in distinct],
        afters=[after for _, after in distinct],
        limit=limit,
    )
    found: dict[Place, News] = {}
    for row in rows:
        news = found.setdefault((row["work_id"], row["after"]), News())
        if row["number"] is not None:
            news.events.append(WorkEvent.model_validate(dict(row)))
        news.is_over = not row["is_queued"] and len(news.events) < limit
    return found

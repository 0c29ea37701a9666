"""
Reading Work: queued and finished together, because who asks does not know where it is.

Rows become the bodies of :mod:`brokkr.wire.bodies` here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_all, fetch_one
from brokkr.broker.db.submissions import first_work_id_at
from brokkr.wire.bodies import WorkBody, WorkState
from brokkr.work.errors import WorkNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFilter:
    """Which Work to list; what is None does not matter."""

    type: str | None = None
    states: Sequence[WorkState] | None = None
    agent_id: UUID | None = None
    since: datetime | None = None


async def get_work(db: Connection, work_id: UUID) -> WorkBody:
    """
    Return a Work with its resource, wherever it is.

    Raises:
        WorkNotFound: There is none.
    """
    row = await fetch_one(db, "get_work", work_id=work_id)
    if row is None:
        raise WorkNotFound(work_id)
    return WorkBody.model_validate(
        {**row, "resource": row["crd_spec"] and json.loads(row["crd_spec"])}
    )


async def list_work(
    db: Connection, wanted: WorkFilter, *, before: UUID | None = None, limit: int
) -> list[WorkBody]:
    """List Work, newest first, from behind ``before`` on."""
    rows = await fetch_all(
        db,
        "list_work",
        type=wanted.type,
        states=wanted.states,
        agent_id=wanted.agent_id,
        since=wanted.since,
        since_id=wanted.since and first_work_id_at(wanted.since),
        before_id=before,
        limit=limit,
    )
    return [WorkBody.model_validate(dict(row)) for row in rows]

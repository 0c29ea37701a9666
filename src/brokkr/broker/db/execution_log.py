"""
Reading Work: queued and finished together, because who asks does not know where it is.

Rows become the bodies of :mod:`brokkr.wire.bodies` here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_all, fetch_value
from brokkr.broker.db.work_ids import first_work_id_at
from brokkr.wire.bodies import WorkBody, WorkState
from brokkr.work.errors import InvalidInput, WorkNotFound

_LONGEST_SEARCH: Final = "5s"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFilter:
    """Which Work to list: all that is given must hold, and what is None does not matter.

    Attributes:
        agent_id: The agent that holds it or has finished it.
        labels: Its own, not those of its target.
    """

    type: str | None = None
    states: Collection[WorkState] | None = None
    agent_id: UUID | None = None
    generator_id: UUID | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None


async def get_work(db: Connection, work_id: UUID) -> WorkBody:
    """
    Return a Work with its resource, wherever it is.

    Raises:
        WorkNotFound: There is none.
    """
    works = await get_works(db, [work_id])
    if not works:
        raise WorkNotFound(work_id)
    return works[work_id]


async def get_works(db: Connection, work_ids: Collection[UUID]) -> dict[UUID, WorkBody]:
    """Return Works with their resources, wherever they are; those that there are."""
    return {
        row["id"]: WorkBody.model_validate(
            {**row, "resource": row["crd_spec"] and orjson.loads(row["crd_spec"])}
        )
        for row in await fetch_all(db, "get_work", work_ids=work_ids)
    }


async def list_work(
    db: Connection, wanted: WorkFilter, *, before: UUID | None = None, limit: int
) -> list[WorkBody]:
    """
    List Work, newest first, from behind ``before`` on.

    Raises:
        InvalidInput: Too much would have to be read to find so much.
    """
    await fetch_value(db, "limit_search", timeout=_LONGEST_SEARCH)
    since_id = wanted.since and first_work_id_at(wanted.since)
    # Until all labels have been copied, those of everybody lead, whoever asks.
    owner = wanted.generator_id
    if owner and wanted.labels and not await fetch_value(db, "find_label_copy"):
        owner = None
    label = await _rarest(db, wanted.labels, generator_id=owner)
    states = set(WorkState if wanted.states is None else wanted.states)
    outcomes = [each.lower() for each in states if each.is_finished]
    try:
        if label is not None and wanted.states is None and owner is not None:
            rows = await fetch_all(
                db,
                "list_own_labelled_work",
                label=label,
                labels=wanted.labels,
                type=wanted.type,
                agent_id=wanted.agent_id,
                generator_id=owner,
                since=wanted.since,
                since_id=since_id,
                before_id=before,
                limit=limit,
            )
        elif label is not None and wanted.states is None:
            rows = await fetch_all(
                db,
                "list_labelled_work",
                label=label,
                labels=wanted.labels,
                type=wanted.type,
                agent_id=wanted.agent_id,
                generator_id=wanted.generator_id,
                since=wanted.since,
                since_id=since_id,
                before_id=before,
                limit=limit,
            )
        else:
            rows = await fetch_all(
                db,
                "list_work",
                pending=WorkState.PENDING in states and wanted.agent_id is None,
                claimed=WorkState.CLAIMED in states,
                finished=bool(outcomes),
                outcome=outcomes[0] if len(outcomes) == 1 else None,
                outcomes=outcomes if len(outcomes) > 1 else None,
                label=label if owner is None else None,
                own_label=None if owner is None else label,
                labels=wanted.labels or None,
                type=wanted.type,
                agent_id=wanted.agent_id,
                generator_id=wanted.generator_id,
                since=wanted.since,
                since_id=since_id,
                before_id=before,
                limit=limit,
            )
    except asyncpg.QueryCanceledError as error:
        raise InvalidInput(
            "", "too much Work would have to be looked through; ask for less, as with `since`"
        ) from error
    return [WorkBody.model_validate(dict(row)) for row in rows]


async def copy_labels(db: Connection, *, limit: int) -> bool:
    """Copy the next few labels of generators' Works; say whether there are no more."""
    return bool(await fetch_value(db, "copy_labels", limit=limit))


async def _rarest(
    db: Connection, labels: Mapping[str, str], *, generator_id: UUID | None
) -> str | None:
    pairs = [f"{key}={value}" for key, value in labels.items()]
    if len(pairs) < 2:
        return pairs[0] if pairs else None
    rarest: str = (
        await fetch_value(db, "find_rarest_label", labels=pairs)
        if generator_id is None
        else await fetch_value(db, "find_rarest_own_label", labels=pairs, generator_id=generator_id)
    )
    return rarest

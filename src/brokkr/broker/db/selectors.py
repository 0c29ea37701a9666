"""
Distinct targets, and which agents each selects now.

A selector is a lane of the queue: a target, for one type of work.  A target is evaluated
when it is first seen, over all agents; an agent is evaluated when it is registered,
relabelled or deleted, over all targets.  The two must not happen at once: see
``queries/lock_selectors.sql``.  Work that agents have tried and handed on waits in a
narrower lane, without them: see ``queries/refresh_narrower_selectors.sql``.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_all, fetch_value
from brokkr.wire.bodies import TargetBody
from brokkr.work.selectors import Selectable, Target, selects


async def selector_of(db: Connection, work_type: str, targets: Sequence[TargetBody]) -> int:
    """Return the id of the selector for Work of this type and target; store it if it is new."""
    canonical = canonical_targets(targets)
    digest = hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).digest()
    selector: int | None = await fetch_value(
        db, "find_selector", digest=digest, work_type=work_type
    )
    while selector is None:
        await fetch_value(db, "lock_selectors_shared")
        selector = await fetch_value(
            db, "insert_selector", digest=digest, work_type=work_type, targets=canonical
        )
        if selector is not None:
            await _select_agents(db, selector, targets)
            return selector
        # Another submission was faster, and has committed: the insert waited for it.
        selector = await fetch_value(db, "find_selector", digest=digest, work_type=work_type)
    return selector


async def lock_selectors(db: Connection) -> None:
    """Keep new selectors out until the transaction that changes an agent has ended."""
    await fetch_value(db, "lock_selectors")


async def reselect(db: Connection, agent: Selectable) -> set[UUID]:
    """
    Store which selectors select this agent now; the caller holds the lock.

    Returns:
        The agents that may have gained or lost Work by it.
    """
    rows = await fetch_all(db, "list_selectors")
    mine = [row["id"] for row in rows if selects(_targets_of(row["targets"]), agent)]
    await fetch_value(db, "replace_agent_selectors", agent_id=agent.id, selector_ids=mine)
    return {agent.id} | await refresh_narrower_selectors(db)


async def refresh_narrower_selectors(db: Connection) -> set[UUID]:
    """
    Store who is in the lanes of Work that some agents have tried; the caller holds the lock.

    Returns:
        The agents that have gained or lost such a lane.
    """
    rows = await fetch_all(db, "refresh_narrower_selectors")
    return {row["agent_id"] for row in rows}


async def prefer_others(db: Connection, work_id: UUID) -> int:
    """
    Put a Work into the lane of those agents that have not tried it, if there are any.

    The caller holds the selectors' lock (shared will do) and the lock of the Work's row.

    Returns:
        The id of that lane's selector.
    """
    tried = [row["agent_id"] for row in await fetch_all(db, "list_tried_agents", work_id=work_id)]
    selector: int = await fetch_value(
        db, "insert_narrower_selector", work_id=work_id, excluded=tried
    )
    await refresh_narrower_selectors(db)
    await fetch_value(db, "move_to_selector", work_id=work_id, selector_id=selector)
    return selector


async def find_waiting_agent(
    db: Connection, selector_id: int, *, waiting: Sequence[UUID]
) -> UUID | None:
    """Return the first of the waiting agents that the selector selects."""
    found: UUID | None = await fetch_value(
        db, "find_waiting_agent", selector_id=selector_id, waiting=waiting
    )
    return found


def canonical_targets(targets: Sequence[TargetBody]) -> list[dict[str, Any]]:
    """Write targets so that those which mean the same are the same text."""
    distinct = {json.dumps(_canonical(each), sort_keys=True) for each in targets}
    return [json.loads(each) for each in sorted(distinct)]


def _canonical(target: TargetBody) -> dict[str, Any]:
    expressions = {
        (each.key, each.operator.value, tuple(sorted(set(each.values))))
        for each in target.match_expressions
    }
    full = {
        "agents": sorted(set(target.agents)),
        "match_labels": target.match_labels,
        "match_expressions": [
            {"key": key, "operator": operator, "values": list(values)}
            for key, operator, values in sorted(expressions)
        ],
        "match_annotations": target.match_annotations,
    }
    return {key: value for key, value in full.items() if value}


def _targets_of(stored: list[dict[str, Any]]) -> list[Target]:
    return [TargetBody.model_validate(each).to_target() for each in stored]


def _selectable(row: asyncpg.Record) -> Selectable:
    return Selectable(
        id=row["id"], name=row["name"], labels=row["labels"], annotations=row["annotations"]
    )


async def _select_agents(db: Connection, selector: int, targets: Sequence[TargetBody]) -> None:
    meant = [each.to_target() for each in targets]
    agents = [_selectable(row) for row in await fetch_all(db, "list_selectables")]
    chosen = [agent.id for agent in agents if selects(meant, agent)]
    await fetch_value(db, "insert_selector_agents", selector_id=selector, agent_ids=chosen)

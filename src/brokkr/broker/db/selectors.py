"""
Distinct targets, and which agents each selects now.

A target is evaluated when it is first seen, over all agents; an agent is evaluated when
it is registered, relabelled or deleted, over all targets.  The two must not happen at
once: see ``queries/lock_selectors.sql``.
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


async def selector_of(db: Connection, targets: Sequence[TargetBody]) -> int:
    """Return the id of the selector that these targets mean; store it if it is new."""
    canonical = canonical_targets(targets)
    digest = hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).digest()
    selector: int | None = await fetch_value(db, "find_selector", digest=digest)
    if selector is None:
        await fetch_value(db, "lock_selectors_shared")
        selector = await fetch_value(db, "insert_selector", digest=digest, targets=canonical)
        if selector is not None:
            await _select_agents(db, selector, targets)
            return selector
        # Another submission was faster, and has committed: the insert waited for it.
        selector = await fetch_value(db, "find_selector", digest=digest)
    assert selector is not None
    return selector


async def lock_selectors(db: Connection) -> None:
    """Keep new selectors out until the transaction that changes an agent has ended."""
    await fetch_value(db, "lock_selectors")


async def reselect(db: Connection, agent: Selectable) -> None:
    """Store which selectors select this agent now; the caller holds the lock."""
    rows = await fetch_all(db, "list_selectors")
    mine = [row["id"] for row in rows if selects(_targets_of(row["targets"]), agent)]
    await fetch_value(db, "replace_agent_selectors", agent_id=agent.id, selector_ids=mine)


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

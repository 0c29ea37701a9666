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
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_all, fetch_value
from brokkr.wire.bodies import TargetBody
from brokkr.work.selectors import Selectable, Target, selects

_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def digest_of(targets: Sequence[TargetBody]) -> bytes:
    """
    Digest targets: those which mean the same have the same digest.

    Lanes are stored with it, so it may not change.
    """
    return hashlib.sha256(f"[{', '.join(_written(targets))}]".encode()).digest()


async def selectors_of(
    db: Connection, wanted: Iterable[tuple[str, Sequence[TargetBody]]]
) -> list[int]:
    """Return the id of the selector for each work type and target; store those that are new."""
    digests = []
    lanes = {}
    for work_type, targets in wanted:
        digest = digest_of(targets)
        digests.append((digest, work_type))
        lanes[digest, work_type] = (canonical_targets(targets), targets)
    # In one order, so that two submissions that store the same ones do not wait for each other.
    found = {lane: await _selector_of(db, *lane, *lanes[lane]) for lane in sorted(lanes)}
    return [found[lane] for lane in digests]


async def _selector_of(
    db: Connection,
    digest: bytes,
    work_type: str,
    canonical: list[dict[str, Any]],
    targets: Sequence[TargetBody],
) -> int:
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
    rows = await fetch_all(db, "refresh_narrower_selectors", selector_id=None)
    return {row["agent_id"] for row in rows}


async def prefer_others(db: Connection, work_id: UUID) -> int:
    """
    Put a Work into the lane of those agents that have not tried it, if there are any.

    The caller holds the selectors' lock (shared will do) and the lock of the Work's row.

    Returns:
        The id of that lane's selector.
    """
    tried = [row["agent_id"] for row in await fetch_all(db, "list_tried_agents", work_id=work_id)]
    selector: int | None = await fetch_value(
        db, "insert_narrower_selector", work_id=work_id, excluded=tried
    )
    if selector is None:  # it is there, or was made by who committed while the insert waited
        selector = await fetch_value(db, "find_narrower_selector", work_id=work_id, excluded=tried)
        assert selector is not None
    else:
        await fetch_all(db, "refresh_narrower_selectors", selector_id=selector)
    await fetch_value(db, "move_to_selector", work_id=work_id, selector_id=selector)
    return selector


async def list_lanes(db: Connection, agent_ids: Collection[UUID]) -> dict[UUID, dict[int, str]]:
    """Return the lanes of agents, as the ids of selectors with their work types."""
    lanes: dict[UUID, dict[int, str]] = {}
    for row in await fetch_all(db, "list_lanes", agent_ids=agent_ids):
        lanes.setdefault(row["agent_id"], {})[row["selector_id"]] = row["work_type"]
    return lanes


async def list_members(
    db: Connection, selector_ids: Collection[int], *, among: Collection[UUID]
) -> dict[tuple[int, str], list[UUID]]:
    """Return which of some agents are in lanes, by the selector's id and its work type."""
    members: dict[tuple[int, str], list[UUID]] = {}
    rows = await fetch_all(db, "list_members", selector_ids=selector_ids, agent_ids=among)
    for row in rows:
        members.setdefault((row["selector_id"], row["work_type"]), []).append(row["agent_id"])
    return members


def canonical_targets(targets: Sequence[TargetBody]) -> list[dict[str, Any]]:
    """Write targets so that those which mean the same are the same."""
    return [json.loads(each) for each in _written(targets)]


def _written(targets: Sequence[TargetBody]) -> list[str]:
    return sorted({json.dumps(_canonical(each), sort_keys=True) for each in targets})


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
    names, ids = None, None
    if all(each.agents for each in meant):  # then there is no need to look at ten thousand
        names = set().union(*(each.agents for each in meant))
        ids = [UUID(each) for each in names if _ID.fullmatch(each)]
    rows = await fetch_all(db, "list_selectables", names=names, ids=ids)
    chosen = [row["id"] for row in rows if selects(meant, _selectable(row))]
    await fetch_value(db, "insert_selector_agents", selector_id=selector, agent_ids=chosen)

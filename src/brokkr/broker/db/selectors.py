"""
Distinct targets, and which agents each selects now.

A selector is a lane of the queue: a target, for one type of work.  A target is evaluated
when it becomes a lane, over all agents; an agent is evaluated when it is registered,
relabelled or deleted, over all targets.  The two must not happen at once: see
``queries/lock_selectors.sql``.  Work that agents have tried and handed on waits in a
narrower lane, without them: see ``queries/refresh_narrower_selectors.sql``.  A lane in which
nothing is queued comes to rest: see :mod:`brokkr.broker.db.lanes`.
"""

import asyncio
import hashlib
import json
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_all, fetch_value
from brokkr.wire.bodies import TargetBody
from brokkr.work.selectors import MatchExpression, Operator, Selectable, Target, selects

Verdicts: TypeAlias = Mapping[int, bool]
"""Whether the target of a selector, by its id, selects an agent."""

MAX_TARGET_BYTES: Final = 64 * 1024
"""Of a target as it is stored; a thousand agents by their ids are less."""
_PAGE: Final = 100
_BREATH: Final = 10
"""After so many targets whoever else has something to do gets a turn: a few milliseconds."""

_AGENTS_AT_ONCE: Final = 250
"""The same, for agents that one target looks at."""

_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def digest_of(targets: Sequence[TargetBody]) -> bytes:
    """
    Digest targets: those which mean the same have the same digest.

    Lanes are stored with it, so it may not change.
    """
    return hashlib.sha256(f"[{', '.join(_written(targets))}]".encode()).digest()


def size_of(targets: Sequence[TargetBody]) -> int:
    """Return how many bytes targets take that are stored."""
    return sum(map(len, _written(targets)))


async def selectors_of(
    db: Connection,
    wanted: Iterable[tuple[str, Sequence[TargetBody]]],
    *,
    generator_id: UUID | None = None,
) -> list[int]:
    """
    Return the id of the lane for each work type and target; make those that are none.

    Args:
        generator_id: For whom; None for an admin.
    """
    digests = []
    lanes = {}
    for work_type, targets in wanted:
        digest = digest_of(targets)
        digests.append((digest, work_type))
        lanes[digest, work_type] = (canonical_targets(targets), targets)
    # In one order, so that two submissions that store the same ones do not wait for each other.
    found = {
        lane: await _selector_of(db, *lane, *lanes[lane], generator_id=generator_id)
        for lane in sorted(lanes)
    }
    return [found[lane] for lane in digests]


async def _selector_of(
    db: Connection,
    digest: bytes,
    work_type: str,
    canonical: list[dict[str, Any]],
    targets: Sequence[TargetBody],
    *,
    generator_id: UUID | None,
) -> int:
    selector: int | None = await fetch_value(
        db, "find_selector", digest=digest, work_type=work_type
    )
    while selector is None:
        await fetch_value(db, "lock_selectors_shared")
        selector = await wake_selector(
            db, digest, work_type, targets=canonical, generator_id=generator_id
        )
        if selector is not None:
            return selector
        selector = await fetch_value(
            db,
            "insert_selector",
            digest=digest,
            work_type=work_type,
            targets=canonical,
            generator_id=generator_id,
        )
        if selector is not None:
            await _select_agents(db, selector, targets=[each.to_target() for each in targets])
            return selector
        # Another submission was faster, and has committed: the insert waited for it.
        selector = await fetch_value(db, "find_selector", digest=digest, work_type=work_type)
    return selector


async def wake_selector(
    db: Connection,
    digest: bytes,
    work_type: str,
    *,
    targets: Sequence[Mapping[str, Any]],
    generator_id: UUID | None = None,
) -> int | None:
    """
    Make the selector of a target a lane again; None if there is none that rests.

    The caller holds the selectors' lock; shared will do.
    """
    selector: int | None = await fetch_value(
        db,
        "wake_selector",
        digest=digest,
        work_type=work_type,
        excluded=[],
        generator_id=generator_id,
    )
    if selector is not None:
        await _select_agents(db, selector, targets=targets_of(targets))
    return selector


async def judge(db: Connection, agent: Selectable) -> Verdicts:
    """
    Look at an agent with the eyes of all targets.

    This takes a while if there are many, so it is done before the selectors' lock is taken:
    what a target says never changes, and those that are new :func:`reselect` looks at.
    """
    verdicts: dict[int, bool] = {}
    after = 0
    while True:
        rows = await fetch_all(db, "list_selectors", after=after, ids=None, limit=_PAGE)
        for number, row in enumerate(rows, start=1):
            verdicts[row["id"]] = selects(targets_of(row["targets"]), agent)
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        if len(rows) < _PAGE:
            return verdicts
        after = rows[-1]["id"]


async def lock_selectors(db: Connection) -> None:
    """Keep new selectors out until the transaction that changes an agent has ended."""
    await fetch_value(db, "lock_selectors")


async def reselect(db: Connection, agent: Selectable, verdicts: Verdicts) -> set[UUID]:
    """
    Store which selectors select this agent now; the caller holds the lock.

    Args:
        verdicts: On this agent as it is now.

    Returns:
        The agents that may have gained or lost Work by it.
    """
    ids = {row["id"] for row in await fetch_all(db, "list_selector_ids")}
    mine = [each for each in ids if verdicts.get(each)]
    if unseen := ids - verdicts.keys():
        rows = await fetch_all(db, "list_selectors", after=None, ids=unseen, limit=len(unseen))
        mine += [row["id"] for row in rows if selects(targets_of(row["targets"]), agent)]
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
    selector: int | None = None
    while selector is None:
        made = await fetch_value(
            db, "wake_narrower_selector", work_id=work_id, excluded=tried
        ) or await fetch_value(db, "insert_narrower_selector", work_id=work_id, excluded=tried)
        if made is not None:
            await fetch_all(db, "refresh_narrower_selectors", selector_id=made)
        # Else it is there, or was made by who committed while the insert waited; it may come to
        # rest before it is locked.
        selector = made or await fetch_value(
            db, "find_narrower_selector", work_id=work_id, excluded=tried
        )
    await fetch_value(db, "move_to_selector", work_id=work_id, selector_id=selector)
    return selector


async def list_lanes(db: Connection, agent_ids: Collection[UUID]) -> dict[UUID, dict[int, str]]:
    """Return the lanes of agents, as the ids of selectors with their work types."""
    lanes: dict[UUID, dict[int, str]] = {}
    ids: dict[int, int] = {}  # thousands of agents are in the same lanes, and memory counts
    for row in await fetch_all(db, "list_lanes", agent_ids=agent_ids):
        selector_id = ids.setdefault(row["selector_id"], row["selector_id"])
        lanes.setdefault(row["agent_id"], {})[selector_id] = sys.intern(row["work_type"])
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


def targets_of(stored: Sequence[Mapping[str, Any]]) -> list[Target]:
    """Return what stored targets mean; they were checked when they came in."""
    return [
        Target(
            agents=frozenset(each.get("agents", ())),
            match_labels=each.get("match_labels", {}),
            match_expressions=tuple(
                MatchExpression(
                    key=one["key"],
                    operator=Operator(one["operator"]),
                    values=frozenset(one["values"]),
                )
                for one in each.get("match_expressions", ())
            ),
            match_annotations=each.get("match_annotations", {}),
        )
        for each in stored
    ]


def _selectable(row: asyncpg.Record) -> Selectable:
    return Selectable(
        id=row["id"], name=row["name"], labels=row["labels"], annotations=row["annotations"]
    )


async def _select_agents(db: Connection, selector: int, *, targets: Sequence[Target]) -> None:
    names, ids = None, None
    if all(each.agents for each in targets):  # then there is no need to look at ten thousand
        names = set().union(*(each.agents for each in targets))
        ids = [UUID(each) for each in names if _ID.fullmatch(each)]
    rows = await fetch_all(db, "list_selectables", names=names, ids=ids)
    chosen = []
    for number, row in enumerate(rows, start=1):
        if selects(targets, _selectable(row)):
            chosen.append(row["id"])
        if number % _AGENTS_AT_ONCE == 0:
            await asyncio.sleep(0)
    await fetch_value(db, "replace_selector_agents", selector_id=selector, agent_ids=chosen)

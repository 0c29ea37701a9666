"""
Checking who is stored as being in which lane, a slice of agents and selectors at a time.

Whatever changes an agent or makes a selector keeps this right; a mistake there, or a hand in
the database, would otherwise stay for good.
"""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from brokkr.broker.db.agents import get_agent, selectable
from brokkr.broker.db.pool import Connection
from brokkr.broker.db.selectors import judge, lock_selectors, reselect, targets_of
from brokkr.broker.db.statements import fetch_all
from brokkr.work.errors import AgentNotFound
from brokkr.work.selectors import Selectable, Target, selects


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Some agents, some selectors by their ids, and who is stored as being in which."""

    agents: list[Selectable]
    selectors: dict[int, list[Target]]
    members: frozenset[tuple[UUID, int]]

    def is_right_for(self, agent: Selectable) -> bool:
        """Say whether what is stored of an agent is what the selectors say."""
        return all(
            selects(targets, agent) == ((agent.id, selector) in self.members)
            for selector, targets in self.selectors.items()
        )


async def read_slice(
    db: Connection, *, agents_after: UUID, agents: int, selectors_after: int, selectors: int
) -> Slice:
    """Read the next so many agents and selectors, by their ids."""
    some_agents = await fetch_all(db, "list_some_selectables", after=agents_after, limit=agents)
    some = await fetch_all(db, "list_some_selectors", after=selectors_after, limit=selectors)
    return Slice(
        agents=[Selectable(**row) for row in some_agents],
        selectors={row["id"]: targets_of(row["targets"]) for row in some},
        members=await _members(
            db,
            [row["id"] for row in some_agents],
            selector_ids=[row["id"] for row in some],
        ),
    )


async def put_right(db: Connection, agent_id: UUID) -> set[UUID]:
    """
    Store anew which selectors select an agent.

    Returns:
        The agents that have gained or lost Work by it; none if all was right.
    """
    await lock_selectors(db)
    try:
        agent = selectable(await get_agent(db, str(agent_id)))
    except AgentNotFound:
        return set()
    before = await _members(db, [agent_id])
    changed = await reselect(db, agent, await judge(db, agent))
    return set() if await _members(db, [agent_id]) == before else changed


async def list_narrower_lanes(db: Connection, *, after: int, limit: int) -> list[int]:
    """List lanes of what some agents have tried in which Work waits, by id."""
    return [
        row["id"] for row in await fetch_all(db, "list_narrower_lanes", after=after, limit=limit)
    ]


async def refresh_lane(db: Connection, selector_id: int) -> set[UUID]:
    """Store anew who is in such a lane, and return those for whom that has changed."""
    await lock_selectors(db)
    rows = await fetch_all(db, "refresh_narrower_selectors", selector_id=selector_id)
    return {row["agent_id"] for row in rows}


async def _members(
    db: Connection, agent_ids: Collection[UUID], *, selector_ids: Collection[int] | None = None
) -> frozenset[tuple[UUID, int]]:
    rows = await fetch_all(db, "list_memberships", agent_ids=agent_ids, selector_ids=selector_ids)
    return frozenset((row["agent_id"], row["selector_id"]) for row in rows)

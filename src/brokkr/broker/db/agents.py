"""
Agents: who they are, how they are labelled, and which process of each is the newest.

Whatever changes what selectors look at takes the selectors' lock first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg

from brokkr.broker.db.keys import Role, issue_key, revoke_agent_keys
from brokkr.broker.db.pool import Connection
from brokkr.broker.db.selectors import (
    judge,
    lock_selectors,
    refresh_narrower_selectors,
    reselect,
)
from brokkr.broker.db.statements import fetch_all, fetch_one, fetch_value
from brokkr.broker.db.work_queue import GivenBack, release_claims_of_agent
from brokkr.wire.bodies import (
    AgentBody,
    Heartbeat,
    RegisterAgent,
    RegisteredAgent,
    RelabelAgent,
)
from brokkr.work.errors import AgentNameTaken, AgentNotFound, AgentSuperseded
from brokkr.work.labels import check_annotations, check_labels
from brokkr.work.selectors import Selectable


async def register_agent(db: Connection, body: RegisterAgent) -> RegisteredAgent:
    """
    Store a new agent and make its key.

    Raises:
        AgentNameTaken: A living agent has the name.
    """
    new = Selectable(id=uuid4(), name=body.name, labels=body.labels, annotations=body.annotations)
    verdicts = await judge(db, new)
    await lock_selectors(db)
    agent_id: UUID | None = await fetch_value(
        db,
        "insert_agent",
        id=new.id,
        name=body.name,
        cluster_name=body.cluster_name,
        labels=body.labels,
        annotations=body.annotations,
    )
    if agent_id is None:
        raise AgentNameTaken(body.name)
    agent = await get_agent(db, str(agent_id))
    await reselect(db, new, verdicts)
    key = await issue_key(db, Role.AGENT, agent_id=agent_id)
    return RegisteredAgent(**agent.model_dump(), key=key.key)


async def get_agent(db: Connection, ref: str) -> AgentBody:
    """
    Return a living agent by id or name.

    Raises:
        AgentNotFound: There is none.
    """
    row = await fetch_one(db, "find_agent", id=_uuid_or_none(ref), name=ref)
    if row is None:
        raise AgentNotFound(ref)
    return _body(row)


async def list_agents(db: Connection, *, after: str | None, limit: int) -> list[AgentBody]:
    """List living agents by name, from behind ``after`` on."""
    return [_body(row) for row in await fetch_all(db, "list_agents", after=after, limit=limit)]


async def relabel_agent(
    db: Connection, ref: str, body: RelabelAgent
) -> tuple[AgentBody, set[UUID]]:
    """
    Set and remove labels and annotations; the agent gains and loses Work accordingly.

    Returns:
        The agent, and all that may have gained or lost Work by it.

    Raises:
        AgentNotFound: There is none.
        InvalidAgent: The result is nothing that an agent may carry.
    """
    foreseen = selectable(_relabelled(await get_agent(db, ref), body))
    verdicts = await judge(db, foreseen)
    await lock_selectors(db)
    after = _relabelled(await get_agent(db, ref), body)
    if selectable(after) != foreseen:  # somebody else has changed it meanwhile
        verdicts = await judge(db, selectable(after))
    await fetch_value(
        db, "update_agent", id=after.id, labels=after.labels, annotations=after.annotations
    )
    return after, await reselect(db, selectable(after), verdicts)


def _relabelled(agent: AgentBody, change: RelabelAgent) -> AgentBody:
    """
    Return an agent with other labels and annotations.

    Raises:
        InvalidAgent: They are nothing that an agent may carry.
    """
    labels = _merged(agent.labels, change.labels)
    annotations = _merged(agent.annotations, change.annotations)
    check_labels(labels, field="labels")
    check_annotations(annotations, field="annotations")
    return agent.model_copy(update={"labels": labels, "annotations": annotations})


async def drain_agent(db: Connection, ref: str, *, is_drained: bool) -> tuple[AgentBody, set[UUID]]:
    """
    Offer an agent nothing from now on, or everything again; what it holds goes on.

    Returns:
        The agent, and all that may have gained or lost Work by it.

    Raises:
        AgentNotFound: There is none.
    """
    await lock_selectors(db)
    agent = await get_agent(db, ref)
    await fetch_value(db, "drain_agent", id=agent.id, is_drained=is_drained)
    changed = {agent.id} | await refresh_narrower_selectors(db)
    return await get_agent(db, ref), changed


async def delete_agent(db: Connection, ref: str, *, actor: str) -> tuple[GivenBack, set[UUID]]:
    """
    Delete an agent softly: claims given back, keys revoked, name free; history stays.

    Returns:
        What it held, and all agents that may have gained or lost Work by it.

    Raises:
        AgentNotFound: There is none.
    """
    await lock_selectors(db)
    agent = await get_agent(db, ref)
    await revoke_agent_keys(db, agent.id)
    await fetch_value(db, "delete_agent", id=agent.id)
    changed = {agent.id} | await refresh_narrower_selectors(db)
    return await release_claims_of_agent(db, agent.id, actor=actor), changed


async def rotate_agent_key(db: Connection, ref: str) -> RegisteredAgent:
    """
    Revoke an agent's key and make another.

    Raises:
        AgentNotFound: There is none.
    """
    await lock_selectors(db)  # of two rotations, or one and a deletion, the second sees the first
    agent = await get_agent(db, ref)
    await revoke_agent_keys(db, agent.id)
    key = await issue_key(db, Role.AGENT, agent_id=agent.id)
    return RegisteredAgent(**agent.model_dump(), key=key.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """What is new about an agent that was heard of.

    Attributes:
        is_first: Whether nothing was heard of this process before.
        has_other_types: Whether it has declared other types unavailable than before.
    """

    is_first: bool
    has_other_types: bool


async def touch_agent(db: Connection, agent_id: UUID, beat: Heartbeat) -> Touched:
    """
    Note that a process of an agent is alive, and what it says of itself.

    Raises:
        AgentSuperseded: A process that introduced itself later is the agent now.
        AgentNotFound: It was deleted meanwhile.
    """
    row = await fetch_one(
        db,
        "touch_agent",
        agent_id=agent_id,
        incarnation=beat.incarnation,
        capacity=beat.capacity and beat.capacity.model_dump(),
        capabilities=beat.capabilities and beat.capabilities.model_dump(),
    )
    if row is None:
        raise AgentNotFound(agent_id)
    if not row["is_current"]:
        raise AgentSuperseded(agent_id)
    before, now = row["unavailable_before"] or {}, row["unavailable"] or {}
    return Touched(is_first=row["is_first"], has_other_types=before.keys() != now.keys())


def _body(row: asyncpg.Record) -> AgentBody:
    return AgentBody.model_validate(dict(row))


def selectable(agent: AgentBody) -> Selectable:
    """Return as much of an agent as a target looks at."""
    return Selectable(
        id=agent.id, name=agent.name, labels=agent.labels, annotations=agent.annotations
    )


def _merged(before: Mapping[str, str], change: Mapping[str, str | None]) -> dict[str, str]:
    both = {**before, **change}
    return {key: value for key, value in both.items() if value is not None}


def _uuid_or_none(ref: str) -> UUID | None:
    try:
        return UUID(ref)
    except ValueError:
        return None

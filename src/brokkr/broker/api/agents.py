"""Agents: registered and labelled by an admin, alive by their own heartbeats."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Final
from uuid import UUID

from fastapi import Query

from brokkr.broker.api.call import Call
from brokkr.broker.api.claims import claim_body
from brokkr.broker.api.work import Limit
from brokkr.broker.db import agents, claims, work_queue
from brokkr.broker.db.keys import Role
from brokkr.broker.db.pool import transaction
from brokkr.wire.bodies import (
    INFRASTRUCTURE_RETRIES,
    PROBLEM_BROKER,
    UNWORKABLE,
    AgentBody,
    AgentPage,
    Heartbeat,
    HeartbeatAnswer,
    RegisterAgent,
    RegisteredAgent,
    RelabelAgent,
)
from brokkr.work.errors import DatabaseUnavailable, InvalidAgent
from brokkr.work.labels import check_agent_name, check_annotations, check_labels

FEATURES: Final = [INFRASTRUCTURE_RETRIES, PROBLEM_BROKER, UNWORKABLE]
"""What this broker understands that an earlier one does not; see :class:`HeartbeatAnswer`."""


async def register_agent(call: Call, body: RegisterAgent) -> RegisteredAgent:
    """Register an agent.  The answer holds its key, which is shown this once."""
    check_agent_name(body.name)
    if body.name == "self":
        raise InvalidAgent("name", "'self' is how an agent's key names its own agent")
    check_labels(body.labels, field="labels")
    check_annotations(body.annotations, field="annotations")
    async with transaction(call.database) as db:
        registered = await agents.register_agent(db, body)
    call.broker.dispatcher.announce_agents([registered.id])
    call.location = f"/api/v1/agents/{registered.id}"
    return registered


async def list_agents(
    call: Call,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(max_length=63)] = None,
) -> AgentPage:
    """List agents by name."""
    async with call.search() as share, transaction(share) as db:
        items = await agents.list_agents(db, after=cursor, limit=limit)
    return AgentPage(items=items, next_cursor=items[-1].name if len(items) == limit else None)


async def get_agent(call: Call, ref: str) -> AgentBody:
    """Show one agent, by id or name; an agent sees itself, also as ``self``."""
    if call.caller.role is Role.AGENT:
        call.agent.check_is(ref)
        ref = str(call.agent.id)
    async with transaction(call.database) as db:
        return await agents.get_agent(db, ref)


async def relabel_agent(call: Call, ref: str, body: RelabelAgent) -> AgentBody:
    """Set labels and annotations, and remove those that are null."""
    async with transaction(call.database) as db:
        agent, changed = await agents.relabel_agent(db, ref, body)
    call.broker.dispatcher.announce_agents(changed)
    return agent


async def drain_agent(call: Call, ref: str) -> AgentBody:
    """Offer an agent nothing from now on; what it holds goes on."""
    return await _drain(call, ref, is_drained=True)


async def undrain_agent(call: Call, ref: str) -> AgentBody:
    """Offer an agent Work again."""
    return await _drain(call, ref, is_drained=False)


async def _drain(call: Call, ref: str, *, is_drained: bool) -> AgentBody:
    async with transaction(call.database) as db:
        agent, changed = await agents.drain_agent(db, ref, is_drained=is_drained)
    call.broker.dispatcher.announce_agents(changed)
    return agent


async def delete_agent(call: Call, ref: str) -> None:
    """Delete an agent: its key is revoked, what it holds is given back, its name is free."""
    broker = call.broker
    async with transaction(call.database) as db:
        given, changed = await agents.delete_agent(db, ref, actor=call.caller.actor)
    broker.callers.forget()
    broker.dispatcher.announce_agents(changed)
    broker.dispatcher.announce(given.lanes)
    broker.metrics.count_outcomes(given.outcomes)


async def rotate_agent_key(call: Call, ref: str) -> RegisteredAgent:
    """Make a new key for an agent, and revoke the old one."""
    async with transaction(call.database) as db:
        rotated = await agents.rotate_agent_key(db, ref)
    call.broker.callers.forget()
    return rotated


async def heartbeat(call: Call, ref: str, body: Heartbeat) -> HeartbeatAnswer:
    """Renew exactly the listed claims.  A process's first is answered with all claims."""
    broker, agent = call.broker, call.agent
    agent.check_is(ref)
    async with transaction(call.vital) as db:
        touched = await agents.touch_agent(db, agent.id, body)
        renewed = await claims.renew_claims(db, body.claims, by=agent)
        held = await claims.list_held_claims(db, agent_id=agent.id) if touched.is_first else None
    if touched.has_other_types:
        broker.dispatcher.announce_agents([agent.id])
    if body.unworkable:
        await _give_back_unworkable(call, body.unworkable)
    kept = {each.claim_id for each in renewed}
    return HeartbeatAnswer(
        broker=str(broker.id),
        renewed=renewed,
        lost=[claim_id for claim_id in body.claims if claim_id not in kept],
        held=None if held is None else [claim_body(each, agent, broker) for each in held],
        features=FEATURES,
    )


async def _give_back_unworkable(call: Call, unworkable: Mapping[UUID, str]) -> None:
    """Give back what an agent says it cannot work on; if that fails, it says so again."""
    broker = call.broker
    with suppress(DatabaseUnavailable):  # the lock may be held by a broker that was frozen
        # In a transaction of its own: the selectors' lock is taken before an agent's row.
        async with transaction(call.database) as db:
            given = await work_queue.give_back_unworkable(
                db, unworkable, by=call.agent, policy=broker.handoff_policy
            )
        broker.dispatcher.announce(given.lanes)
        broker.metrics.count_outcomes(given.outcomes)

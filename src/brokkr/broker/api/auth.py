"""
Who is calling, and what they may do.

:class:`~brokkr.broker.api.door.Door` authenticates every request before its body is
read, and checks its role against the row of :mod:`brokkr.broker.api.routes`.  What is
somebody else's is checked by the handlers: it is not found, so that nobody learns of it.
"""

from collections.abc import Collection
from dataclasses import dataclass

from fastapi import Request

from brokkr.broker.api.state import broker_of
from brokkr.broker.db.claims import Holder
from brokkr.broker.db.keys import Caller, Role
from brokkr.wire.bodies import WorkBody
from brokkr.work.errors import AgentNotFound, NotPermitted, Unauthenticated, WorkNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class CallingAgent(Holder):
    """The agent whose key was used."""

    def check_is(self, ref: str) -> None:
        """
        Refuse what another agent's path leads to.

        Raises:
            AgentNotFound: ``ref`` is not this agent's id or name, nor ``self``.
        """
        if ref not in (str(self.id), self.name, "self"):
            raise AgentNotFound(ref)


async def authenticate(request: Request) -> Caller:
    """
    Say whose key was sent.

    Raises:
        Unauthenticated: None was sent, or it opens nothing.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("send an API key as 'Authorization: Bearer brokkr_...'")
    broker = broker_of(request)
    caller = await broker.callers.find(broker.connections.vital("keys"), key.strip())
    if caller is None:
        raise Unauthenticated("this API key is not known, or was revoked")
    return caller


def check_role(caller: Caller, permitted: Collection[Role]) -> None:
    """
    Refuse who may not do this to anything.

    Raises:
        NotPermitted: Names the roles that may.
    """
    if caller.role not in permitted:
        roles = " or ".join(sorted(permitted))
        raise NotPermitted(f"this needs a key of role {roles}, not one of role {caller.role}")


def check_sees(caller: Caller, work: WorkBody) -> None:
    """
    Refuse what is somebody else's: a generator sees its own Work, an agent what it has claimed.

    Raises:
        WorkNotFound: There is no such Work for this caller.
    """
    is_foreign = (
        caller.generator_id != work.generator_id
        if caller.role is Role.GENERATOR
        else caller.role is Role.AGENT and caller.agent_id != work.claimed_by
    )
    if is_foreign:
        raise WorkNotFound(work.id)


def calling_agent(caller: Caller) -> CallingAgent:
    """
    Return the agent that calls.

    Raises:
        NotPermitted: It is no agent.
    """
    if caller.agent_id is None or caller.agent_name is None:
        raise NotPermitted(f"this needs an agent's key, not one of role {caller.role}")
    return CallingAgent(id=caller.agent_id, name=caller.agent_name)

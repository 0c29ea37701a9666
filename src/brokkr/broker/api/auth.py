"""
Who is calling, and what they may do.

:class:`~brokkr.broker.api.door.Door` authenticates every request before its body is
read; a handler says with the type of its parameter whose call it takes.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from brokkr.broker.api.state import broker_of
from brokkr.broker.db.claims import Holder
from brokkr.broker.db.keys import Caller, Role, find_caller
from brokkr.broker.db.pool import transaction
from brokkr.work.errors import AgentNotFound, NotPermitted, Unauthenticated


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
    async with transaction(broker_of(request).pool) as db:
        caller = await find_caller(db, key.strip())
    if caller is None:
        raise Unauthenticated("this API key is not known, or was revoked")
    return caller


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


AnyCaller = Annotated[Caller, Depends(_caller)]


async def _admin(caller: AnyCaller) -> Caller:
    if caller.role is not Role.ADMIN:
        raise NotPermitted(f"this needs an admin's key, not one of role {caller.role}")
    return caller


def calling_agent(caller: Caller) -> CallingAgent:
    """
    Return the agent that calls.

    Raises:
        NotPermitted: It is no agent.
    """
    if caller.agent_id is None or caller.agent_name is None:
        raise NotPermitted(f"this needs an agent's key, not one of role {caller.role}")
    return CallingAgent(id=caller.agent_id, name=caller.agent_name)


async def _agent(caller: AnyCaller) -> CallingAgent:
    return calling_agent(caller)


AnAdmin = Annotated[Caller, Depends(_admin)]
AnAgent = Annotated[CallingAgent, Depends(_agent)]

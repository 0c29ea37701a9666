"""A request to the API as its handler sees it: who calls, whom, and how it is answered."""

from contextlib import AbstractAsyncContextManager
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

import orjson
from fastapi import Request, Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from brokkr.broker.api.auth import CallingAgent, calling_agent
from brokkr.broker.api.state import Broker, broker_of
from brokkr.broker.db.keys import Caller
from brokkr.broker.db.shares import Share
from brokkr.work.trace import TraceContext

_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


class Call(Request):
    """
    A request that the door has let in.

    Attributes:
        caller: Whose key was sent.
        status: Of the answer, if it is not the one that the route has.
        location: Of what was made, if something was.
    """

    caller: Caller
    status: HTTPStatus | None = None
    location: str | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, caller: Caller) -> None:
        super().__init__(scope, receive, send)
        self.caller = caller

    @property
    def broker(self) -> Broker:
        """Return the broker that is called."""
        return broker_of(self)

    @property
    def vital(self) -> Share:
        """Return the connections for what keeps Work alive: short statements."""
        return self.broker.connections.vital(self.caller.actor)

    @property
    def database(self) -> Share:
        """Return the connections for everything else."""
        return self.broker.connections.other(self.caller.actor)

    def search(self) -> AbstractAsyncContextManager[Share]:
        """
        Return the connections for what reads much, which is bounded for each caller.

        Raises:
            LimitReached: Too many searches of this caller wait.
        """
        return self.broker.connections.search(self.caller.actor)

    @cached_property
    def agent(self) -> CallingAgent:
        """
        Return the agent that calls.

        Raises:
            NotPermitted: It is no agent.
        """
        return calling_agent(self.caller)

    @property
    def trace(self) -> TraceContext | None:
        """Return the span in which the request is made; its own, if that is exported."""
        trace: TraceContext | None = self.state.trace
        return trace

    def answer_with(self, content: BaseModel | Response | None, *, status: int) -> Response:
        """
        Make the response of what a handler has returned.

        Args:
            status: If the handler has set none.
        """
        if isinstance(content, Response):
            return content
        return Response(
            None if content is None else render(content),
            status_code=self.status or status,
            headers=None if self.location is None else {"Location": self.location},
            media_type=None if content is None else "application/json",
        )


def render(content: BaseModel) -> bytes:
    """
    Render an answer as JSON: what its model would, in a quarter of the time.

    Its own way looks at each value of a template for what it may be; JSON has six types.
    """
    return orjson.dumps(content, default=_plain, option=_OPTIONS)


def _plain(value: Any) -> Any:
    """Return what JSON has of a value that it does not know."""
    if isinstance(value, BaseModel):
        return value.__dict__
    if isinstance(value, UUID):  # the database driver has one of its own
        return str(value)
    raise TypeError(f"{type(value)} is nothing that an answer has")

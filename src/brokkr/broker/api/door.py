"""
The door that every request to ``/api/v1`` comes through: key, role, size, syntax.

In this order, so that a stranger's body is not even read.  What comes out is plain JSON
values; the models of :mod:`brokkr.wire.bodies` take it from there.
"""

import asyncio
import math
import re
from collections.abc import Callable
from typing import Any, ClassVar

from fastapi import Request
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from brokkr.broker.api.auth import authenticate, check_role
from brokkr.broker.api.call import Call
from brokkr.broker.db.keys import Role
from brokkr.wire.documents import MAX_DEPTH, parse_json, parse_yaml
from brokkr.work.errors import BodyEncoded, BodyTooLarge, InvalidInput, MalformedBody, NotFound
from brokkr.work.survey import survey

_YAML = ("application/yaml", "application/x-yaml", "text/yaml")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOO_LARGE = 2**63
_BODY_SECONDS = 30
_MAX_NAMED = 100
_MAX_DEPTH = MAX_DEPTH + 8
"""A template may be as deep as it may, wherever in a body it stands."""

MAX_VALUES = 100_000
"""More than a megabyte that means something ever holds; to check them costs 20 ms."""
MAX_MEMBERS = 1000
"""Of one object; a complaint about each unknown one costs more than they do."""


class Door(APIRoute):
    """
    A route that lets its callers in and reads what they send itself.

    The framework would do more than twice as much for each request as is needed here: its
    exit stacks, its search for the type of a body, its tree of dependencies.  So it knows the
    route, describes it, and validates its parameters; but it does not run it.

    Attributes:
        roles: Who may come in.
    """

    roles: ClassVar[frozenset[Role]] = frozenset()

    def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:
        super().__init__(path, endpoint, **settings)
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        stranger = Request(scope, receive, send)
        caller = await authenticate(stranger)
        check_role(caller, self.roles)
        stranger.state.caller = caller  # for the log
        call = Call(scope, receive, send, caller=caller)
        _check_address(call)
        given = await self._arguments(call)
        content = await self.endpoint(call=call, **given)
        assert self.status_code is not None
        await call.answer_with(content, status=self.status_code)(scope, receive, send)

    async def _arguments(self, call: Call) -> dict[str, Any]:
        """
        Validate what the handler takes beside the call.

        Raises:
            RequestValidationError: Some of it is not what it must be.
        """
        content: Any = None
        given: dict[str, Any] = {}
        problems: list[Any] = []
        for fields, values in (
            (self.dependant.path_params, call.path_params),
            (self.dependant.query_params, call.query_params),
            (self.dependant.header_params, call.headers),
        ):
            if fields:
                found, wrong = request_params_to_args(fields, values)
                given |= found
                problems += wrong
        if self.body_field is not None:
            content = _parse(await _read(call), call.headers.get("content-type"))
            given[self.body_field.name], wrong = self.body_field.validate(content, loc=("body",))
            problems += wrong
        if problems:
            raise RequestValidationError(problems, body=content)
        return given


def door_for(*roles: Role) -> type[Door]:
    """Make the door that opens to these roles."""
    return type("Door", (Door,), {"roles": frozenset(roles)})


def _check_address(call: Call) -> None:
    """
    Refuse what no path or parameter can mean, and no database can be asked for.

    Raises:
        NotFound: The path has a NUL character in it.
        InvalidInput: A parameter has.
    """
    if "\0" in call.scope["path"]:
        raise NotFound("nothing has a NUL character in its path")
    for name, value in call.query_params.multi_items():
        if "\0" in value:
            raise InvalidInput(name, "contains a NUL character")


async def _read(call: Call) -> bytes:
    """
    Read the body as far as the limit, whatever length was announced.

    Raises:
        BodyEncoded: It is compressed.
        BodyTooLarge: It is over the limit, or was announced to be.
        MalformedBody: It did not arrive.
    """
    encoding = call.headers.get("content-encoding", "").strip()
    if encoding.lower() not in {"", "identity"}:
        raise BodyEncoded(encoding[:_MAX_NAMED])
    limit = call.broker.settings.max_body_bytes
    announced = call.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise BodyTooLarge(limit)
    content = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in call.stream():
                content += chunk
                if len(content) > limit:
                    raise BodyTooLarge(limit)
    except (TimeoutError, ClientDisconnect) as error:
        raise MalformedBody("the body ended before it was complete") from error
    return bytes(content)


def _parse(content: bytes, content_type: str | None) -> Any:
    """
    Parse a body, and refuse what nobody could keep.

    Raises:
        InvalidInput: Names a value that neither PostgreSQL nor Kubernetes takes.
        MalformedBody: It is not what its type says, or too large to be meant seriously.
    """
    if (content_type or "").partition(";")[0].strip().lower() in _YAML:
        documents = parse_yaml(content)
        if len(documents) != 1:
            raise MalformedBody(
                f"the body must be one YAML document, not {len(documents)}; "
                "several belong into `template`, as text"
            )
        value = documents[0]
    else:
        value = parse_json(content)
    check_storable(value)
    return value


def check_storable(value: Any, path: str = "") -> None:
    """
    Refuse what JSON and YAML can say and neither PostgreSQL nor Kubernetes can keep.

    Raises:
        InvalidInput: Names the place.
        MalformedBody: It is nested too deep, or holds too much, to be meant seriously.
    """
    seen = survey(value, enough=MAX_VALUES)
    if seen.values + seen.keys > MAX_VALUES:
        raise MalformedBody(f"the body holds more than {MAX_VALUES} values")
    if seen.depth > _MAX_DEPTH:
        raise MalformedBody(f"the body is nested deeper than {_MAX_DEPTH} levels")
    if seen.widest > MAX_MEMBERS:
        raise MalformedBody(f"an object has more than {MAX_MEMBERS} members")
    if _problem_with(seen.together()) or any(map(_problem_with, seen.numbers)):
        raise _at_its_place(value, path)


def _at_its_place(value: Any, path: str) -> InvalidInput:
    """Find the first value that has a problem; only who looks for one pays for the paths."""
    stack = [(path, value)]
    while stack:
        path, value = stack.pop()
        if problem := _problem_with(value):
            return InvalidInput(path, problem)
        if isinstance(value, dict):
            stack.extend((path, key) for key in value)
            stack.extend((f"{path}.{key}".lstrip("."), each) for key, each in value.items())
        elif isinstance(value, list):
            stack.extend((f"{path}[{index}]", each) for index, each in enumerate(value))
    raise AssertionError("called for a value without a problem")


def _problem_with(value: Any) -> str | None:
    match value:
        case str() if "\0" in value or not (value.isascii() or not _SURROGATE.search(value)):
            return "contains a NUL character or half of a surrogate pair"
        case int() if abs(value) >= _TOO_LARGE:
            return "is a number of more than 64 bits"
        case float() if not math.isfinite(value):
            return "is a number too large to be one"
        case _:
            return None

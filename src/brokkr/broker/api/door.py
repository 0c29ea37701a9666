"""
The door that every request to ``/api/v1`` comes through: key, role, size, syntax.

In this order, so that a stranger's body is not even read.  What comes out is plain JSON
values; the models of :mod:`brokkr.wire.bodies` take it from there.
"""

import asyncio
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from brokkr.broker.api.auth import authenticate, check_role
from brokkr.broker.api.state import broker_of
from brokkr.broker.db.keys import Role
from brokkr.wire.documents import MAX_DEPTH, parse_json, parse_yaml
from brokkr.work.errors import BodyTooLarge, InvalidInput, MalformedBody, NotFound
from brokkr.work.survey import survey

_YAML = ("application/yaml", "application/x-yaml", "text/yaml")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOO_LARGE = 2**63
_BODY_SECONDS = 30
_MAX_DEPTH = MAX_DEPTH + 8
"""A template may be as deep as it may, wherever in a body it stands."""

MAX_VALUES = 100_000
"""More than a megabyte that means something ever holds; to check them costs 20 ms."""
MAX_MEMBERS = 1000
"""Of one object; a complaint about each unknown one costs more than they do."""


class Door(APIRoute):
    """A route that authenticates its caller and reads its body itself.

    Attributes:
        roles: Who may come in.
    """

    roles: ClassVar[frozenset[Role]] = frozenset()

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request of this route."""
        answer = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            caller = await authenticate(request)
            check_role(caller, self.roles)
            request.state.caller = caller
            _check_address(request)
            if takes_body:
                content = await _read(request, broker_of(request).settings.max_body_bytes)
                request = _Parsed(request, _parse(content, request.headers.get("content-type")))
            return await answer(request)

        return handle


def door_for(*roles: Role) -> type[Door]:
    """Make the door that opens to these roles."""
    return type("Door", (Door,), {"roles": frozenset(roles)})


def _check_address(request: Request) -> None:
    """
    Refuse what no path or parameter can mean, and no database can be asked for.

    Raises:
        NotFound: The path has a NUL character in it.
        InvalidInput: A parameter has.
    """
    if "\0" in request.scope["path"]:
        raise NotFound("nothing has a NUL character in its path")
    for name, value in request.query_params.multi_items():
        if "\0" in value:
            raise InvalidInput(name, "contains a NUL character")


class _Parsed(Request):
    """A request whose body has been read; the framework finds it as JSON."""

    def __init__(self, request: Request, value: Any) -> None:
        headers = [each for each in request.scope["headers"] if each[0] != b"content-type"]
        headers.append((b"content-type", b"application/json"))
        super().__init__({**request.scope, "headers": headers}, request.receive)
        self._value = value

    async def body(self) -> bytes:
        return b"null"  # anything but empty, which would be no body at all

    async def json(self) -> Any:
        return self._value


async def _read(request: Request, limit: int) -> bytes:
    """
    Read the body as far as the limit, whatever length was announced.

    Raises:
        BodyTooLarge: It is over the limit, or was announced to be.
        MalformedBody: It did not arrive.
    """
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise BodyTooLarge(limit)
    content = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > limit:
                    raise BodyTooLarge(limit)
    except (TimeoutError, ClientDisconnect) as error:
        raise MalformedBody("the body ended before it was complete") from error
    return bytes(content)


def _parse(content: bytes, content_type: str | None) -> Any:
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

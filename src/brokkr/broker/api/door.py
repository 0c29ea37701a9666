"""
The door that every request to ``/api/v1`` comes through: key, size, syntax.

In this order, so that a stranger's body is not even read.  What comes out is plain JSON
values; the models of :mod:`brokkr.wire.bodies` take it from there.
"""

import math
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from brokkr.broker.api.auth import authenticate
from brokkr.broker.api.state import broker_of
from brokkr.wire.documents import parse_json, parse_yaml
from brokkr.work.errors import BodyTooLarge, InvalidInput, MalformedBody

_YAML = ("application/yaml", "application/x-yaml", "text/yaml")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOO_LARGE = 2**63


class Door(APIRoute):
    """A route that authenticates its caller and reads its body itself."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request of this route."""
        answer = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            request.state.caller = await authenticate(request)
            if takes_body:
                content = await _read(request, broker_of(request).settings.max_body_bytes)
                request = _Parsed(request, _parse(content, request.headers.get("content-type")))
            return await answer(request)

        return handle


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
    """Read the body as far as the limit, whatever length was announced."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise BodyTooLarge(limit)
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
    """
    stack = [(path, value)]  # no recursion, so no depth is too much
    while stack:
        path, value = stack.pop()
        problem = _problem_with(value)
        if problem is not None:
            raise InvalidInput(path, problem)
        if isinstance(value, dict):
            stack.extend((path, key) for key in value)
            stack.extend((f"{path}.{key}".lstrip("."), each) for key, each in value.items())
        elif isinstance(value, list):
            stack.extend((f"{path}[{index}]", each) for index, each in enumerate(value))


def _problem_with(value: Any) -> str | None:
    if isinstance(value, str) and ("\0" in value or _SURROGATE.search(value)):
        return "contains a NUL character or half of a surrogate pair"
    if isinstance(value, int) and abs(value) >= _TOO_LARGE:
        return "is a number of more than 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return "is a number too large to be one"
    return None

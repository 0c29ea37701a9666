"""
RFC 9457 problem documents from and to errors.

``code`` names the error; whatever data it carries stands beside it under the
attribute's own name.  So what the broker raised is what the client raises.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from brokkr.work.errors import (
    BodyTooLarge,
    BrokerUnavailable,
    BrokkrError,
    Conflict,
    InvalidInput,
    LimitReached,
    MalformedBody,
    NotFound,
    NotPermitted,
    Unauthenticated,
)

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[type[BrokkrError], HTTPStatus]] = MappingProxyType(
    {
        InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
        MalformedBody: HTTPStatus.BAD_REQUEST,
        BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        Unauthenticated: HTTPStatus.UNAUTHORIZED,
        NotPermitted: HTTPStatus.FORBIDDEN,
        NotFound: HTTPStatus.NOT_FOUND,
        Conflict: HTTPStatus.CONFLICT,
        LimitReached: HTTPStatus.TOO_MANY_REQUESTS,
        BrokerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
"""The status of each branch of the tree; a leaf has its parent's."""

_STANDARD = frozenset({"type", "title", "status", "detail", "instance", "code", "request_id"})


def status_of(error: BrokkrError) -> HTTPStatus:
    """Return the HTTP status that says what kind of error this is."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem_of(error: BrokkrError) -> dict[str, Any]:
    """Render an error as the members of a problem document."""
    status = status_of(error)
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "code": error.code,
        "detail": str(error),
        **vars(error),
    }


def error_of(status: int, problem: Mapping[str, Any]) -> BrokkrError:
    """Make the error that a problem document speaks of, of the same class if known."""
    kind = _BY_CODE.get(str(problem.get("code")), _fallback(status))
    error = kind.__new__(kind)
    sentence = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and "request_id" in problem:
        sentence += f" (request {problem['request_id']})"  # by which its log can be searched
    error.args = (sentence,)
    vars(error).update({k: v for k, v in problem.items() if k not in _STANDARD})
    return error


def _fallback(status: int) -> type[BrokkrError]:
    by_status = {int(value): kind for kind, value in STATUS.items()}
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return BrokerUnavailable
    return by_status.get(status, BrokkrError)


def _all_kinds(kind: type[BrokkrError]) -> Iterator[type[BrokkrError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _all_kinds(child)


_BY_CODE: Final = {kind.code: kind for kind in _all_kinds(BrokkrError)}

"""
RFC 9457 problem documents from and to errors.

``code`` names the error, and ``family`` the more general ones that it is a case of; whatever
data it carries stands beside them under the attribute's own name.  So what the broker raised
is what the client raises.
"""

# Note [Whose word it is]
#
# Between an agent and its broker are proxies, which answer by themselves: with pages, with
# problem documents of their own, with those of another broker.  Agents delete results and stop
# builds because a broker says so.  So an answer is the broker's word only if it is a problem
# document whose code stands in the table below, with the status that belongs to that code.
# All else is a broker that is not there.
#
# What ends something must also name the Work, and come from the broker that the last heartbeat
# knew: `broker` in the document is the id of its database.  See `HeldClaims.has_said`.

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from brokkr.work.errors import (
    AgentDrained,
    AgentNameTaken,
    AgentNotFound,
    AgentSuperseded,
    BodyEncoded,
    BodyTooLarge,
    BrokerFailed,
    BrokerUnavailable,
    BrokkrError,
    ClaimLost,
    Conflict,
    DatabaseUnavailable,
    GeneratorNameTaken,
    GeneratorNotFound,
    IdempotencyKeyReused,
    InvalidAgent,
    InvalidInput,
    InvalidWork,
    KeyNotFound,
    LastAdminKey,
    LimitReached,
    MalformedBody,
    MethodNotAllowed,
    NoSuchEndpoint,
    NotFound,
    NotPermitted,
    PayloadPruned,
    Unauthenticated,
    WorkFinished,
    WorkNotClaimable,
    WorkNotFinished,
    WorkNotFound,
    WorkNotHeld,
    WorkTypeUnavailable,
)
from brokkr.work.redaction import redact

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[type[BrokkrError], HTTPStatus]] = MappingProxyType(
    {
        InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
        MalformedBody: HTTPStatus.BAD_REQUEST,
        BodyEncoded: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        Unauthenticated: HTTPStatus.UNAUTHORIZED,
        NotPermitted: HTTPStatus.FORBIDDEN,
        NoSuchEndpoint: HTTPStatus.NOT_FOUND,
        MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
        NotFound: HTTPStatus.NOT_FOUND,
        Conflict: HTTPStatus.CONFLICT,
        LimitReached: HTTPStatus.TOO_MANY_REQUESTS,
        BrokerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        BrokerFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)
"""The status of each branch of the tree; a leaf has its parent's."""

CODES: Final[Mapping[str, type[BrokkrError]]] = MappingProxyType(
    {
        "agent_drained": AgentDrained,
        "agent_name_taken": AgentNameTaken,
        "agent_not_found": AgentNotFound,
        "agent_superseded": AgentSuperseded,
        "body_encoded": BodyEncoded,
        "body_too_large": BodyTooLarge,
        "broker_unavailable": BrokerUnavailable,
        "claim_lost": ClaimLost,
        "conflict": Conflict,
        "database_unavailable": DatabaseUnavailable,
        "generator_name_taken": GeneratorNameTaken,
        "generator_not_found": GeneratorNotFound,
        "idempotency_key_reused": IdempotencyKeyReused,
        "internal_error": BrokerFailed,
        "invalid": InvalidInput,
        "invalid_agent": InvalidAgent,
        "invalid_work": InvalidWork,
        "key_not_found": KeyNotFound,
        "last_admin_key": LastAdminKey,
        "limit_reached": LimitReached,
        "malformed_body": MalformedBody,
        "method_not_allowed": MethodNotAllowed,
        "no_such_endpoint": NoSuchEndpoint,
        "not_found": NotFound,
        "not_permitted": NotPermitted,
        "payload_pruned": PayloadPruned,
        "unauthenticated": Unauthenticated,
        "work_finished": WorkFinished,
        "work_not_claimable": WorkNotClaimable,
        "work_not_finished": WorkNotFinished,
        "work_not_found": WorkNotFound,
        "work_not_held": WorkNotHeld,
        "work_type_unavailable": WorkTypeUnavailable,
    }
)
"""All that a broker says; written out, so that it does not depend on what was imported."""

_STANDARD: Final = frozenset(
    {"type", "title", "status", "detail", "instance", "code", "family", "request_id", "broker"}
)


def status_of(error: BrokkrError) -> HTTPStatus:
    """Return the HTTP status that says what kind of error this is."""
    return _status(type(error))


def problem_of(error: BrokkrError, *, broker: str | None = None) -> dict[str, Any]:
    """
    Render an error as the members of a problem document.

    Args:
        broker: The id of the broker's database, if that is known yet.
    """
    status = status_of(error)
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "code": error.code,
        "family": _family(type(error)),
        "detail": redact(str(error)),
        **({} if broker is None else {"broker": broker}),
        # What was sent may be repeated in them.
        **{k: redact(v) if isinstance(v, str) else v for k, v in vars(error).items()},
    }


def read_problem(status: int, document: object) -> BrokkrError | None:
    """
    Return the error that a problem document speaks of; None if no broker has written it.

    A code that is not known counts as the nearest of its family that is.
    See Note [Whose word it is].

    Args:
        status: The HTTP status that it came with.
        document: What was read; anything at all.
    """
    if not isinstance(document, dict) or document.get("status", status) != status:
        return None
    kind = _known(document.get("code"), document.get("family"))
    if kind is None or _status(kind) != status:
        return None
    error = kind.__new__(kind)
    sentence = str(document.get("detail") or document.get("title") or document["code"])
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and "request_id" in document:
        sentence += f" (request {document['request_id']})"  # by which its log can be searched
    error.args = (sentence,)
    if isinstance(document.get("broker"), str):
        error.broker = document["broker"]
    vars(error).update(
        {k: v for k, v in document.items() if k not in _STANDARD and not hasattr(Exception, k)}
    )
    return error


def _known(code: object, family: object) -> type[BrokkrError] | None:
    if not isinstance(code, str):
        return None
    codes = (code, *(family if isinstance(family, list) else ()))
    return next((CODES[each] for each in codes if isinstance(each, str) and each in CODES), None)


def _family(kind: type[BrokkrError]) -> list[str]:
    """Name the errors that one is a case of, the nearest first."""
    parents = (each for each in kind.__mro__[1:] if issubclass(each, BrokkrError))
    return [each.code for each in parents if each is not BrokkrError]


def _status(kind: type[BrokkrError]) -> HTTPStatus:
    for each in kind.__mro__:
        if each in STATUS:
            return STATUS[each]
    return HTTPStatus.INTERNAL_SERVER_ERROR

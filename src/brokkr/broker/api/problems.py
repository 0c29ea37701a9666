"""Errors into ``application/problem+json``, for the whole API."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from brokkr.broker.api.requests import REQUEST_ID
from brokkr.broker.api.state import Broker, broker_of
from brokkr.wire.bodies import BatchItem
from brokkr.wire.problem import MEDIA_TYPE, problem_of, status_of
from brokkr.work.errors import (
    BrokerFailed,
    BrokerUnavailable,
    BrokkrError,
    InvalidInput,
    LimitReached,
    MethodNotAllowed,
    Unauthenticated,
    WorkNotFound,
)

_log = structlog.get_logger()
_MAX_NAMED = 200


def answer_with_problems(app: FastAPI) -> None:
    """Make every error of the application leave as a problem document."""
    app.add_exception_handler(BrokkrError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)


def item_problem(error: ValidationError | InvalidInput, item: Any, *, field: str) -> InvalidInput:
    """Say what is wrong with one item of a batch, and where in the whole body."""
    if isinstance(error, InvalidInput):
        return type(error)(f"{field}.{error.field}".rstrip("."), error.problem)
    found = [
        (_path({**each, "loc": ("body", *each["loc"])}, item), each) for each in error.errors()
    ]
    where, first = max(found, key=lambda each: _likelihood(*each))
    return InvalidInput(f"{field}.{where}".rstrip("."), _words(first))


def refused_item(
    error: BrokkrError, broker: Broker, about: Mapping[str, Any] | None = None
) -> BatchItem:
    """
    Render what one item of a batch is answered that is not accepted.

    Args:
        about: The item, if it names its Work.
    """
    named = _work_of(about or {})
    problem = {
        **({} if named is None else {"work_id": named}),
        **problem_of(error, broker=str(broker.id)),
    }
    return BatchItem(status=status_of(error), problem=problem)


async def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BrokkrError)
    if isinstance(error, BrokerUnavailable):
        _log.warning("request not served", error=str(error))
    return _problem(request, error, _headers(error))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Name what was wrong: all of it, and first what the caller most likely meant."""
    assert isinstance(error, RequestValidationError)
    found = [(_path(each, error.body), each) for each in error.errors()]
    where, first = max(found, key=lambda item: _likelihood(*item))
    if first["loc"][0] == "path":
        return _problem(request, WorkNotFound(first["input"]))  # no id, so of no Work
    errors = [{"field": path, "problem": _words(each)} for path, each in found]
    return _problem(request, InvalidInput(where, _words(first)), more={"errors": errors})


async def _http(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself: methods that a path does not have."""
    assert isinstance(error, HTTPException)
    if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
        raise error
    what = f"{request.method} {request.scope['path']}"[:_MAX_NAMED]
    return _problem(request, MethodNotAllowed(f"this broker has no {what}"), error.headers)


async def _unknown(request: Request, _error: Exception) -> JSONResponse:
    """Our own mistake: the traceback is in the log, and nothing of it in the answer."""
    failed = BrokerFailed("the broker failed to answer this; its log says why")
    # This answer alone is made outside of all middleware.
    return _problem(request, failed, {REQUEST_ID: request.state.request_id})


def _problem(
    request: Request,
    error: BrokkrError,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """Answer with a problem; what is asked of a Work is answered with the Work's id."""
    database = broker_of(request).database
    broker = None if database is None else str(database.id)
    named = _work_of(request.path_params)
    problem = {
        **({} if named is None else {"work_id": named}),
        **problem_of(error, broker=broker),
        "request_id": request.state.request_id,
        **(more or {}),
    }
    return JSONResponse(
        problem, status_code=status_of(error), headers=headers, media_type=MEDIA_TYPE
    )


def _work_of(named: Mapping[str, Any]) -> str | None:
    """Return the id of the Work that a path or an item names, if it names one."""
    try:
        return str(UUID(str(named["work_id"])))
    except (KeyError, ValueError):
        return None


def _headers(error: BrokkrError) -> dict[str, str]:
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, LimitReached):
        return {"Retry-After": str(math.ceil(error.retry_after))}
    if isinstance(error, BrokerUnavailable):
        return {"Retry-After": "5"}
    return {}


def _path(error: Mapping[str, Any], body: Any) -> str:
    """
    Render where the error is as a path through what was sent.

    The location that the validator gives also names the alternatives of a union it has
    tried; those are not in the body, and only the name of a missing field may be.
    """
    place, *location = error["loc"]
    if place != "body":
        return ".".join(map(str, location))
    path = ""
    for index, step in enumerate(location):
        is_last = index == len(location) - 1
        if isinstance(body, dict) and (step in body or (is_last and error["type"] == "missing")):
            path, body = f"{path}.{step}", body.get(step)
        elif isinstance(body, list) and isinstance(step, int) and step < len(body):
            path, body = f"{path}[{step}]", body[step]
    return path.lstrip(".")


def _likelihood(path: str, error: Mapping[str, Any]) -> tuple[bool, int]:
    """Of several alternatives, the one of the right type that got furthest was meant."""
    return not str(error["type"]).endswith("_type"), path.count(".") + path.count("[")


def _words(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]

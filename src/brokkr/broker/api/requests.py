"""
What every request has, whatever it asks for: an id, a trace, a measured time, a log line.

The outermost layer of the application, so all requests pay for it.  The spans of requests
are made by the framework itself; see :func:`telemetry_of`.
"""

import re
from collections.abc import MutableMapping
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import structlog
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brokkr.work.trace import TraceContext

if TYPE_CHECKING:
    from brokkr.otlp import Exporter

REQUEST_ID: Final = "X-Request-ID"

_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._~:+/=@-]{1,128}")
_SLOW_SECONDS: Final = 1.0
_WAITING: Final = frozenset(
    {
        "/api/v1/agents/{ref}/work/pending",
        "/api/v1/agents/{ref}/work/claim",
        "/api/v1/work/{work_id}/events",
    }
)
"""Routes on which to take long is to wait, and not to be slow."""

_log = structlog.get_logger()


class FollowRequests:
    """Middleware that names each request, and says how it went."""

    def __init__(self, app: ASGIApp, *, exporter: "Exporter | None" = None) -> None:
        """
        Put it around an application.

        Args:
            exporter: Knows the span that the framework has opened for a request.
        """
        self._app = app
        self._exporter = exporter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR
        request_id, trace = self._identify(scope)
        scope.setdefault("state", {}).update(request_id=request_id, trace=trace)
        # Each request is a task with a context of its own, so none of this is taken back:
        # what is said after the end of a request, of its failure, is still said of it.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        if trace is not None:
            structlog.contextvars.bind_contextvars(trace_id=trace.trace_id)

        async def name_the_answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                name = (REQUEST_ID.lower().encode(), request_id.encode())
                message = {**message, "headers": [*message["headers"], name]}
            await send(message)

        try:
            await self._app(scope, receive, name_the_answer)
        finally:
            _note(scope, status=status, seconds=perf_counter() - began)

    def _identify(self, scope: Scope) -> tuple[str, TraceContext | None]:
        """Return the request's id, and the span that it is, or is done for."""
        given: dict[bytes, list[bytes]] = {b"x-request-id": [], b"traceparent": []}
        for name, value in scope["headers"]:
            if name in given:
                given[name].append(value)
        ids = given[b"x-request-id"]
        request_id = ids[0].decode() if ids and _SANE_ID.fullmatch(ids[0]) else uuid4().hex
        trace = self._exporter.current() if self._exporter is not None else None
        if trace is None and len(given[b"traceparent"]) == 1:
            trace = TraceContext.parse(given[b"traceparent"][0].decode("latin-1").strip())
        return request_id, trace


def _note(scope: Scope, *, status: int, seconds: float) -> None:
    """Measure a request that is over, and log it; at info if somebody should look at it."""
    method, route = scope["method"], getattr(scope.get("route"), "path", "unknown")
    scope["app"].state.broker.metrics.requests.labels(method, route, status).observe(seconds)
    is_slow = seconds >= _SLOW_SECONDS and route not in _WAITING
    is_failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    caller = scope["state"].get("caller")
    (_log.info if is_failed or is_slow else _log.debug)(
        "request answered",
        method=method,
        route=route,
        status=status,
        ms=round(seconds * 1000, 1),
        actor=None if caller is None else caller.actor,
    )


def telemetry_of(exporter: "Exporter | None") -> TelemetryConfig:
    """Say how the framework traces requests: with a span for each, if they are exported."""
    return {
        "tracing": exporter is not None,
        "tracer_provider": None if exporter is None else exporter.provider,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        "exclude": _is_no_work,
    }


def _is_no_work(scope: MutableMapping[str, Any]) -> bool:
    """Say whether a request is for those who watch the broker itself."""
    path: str = scope["path"]
    return not path.startswith("/api/")

"""Whether the broker lives, whether it can serve, and what it counts."""

from http import HTTPStatus
from time import perf_counter

from fastapi import Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brokkr.broker.api.state import TheBroker
from brokkr.broker.db import work_queue
from brokkr.broker.db.pool import transaction


async def healthz() -> Response:
    """Say that the process answers."""
    return PlainTextResponse("ok\n")


async def readyz(broker: TheBroker) -> Response:
    """Say that the database answers, too."""
    async with transaction(broker.pool) as db:
        await work_queue.get_broker_id(db)
    return PlainTextResponse("ok\n")


async def metrics(broker: TheBroker) -> Response:
    """Render the metrics in Prometheus' text format."""
    async with transaction(broker.pool) as db:
        queued = await work_queue.count_queue(db)
    for status in ("PENDING", "CLAIMED"):
        broker.metrics.queued.labels(status).set(queued.get(status, 0))
    broker.metrics.waiting.set(broker.dispatcher.waiting)
    return Response(broker.metrics.render(), media_type=CONTENT_TYPE_LATEST)


class MeasureRequests:
    """Middleware that notes how long each request took, by route and status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            requests = scope["app"].state.broker.metrics.requests
            requests.labels(scope["method"], route, status).observe(perf_counter() - began)

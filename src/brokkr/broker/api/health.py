"""Whether the broker lives, whether it can serve, and what it counts."""

from contextlib import suppress
from time import monotonic

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from brokkr.broker.api.auth import authenticate, check_role
from brokkr.broker.api.state import broker_of
from brokkr.broker.db import work_queue
from brokkr.broker.db.keys import Role
from brokkr.broker.db.pool import transaction, use_of
from brokkr.work.errors import DatabaseUnavailable


async def healthz() -> Response:
    """Say that the process answers."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """Say that the database answers, and takes writes."""
    broker = broker_of(request)
    connections = broker.connections.vital("readyz")
    async with transaction(connections) as db:
        await work_queue.get_broker_id(db)
    await broker.writes.check(connections, now=monotonic())
    return PlainTextResponse("ok\n")


async def metrics(request: Request) -> Response:
    """Render the metrics in Prometheus' text format."""
    broker = broker_of(request)
    if not broker.settings.metrics_open:
        check_role(await authenticate(request), (Role.ADMIN, Role.VIEWER))
    with suppress(DatabaseUnavailable):  # what this process knows by itself is told all the same
        broker.metrics.note_pool(use_of(broker.pool), waiting=broker.connections.waiting)
        await broker.metrics.measure(broker.connections.other("metrics"), now=monotonic())
    broker.metrics.waiting.set(broker.dispatcher.waiting)
    broker.metrics.streams.set(len(broker.followers))
    return Response(broker.metrics.render(), media_type=CONTENT_TYPE_LATEST)

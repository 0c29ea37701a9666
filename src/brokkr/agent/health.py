"""
What the agent says of itself over HTTP: ``/healthz``, ``/readyz`` and ``/metrics``.

Alive is a process that answers: what is away may come back, and a restart would not help.
Ready is one that executes all it is meant to; else the answer says what is in its way.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from brokkr.agent.metrics import Metrics
from brokkr.work.errors import BrokkrError
from brokkr.work.redaction import redact

log = structlog.get_logger()

_TEXT = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


class CannotListen(BrokkrError):
    """The health endpoint's address is taken, or not this machine's."""

    code = "cannot_listen"


@asynccontextmanager
async def health_endpoint(
    host: str,
    port: int,
    *,
    metrics: Metrics,
    problems: Callable[[], Mapping[str, str]],
    warnings: Callable[[], Mapping[str, str]] = dict,
) -> AsyncIterator[str]:
    """
    Answer for the length of the block; yield the URL.

    Args:
        problems: What keeps the agent from being ready, by what it concerns.
        warnings: What it is ready without, likewise.

    Raises:
        CannotListen: The address or the port is not to be had.
    """

    async def alive(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        found = {about: redact(problem) for about, problem in problems().items()}
        body = {
            "status": "not ready" if found else "ok",
            "problems": found,
            "warnings": dict(warnings()),
        }
        return web.Response(
            text=json.dumps(body), content_type="application/json", status=503 if found else 200
        )

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers=_TEXT)

    app = web.Application(client_max_size=1024)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", show_metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise CannotListen(
                f"cannot answer on {host}:{port} ({error.strerror}): set agent.health.port"
            ) from error
        url = f"http://{host}:{runner.addresses[0][1]}"
        log.info("agent listens", url=url)
        yield url
    finally:
        await runner.cleanup()

"""
The broker, wired: the only place where its parts are made and put together.

:func:`create_app` makes the application, :func:`serve` runs it as a process.
"""

import asyncio
import resource
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial

import structlog
import uvicorn
from fastapi import FastAPI

from brokkr import __version__
from brokkr.broker.api.health import MeasureRequests
from brokkr.broker.api.problems import answer_with_problems
from brokkr.broker.api.routes import add_routes
from brokkr.broker.api.state import Broker
from brokkr.broker.db.migrate import migrate
from brokkr.broker.db.pool import open_pool, transaction
from brokkr.broker.db.work_queue import get_broker_id
from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.maintenance.due_work import move_due_work
from brokkr.broker.maintenance.stale_claims import release_stale_claims
from brokkr.broker.maintenance.ticker import every
from brokkr.broker.metrics import Metrics
from brokkr.broker.settings import BrokerSettings
from brokkr.work.errors import BrokkrError

_BACKLOG = 4096
_GRACE_SECONDS = 4
_DUE_INTERVAL = timedelta(seconds=0.5)

_log = structlog.get_logger()


class AddressTaken(BrokkrError):
    """Somebody else listens where the broker was told to."""

    code = "address_taken"

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(
            f"cannot listen on {host}:{port} ({reason}); "
            "another broker may be running, or set broker.host and broker.port"
        )


def create_app(settings: BrokerSettings, *, database_url: str, pool_size: int = 10) -> FastAPI:
    """Make the application; it starts to work when its lifespan is entered."""
    app = FastAPI(
        title="Brokkr",
        version=__version__,
        summary="Submit one-off work once; exactly one agent in the right cluster runs it.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=partial(
            _lifespan, settings=settings, database_url=database_url, pool_size=pool_size
        ),
    )
    add_routes(app)
    answer_with_problems(app)
    app.add_middleware(MeasureRequests)
    return app


async def serve(settings: BrokerSettings, database_url: str, *, pool_size: int = 10) -> None:
    """
    Run the broker until SIGINT or SIGTERM; requests that are being served are finished.

    Raises:
        AddressTaken: Somebody else listens there.
        DatabaseUnavailable: The database does not let us in.
    """
    _raise_file_limit()
    with (
        listening(settings.host, settings.port) as listener,
        _signals_only_stop_the_server(),
    ):
        app = create_app(settings, database_url=database_url, pool_size=pool_size)
        async with app.router.lifespan_context(app):
            host, port = listener.getsockname()[:2]
            _log.info(
                "broker ready", url=f"http://{host}:{port}", docs=f"http://{host}:{port}/docs"
            )
            await Server(app).serve(sockets=[listener])
    _log.info("broker stopped")


class Server(uvicorn.Server):
    """A server that answers parked long polls at once when it is told to stop."""

    def __init__(self, app: FastAPI) -> None:
        """Prepare to serve an application whose lifespan the caller has entered."""
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                loop="none",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=75,  # longer than a long poll, so that connections last
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: no new connections, no more waiting, then the rest is finished."""
        self._app.state.broker.dispatcher.close()
        await super().shutdown(sockets)


@asynccontextmanager
async def _lifespan(
    app: FastAPI, *, settings: BrokerSettings, database_url: str, pool_size: int
) -> AsyncIterator[None]:
    applied = await migrate(database_url)
    if applied:
        _log.info("database migrated", migrations=applied)
    async with open_pool(database_url, size=pool_size) as pool:
        async with transaction(pool) as db:
            broker_id = await get_broker_id(db)
        broker = Broker(
            id=broker_id,
            pool=pool,
            dispatcher=Dispatcher(),
            metrics=Metrics(),
            settings=settings,
        )
        app.state.broker = broker
        interval = timedelta(seconds=settings.stale_claim_interval_seconds)
        sweep = partial(
            release_stale_claims,
            pool,
            interval=interval,
            max_lost_claims=settings.max_lost_claims,
            metrics=broker.metrics,
            dispatcher=broker.dispatcher,
        )
        move_due = partial(
            move_due_work, pool, dispatcher=broker.dispatcher, metrics=broker.metrics
        )
        background = [
            asyncio.create_task(broker.dispatcher.run(database_url, pool)),
            asyncio.create_task(every(interval, sweep, name="release stale claims")),
            asyncio.create_task(every(_DUE_INTERVAL, move_due, name="move due work")),
        ]
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """
    Listen for the length of the block; port 0 is any free one.

    Raises:
        AddressTaken: Somebody else listens there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise AddressTaken(host, port, error.strerror or str(error)) from error
    with listener:
        # Connections inherit it.  An answer is written in two parts, and without this the
        # second one waits 40 ms for the first one's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


@contextmanager
def _signals_only_stop_the_server() -> Iterator[None]:
    """
    Ignore the signals that the server raises again after it has stopped.

    By default they would end the process before the database is closed.
    """
    before = {each: signal.signal(each, _ignore) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: unlike SIG_IGN this is not inherited by child processes."""


def _raise_file_limit() -> None:
    """Every parked long poll is a connection; past the limit they are closed silently."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

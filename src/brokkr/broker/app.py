"""
The broker, wired: the only place where its parts are made and put together.

:func:`create_app` makes the application, :func:`serve` runs it as a process.
"""

import asyncio
import gc
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog
import uvicorn
from fastapi import FastAPI

from brokkr import __version__
from brokkr.broker.api.connection import Connection
from brokkr.broker.api.problems import answer_with_problems
from brokkr.broker.api.requests import FollowRequests, telemetry_of
from brokkr.broker.api.routes import add_routes
from brokkr.broker.api.state import Broker, Database
from brokkr.broker.db.callers import Callers
from brokkr.broker.db.keys import keep_admin_key
from brokkr.broker.db.migrate import migrate
from brokkr.broker.db.outage import Outage
from brokkr.broker.db.pool import open_pool, place_of, transaction
from brokkr.broker.db.shares import Connections
from brokkr.broker.db.work_queue import get_broker_id
from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.followers import Followers
from brokkr.broker.maintenance.clock import read_clock
from brokkr.broker.maintenance.due_work import move_due_work
from brokkr.broker.maintenance.labels import LabelCopy
from brokkr.broker.maintenance.lanes import LaneRest
from brokkr.broker.maintenance.retention import prune
from brokkr.broker.maintenance.selectors import SelectorRepair
from brokkr.broker.maintenance.stale_claims import release_stale_claims
from brokkr.broker.maintenance.statistics import refresh_statistics
from brokkr.broker.maintenance.ticker import every
from brokkr.broker.metrics import Metrics
from brokkr.broker.settings import BrokerSettings
from brokkr.telemetry import exporting
from brokkr.work.errors import BrokkrError, DatabaseUnavailable

if TYPE_CHECKING:
    from brokkr.otlp import Exporter

_BACKLOG = 4096
_GRACE_SECONDS = 4
_UNREAD_SECONDS = 60
_DUE_INTERVAL = timedelta(seconds=0.5)
_CLOCK_INTERVAL = timedelta(seconds=2)
_STATISTICS_INTERVAL = timedelta(seconds=2)
_KEY_USE_INTERVAL = timedelta(minutes=1)
_REPAIR_INTERVAL = timedelta(seconds=30)
_LABEL_COPY_INTERVAL = timedelta(seconds=2)
_REST_INTERVAL = timedelta(seconds=30)
_RETENTION_INTERVAL = timedelta(minutes=10)
_RETRY_SECONDS = 1

_log = structlog.get_logger()


class AddressTaken(BrokkrError):
    """Somebody else listens where the broker was told to."""

    code = "address_taken"

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(
            f"cannot listen on {host}:{port} ({reason}); "
            "another broker may be running, or set broker.host and broker.port"
        )


def create_app(
    settings: BrokerSettings,
    *,
    database_url: str,
    pool_size: int = 10,
    exporter: "Exporter | None" = None,
) -> FastAPI:
    """
    Make the application; it starts to work when its lifespan is entered.

    Args:
        exporter: Where the spans of requests go, if they are exported.
    """
    app = FastAPI(
        title="Brokkr",
        version=__version__,
        summary="Submit one-off work once; exactly one agent in the right cluster runs it.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        telemetry=telemetry_of(exporter),
        lifespan=partial(
            _lifespan, settings=settings, database_url=database_url, pool_size=pool_size
        ),
    )
    add_routes(app)
    answer_with_problems(app)
    app.add_middleware(FollowRequests, exporter=exporter)
    return app


async def serve(settings: BrokerSettings, database_url: str, *, pool_size: int = 10) -> None:
    """
    Run the broker until SIGINT or SIGTERM; requests that are being served are finished.

    A database that is away is waited for; until it has come, requests are answered 503.

    Raises:
        AddressTaken: Somebody else listens there.
        MigrationChanged: The database is of another version of the broker.
        InvalidInput: The database's URL is none, or the configured key is no admin key.
    """
    _raise_file_limit()
    _collect_rarely()
    with (
        listening(settings.host, settings.port) as listener,
        _signals_only_stop_the_server(),
        exporting("brokkr-broker") as exporter,
    ):
        app = create_app(
            settings, database_url=database_url, pool_size=pool_size, exporter=exporter
        )
        host, port = listener.getsockname()[:2]
        _log.info("broker listens", url=f"http://{host}:{port}", docs=f"http://{host}:{port}/docs")
        async with app.router.lifespan_context(app):
            await Server(app).serve(sockets=[listener])
    _log.info("broker stopped")


class Server(uvicorn.Server):
    """A server that answers parked long polls at once when it is told to stop."""

    def __init__(self, app: FastAPI) -> None:
        """Prepare to serve an application whose lifespan the caller has entered."""
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
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
        self._broker: Broker = app.state.broker

    async def on_tick(self, counter: int) -> bool:
        """Say whether to stop: told to from outside, or because the broker itself is over."""
        return await super().on_tick(counter) or self._broker.stopping.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: no new connections, no more waiting, then the rest is finished."""
        self._broker.stopping.set()
        self._broker.dispatcher.close()
        await super().shutdown(sockets)


@asynccontextmanager
async def _lifespan(
    app: FastAPI, *, settings: BrokerSettings, database_url: str, pool_size: int
) -> AsyncIterator[None]:
    callers = Callers()
    broker = Broker(
        dispatcher=Dispatcher(callers=callers),
        metrics=Metrics(),
        settings=settings,
        callers=callers,
        followers=Followers(share=settings.max_event_streams_per_caller),
    )
    app.state.broker = broker
    running = asyncio.create_task(_run(broker, database_url, pool_size=pool_size))
    running.add_done_callback(lambda _: broker.stopping.set())
    try:
        yield
    finally:
        broker.stopping.set()
        await broker.dispatcher.tell_the_rest()
        running.cancel()
        await asyncio.wait([running])
    if not running.cancelled():
        running.result()  # it never returns, so this raises what ended it


async def _run(broker: Broker, database_url: str, *, pool_size: int) -> None:
    """Do all that needs the database, as soon as it is there, until cancelled."""
    outage = Outage(
        reminds=True,
        database=place_of(database_url),
        advice="the broker keeps trying; is the server running, and is database.url right?",
    )
    while True:
        try:
            applied = await migrate(database_url)
            if applied:
                _log.info("database migrated", migrations=applied)
            async with open_pool(database_url, size=pool_size) as pool:
                async with transaction(pool) as db:
                    await broker.clock.read(db)
                    if broker.settings.admin_key is not None:
                        await keep_admin_key(db, broker.settings.admin_key.get_secret_value())
                    broker.database = Database(
                        id=await get_broker_id(db), connections=Connections(pool)
                    )
                outage.end()
                _log.info("broker ready")
                async with asyncio.TaskGroup() as background:
                    connections = broker.connections
                    background.create_task(
                        broker.dispatcher.run(database_url, connections.vital("dispatch"))
                    )
                    background.create_task(
                        broker.followers.run(
                            connections.other("followers"), stopping=broker.stopping
                        )
                    )
                    for interval, job, name in _jobs(broker):
                        timed = broker.metrics.timed(job, name=name)
                        background.create_task(every(interval, timed, name=name))
        except DatabaseUnavailable as error:
            outage.note(error)
        await asyncio.sleep(_RETRY_SECONDS)


def _jobs(broker: Broker) -> list[tuple[timedelta, Callable[[], Awaitable[None]], str]]:
    """Return what runs every so often: how often, what, and how the log names it."""
    settings = broker.settings
    vital, other = broker.connections.vital("jobs"), broker.connections.other("jobs")
    interval = timedelta(seconds=settings.stale_claim_interval_seconds)
    sweep = partial(
        release_stale_claims,
        vital,
        interval=interval,
        max_lost_claims=settings.max_lost_claims,
        metrics=broker.metrics,
        dispatcher=broker.dispatcher,
    )
    move_due = partial(move_due_work, vital, dispatcher=broker.dispatcher, metrics=broker.metrics)
    repair = SelectorRepair(pool=other, dispatcher=broker.dispatcher, metrics=broker.metrics)
    rest = LaneRest(pool=other, dispatcher=broker.dispatcher)
    forget = partial(prune, other, settings.retention, metrics=broker.metrics, clock=broker.clock)
    return [
        (interval, sweep, "release stale claims"),
        (_DUE_INTERVAL, move_due, "move due work"),
        (_CLOCK_INTERVAL, partial(read_clock, vital, broker.clock), "read clock"),
        (_KEY_USE_INTERVAL, partial(broker.callers.note_use, other), "note key use"),
        (_REPAIR_INTERVAL, repair, "repair selectors"),
        (_REST_INTERVAL, rest, "rest lanes"),
        (_LABEL_COPY_INTERVAL, LabelCopy(pool=other), "copy labels"),
        (_RETENTION_INTERVAL, forget, "prune old data"),
        (_STATISTICS_INTERVAL, partial(refresh_statistics, other), "refresh statistics"),
    ]


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
        # A client that takes nothing of its answer, or is gone without a word, would hold the
        # connection and the answer for as long as it pleases.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_SECONDS * 1000)
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


def _collect_rarely() -> None:
    """
    Look for garbage less often than Python does by default, and not among what is for good.

    Each look at the oldest generation goes through every parked long poll.  With two thousand
    of them more than half of a busy broker's time went into that.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)

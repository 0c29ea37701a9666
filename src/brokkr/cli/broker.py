"""``brokkr broker``: run the broker, and what its database needs."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Annotated, Final, TypeVar

import typer
import uvloop

from brokkr.broker.app import serve as serve_broker
from brokkr.broker.db.embedded import embedded_postgres
from brokkr.broker.db.keys import create_admin_key as make_admin_key
from brokkr.broker.db.migrate import migrate as migrate_database
from brokkr.cli.logs import log_to_stderr
from brokkr.cli.run import run
from brokkr.cli.settings import ConfigFile, Settings
from brokkr.configuration import load
from brokkr.work.errors import DatabaseUnavailable

_TAKEOVER_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.2
_SENT_TO: Final = {"PGPASSWORD": ("database.url",)}
_T = TypeVar("_T")

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

DatabaseUrl = Annotated[
    str | None, typer.Option(help="PostgreSQL to use; default: one that the broker runs itself.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where the broker's own PostgreSQL keeps its data.")
]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on.")] = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Run the broker until SIGTERM or Ctrl-C; it waits for its database, and migrates it."""

    async def work() -> None:
        settings = load(
            Settings,
            file=config,
            flags={
                "broker.host": host,
                "broker.port": port,
                "broker.data_dir": data_dir,
                "database.url": database_url,
            },
            sent_to=_SENT_TO,
        )
        log_to_stderr(settings.broker.log_format, settings.broker.log_level)
        async with _database(settings) as url:
            await serve_broker(settings.broker, url, pool_size=settings.database.pool_size)

    run(work(), loop_factory=uvloop.new_event_loop)


@app.command()
def migrate(
    database_url: DatabaseUrl = None, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """Bring the database's schema up to date; `serve` does the same when it starts."""

    async def work() -> list[str]:
        return await _with_database(_load(database_url, data_dir, config), migrate_database)

    log_to_stderr()
    for name in run(work()) or ["the schema is up to date"]:
        print(name)


@app.command()
def create_admin_key(
    database_url: DatabaseUrl = None, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """Make an admin key and print it, whether or not a broker runs on the database."""

    async def work() -> str:
        return await _with_database(_load(database_url, data_dir, config), make_admin_key)

    log_to_stderr()
    print(run(work()))


def _load(database_url: str | None, data_dir: Path | None, config: Path | None) -> Settings:
    flags = {"database.url": database_url, "broker.data_dir": data_dir}
    return load(Settings, file=config, flags=flags, sent_to=_SENT_TO)


async def _with_database(settings: Settings, use: Callable[[str], Awaitable[_T]]) -> _T:
    """
    Use the database once, and again if the embedded one stops and starts meanwhile.

    It does so when the process that runs it ends, which may be another such command.  What
    was begun is undone; of a key whose confirmation is lost, nobody has the secret.
    """
    async with _database(settings) as url:
        until = monotonic() + (0 if settings.database.url else _TAKEOVER_SECONDS)
        while True:
            try:
                return await use(url)
            except DatabaseUnavailable:
                if monotonic() >= until:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[str]:
    """Yield the URL of the configured database, or of the one that the broker runs."""
    if settings.database.url is not None:
        yield settings.database.url
        return
    async with embedded_postgres(settings.broker.data_dir or _default_data_dir()) as url:
        yield url


def _default_data_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/brokkr")
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "brokkr"

"""
The default database: a PostgreSQL server of the broker's own, in its data folder.

Owns who runs the server, and who only uses it.  It takes no part in what is stored
there.  ``brokkr broker …`` opens it when ``database.url`` is not set.

The data folder then holds ``postgres/`` (the cluster, its socket included),
``postgres.log`` and ``postgres.lock``.
"""

# Note [One server per data folder]
#
# Whoever holds the lock on ``postgres.lock`` owns the server: starts it, restarts it,
# stops it.  Whoever finds the lock taken uses the owner's server, and tries the lock again
# and again: when the owner has gone, one of those who are left becomes the owner and starts
# the server anew.  The kernel frees the lock with its holder, however that ends, and
# PR_SET_PDEATHSIG ends the server with it too.  So a lock that is free means that no server
# is meant to run: processes that still stand in the folder are leftovers, and so is
# ``postmaster.pid``, whose number may be a zombie's or a stranger's by now.

import asyncio
import fcntl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic
from typing import IO, Final

import structlog

from brokkr.broker.db.postgres_programs import EmbeddedPostgresFailed
from brokkr.broker.db.postgres_server import START_SECONDS, Server, answers, url_of

WATCH_SECONDS: Final = 0.25
"""Between two looks at a lock that somebody else holds; a look is one system call."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def embedded_postgres(data_dir: Path) -> AsyncIterator[str]:
    """
    Run the PostgreSQL of a data folder, or use the one that another process runs.

    When that process ends, this one starts the server again; until it answers, the
    database is unavailable.  Call it from a thread that lives as long as the server is to:
    the kernel ends the server with the thread that started it.

    Yields:
        The URL of a database that only its owner and root can open.

    Raises:
        EmbeddedPostgresFailed: It cannot be started, or cannot be reached.
    """
    folder = _folder_in(data_dir)
    with _lock_file(folder) as lock:
        server = Server(folder)
        try:
            is_owner = await _own_or_attach(lock, folder)
            if is_owner:
                await server.start()
            with url_of(folder) as url:
                keeper = asyncio.create_task(_keep(server, lock, is_owner=is_owner))
                try:
                    yield url
                finally:
                    keeper.cancel()
                    await asyncio.wait([keeper])
        finally:
            await server.stop()


async def _keep(server: Server, lock: IO[bytes], *, is_owner: bool) -> None:
    """Keep the server running, as soon as it is ours to run."""
    while not is_owner:
        await asyncio.sleep(WATCH_SECONDS)
        is_owner = _take(lock)
        if is_owner:
            log.warning("embedded postgres taken over", reason="the process that ran it has ended")
    await server.keep_running()


def _folder_in(data_dir: Path) -> Path:
    return data_dir.absolute() / "postgres"


@contextmanager
def _lock_file(folder: Path) -> Iterator[IO[bytes]]:
    path = folder.with_name("postgres.lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        lock = path.open("ab")
    except OSError as error:
        raise EmbeddedPostgresFailed(
            f"the data folder {path.parent} cannot be used: {error.strerror}"
        ) from error
    with lock:
        yield lock


async def _own_or_attach(lock: IO[bytes], folder: Path) -> bool:
    """Take the lock, or wait until its holder's server answers; say whether it is ours."""
    deadline = monotonic() + START_SECONDS
    while monotonic() < deadline:
        if _take(lock):
            return True
        if await answers(folder):
            return False
        await asyncio.sleep(0.1)
    raise EmbeddedPostgresFailed(
        f"another process holds {folder.parent}, and its PostgreSQL does not answer"
    )


def _take(lock: IO[bytes]) -> bool:
    """Take the lock if it is free, and say whether it is ours now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

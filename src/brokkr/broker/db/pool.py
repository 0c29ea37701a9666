"""
The connections to PostgreSQL.

Owns how they are opened, and the translation of what the driver raises when the
database is away.  No session state is ever set, so nothing is reset between uses.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import parse_qs, urlsplit

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from brokkr.work.errors import DatabaseUnavailable, InvalidInput

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"


class Lender(Protocol):
    """Who lends connections: a pool, or a share of one (:mod:`brokkr.broker.db.shares`)."""

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection for the length of a block, after at most so many seconds."""

    async def expire_connections(self) -> None:
        """Let every connection be opened anew when it is lent the next time."""


_STATEMENT_TIMEOUT_SECONDS = 15
_LOCK_TIMEOUT_SECONDS = 2
_IDLE_SECONDS = 10
_ACQUIRE_TIMEOUT_SECONDS = 10
_SILENCE_SECONDS = 20
"""After so long without an answer nobody is there to stop the statement."""

# The broker's statements are few and short.  Left to itself the server plans a claim or a
# completion anew each time, which takes longer than to run it.  A plan that is kept knows no
# limit, so it expects much of a lane, and beside that to read a whole other table looks cheap;
# but each statement has its indexes.
#
# No statement waits long for a lock: whoever holds it for seconds is a broker that was frozen,
# and those who wait for it would use up the connections of this one.  The server ends the
# transaction of a frozen broker, which is idle in the middle of it.
SESSION: Final = {
    "application_name": "brokkr-broker",
    "timezone": "UTC",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "statement_timeout": f"{_STATEMENT_TIMEOUT_SECONDS}s",
    "lock_timeout": f"{_LOCK_TIMEOUT_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{_IDLE_SECONDS}s",
}
"""What the server is told of each connection of a pool."""

_JSONB_VERSION: Final = b"\x01"
"""What PostgreSQL puts before the text of a ``jsonb`` that it sends, and wants to find there."""

_AWAY = (
    OSError,  # refused, reset, timed out
    asyncpg.InterfaceError,  # closed under our hands
    asyncpg.InternalClientError,  # the server has said goodbye, and the end has not come yet
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement timeout
    asyncpg.InsufficientResourcesError,  # a full disk, too many connections
    asyncpg.PostgresSystemError,  # a disk that fails
    asyncpg.ReadOnlySQLTransactionError,  # it has become a standby
    asyncpg.TransactionRollbackError,  # deadlock
    asyncpg.LockNotAvailableError,  # somebody holds a lock for longer than we wait
)

_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


@asynccontextmanager
async def open_pool(url: str, *, size: int = 10) -> AsyncIterator[Pool]:
    """
    Open a pool of at most ``size`` connections, and close it in the end.

    Nothing is connected before it is used.
    """
    with _translated():
        pool = await asyncpg.create_pool(
            url,
            min_size=0,  # the pool would log its own attempts to restore a minimum
            max_size=size,
            init=_prepare,
            reset=_keep,
            timeout=_ACQUIRE_TIMEOUT_SECONDS,
            command_timeout=_SILENCE_SECONDS,
            server_settings=SESSION,
        )
    try:
        yield pool
    finally:
        pool.terminate()  # whoever used it has ended before


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """How many connections are open: in use or idle; and how many requests wait for one."""

    in_use: int
    idle: int
    limit: int
    waiting: int


def use_of(pool: Pool) -> PoolUse:
    """Look at a pool."""
    idle = pool.get_idle_size()
    inside: Any = pool  # the driver does not say who waits; a test notices if this changes
    return PoolUse(
        in_use=pool.get_size() - idle,
        idle=idle,
        limit=pool.get_max_size(),
        waiting=len(inside._queue._getters),  # noqa: SLF001
    )


@asynccontextmanager
async def autocommit(pool: Lender) -> AsyncIterator[Connection]:
    """
    Lend a connection on which each statement is a transaction of its own.

    For what is one statement: a transaction around it costs two more round trips.

    Raises:
        DatabaseUnavailable: The database is away, or too slow.
    """
    with _translated():
        async with pool.acquire(timeout=_ACQUIRE_TIMEOUT_SECONDS) as connection:
            try:
                yield connection
            except asyncpg.ReadOnlySQLTransactionError:
                await pool.expire_connections()  # the primary may be another server now
                raise


@asynccontextmanager
async def transaction(pool: Lender) -> AsyncIterator[Connection]:
    """
    Run one transaction: committed when the block is left, undone when an error passes.

    Raises:
        DatabaseUnavailable: The database is away, or too slow.
    """
    async with autocommit(pool) as connection, connection.transaction():
        yield connection


@asynccontextmanager
async def connect(url: str, *, name: str = "brokkr") -> AsyncIterator[Connection]:
    """
    Open one connection outside any pool: no time limit, and its errors are translated.

    Args:
        name: How the server lists the connection.

    Raises:
        DatabaseUnavailable: The database does not let us in, or went away.
        InvalidInput: The URL is none.
    """
    with _translated():
        connection = await asyncpg.connect(
            url, timeout=_ACQUIRE_TIMEOUT_SECONDS, server_settings={"application_name": name}
        )
        try:
            await _prepare(connection)
            yield connection
        except BaseException:
            connection.terminate()  # a goodbye may never be answered
            raise
        await connection.close(timeout=_ACQUIRE_TIMEOUT_SECONDS)


def place_of(url: str) -> str:
    """Say which database a URL leads to, without what opens it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", []))
    return f"{host}{parts.path}"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except asyncpg.ClientConfigurationError as error:
        raise InvalidInput("database.url", str(error)) from error
    except _REFUSED as error:
        raise DatabaseUnavailable(f"the database does not let us in: {error}") from error
    except ValueError:
        raise  # the driver calls wrong parameters an interface error; they are our mistake
    except _AWAY as error:
        problem = str(error) or "no answer in time"
        raise DatabaseUnavailable(f"the database is not available: {problem}") from error


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb",
        encoder=lambda value: _JSONB_VERSION + orjson.dumps(value),
        decoder=lambda sent: orjson.loads(sent[len(_JSONB_VERSION) :]),
        format="binary",
        schema="pg_catalog",
    )


async def _keep(_connection: Any) -> None:
    """Reset nothing: a fifth of the time of a short request goes into it."""

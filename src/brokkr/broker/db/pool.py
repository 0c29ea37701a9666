"""
The connections to PostgreSQL.

Owns how they are opened, and the translation of what the driver raises when the
database is away.  No session state is ever set, so nothing is reset between uses.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from brokkr.work.errors import DatabaseUnavailable

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

_STATEMENT_TIMEOUT_SECONDS = 15
_ACQUIRE_TIMEOUT_SECONDS = 10

_AWAY = (
    OSError,  # refused, reset, timed out
    asyncpg.InterfaceError,  # closed under our hands
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement timeout
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,  # deadlock
)

_REFUSED = (
    asyncpg.ClientConfigurationError,  # not a URL that the driver understands
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


@asynccontextmanager
async def open_pool(url: str, *, size: int = 10) -> AsyncIterator[Pool]:
    """
    Open a pool of at most ``size`` connections, and close it in the end.

    Raises:
        DatabaseUnavailable: The database does not let us in.
    """
    with _translated():
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            init=_prepare,
            reset=_keep,
            timeout=_ACQUIRE_TIMEOUT_SECONDS,
            server_settings={
                "application_name": "brokkr-broker",
                "timezone": "UTC",
                "jit": "off",
                "statement_timeout": f"{_STATEMENT_TIMEOUT_SECONDS}s",
                "idle_in_transaction_session_timeout": "30s",
            },
        )
    try:
        yield pool
    finally:
        pool.terminate()  # whoever used it has ended before


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """
    Run one transaction: committed when the block is left, undone when an error passes.

    Raises:
        DatabaseUnavailable: The database is away, or too slow.
    """
    with _translated():
        async with (
            pool.acquire(timeout=_ACQUIRE_TIMEOUT_SECONDS) as connection,
            connection.transaction(),
        ):
            yield connection


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Connection]:
    """
    Open one connection outside any pool: no time limit, and its errors are translated.

    Raises:
        DatabaseUnavailable: The database does not let us in, or went away.
    """
    with _translated():
        connection = await asyncpg.connect(url, timeout=_ACQUIRE_TIMEOUT_SECONDS)
        try:
            await _prepare(connection)
            yield connection
        finally:
            await connection.close(timeout=_ACQUIRE_TIMEOUT_SECONDS)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _REFUSED as error:
        raise DatabaseUnavailable(f"the database does not let us in: {error}") from error
    except ValueError:
        raise  # the driver calls wrong parameters an interface error; they are our mistake
    except _AWAY as error:
        raise DatabaseUnavailable(f"the database is not available: {error}") from error


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )


async def _keep(_connection: Any) -> None:
    """Reset nothing: a fifth of the time of a short request goes into it."""

"""
A real PostgreSQL for tests: one server per session, one database per test.

A migrated template database is made once; each test gets a clone of it, which costs
some ten milliseconds.  This server alone trades durability for speed.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from brokkr.broker.db.embedded import embedded_postgres
from brokkr.broker.db.migrate import migrate
from brokkr.broker.db.pool import open_pool
from brokkr.broker.db.postgres_server import serves

_FAST = ("fsync", "synchronous_commit", "full_page_writes")
_numbers = count(1)


@pytest.fixture(scope="session")
async def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The URL of the session's server, whose database ``template`` is migrated."""
    data_dir: Path = tmp_path_factory.mktemp("postgres")
    async with embedded_postgres(data_dir) as url:
        await _execute(url, *(f"ALTER SYSTEM SET {name} = off" for name in _FAST))
        await _execute(url, "SELECT pg_reload_conf()", "CREATE DATABASE template")
        await migrate(_database(url, "template"))
        yield url


@pytest.fixture
async def database_url(postgres_server: str) -> AsyncIterator[str]:
    """The URL of a fresh, migrated database."""
    async with fresh_database(postgres_server) as url:
        yield url


@asynccontextmanager
async def fresh_database(server: str, template: str = "template") -> AsyncIterator[str]:
    """Make a database on a server, migrated unless another template is named; drop it at last."""
    name = f"test_{next(_numbers)}"
    await _execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _database(server, name)
    await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """The broker's own kind of pool, on a fresh database."""
    async with open_pool(database_url) as pool:
        yield pool


def servers_of(data_dir: Path) -> list[int]:
    """The processes of a data folder's server: the postmaster and all that serve for it."""
    pids = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
    return [pid for pid in pids if serves(data_dir / "postgres", pid)]


def _database(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()

"""
Bring the schema up to date: numbered files, forward only, each in one transaction.

An advisory lock lets replicas that start together take turns.  A file that was applied
must not change afterwards; its checksum says so.  Files that only a newer broker knows
are left alone, so that replicas can be updated one after the other.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from time import monotonic
from typing import Final

import asyncpg
import structlog

from brokkr.broker.db.pool import Connection, connect
from brokkr.broker.db.statements import fetch_one, fetch_value
from brokkr.work.errors import BrokkrError

_LOCK_TIMEOUT_SECONDS: Final = 2
_ATTEMPTS: Final = 30
_TELL_SECONDS: Final = 5.0
_LOCK_PAUSE_SECONDS: Final = 0.1

_log = structlog.get_logger()


class MigrationChanged(BrokkrError):
    """A migration that this database has was applied from another text."""

    code = "migration_changed"

    def __init__(self, name: str) -> None:
        super().__init__(f"migration {name} was changed after it was applied to this database")
        self.name = name


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of ``migrations/``."""

    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Return the digest that tells whether the file is the one that was applied."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(url: str) -> list[str]:
    """
    Apply what is missing and return the names of what was applied.

    Raises:
        MigrationChanged: The database was made from another version of a file.
        DatabaseUnavailable: The database does not let us in.
    """
    async with connect(url) as db:
        await _lock(db)
        await db.execute(
            "CREATE TABLE IF NOT EXISTS schema_migration ("
            "name text PRIMARY KEY, sha256 text NOT NULL, "
            "applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = {
            row["name"]: row["sha256"]
            for row in await db.fetch("SELECT name, sha256 FROM schema_migration")
        }
        return [each.name for each in list_migrations() if await _apply(db, each, applied)]


async def _lock(db: Connection) -> None:
    """Take the lock, which is held until the connection closes; say for whom this waits."""
    tell_at = monotonic() + _TELL_SECONDS
    while not await fetch_value(db, "lock_migrations"):
        if monotonic() >= tell_at:
            tell_at = monotonic() + _TELL_SECONDS
            holder = await fetch_one(db, "find_migrator")
            _log.warning(
                "waiting for a migration",
                holder="unknown" if holder is None else holder["holder"],
                holder_pid=None if holder is None else holder["pid"],
                advice="another broker changes the schema, or hangs; this one goes on after it",
            )
        await asyncio.sleep(_LOCK_PAUSE_SECONDS)


def list_migrations() -> list[Migration]:
    """Return all migrations in the order in which they are applied."""
    folder = files(__package__) / "migrations"
    return sorted(
        (Migration(each.name, each.read_text()) for each in folder.iterdir()),
        key=lambda migration: migration.name,
    )


async def _apply(db: Connection, migration: Migration, applied: dict[str, str]) -> bool:
    if migration.name in applied:
        if applied[migration.name] != migration.sha256:
            raise MigrationChanged(migration.name)
        return False
    attempts = 1
    while True:
        try:
            async with db.transaction():
                # Whoever comes for a table while this waits for it waits behind it: so not long.
                await db.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_SECONDS}s'")
                await db.execute(migration.sql)
                await db.execute(
                    "INSERT INTO schema_migration (name, sha256) VALUES ($1, $2)",
                    migration.name,
                    migration.sha256,
                )
        except asyncpg.LockNotAvailableError:
            if attempts == _ATTEMPTS:
                raise
            _log.warning("migration waits", migration=migration.name, reason="a table is locked")
            attempts += 1
            await asyncio.sleep(_LOCK_TIMEOUT_SECONDS)
        else:
            return True

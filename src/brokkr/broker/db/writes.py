"""
Whether the database takes writes, for those who ask often.

A server whose disk is full, or that has become a standby, still answers every read.
"""

from typing import Final

from brokkr.broker.db.pool import Connection, Lender, transaction
from brokkr.broker.db.statements import fetch_value
from brokkr.work.errors import DatabaseUnavailable

CHECK_SECONDS: Final = 10.0
"""Between two looks while all is well; a look takes some milliseconds of the server."""
RECHECK_SECONDS: Final = 1.0
"""Between two looks while it is not."""


class Writes:
    """What was seen when the database was last asked whether it takes writes."""

    def __init__(self) -> None:
        self._look_at = 0.0
        self._problem: str | None = None

    async def check(self, pool: Lender, *, now: float) -> None:
        """
        Insist that the database takes writes, as far as was seen lately.

        Args:
            now: In seconds, by a clock that only goes forward.

        Raises:
            DatabaseUnavailable: It is away, read-only, or has no room on its disk.
        """
        if now >= self._look_at:
            self._look_at = now + RECHECK_SECONDS  # whoever else asks meanwhile is told the last
            try:
                async with transaction(pool) as db:
                    await probe_writes(db)
            except DatabaseUnavailable as error:
                self._problem = str(error)
            else:
                self._problem, self._look_at = None, now + CHECK_SECONDS
        if self._problem is not None:
            raise DatabaseUnavailable(self._problem)


async def probe_writes(db: Connection) -> None:
    """
    Try whether there is room on the database's disk, and whether it may be written to.

    Raises:
        DatabaseUnavailable: The server is a standby, or read-only for another reason.
    """
    await db.execute("SET LOCAL work_mem = '64kB'")
    if not await fetch_value(db, "probe_writes"):
        raise DatabaseUnavailable("the database takes no writes: it is a standby, or read-only")

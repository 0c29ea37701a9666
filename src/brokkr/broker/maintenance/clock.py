"""Keep in step with the database's clock."""

import structlog

from brokkr.broker.db.clock import DatabaseClock
from brokkr.broker.db.pool import Lender, autocommit

_log = structlog.get_logger()


async def read_clock(pool: Lender, clock: DatabaseClock) -> None:
    """Ask the database what time it is; say so if its clock was set."""
    was_steady = clock.is_steady
    async with autocommit(pool) as db:
        await clock.read(db)
    if was_steady and not clock.is_steady:
        _log.warning("database clock jumped", effect="nothing old is deleted for a day")

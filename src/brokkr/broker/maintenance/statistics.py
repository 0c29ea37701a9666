"""Keep the planner's picture of the queue true while the queue grows."""

import structlog

from brokkr.broker.db import statistics
from brokkr.broker.db.pool import Lender, transaction

_log = structlog.get_logger()


async def refresh_statistics(pool: Lender) -> None:
    """Refresh the statistics if the queue is much larger than they say."""
    async with transaction(pool) as db:
        if await statistics.refresh_statistics(db):
            _log.info("statistics refreshed")

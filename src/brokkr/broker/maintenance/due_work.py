"""
What time alone brings about in the queue.

Work that was to wait may start, and Work that nobody claimed in time is over.
"""

import structlog

from brokkr.broker.db import work_queue
from brokkr.broker.db.pool import Lender, transaction
from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.metrics import Metrics

_BATCH = 500

_log = structlog.get_logger()


async def move_due_work(pool: Lender, *, dispatcher: Dispatcher, metrics: Metrics) -> None:
    """Let Work into its lane whose time has come, and end what nobody claimed in time."""
    while True:
        async with transaction(pool) as db:
            lanes = await work_queue.enter_lanes(db, limit=_BATCH)
            expired = await work_queue.expire_work(db, limit=_BATCH)
        dispatcher.announce(lanes)
        if lanes:
            _log.info("work entered its lanes", count=len(lanes))
        if expired:
            metrics.count_outcomes(["expired"] * expired)
            _log.info("work expired", count=expired)
        if max(len(lanes), expired) < _BATCH:
            return

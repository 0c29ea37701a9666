"""
Give back claims whose lease ran out.

Every replica does this, one at a time.  The first run comes one interval after the start,
so that agents that could not reach a broker have had time to reach this one; what the
outage took from their leases, they get back first.
"""

from datetime import timedelta

import structlog

from brokkr.broker.db import work_queue
from brokkr.broker.db.pool import Lender, transaction
from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.metrics import Metrics

_BATCH = 500
_PAUSES = 3
"""So many intervals without a run, and it was an outage."""

_log = structlog.get_logger()


async def release_stale_claims(
    pool: Lender,
    *,
    interval: timedelta,
    max_lost_claims: int,
    metrics: Metrics,
    dispatcher: Dispatcher,
) -> None:
    """Release all that are stale, in batches, unless another replica is doing it."""
    while True:
        async with transaction(pool) as db:
            if not await work_queue.lock_sweep(db):
                return
            await work_queue.extend_leases(db, longest_pause=_PAUSES * interval)
            await work_queue.shorten_leases(db)
            lost, lanes = await work_queue.release_stale_claims(
                db, max_lost_claims=max_lost_claims, limit=_BATCH
            )
            await work_queue.mark_swept(db)
        # Twice: the one that is woken may be the one that has lost it, who does not get it.
        dispatcher.announce([*lanes, *lanes])
        for claim in lost:
            metrics.lost_claims.inc()
            if claim.outcome is not None:
                metrics.finished.labels(claim.outcome).inc()
            _log.warning(
                "claim lost",
                work_id=str(claim.work_id),
                agent_id=str(claim.agent_id),
                outcome=claim.outcome or "pending again",
            )
        if len(lost) < _BATCH:
            return

"""
Keep the database from growing for ever: forget what is older than the settings say.

Each batch is a short transaction of its own, and a run ends after so many, so that nothing
is held up for long.  One replica at a time prunes.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, TypeAlias

import structlog

from brokkr.broker.db import retention
from brokkr.broker.db.clock import DatabaseClock
from brokkr.broker.db.pool import Connection, Lender, transaction
from brokkr.broker.db.retention import OUTCOMES, Batch
from brokkr.broker.metrics import Metrics
from brokkr.broker.settings import RetentionSettings

_BATCH: Final = 500
_SELECTOR_BATCH: Final = 5000  # nearly all of them are only looked at
_BATCHES: Final = 100
_SELECTOR_AGE: Final = timedelta(days=1)
_INCARNATION_AGE: Final = timedelta(days=30)

_log = structlog.get_logger()

_Prune: TypeAlias = Callable[[Connection], Awaitable[Batch]]


async def prune(
    pool: Lender,
    settings: RetentionSettings,
    *,
    metrics: Metrics,
    clock: DatabaseClock,
    batch: int = _BATCH,
) -> None:
    """
    Forget all that is old enough, unless another replica is doing it.

    Nothing is, after the database's clock has jumped: what is a year ahead for a minute must
    not delete a year.
    """
    if not clock.is_steady:
        _log.warning("old data not pruned", reason="database clock jumped within a day")
        return
    for kind, step in _steps(settings, batch):
        pruned = 0
        for _ in range(_BATCHES):
            async with transaction(pool) as db:
                if not await retention.lock_retention(db):
                    return
                done = await step(db)
            pruned += done.pruned
            if done.is_last:
                break
        if pruned:
            metrics.pruned.labels(kind).inc(pruned)
            _log.info("old data pruned", kind=kind, count=pruned)


def _steps(settings: RetentionSettings, batch: int) -> Iterator[tuple[str, _Prune]]:
    """Return what is to be pruned, in this order; what is kept for ever is not in it."""
    for outcome in OUTCOMES:
        if age := settings.age_of(outcome):
            yield "work", partial(retention.prune_log, outcome=outcome, age=age, limit=batch)
    if age := settings.age_of("payload"):
        for outcome in OUTCOMES:
            step = partial(retention.prune_payloads, outcome=outcome, age=age, limit=batch)
            yield "payload", step
    if age := settings.age_of("events"):
        for outcome in OUTCOMES:
            yield "event", partial(retention.prune_events, outcome=outcome, age=age, limit=batch)
    yield "idempotency_key", partial(retention.prune_idempotency_keys, limit=batch)
    yield "incarnation", partial(retention.prune_incarnations, age=_INCARNATION_AGE, limit=batch)
    yield "selector", _Selectors()


@dataclass(slots=True)
class _Selectors:
    """Once through all selectors, in the order of their ids."""

    after: int = 0

    async def __call__(self, db: Connection) -> Batch:
        done, self.after = await retention.prune_selectors(
            db, after=self.after, age=_SELECTOR_AGE, limit=_SELECTOR_BATCH
        )
        return done

"""Let lanes rest in which nothing is queued, a few at a time, so that nobody waits for it."""

from datetime import timedelta
from typing import Final

import structlog

from brokkr.broker.db import lanes
from brokkr.broker.db.pool import Lender, transaction
from brokkr.broker.dispatch import Dispatcher

_LOOK: Final = 5000
_BATCH: Final = 100
"""So many at once: who relabels an agent waits for a batch, and others forget it at one go."""

_log = structlog.get_logger()


async def rest_lanes(
    pool: Lender, *, dispatcher: Dispatcher, age: timedelta = lanes.REST_AFTER
) -> None:
    """Look at all lanes; let those rest in which nothing has been queued for so long."""
    async with transaction(pool) as db:
        found = await lanes.wake_lost_lanes(db, limit=_BATCH)
    if found:
        _log.warning("lanes that rested have work", count=len(found))
        dispatcher.announce(found)
    after, rested = 0, 0
    while True:
        async with transaction(pool) as db:
            look = await lanes.note_idle_lanes(db, after=after, limit=_LOOK, age=age)
        for start in range(0, len(look.may_rest), _BATCH):
            async with transaction(pool) as db:
                gone = await lanes.rest_lanes(db, look.may_rest[start : start + _BATCH])
            dispatcher.announce_rest(gone)
            rested += len(gone)
        if look.last is None:
            break
        after = look.last
    if rested:
        _log.info("lanes rest", count=rested)

"""Let lanes rest in which nothing is queued, a few at a time, so that nobody waits for it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from brokkr.broker.db import lanes
from brokkr.broker.db.pool import Lender, autocommit, transaction
from brokkr.broker.dispatch import Dispatcher

_LOOK: Final = 5000
_STRAYS: Final = 1000
_BATCH: Final = 100
"""So many at once: who relabels an agent waits for a batch, and others forget it at one go."""

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class LaneRest:
    """Looks at all lanes, again and again.

    Attributes:
        age: For so long nothing has been queued in a lane that comes to rest.
        strays_after: How far what rests was looked at for members that it should not have.
    """

    pool: Lender
    dispatcher: Dispatcher
    age: timedelta = lanes.REST_AFTER
    strays_after: int = 0

    async def __call__(self) -> None:
        """Wake what should not rest, and let rest what need not be a lane."""
        await self._correct()
        after, rested = 0, 0
        while True:
            async with transaction(self.pool) as db:
                look = await lanes.note_idle_lanes(db, after=after, limit=_LOOK, age=self.age)
            for start in range(0, len(look.may_rest), _BATCH):
                async with transaction(self.pool) as db:
                    gone = await lanes.rest_lanes(db, look.may_rest[start : start + _BATCH])
                self.dispatcher.announce_rest(gone)
                rested += len(gone)
            if look.last is None:
                break
            after = look.last
        if rested:
            _log.info("lanes rest", count=rested)

    async def _correct(self) -> None:
        """Undo what a broker of an earlier version does, which knows no lane that rests."""
        async with transaction(self.pool) as db:
            found = await lanes.wake_lost_lanes(db, limit=_BATCH)
        if found:
            _log.warning("lanes that rested have work", count=len(found))
            self.dispatcher.announce(found)
        async with autocommit(self.pool) as db:
            self.strays_after = await lanes.drop_strays(db, after=self.strays_after, limit=_STRAYS)

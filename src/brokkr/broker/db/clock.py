"""
The database's clock, as a broker knows it without asking.

Ids of Works begin with the time, and lists are in their order, so all brokers have to mean the
same time, whatever their own clocks say.  A broker asks the database every few seconds, and
counts on from there by a clock of its own that nobody sets.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_value

_TOLERANCE_NS: Final = 20_000_000
"""An answer takes a while, so two of them differ a little; time does not go back for that."""
_JUMP_NS: Final = 3600 * 10**9
_CALM_NS: Final = 24 * 3600 * 10**9


@dataclass(slots=True, kw_only=True)
class DatabaseClock:
    """What time it is at the database.

    Attributes:
        monotonic_ns: Nanoseconds that never go backwards.
        wall_ns: Nanoseconds since 1970 by this machine's clock, until the database was asked.
    """

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    wall_ns: Callable[[], int] = time.time_ns
    _offset: int | None = None
    _jumped_at: int | None = None

    def time_ns(self) -> int:
        """Return the time at the database, in nanoseconds since 1970."""
        if self._offset is None:
            return self.wall_ns()
        return self.monotonic_ns() + self._offset

    @property
    def is_steady(self) -> bool:
        """Say whether the clock has not jumped by an hour or more within the last day."""
        return self._jumped_at is None or self.monotonic_ns() - self._jumped_at >= _CALM_NS

    async def read(self, db: Connection) -> None:
        """Ask the database."""
        asked = self.monotonic_ns()
        now: datetime = await fetch_value(db, "get_time")
        self.note(now, at=(asked + self.monotonic_ns()) // 2)

    def note(self, now: datetime, *, at: int) -> None:
        """
        Note what time it was at the database.

        Args:
            at: What ``monotonic_ns`` said then.
        """
        offset = int(now.timestamp() * 1_000_000) * 1000 - at
        before = self._offset
        if before is None:  # a database whose clock is wrong differs from ours
            before = self.wall_ns() - self.monotonic_ns()
            self._offset = offset
        if abs(offset - before) >= _JUMP_NS:
            self._jumped_at = self.monotonic_ns()
        if abs(offset - before) >= _TOLERANCE_NS:
            self._offset = offset

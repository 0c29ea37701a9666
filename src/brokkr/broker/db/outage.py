"""What the log says of a database that is away: that it is, now and then, and when it is back."""

from math import inf
from time import monotonic

import structlog

from brokkr.work.errors import DatabaseUnavailable

_REMIND_SECONDS = 60

_log = structlog.get_logger()


class Outage:
    """
    The database as one party sees it that keeps trying.

    The party notes every failure here.  The log gets a line of the first, of one that is
    another than before, and, if this party is to remind of it, once a minute.
    """

    def __init__(self, *, reminds: bool = False, **context: str) -> None:
        """Prepare to note failures; ``context`` stands in every line."""
        self._context = context
        self._remind_seconds = _REMIND_SECONDS if reminds else inf
        self._said: str | None = None
        self._said_at = 0.0

    def note(self, error: DatabaseUnavailable) -> None:
        """Note that it is away."""
        problem, now = str(error), monotonic()
        if problem != self._said or now - self._said_at >= self._remind_seconds:
            self._said, self._said_at = problem, now
            _log.warning("database not reached", error=problem, **self._context)

    def end(self) -> None:
        """Note that it is there."""
        if self._said is not None:
            self._said = None
            _log.info("database reached again", **self._context)

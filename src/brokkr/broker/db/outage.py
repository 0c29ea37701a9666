"""
What the log says of a part that goes on, round after round, whatever one round ends with.

Mostly the database is away: that it is, now and then, and when it is back.  What nobody has
expected has its traceback there, and ends the part as little.
"""

from math import inf
from time import monotonic

import structlog

from brokkr.work.errors import DatabaseUnavailable

_REMIND_SECONDS = 60

_log = structlog.get_logger()


class Outage:
    """
    The failures of one party that keeps trying, of the database or of its own.

    The party notes every failure here.  The log gets a line of the first, of one that is
    another than before, and, if this party is to remind of it or if the failure is not the
    database's, once a minute.
    """

    def __init__(self, *, reminds: bool = False, **context: str) -> None:
        """Prepare to note failures; ``context`` stands in every line."""
        self._context = context
        self._remind_seconds = _REMIND_SECONDS if reminds else inf
        self._said: str | None = None
        self._said_at = 0.0
        self._is_away = False

    def note(self, error: Exception) -> None:
        """Note that a round has failed; in all but `DatabaseUnavailable` that is a mistake."""
        is_away = isinstance(error, DatabaseUnavailable)
        problem, now = f"{type(error).__name__}: {error}", monotonic()
        pause = self._remind_seconds if is_away else _REMIND_SECONDS
        if problem == self._said and now - self._said_at < pause:
            return
        self._said, self._said_at, self._is_away = problem, now, is_away
        if is_away:
            _log.warning("database not reached", error=str(error), **self._context)
        else:
            _log.error("job failed", exc_info=error, **self._context)

    def end(self) -> None:
        """Note that a round has gone well."""
        if self._said is None:
            return
        self._said = None
        if self._is_away:
            _log.info("database reached again", **self._context)
        else:
            _log.info("job done again", **self._context)

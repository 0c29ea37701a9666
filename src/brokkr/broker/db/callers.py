"""
Whose key it is, remembered for a moment.

Most requests come with a key that was seen a second ago, so the database is not asked
each time.  A key that is revoked by this process is forgotten at once, and one that is revoked
by another replica as soon as that is heard of; where nothing is heard, it opens this one for
:data:`LIFETIME` at most.  That a key is in use is
noted here too, and written down every so often: no request waits for that.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from brokkr.broker.db.keys import Caller, StoredKey, find_key, note_key_use, parse_key
from brokkr.broker.db.pool import Lender, autocommit, transaction

LIFETIME = timedelta(seconds=5)
MAX_REMEMBERED = 10_000


@dataclass(slots=True, kw_only=True)
class Callers:
    """The callers that one process has seen.

    Attributes:
        clock: Seconds that never go backwards.
    """

    clock: Callable[[], float] = time.monotonic
    # In the order in which they end: all live for as long.
    _remembered: dict[str, tuple[float, StoredKey]] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)
    _forgotten: int = 0

    async def find(self, pool: Lender, text: str) -> Caller | None:
        """
        Say whose key this is; None if it opens nothing.

        Raises:
            DatabaseUnavailable: Nobody can say.
        """
        sent = parse_key(text)
        if sent is None:
            return None
        now = self.clock()
        until, key = self._remembered.get(sent.short_id, (now, None))
        if key is not None and now < until:
            return key.caller if key.is_opened_by(sent) else None
        forgotten = self._forgotten
        async with autocommit(pool) as db:
            key = await find_key(db, sent)
        if key is None:
            return None
        self._used.add(sent.short_id)
        if forgotten == self._forgotten:  # else it may have been revoked since it was read
            self._remember(sent.short_id, key, since=now)
        return key.caller

    def forget(self, short_ids: Iterable[str] | None = None) -> None:
        """Ask the database again about some keys, which were revoked; or about everyone."""
        self._forgotten += 1
        if short_ids is None:
            self._remembered.clear()
        else:
            for each in short_ids:
                self._remembered.pop(each, None)

    async def note_use(self, pool: Lender) -> None:
        """
        Write down which keys were used since the last time.

        Raises:
            DatabaseUnavailable: It will be written the next time.
        """
        used = list(self._used)
        if used:
            async with transaction(pool) as db:
                await note_key_use(db, used)
            self._used.difference_update(used)

    def _remember(self, short_id: str, key: StoredKey, *, since: float) -> None:
        self._remembered.pop(short_id, None)
        if len(self._remembered) >= MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[short_id] = (since + LIFETIME.total_seconds(), key)

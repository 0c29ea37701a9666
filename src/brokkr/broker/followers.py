"""
Who follows Works at this broker, and what is new for them.

All of a process are served by one statement every :data:`INTERVAL`, whichever replica the
changes are made at.  A follower holds no connection to the database, and one that is slow
to read has at most one batch in memory: it is left out until it asks for the next.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from brokkr.broker.db.outage import Outage
from brokkr.broker.db.pool import Lender, transaction
from brokkr.broker.db.work_events import News, Place, list_news
from brokkr.work.errors import LimitReached

INTERVAL: Final = timedelta(milliseconds=250)
BATCH: Final = 32
MAX_FOLLOWERS: Final = 1000
_RETRY_AFTER_SECONDS: Final = 10


@dataclass(eq=False, slots=True)
class Follower:
    """One who follows one Work.

    Attributes:
        after: The number of the last event that it has.
        is_waiting: Whether it wants the next events now.
    """

    work_id: UUID
    after: int
    is_waiting: bool = False
    _news: News = field(default_factory=News)
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def place(self) -> Place:
        """Return what it follows, and how far it has come."""
        return self.work_id, self.after

    async def next(self, *, within: timedelta) -> News:
        """Wait for what comes next; after ``within`` that is nothing."""
        self._told.clear()
        self.is_waiting = True
        with suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds()):
                await self._told.wait()
        self.is_waiting = False
        news, self._news = self._news, News()
        if news.events:
            self.after = news.events[-1].number
        return news

    def tell(self, news: News) -> None:
        """Hand over what it waits for."""
        self._news = news
        self.is_waiting = False
        self._told.set()


class Followers:
    """All who follow a Work at this process.

    Attributes:
        limit: How many there may be.
        share: How many of them may be of one caller.
    """

    def __init__(self, *, limit: int = MAX_FOLLOWERS, share: int = MAX_FOLLOWERS) -> None:
        """Begin with nobody."""
        self.limit = limit
        self.share = share
        self._callers: Counter[str] = Counter()
        self._followers: set[Follower] = set()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._followers)

    def __iter__(self) -> Iterator[Follower]:
        """Iterate over them, as they are now."""
        return iter(list(self._followers))

    @contextmanager
    def follow(self, work_id: UUID, *, after: int, caller: str) -> Iterator[Follower]:
        """
        Be a follower for the length of the block.

        Raises:
            LimitReached: The caller has too many already, or there are too many.
        """
        if self._callers[caller] >= self.share:
            raise LimitReached(
                f"you follow {self.share} Works at this broker already, the maximum for one "
                "caller; end a stream, or ask for events without `follow`",
                retry_after=_RETRY_AFTER_SECONDS,
            )
        if len(self._followers) >= self.limit:
            raise LimitReached(
                f"{self.limit} others follow Work at this broker, which is all that it serves; "
                "ask again later, or ask for events without `follow`",
                retry_after=_RETRY_AFTER_SECONDS,
            )
        follower = Follower(work_id, after)
        self._followers.add(follower)
        self._callers[caller] += 1
        try:
            yield follower
        finally:
            self._followers.remove(follower)
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]

    async def run(self, pool: Lender, *, stopping: asyncio.Event) -> None:
        """Tell followers what is new, until the broker stops; then that it is over."""
        outage = Outage(tells="followers of work")
        while not stopping.is_set():
            waiting = [each for each in self if each.is_waiting]
            if waiting:
                try:
                    await _tell(pool, waiting)
                    outage.end()
                except Exception as error:  # noqa: BLE001  (the next round may do better)
                    outage.note(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL.total_seconds()):
                    await stopping.wait()
        for each in self:
            each.tell(News(is_over=True))


async def _tell(pool: Lender, waiting: list[Follower]) -> None:
    async with transaction(pool) as db:
        found = await list_news(db, {each.place for each in waiting}, limit=BATCH)
    for each in waiting:
        news = found.get(each.place)
        if news is not None and each.is_waiting:
            each.tell(news)

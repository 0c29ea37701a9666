"""
Who may use how many of a pool's connections, so that nobody's requests stop everybody's.

The pool is one, and has a size that an operator has set.  What keeps Work alive (heartbeats,
claims, completions) may use all of it; everything else may not use the part that is reserved
for that.  Lists and explanations, which read much, are a few at once, and a few for each caller.
"""

# Note [In turn]
#
# Who finds no free place waits, and those who wait are served in turn, one of each party and
# then the next one: a party that sends a thousand requests waits behind itself.  A party may
# use every place while nobody else wants one, so this costs nothing as long as there is room.

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from brokkr.broker.db.pool import Connection, Pool
from brokkr.work.errors import LimitReached

MAX_WAITING_SEARCHES: Final = 8
"""So many lists and explanations of one caller wait for their turn; more are refused."""
_RETRY_SECONDS: Final = 2


class Places:
    """A number of places, for which parties wait in turn: Note [In turn]."""

    def __init__(self, number: int) -> None:
        """Begin with so many free places."""
        self.number = number
        self._taken = 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Return how many wait for a place."""
        return sum(map(len, self._waiting.values()))

    @property
    def is_idle(self) -> bool:
        """Say whether nobody has a place, or waits for one."""
        return not self._taken and not self._waiting

    async def take(self, party: str) -> None:
        """Take a place; wait for it as long as it takes."""
        if self._taken < self.number:
            self._taken += 1
            return
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(party, deque()).append(given)
        try:
            await given
        except asyncio.CancelledError:
            if given.cancelled():
                self._leave(party, given)
            else:  # the place was given at the same moment
                self.give()
            raise

    def give(self) -> None:
        """Let the next party have a place."""
        while self._waiting:
            party, line = self._waiting.popitem(last=False)
            given = line.popleft()
            if line:
                self._waiting[party] = line
            if not given.done():  # else its owner has given up, and has not run since
                given.set_result(None)
                return
        self._taken -= 1

    def _leave(self, party: str, given: "asyncio.Future[None]") -> None:
        line = self._waiting.get(party)
        if line is not None and given in line:
            line.remove(given)
            if not line:
                del self._waiting[party]


class Connections:
    """The connections of one broker, by what they are for.

    Attributes:
        pool: All of them.
    """

    def __init__(self, pool: Pool) -> None:
        """Share out a pool of at least two connections."""
        size = pool.get_max_size()
        others = max(1, size - max(1, size // 4))
        self.pool = pool
        self._all = Places(size)
        self._others = Places(others)
        self._searches = Places(max(1, others // 2))
        self._searches_of: dict[str, Places] = {}

    @property
    def waiting(self) -> int:
        """Return how many requests wait for their turn."""
        lines = (self._all, self._others, self._searches, *self._searches_of.values())
        return sum(each.waiting for each in lines)

    def vital(self, party: str) -> "Share":
        """Return what heartbeats, claims and completions use: short statements."""
        return Share(self.pool, party, self._all)

    def other(self, party: str) -> "Share":
        """Return what everything else uses."""
        return Share(self.pool, party, self._others, self._all)

    @asynccontextmanager
    async def search(self, party: str) -> "AsyncIterator[Share]":
        """
        Lend what lists and explanations use, for the length of the block.

        Raises:
            LimitReached: Too many searches of the same party wait already.
        """
        mine = self._searches_of.setdefault(party, Places(max(1, self._searches.number // 2)))
        if mine.waiting >= MAX_WAITING_SEARCHES:
            raise LimitReached(
                f"this broker is making {mine.number} lists or explanations for you, and "
                f"{mine.waiting} wait, its maximum; ask for one after the other",
                retry_after=_RETRY_SECONDS,
            )
        yield Share(self.pool, party, mine, self._searches, self._others, self._all)
        if mine.is_idle:
            self._searches_of.pop(party, None)


class Share:
    """As many connections as one party may use at once for one purpose."""

    def __init__(self, pool: Pool, party: str, *lines: Places) -> None:
        """
        Make a share of a pool.

        Args:
            party: Whose turn it is, in each of the lines.
            lines: In which a place is taken for each connection, in this order.
        """
        self._pool = pool
        self._party = party
        self._lines = lines

    @asynccontextmanager
    async def acquire(  # the pool's own signature
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> AsyncIterator[Connection]:
        """
        Lend a connection.

        Raises:
            TimeoutError: There was none after so many seconds.
        """
        taken: list[Places] = []
        try:
            async with asyncio.timeout(timeout):
                for line in self._lines:
                    await line.take(self._party)
                    taken.append(line)
                connection = await self._pool.acquire()
            try:
                yield connection
            finally:
                await self._pool.release(connection)
        finally:
            for line in reversed(taken):
                line.give()

    async def expire_connections(self) -> None:
        """Let every connection be opened anew when it is lent the next time."""
        await self._pool.expire_connections()

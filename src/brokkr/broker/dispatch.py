"""
Waking agents that wait for Work, as soon as there is some.

A long poll waits here and holds no database connection.  What a transaction queues or
gives back is announced when it commits (:mod:`brokkr.broker.db.notifications`), to every
broker; each wakes one of its waiters, and the claim decides who gets it.
"""

# Note [Register, then look]
#
# A waiter is registered before it looks for Work.  Work that is queued before the look is
# found by it; Work that is queued after it wakes the waiter.  The other way round there
# would be a gap between the two.
#
# Note [Wake one]
#
# One Work wakes one waiter, the one that has waited longest among those that the Work is
# for: waking all of ten thousand would cost more than the Work does.  So a wake must not
# get lost: a waiter that leaves without having looked passes its wake on.

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from brokkr.broker.db.notifications import listen
from brokkr.broker.db.pool import Pool, transaction
from brokkr.broker.db.selectors import find_waiting_agent
from brokkr.work.errors import DatabaseUnavailable

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Announced:
    """One Work that can be claimed."""

    selector_id: int


@dataclass(eq=False, slots=True)
class Waiter:
    """One long poll of one agent."""

    agent_id: UUID
    types: Sequence[str] | None
    wake: _Announced | None = None
    is_leaving: bool = False
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def rouse(self, wake: _Announced | None = None) -> None:
        """Make the waiter look again, at the announced Work if there is one."""
        self.wake = wake
        self._woken.set()

    def leave(self) -> None:
        """Make the waiter give up: its client has gone, or the broker is stopping."""
        self.is_leaving = True
        self._woken.set()

    async def is_woken(self, *, within: float) -> bool:
        """Wait for so many seconds; say whether it is worth looking again."""
        try:
            await asyncio.wait_for(self._woken.wait(), within)
        except TimeoutError:
            return False
        if self.is_leaving:
            return False
        self.wake = None
        self._woken.clear()
        return True

    def wants(self, announced: _Announced) -> bool:
        """Say whether the waiter is not woken yet."""
        return not self._woken.is_set()


class Dispatcher:
    """The waiters of this process, longest waiting first."""

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}
        self._announced: asyncio.Queue[_Announced] = asyncio.Queue()
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """Return how many long polls are waiting."""
        return len(self._waiters)

    @contextmanager
    def waiter(self, agent_id: UUID, *, types: Sequence[str] | None) -> Iterator[Waiter]:
        """Register a waiter; look for Work only after this: Note [Register, then look]."""
        waiter = Waiter(agent_id, types)
        if self._is_closed:
            waiter.leave()
        self._waiters[waiter] = None
        try:
            yield waiter
        finally:
            del self._waiters[waiter]
            if waiter.wake is not None:  # Note [Wake one]
                self._announced.put_nowait(waiter.wake)

    def announce(self, lanes: Iterable[int]) -> None:
        """
        Say that Work can be claimed, after its transaction has committed.

        Args:
            lanes: The id of its selector for each Work.
        """
        for selector_id in lanes:
            self._announced.put_nowait(_Announced(selector_id))

    def announce_agents(self, agent_ids: Iterable[UUID]) -> None:
        """Say that agents may have gained or lost Work, after that has committed."""
        for waiter in self._waiters:
            if waiter.agent_id in set(agent_ids):
                waiter.rouse()

    def close(self) -> None:
        """Let all waiters go, now and from now on, so that the broker can stop."""
        self._is_closed = True
        for waiter in self._waiters:
            waiter.leave()

    async def run(self, url: str, pool: Pool) -> None:
        """Listen to the database and wake waiters, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen(url, heard=self._hear, listening=self._wake_all))
            tasks.create_task(self._wake_announced(pool))

    def _hear(self, payload: str) -> None:
        match payload.split(" "):
            case _:
                _log.warning("notification not understood", payload=payload)

    def _wake_all(self) -> None:
        """Whatever was said while nobody listened may have been for anybody."""
        for waiter in self._waiters:
            waiter.rouse()

    async def _wake_announced(self, pool: Pool) -> None:
        while True:
            announced = await self._announced.get()
            try:
                await self._wake_one(pool, announced)
            except DatabaseUnavailable as error:
                # The waiters' own polls are the floor: they end, and look again.
                _log.warning("work not announced", error=str(error))

    async def _wake_one(self, pool: Pool, announced: _Announced) -> None:
        waiting = [each.agent_id for each in self._waiters if each.wants(announced)]
        if not waiting:
            return
        async with transaction(pool) as db:
            chosen = await find_waiting_agent(db, announced.selector_id, waiting=waiting)
        for waiter in self._waiters:
            if waiter.agent_id == chosen and waiter.wants(announced):
                waiter.rouse(announced)
                return
        if chosen is not None:  # it left, or was woken, while the database was asked
            self._announced.put_nowait(announced)

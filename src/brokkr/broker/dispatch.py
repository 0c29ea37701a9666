"""
Waking agents that wait for Work, as soon as there is some.

A long poll waits here and holds no database connection.  Whoever has committed a change
announces it; the dispatcher finds a waiter for it, in this broker or in another, and the
claim decides who gets it.
"""

# Note [Wake one]
#
# One Work wakes one waiter, the one that has waited longest in its lane: waking all of ten
# thousand would cost more than the Work does.  It is looked for among this broker's own;
# only if none of them waits for it, the other brokers are told, and each wakes one of its
# own.  So a Work that no waiter of this broker may have costs one look (an index range for
# each lane of the agent) at each other broker with such a waiter; all but one are in vain,
# and their agents do not notice.
#
# A wake must not get lost.  Who leaves without having looked, or got Work of other lanes
# only, passes its wake on; and so does who has lost the lane before it looked.
#
# Note [Lanes are kept, and read again]
#
# An announcement asks the database nothing: which lanes an agent is in is read when it first
# waits here, and again when the agent is announced; which of the agents known here are in a
# lane, when the lane is first announced.  Reads come one after the other, and what is
# announced during one is read again by the next, so an old answer never replaces a new one.
# *Whoever's lanes were read looks for Work after that.*  This one rule covers what was
# announced before its lanes were known, what it has gained by new labels, and, because all
# lanes are read again when the brokers' channel is there again, what was told meanwhile.
# Nobody is in a lane of a type that it has declared unavailable; when it declares something
# else, it is announced like one that was relabelled.

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Final
from uuid import UUID

from brokkr.broker.db.callers import Callers
from brokkr.broker.db.notifications import Channel, News
from brokkr.broker.db.outage import Outage
from brokkr.broker.db.pool import Lender, transaction
from brokkr.broker.db.selectors import list_lanes, list_members
from brokkr.broker.waiting import Lanes, Waiter
from brokkr.work.errors import LimitReached

_AGENTS_AT_ONCE = 100
_PAUSE_SECONDS = 0.05
"""Between two readings: at most two thousand agents a second begin to look."""
_RETRY_SECONDS = 1
_FAREWELL_SECONDS = 0.5
MAX_POLLS: Final = 64
"""Of one agent, at one broker; each is in all lanes of the agent."""


class Dispatcher:
    """Who waits at this broker, and what the brokers tell each other."""

    def __init__(self, *, callers: Callers | None = None) -> None:
        """
        Begin with nobody.

        Args:
            callers: Who are forgotten when another broker says that their keys were revoked.
        """
        self._callers = Callers() if callers is None else callers
        self._lanes = Lanes()
        self._channel = Channel(heard=self._hear, listening=self._read_all)
        self._known: set[int] = set()
        # What is to be read; a dict for its order.
        self._behind = asyncio.Event()
        self._outdated: dict[UUID, None] = {}
        self._announced: Counter[int] = Counter()
        self._told: Counter[int] = Counter()
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """Return how many long polls are waiting."""
        return len(self._lanes)

    @contextmanager
    def waiter(self, agent_id: UUID, *, types: Sequence[str] | None) -> Iterator[Waiter]:
        """
        Make a waiter; it looks for Work at once, and whenever it is woken.

        Raises:
            LimitReached: The agent has too many.
        """
        if self._lanes.waiters_of(agent_id) >= MAX_POLLS:
            raise LimitReached(
                f"this agent has {MAX_POLLS} long polls waiting at this broker, the maximum; "
                "wait until one is answered",
                retry_after=_RETRY_SECONDS,
            )
        waiter = Waiter(agent_id, types, self._lanes)
        if self._is_closed:
            waiter.leave()
        if not self._lanes.add(waiter):
            self._read([agent_id])
        try:
            yield waiter
        finally:
            self._lanes.remove(waiter)
            self.announce(waiter.unheeded)  # Note [Wake one]

    def announce(self, lanes: Iterable[int]) -> None:
        """
        Say that Work can be claimed, after its transaction has committed.

        Args:
            lanes: The id of its selector for each Work.
        """
        for selector_id, count in Counter(lanes).items():
            self._wake(selector_id, count, is_told=False)

    def announce_agents(self, agent_ids: Iterable[UUID]) -> None:
        """Say that agents may have gained or lost lanes, after that has committed."""
        agent_ids = set(agent_ids)
        self._channel.tell(News(agents=agent_ids))
        self._read(agent_ids)

    def announce_rest(self, selector_ids: Collection[int]) -> None:
        """Say that nothing is queued in lanes, and that they are none any more."""
        self._channel.tell(News(resting=set(selector_ids)))
        self._drop(selector_ids)

    def close(self) -> None:
        """Let all waiters go, now and from now on, so that the broker can stop."""
        self._is_closed = True
        for waiter in self._lanes.waiters:
            waiter.leave()

    async def tell_the_rest(self) -> None:
        """Give the other brokers what this one will not attend to any more, if they hear it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._channel.until_told()

    async def run(self, url: str, pool: Lender) -> None:
        """Keep what is known of lanes and of other brokers up to date, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._channel.run(url))
            tasks.create_task(self._keep_reading(pool))

    def _wake(self, selector_id: int, count: int, *, is_told: bool) -> None:
        """Wake so many waiters of a lane; for what is not told by others, also at theirs."""
        if selector_id not in self._known and self._lanes.agents and not self._is_closed:
            (self._told if is_told else self._announced)[selector_id] += count
            self._behind.set()
            return
        while count and not self._is_closed and self._lanes.wake(selector_id):
            count -= 1
        if count and not is_told:
            self._channel.tell(News(works=Counter({selector_id: count})))

    def _hear(self, news: News) -> None:
        for selector_id, count in news.works.items():
            self._wake(selector_id, count, is_told=True)
        self._read(news.agents)
        self._drop(news.resting)
        if news.keys:
            self._callers.forget(news.keys)

    def _drop(self, selector_ids: Collection[int]) -> None:
        """Forget lanes; who is in one of them is read again when it is announced."""
        self._known.difference_update(selector_ids)
        self._lanes.drop(selector_ids)

    def _read(self, agent_ids: Iterable[UUID]) -> None:
        """Read the lanes of those agents that are known here."""
        known = (each for each in agent_ids if each in self._lanes.agents)
        self._outdated.update(dict.fromkeys(known))
        if self._outdated:
            self._behind.set()

    def _read_all(self) -> None:
        """Whatever was told while nobody listened may have been for anybody."""
        self._callers.forget()
        self._known.clear()
        self._read(self._lanes.agents)

    async def _keep_reading(self, pool: Lender) -> None:
        """Read what is to be read: Note [Lanes are kept, and read again]."""
        outage = Outage(reading="lanes")
        while True:
            await self._behind.wait()
            self._behind.clear()
            try:
                await self._read_agents(pool)
                await self._read_lanes(pool)
                outage.end()
            except Exception as error:  # noqa: BLE001  (the next round may do better)
                outage.note(error)
                self._behind.set()
                await asyncio.sleep(_RETRY_SECONDS)
            if self._outdated:
                self._behind.set()
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _read_agents(self, pool: Lender) -> None:
        """Read the lanes of some agents, and let their waiters look."""
        agent_ids = list(islice(self._outdated, _AGENTS_AT_ONCE))
        for agent_id in agent_ids:
            del self._outdated[agent_id]
            if not self._lanes.is_waiting(agent_id):
                self._lanes.forget(agent_id)
        waiting = [each for each in agent_ids if each in self._lanes.agents]
        if not waiting:
            return
        try:
            async with transaction(pool) as db:
                lanes = await list_lanes(db, waiting)
        except Exception:
            self._read(waiting)
            raise
        for agent_id in waiting:
            lost = self._lanes.replace(agent_id, lanes.get(agent_id, {}))
            self.announce(lost)  # Note [Wake one]

    async def _read_lanes(self, pool: Lender) -> None:
        """Read who is in the lanes that were announced for the first time, and wake them."""
        announced, self._announced = self._announced, Counter()
        told, self._told = self._told, Counter()
        selector_ids = announced.keys() | told.keys()
        if not selector_ids:
            return
        try:
            async with transaction(pool) as db:
                members = await list_members(db, selector_ids, among=self._lanes.agents)
        except Exception:
            self._announced.update(announced)
            self._told.update(told)
            raise
        for (selector_id, work_type), agent_ids in members.items():
            self._lanes.add_lane(selector_id, work_type, agent_ids)
        self._known |= selector_ids
        for selector_id in selector_ids:
            self._wake(selector_id, announced[selector_id], is_told=False)
            self._wake(selector_id, told[selector_id], is_told=True)

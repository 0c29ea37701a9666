"""
Who waits for Work, and in which lanes: long polls, in memory and nothing but memory.

A lane is a selector: Work of one type for one target.  Who is in which lane, and when to
wake somebody, :mod:`brokkr.broker.dispatch` knows.
"""

# Note [Park, then look]
#
# A waiter is parked, in all lanes that are its agent's and of the types it wants; or it is
# roused, in none, until it looks for Work again.  It parks *before* it looks: Work that is
# announced during a look may be too new for it, and rouses the waiter once more.

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(eq=False, slots=True)
class _Agent:
    """An agent that waits here or did; ``lanes`` are its selectors and their work types."""

    lanes: Mapping[int, str] = field(default_factory=dict)
    waiters: dict["Waiter", None] = field(default_factory=dict)


class Lanes:
    """The waiters of this process, longest waiting first, and the lanes of their agents."""

    def __init__(self) -> None:
        self._agents: dict[UUID, _Agent] = {}
        # Ordered ones: the first of a dict is slow to find when many before it were deleted.
        self._parked: dict[int, OrderedDict[Waiter, None]] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return sum(len(each.waiters) for each in self._agents.values())

    @property
    def agents(self) -> Collection[UUID]:
        """Return the agents whose lanes are kept."""
        return self._agents.keys()

    @property
    def waiters(self) -> list["Waiter"]:
        """Return all that wait."""
        return [waiter for agent in self._agents.values() for waiter in agent.waiters]

    def waiters_of(self, agent_id: UUID) -> int:
        """Return how many waiters are this agent's."""
        agent = self._agents.get(agent_id)
        return 0 if agent is None else len(agent.waiters)

    def is_waiting(self, agent_id: UUID) -> bool:
        """Say whether any waiter is this agent's."""
        return self.waiters_of(agent_id) > 0

    def add(self, waiter: "Waiter") -> bool:
        """Add a waiter and park it; say whether its agent's lanes are kept already."""
        is_known = waiter.agent_id in self._agents
        self._agents.setdefault(waiter.agent_id, _Agent()).waiters[waiter] = None
        self.park(waiter)
        return is_known

    def remove(self, waiter: "Waiter") -> None:
        """Remove a waiter; the lanes of its agent are kept."""
        self.unpark(waiter)
        del self._agents[waiter.agent_id].waiters[waiter]

    def park(self, waiter: "Waiter") -> None:
        """Put a waiter at the end of its lanes."""
        for selector_id, work_type in self._agents[waiter.agent_id].lanes.items():
            if waiter.wants(work_type):
                self._parked.setdefault(selector_id, OrderedDict())[waiter] = None

    def unpark(self, waiter: "Waiter") -> None:
        """Take a waiter out of all lanes."""
        for selector_id in self._agents[waiter.agent_id].lanes:
            lane = self._parked.get(selector_id)
            if lane is not None:
                lane.pop(waiter, None)
                if not lane:
                    del self._parked[selector_id]

    def wake(self, selector_id: int) -> bool:
        """Rouse who has waited longest in a lane; say whether there was anybody."""
        lane = self._parked.get(selector_id)
        if lane is None:
            return False
        next(iter(lane)).rouse(selector_id)
        return True

    def replace(self, agent_id: UUID, lanes: Mapping[int, str]) -> Collection[int]:
        """
        Replace the lanes of an agent, and rouse its waiters if it has any lane.

        Returns:
            The lanes that it has lost.
        """
        agent = self._agents[agent_id]
        lost = agent.lanes.keys() - lanes.keys()
        for waiter in agent.waiters:
            self.unpark(waiter)
        agent.lanes = lanes
        for waiter in agent.waiters:
            if lanes:
                waiter.rouse()
            elif not waiter.is_roused:
                self.park(waiter)
        return lost

    def add_lane(self, selector_id: int, work_type: str, agent_ids: Iterable[UUID]) -> None:
        """Add a lane to those of some agents."""
        found = [self._agents[each] for each in agent_ids if each in self._agents]
        for agent in found:
            agent.lanes = {**agent.lanes, selector_id: work_type}
        parked = [each for agent in found for each in agent.waiters if not each.is_roused]
        for waiter in sorted(parked, key=lambda each: each.since):
            if waiter.wants(work_type):
                self._parked.setdefault(selector_id, OrderedDict())[waiter] = None

    def drop(self, selector_ids: Collection[int]) -> None:
        """Forget lanes that are none any more: nothing is queued in them."""
        gone = set(selector_ids)
        for agent in self._agents.values():
            if not gone.isdisjoint(agent.lanes):
                agent.lanes = {
                    lane: work_type for lane, work_type in agent.lanes.items() if lane not in gone
                }
        for selector_id in gone:
            self._parked.pop(selector_id, None)

    def forget(self, agent_id: UUID) -> None:
        """Keep the lanes of an agent no longer; nobody waits for it."""
        del self._agents[agent_id]


class Waiter:
    """One long poll of one agent."""

    def __init__(self, agent_id: UUID, types: Sequence[str] | None, lanes: Lanes) -> None:
        self.agent_id = agent_id
        self.since = asyncio.get_running_loop().time()
        self._types = None if types is None else frozenset(types)
        self._lanes = lanes
        self._roused = asyncio.Event()
        self._is_leaving = False
        # The selectors of announced Work: for which it was roused, and for which it looks.
        self._roused_for: int | None = None
        self._looks_for: int | None = None

    @property
    def is_roused(self) -> bool:
        """Say whether it is to look again, and has not begun to."""
        return self._roused.is_set()

    @property
    def unheeded(self) -> list[int]:
        """Return the lanes of announced Work that it was roused for and has not looked for."""
        return [each for each in (self._looks_for, self._roused_for) if each is not None]

    def wants(self, work_type: str) -> bool:
        """Say whether it waits for Work of this type."""
        return self._types is None or work_type in self._types

    def rouse(self, selector_id: int | None = None) -> None:
        """Make it look again: at announced Work of a lane, or because lanes have changed."""
        if selector_id is not None:
            self._roused_for = selector_id
        self._lanes.unpark(self)
        self._roused.set()

    def leave(self) -> None:
        """Make it give up: its client has gone, or the broker is stopping."""
        self._is_leaving = True
        self._roused.set()

    async def is_woken(self, *, within: float) -> bool:
        """Having looked in vain, wait for so many seconds; say whether to look again."""
        self._looks_for = None
        try:
            await asyncio.wait_for(self._roused.wait(), within)
        except TimeoutError:
            return False
        if self._is_leaving:
            return False
        self._looks_for, self._roused_for = self._roused_for, None
        self._roused.clear()
        self._lanes.park(self)
        return True

    def heeded(self, selector_ids: Iterable[int | None]) -> None:
        """Note of which lanes it got Work, when it has looked."""
        taken = set(selector_ids)
        if self._looks_for in taken:
            self._looks_for = None
        if self._roused_for in taken:
            self._roused_for = None

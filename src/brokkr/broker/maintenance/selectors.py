"""
Keep lanes right: who may claim what, compared with what is stored, a slice in each run.

Lanes of what some agents have tried depend on who has been heard of lately and can execute
the type now, which changes by itself; those in which Work waits are looked at in every run.
"""

import asyncio
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from brokkr.broker.db import memberships
from brokkr.broker.db.memberships import Slice
from brokkr.broker.db.pool import Lender, transaction
from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.metrics import Metrics

_AGENTS: Final = 1000
_SELECTORS: Final = 100
_LANES: Final = 100
_REPAIRS: Final = 100
_BREATH: Final = 10
"""After so many agents whoever else has something to do gets a turn: 3 ms."""

_FIRST: Final = UUID(int=0)

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class SelectorRepair:
    """Once round all agents and selectors, and again; where it is, is not kept."""

    pool: Lender
    dispatcher: Dispatcher
    metrics: Metrics
    agents_after: UUID = _FIRST
    selectors_after: int = 0
    lanes_after: int = 0

    async def __call__(self) -> None:
        """Look at the next slice, and at the next lanes of what some agents have tried."""
        await self._check_slice()
        await self._refresh_lanes()

    async def _check_slice(self) -> None:
        async with transaction(self.pool) as db:
            some = await memberships.read_slice(
                db,
                agents_after=self.agents_after,
                agents=_AGENTS,
                selectors_after=self.selectors_after,
                selectors=_SELECTORS,
            )
        wrong = await _wrong(some)
        for agent_id in wrong[:_REPAIRS]:
            async with transaction(self.pool) as db:
                changed = await memberships.put_right(db, agent_id)
            if changed:
                self.metrics.repaired.inc()
                _log.warning("agent put into its lanes", agent_id=str(agent_id))
                self.dispatcher.announce_agents(changed)
        if len(wrong) <= _REPAIRS:
            self._go_on(some)

    def _go_on(self, some: Slice) -> None:
        """Take all selectors for some agents, then the next agents, then begin anew."""
        if len(some.selectors) == _SELECTORS:
            self.selectors_after = max(some.selectors)
            return
        self.selectors_after = 0
        self.agents_after = some.agents[-1].id if len(some.agents) == _AGENTS else _FIRST

    async def _refresh_lanes(self) -> None:
        async with transaction(self.pool) as db:
            lanes = await memberships.list_narrower_lanes(db, after=self.lanes_after, limit=_LANES)
        for lane in lanes:
            async with transaction(self.pool) as db:
                changed = await memberships.refresh_lane(db, lane)
            if changed:
                self.dispatcher.announce_agents(changed)
        self.lanes_after = lanes[-1] if len(lanes) == _LANES else 0


async def _wrong(some: Slice) -> list[UUID]:
    """Return the agents for whom something else is stored than the selectors say."""
    wrong = []
    for number, agent in enumerate(some.agents, start=1):
        if not some.is_right_for(agent):
            wrong.append(agent.id)
        if number % _BREATH == 0:
            await asyncio.sleep(0)
    return wrong

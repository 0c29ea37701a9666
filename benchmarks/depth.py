"""
Does a claim cost more when more is waiting?

Queues of three depths lie on one server, each with a broker of its own, and are asked in
turn, over HTTP and by the bare statements: what is pending for an agent, and one Work
claimed.  An agent is in five lanes of fifty.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from uuid import uuid4

import uvloop

from broker_process import Http, broker_process
from brokkr.broker.db import claims
from brokkr.broker.db.claims import Holder
from brokkr.broker.db.keys import Role, issue_key
from brokkr.broker.db.pool import Pool, autocommit, connect
from machine import middle, percentile, report_on
from world import database, fill, make_agents, make_selectors, pool_of, throw_away_postgres

DEPTHS = (1_000, 100_000, 1_000_000)
AGENTS = (1_000, 10_000)
ROUNDS = 12
TIMES = 40
"""In each round, of each kind; fewer than an agent's share of the shallowest queue."""

# So that the queue stays as deep as it is meant to be.
_GIVE_BACK = """
UPDATE work_queue
   SET status = 'PENDING', claimed_by = NULL, claimed_at = NULL, lease_expires_at = NULL,
       lease_check_at = NULL
 WHERE status = 'CLAIMED' AND claimed_by = $1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One queue, and one agent of it.

    Attributes:
        rounds: How long each kind of question took, in each round.
    """

    depth: int
    url: str
    key: str
    pool: Pool
    agent: Holder
    rounds: dict[str, list[list[float]]] = field(default_factory=dict)

    async def ask(self) -> None:
        """Ask everything a few times, and put back what was claimed."""
        # Opened each time: the broker closes what is silent while the others are asked.
        http = await Http.open(self.url, self.key)
        await self._time("pending", self._list_pending)
        await self._time("pending_http", partial(self._list_pending_by_http, http))
        await self._time("claim", self._claim)
        await self._time("claim_http", partial(self._claim_by_http, http))
        await http.close()

    async def _time(self, what: str, ask: Callable[[], Awaitable[None]]) -> None:
        seconds = []
        for _ in range(TIMES):
            began = perf_counter()
            await ask()
            seconds.append(perf_counter() - began)
        self.rounds.setdefault(what, []).append(seconds)
        await self.pool.execute(_GIVE_BACK, self.agent.id)

    async def _list_pending(self) -> None:
        async with autocommit(self.pool) as db:
            found = await claims.list_pending_work(db, agent_id=self.agent.id, types=None, limit=20)
        assert len(found) == 20

    async def _claim(self) -> None:
        async with autocommit(self.pool) as db:
            assert await claims.claim_some_work(db, by=self.agent, request_id=uuid4())

    async def _list_pending_by_http(self, http: Http) -> None:
        await http.get("/api/v1/agents/self/work/pending?limit=20")

    async def _claim_by_http(self, http: Http) -> None:
        body = json.dumps({"max": 1, "request_id": str(uuid4())}).encode()
        assert len(await http.post("/api/v1/agents/self/work/claim", body)) > 100


async def main() -> None:
    """Run everything, with few agents and with many."""
    for agents in AGENTS:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(throw_away_postgres())
            async with connect(server) as db:
                report = await report_on(f"depth-{agents}", db)
            queues = [await _queue(stack, server, agents=agents, depth=depth) for depth in DEPTHS]
            for each in queues:
                await each.ask()
                each.rounds.clear()  # that was to warm up
            for _ in range(ROUNDS):
                for each in queues:
                    await each.ask()
            for each in queues:
                report.add(agents=agents, depth=each.depth, **_compared(each, queues[0]))
            report.save()


def _compared(queue: Queue, first: Queue) -> dict[str, float]:
    """Return medians, and how they compare with another queue's in the same round."""
    found = {}
    for what, rounds in queue.rounds.items():
        every = [seconds for each in rounds for seconds in each]
        pairs = zip(rounds, first.rounds[what], strict=True)
        found[f"{what}_ms"] = middle(every) * 1000
        found[f"{what}_p95"] = percentile(every, 0.95) * 1000
        found[f"{what}_ratio"] = middle([middle(ours) / middle(theirs) for ours, theirs in pairs])
    return found


async def _queue(stack: AsyncExitStack, server: str, *, agents: int, depth: int) -> Queue:
    url = await stack.enter_async_context(database(server))
    async with connect(url) as db:
        await make_agents(db, agents)
        await fill(db, await make_selectors(db), depth)
        [agent] = await db.fetch("SELECT id, name FROM agents ORDER BY name LIMIT 1")
        key = await issue_key(db, Role.AGENT, agent_id=agent["id"])
    broker = await stack.enter_async_context(broker_process(url))
    return Queue(
        depth=depth,
        url=broker.url,
        key=key.key,
        pool=await stack.enter_async_context(pool_of(url)),
        agent=Holder(**dict(agent)),
    )


if __name__ == "__main__":
    uvloop.run(main())

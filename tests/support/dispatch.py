"""A broker's dispatcher alone, on a real database, and waiters of agents at it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from uuid import uuid4

from brokkr.broker.db.pool import open_pool
from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.waiting import Waiter
from brokkr.wire.bodies import AgentBody
from support.queue import Queue

WITHIN = 10


class Replica:
    """One dispatcher at work, and its waiters."""

    def __init__(self, dispatcher: Dispatcher, polls: ExitStack) -> None:
        self.dispatcher = dispatcher
        self.polls = polls

    def poll(self, agent: AgentBody, types: list[str] | None = None) -> Waiter:
        """Begin to wait for Work."""
        return self.polls.enter_context(self.dispatcher.waiter(agent.id, types=types))

    async def parked(self, agent: AgentBody, types: list[str] | None = None) -> Waiter:
        """Wait for Work, in lanes that have been read; the look after that is over."""
        waiter = self.poll(agent, types)
        assert await waiter.is_woken(within=WITHIN)
        return waiter


@asynccontextmanager
async def a_replica(url: str, *, pool_url: str | None = None) -> AsyncIterator[Replica]:
    dispatcher = Dispatcher()
    async with open_pool(pool_url or url) as pool:
        running = asyncio.create_task(dispatcher.run(url, pool))
        with ExitStack() as polls:
            dispatcher.announce_agents([uuid4()])
            await dispatcher._channel.until_told()  # so it listens, too
            await pool.fetchval("SELECT 1")  # and there is a connection for its questions
            yield Replica(dispatcher, polls)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()  # it would not have ended by itself


async def a_lane(queue: Queue, target: object = None) -> int:
    """Submit Work, without a word to anybody, and return its lane."""
    work_id = await queue.submit(target)
    lane = await queue.pool.fetchval("SELECT selector_id FROM work_queue WHERE id = $1", work_id)
    assert isinstance(lane, int)
    return lane

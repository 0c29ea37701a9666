"""Lanes come to rest by themselves, at every replica."""

from datetime import timedelta

from structlog.testing import capture_logs

from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.maintenance.lanes import LaneRest
from support.dispatch import WITHIN, a_replica
from support.queue import Queue
from support.signals import eventually


def kept(dispatcher: Dispatcher) -> int:
    """Return how many lanes a replica remembers of all agents that wait."""
    return sum(len(each.lanes) for each in dispatcher._lanes._agents.values())


async def test_lanes_in_which_nothing_is_queued_rest_in_one_run(queue: Queue) -> None:
    agent = await queue.an_agent()
    for number in range(250):  # more than a batch
        await queue.cancel(
            await queue.submit([{"agents": [agent.name]}, {"agents": [f"x{number}"]}])
        )
    kept_one = await queue.submit()

    with capture_logs() as logs:
        await LaneRest(pool=queue.pool, dispatcher=Dispatcher(), age=timedelta())()

    assert await queue.pool.fetchval("SELECT count(*) FROM agent_selectors") == 1
    assert await queue.targets(kept_one) == {agent.name}
    assert [(each["event"], each["count"]) for each in logs] == [("lanes rest", 250)]


async def test_every_replica_forgets_a_lane_that_rests_and_hears_when_it_is_used_again(
    queue: Queue, database_url: str
) -> None:
    agent = await queue.an_agent()
    target = {"agents": [agent.name]}
    async with a_replica(database_url) as here, a_replica(database_url) as there:
        await queue.cancel(await queue.submit(target))
        waiter = await there.parked(agent)
        assert kept(there.dispatcher) == 1

        await LaneRest(pool=queue.pool, dispatcher=here.dispatcher, age=timedelta())()

        async def has_forgotten() -> bool:
            return kept(there.dispatcher) == 0

        await eventually(has_forgotten)
        assert there.dispatcher._lanes._parked == {}
        assert not waiter.is_roused  # nobody looks for Work because there is none

        work_id = await queue.submit(target)
        lane = await queue.pool.fetchval("SELECT selector_id FROM work_queue")
        here.dispatcher.announce([lane])
        assert await waiter.is_woken(within=WITHIN)
        assert [each.work_id for each in await queue.claim_some(agent)] == [work_id]


async def test_work_for_a_lane_that_rests_is_found_and_announced(
    queue: Queue, database_url: str
) -> None:
    agent = await queue.an_agent()
    async with a_replica(database_url) as replica:
        waiter = replica.poll(agent)
        await queue.submit()
        await queue.pool.execute("UPDATE selectors SET agents = '{}'")
        await queue.pool.execute("DELETE FROM agent_selectors")

        await LaneRest(pool=queue.pool, dispatcher=replica.dispatcher)()

        assert await waiter.is_woken(within=WITHIN)
        assert len(await queue.claim_some(agent)) == 1


async def test_an_agent_that_an_earlier_version_puts_into_lanes_that_rest_is_taken_out(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    finished = await queue.submit()
    await queue.cancel(finished)
    waits = await queue.submit({"agents": [agent.name]})
    rest = LaneRest(pool=queue.pool, dispatcher=Dispatcher(), age=timedelta())
    await rest()
    await queue.pool.execute(
        "INSERT INTO agent_selectors (agent_id, selector_id)"
        " SELECT $1, id FROM selectors WHERE agents IS NOT NULL",
        agent.id,
    )

    await rest()

    assert await queue.pool.fetchval("SELECT count(*) FROM agent_selectors") == 1
    assert await queue.targets(waits) == {agent.name}
    assert await queue.targets(finished) == {agent.name}

"""Several dispatchers on one database, as those of several brokers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest

from brokkr.broker import dispatch
from brokkr.broker.db.notifications import Channel, News
from brokkr.broker.waiting import Waiter
from support.dispatch import WITHIN, Replica, a_lane, a_replica
from support.queue import Queue
from support.relay import relayed
from support.signals import eventually

QUIET = 0.3
"""Seconds after which nothing is under way any more."""


Start = Callable[[], Awaitable[Replica]]


@pytest.fixture
async def start(database_url: str) -> AsyncIterator[Start]:
    """Start a dispatcher on the test's database."""
    async with AsyncExitStack() as stack:

        async def one() -> Replica:
            return await stack.enter_async_context(a_replica(database_url))

        yield one


def woken(*waiters: Waiter) -> int:
    return sum(each.is_roused for each in waiters)


async def until_woken(number: int, *waiters: Waiter) -> None:
    """Wait until so many are woken, and see that no more are."""

    async def is_so() -> bool:
        return woken(*waiters) >= number

    await eventually(is_so, within=WITHIN)
    await asyncio.sleep(QUIET)
    assert woken(*waiters) == number


async def test_work_wakes_one_waiter_of_this_broker_and_none_of_the_others(
    queue: Queue, start: Start
) -> None:
    here, there = await start(), await start()
    agents = [await queue.an_agent() for _ in range(4)]
    lane = await a_lane(queue)
    mine = [await here.parked(agent) for agent in agents]
    theirs = [await there.parked(agent) for agent in agents]

    here.dispatcher.announce([lane])

    await until_woken(1, *mine)
    assert woken(*theirs) == 0


async def test_work_that_nobody_waits_for_here_wakes_one_waiter_at_each_other_broker(
    queue: Queue, start: Start
) -> None:
    here, there, elsewhere = await start(), await start(), await start()
    agents = [await queue.an_agent() for _ in range(3)]
    lane = await a_lane(queue)
    here.poll(await queue.an_agent(any="no"))
    theirs = [await there.parked(agent) for agent in agents]
    others = [await elsewhere.parked(agent) for agent in agents]

    here.dispatcher.announce([lane])
    await until_woken(1, *theirs)
    await until_woken(1, *others)
    here.dispatcher.announce([lane, lane])
    await until_woken(3, *theirs)
    await until_woken(3, *others)


async def test_what_no_waiter_wants_is_told_once_and_not_passed_on_for_ever(
    queue: Queue, start: Start, database_url: str
) -> None:
    here, _, _ = await start(), await start(), await start()
    told = Counter[int]()
    listener = Channel(heard=lambda news: told.update(news.works), listening=lambda: None)
    running = asyncio.create_task(listener.run(database_url))
    listener.tell(News(agents={uuid4()}))
    await listener.until_told()  # so it listens, too
    lane = await a_lane(queue)

    here.dispatcher.announce([lane])
    await asyncio.sleep(QUIET)
    running.cancel()
    await asyncio.wait([running])

    assert told == {lane: 1}


async def test_what_this_broker_s_waiters_leave_over_is_for_the_other_s(
    queue: Queue, start: Start
) -> None:
    here, there = await start(), await start()
    agents = [await queue.an_agent() for _ in range(3)]
    lane = await a_lane(queue)
    mine = await here.parked(agents[0])
    theirs = [await there.parked(agent) for agent in agents]

    here.dispatcher.announce([lane] * 2)

    await until_woken(1, *theirs)
    assert woken(mine) == 1


async def test_work_of_a_known_lane_is_announced_without_asking_the_database(
    database_url: str, queue: Queue
) -> None:
    agent = await queue.an_agent()
    lane = await a_lane(queue)
    async with (
        relayed(database_url) as database,
        a_replica(database_url, pool_url=database.url) as replica,
    ):
        waiter = await replica.parked(agent)
        replica.dispatcher.announce([lane])
        assert await waiter.is_woken(within=WITHIN)
        await database.relay.close()

        replica.dispatcher.announce([lane])

        assert woken(waiter) == 1


async def test_a_target_that_is_new_is_heard_of_by_agents_that_wait_already(
    queue: Queue, start: Start
) -> None:
    here, there = await start(), await start()
    agent, other = await queue.an_agent("meant"), await queue.an_agent()
    await a_lane(queue)
    theirs, others = await there.parked(agent), await there.parked(other)

    here.dispatcher.announce([await a_lane(queue, {"agents": ["meant"]})])

    await until_woken(1, theirs, others)
    assert woken(theirs) == 1


async def test_an_agent_that_is_in_no_lane_sleeps_through_everything(
    queue: Queue, start: Start
) -> None:
    replica = await start()
    agent = await queue.an_agent(any="no")
    waiter = replica.poll(agent)

    replica.dispatcher.announce([await a_lane(queue)])

    assert not await waiter.is_woken(within=QUIET)


async def test_work_that_comes_before_the_lanes_were_read_is_looked_for_after_that(
    database_url: str, queue: Queue
) -> None:
    agent = await queue.an_agent()
    lane = await a_lane(queue)
    async with (
        relayed(database_url) as database,
        a_replica(database_url, pool_url=database.url) as replica,
    ):
        database.relay.hold_answers()
        waiter = replica.poll(agent)
        replica.dispatcher.announce([lane])
        assert not await waiter.is_woken(within=QUIET)

        database.relay.let_through()

        assert await waiter.is_woken(within=WITHIN)


async def test_labels_that_change_while_lanes_are_read_are_read_again(
    database_url: str, queue: Queue
) -> None:
    agent = await queue.an_agent(any="no")
    lane = await a_lane(queue)
    async with (
        relayed(database_url) as database,
        a_replica(database_url, pool_url=database.url) as replica,
    ):
        database.relay.hold_answers()
        waiter = replica.poll(agent)
        await asyncio.sleep(QUIET)  # the old lanes are on their way now
        await queue.relabel(agent, any="yes")
        replica.dispatcher.announce_agents([agent.id])
        database.relay.let_through()

        assert await waiter.is_woken(within=WITHIN)
        replica.dispatcher.announce([lane])
        await until_woken(1, waiter)


async def test_an_agent_that_is_relabelled_at_one_broker_gains_and_loses_lanes_at_another(
    queue: Queue, start: Start
) -> None:
    here, there = await start(), await start()
    agent, other = await queue.an_agent(), await queue.an_agent(any="no")
    lane = await a_lane(queue)
    waiter, gaining = await there.parked(agent), there.poll(other)

    await queue.relabel(agent, any="no")
    await queue.relabel(other, any="yes")
    here.dispatcher.announce_agents([agent.id, other.id])
    assert await gaining.is_woken(within=WITHIN)
    here.dispatcher.announce([lane])

    await until_woken(1, waiter, gaining)
    assert woken(gaining) == 1


@pytest.mark.parametrize("end", ["drain", "delete_agent"])
async def test_the_wake_of_an_agent_that_has_lost_the_lane_goes_to_another(
    queue: Queue, start: Start, end: str
) -> None:
    here, there = await start(), await start()
    agent, other = await queue.an_agent(), await queue.an_agent()
    lane = await a_lane(queue)
    mine, theirs = await here.parked(agent), await there.parked(other)

    here.dispatcher.announce([lane])
    await until_woken(1, mine)
    await getattr(queue, end)(agent)
    here.dispatcher.announce_agents([agent.id])

    await until_woken(1, theirs)


async def test_an_agent_that_is_drained_no_longer_hears_of_work(queue: Queue, start: Start) -> None:
    here, there = await start(), await start()
    agent = await queue.an_agent()
    lane = await a_lane(queue)
    await queue.drain(agent)
    waiter = here.poll(agent)
    assert not await waiter.is_woken(within=QUIET)

    there.dispatcher.announce([lane])
    assert not await waiter.is_woken(within=QUIET)
    await queue.drain(agent, is_drained=False)
    there.dispatcher.announce_agents([agent.id])
    assert await waiter.is_woken(within=WITHIN)


async def test_an_agent_that_cannot_execute_a_type_now_hears_of_it_again_when_it_can(
    queue: Queue, start: Start
) -> None:
    here, there = await start(), await start()
    agent = await queue.an_agent()
    known = await a_lane(queue)
    waiter = await here.parked(agent)
    await queue.declare(agent, build="no disk")
    there.dispatcher.announce_agents([agent.id])

    assert not await waiter.is_woken(within=QUIET)
    there.dispatcher.announce([known, await a_lane(queue, {"agents": [agent.name]})])
    assert not await waiter.is_woken(within=QUIET)
    await queue.declare(agent)
    there.dispatcher.announce_agents([agent.id])
    assert await waiter.is_woken(within=WITHIN)


async def test_the_wake_of_an_agent_that_cannot_execute_the_type_any_more_goes_to_another(
    queue: Queue, start: Start
) -> None:
    here, there = await start(), await start()
    agent, other = await queue.an_agent(), await queue.an_agent()
    lane = await a_lane(queue)
    mine, theirs = await here.parked(agent), await there.parked(other)

    here.dispatcher.announce([lane])
    await until_woken(1, mine)
    await queue.declare(agent, build="no disk")
    here.dispatcher.announce_agents([agent.id])

    await until_woken(1, theirs)


async def test_a_waiter_that_leaves_without_having_looked_passes_its_wake_on(
    queue: Queue, start: Start
) -> None:
    here, there = await start(), await start()
    agents = [await queue.an_agent() for _ in range(3)]
    lane = await a_lane(queue)
    theirs = await there.parked(agents[2])
    second = await here.parked(agents[1])
    with here.dispatcher.waiter(agents[0].id, types=None) as first:
        assert await first.is_woken(within=WITHIN)
        here.dispatcher.announce([lane])
        assert await second.is_woken(within=WITHIN)
        here.dispatcher.announce([lane])
        assert woken(first, second) == 1

    assert woken(second) == 1
    assert woken(theirs) == 0
    here.polls.close()
    await until_woken(1, theirs)


async def test_a_waiter_that_got_work_of_another_lane_passes_its_wake_on(
    queue: Queue, start: Start
) -> None:
    replica = await start()
    lane, other_lane = await a_lane(queue), await a_lane(queue, {"match_labels": {"gpu": "yes"}})
    agent, other = await queue.an_agent(gpu="yes"), await queue.an_agent()
    with replica.dispatcher.waiter(agent.id, types=None) as first:
        assert await first.is_woken(within=WITHIN)
        second = await replica.parked(other)
        replica.dispatcher.announce([lane])
        assert await first.is_woken(within=WITHIN)
        assert woken(second) == 0
        first.heeded([other_lane])

    assert woken(second) == 1


async def test_after_an_outage_of_the_channel_all_waiters_look_and_hear_again(
    queue: Queue, start: Start
) -> None:
    here, there = await start(), await start()
    agents = [await queue.an_agent() for _ in range(2)]
    lane = await a_lane(queue)
    mine, theirs = await here.parked(agents[0]), await there.parked(agents[1])

    await queue.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'brokkr-channel' AND datname = current_database()"
    )

    assert await mine.is_woken(within=WITHIN)
    assert await theirs.is_woken(within=WITHIN)
    here.dispatcher.announce([lane] * 2)
    await until_woken(2, mine, theirs)


async def test_lanes_that_cannot_be_read_are_read_when_the_database_is_there(
    database_url: str, queue: Queue
) -> None:
    agent = await queue.an_agent()
    await a_lane(queue)
    async with (
        relayed(database_url) as database,
        a_replica(database_url, pool_url=database.url) as replica,
    ):
        await database.relay.close()
        waiter = replica.poll(agent)
        assert not await waiter.is_woken(within=QUIET)

        await database.relay.open()

        assert await waiter.is_woken(within=WITHIN)


async def test_a_lane_that_cannot_be_read_is_read_when_the_database_is_there(
    database_url: str, queue: Queue
) -> None:
    agent = await queue.an_agent()
    lane = await a_lane(queue)
    async with (
        relayed(database_url) as database,
        a_replica(database_url, pool_url=database.url) as replica,
    ):
        waiter = await replica.parked(agent)
        await database.relay.close()
        replica.dispatcher.announce([lane])
        assert not await waiter.is_woken(within=QUIET)

        await database.relay.open()

        assert await waiter.is_woken(within=WITHIN)


async def test_a_closed_dispatcher_lets_all_waiters_go_and_leaves_work_to_the_others(
    queue: Queue, start: Start
) -> None:
    here, there = await start(), await start()
    agent = await queue.an_agent()
    lane = await a_lane(queue)
    mine, theirs = await here.parked(agent), await there.parked(agent)

    here.dispatcher.close()

    assert not await mine.is_woken(within=60)
    assert not await here.poll(agent).is_woken(within=60)
    here.dispatcher.announce([lane])
    await until_woken(1, theirs)


@pytest.mark.parametrize("read", ["list_lanes", "list_members"])
async def test_a_reading_that_goes_wrong_in_an_unforeseen_way_is_done_again(
    queue: Queue, start: Start, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    there, lane = await start(), await a_lane(queue)
    right = getattr(dispatch, read)
    failures = iter([ZeroDivisionError("nobody had thought of it")])

    async def wrong_once(*arguments: Any, **options: Any) -> Any:
        for failure in failures:
            raise failure
        return await right(*arguments, **options)

    monkeypatch.setattr(dispatch, read, wrong_once)
    waiter = await there.parked(await queue.an_agent())
    there.dispatcher.announce([lane])

    assert await waiter.is_woken(within=WITHIN)
    assert list(failures) == []

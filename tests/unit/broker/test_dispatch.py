import asyncio
from uuid import uuid4

from brokkr.broker.dispatch import Dispatcher


async def test_a_waiter_is_woken_by_what_was_said_before_it_waited() -> None:
    dispatcher = Dispatcher()
    agent = uuid4()
    with dispatcher.waiter(agent, types=None) as waiter:
        dispatcher._hear(f"agent {agent}")

        assert await waiter.is_woken(within=0.01)
        assert not await waiter.is_woken(within=0.01)


async def test_a_waiter_that_leaves_without_having_looked_passes_its_wake_on() -> None:
    dispatcher = Dispatcher()
    dispatcher._hear("work 7 build some-id")
    announced = dispatcher._announced.get_nowait()

    with dispatcher.waiter(uuid4(), types=None) as waiter:
        waiter.rouse(announced)

    assert dispatcher._announced.get_nowait() == announced


async def test_a_waiter_that_has_looked_keeps_its_wake() -> None:
    dispatcher = Dispatcher()
    dispatcher._hear("work 7 build some-id")

    with dispatcher.waiter(uuid4(), types=None) as waiter:
        waiter.rouse(dispatcher._announced.get_nowait())
        assert await waiter.is_woken(within=1)

    assert dispatcher._announced.empty()


async def test_a_waiter_for_other_types_does_not_want_the_work() -> None:
    dispatcher = Dispatcher()
    dispatcher._hear("work 7 build some-id")
    announced = dispatcher._announced.get_nowait()

    with (
        dispatcher.waiter(uuid4(), types=["backup"]) as backup,
        dispatcher.waiter(uuid4(), types=["build"]) as build,
    ):
        assert not backup.wants(announced)
        assert build.wants(announced)
        build.rouse(announced)
        assert not build.wants(announced)


async def test_a_closed_dispatcher_lets_all_waiters_go() -> None:
    dispatcher = Dispatcher()
    with dispatcher.waiter(uuid4(), types=None) as waiter:
        waits = asyncio.create_task(waiter.is_woken(within=60))
        await asyncio.sleep(0)

        dispatcher.close()

        assert not await asyncio.wait_for(waits, 1)
    with dispatcher.waiter(uuid4(), types=None) as late:
        assert not await late.is_woken(within=60)


async def test_a_notification_that_is_not_understood_wakes_nobody() -> None:
    dispatcher = Dispatcher()
    with dispatcher.waiter(uuid4(), types=None) as waiter:
        dispatcher._hear("something new")

        assert not await waiter.is_woken(within=0.01)
    assert dispatcher._announced.empty()

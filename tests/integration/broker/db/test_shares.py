"""Connections are shared out: by what they are for, and in turn."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from brokkr.broker.db.pool import open_pool, transaction, use_of
from brokkr.broker.db.shares import MAX_WAITING_SEARCHES, Connections, Places, Share
from brokkr.work.errors import DatabaseUnavailable, LimitReached
from support.signals import eventually


async def ask(share: Share) -> int:
    async with transaction(share) as db:
        answer: int = await db.fetchval("SELECT 1")
        return answer


def waits(places: Places, number: int) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return places.waiting == number

    return is_so


@pytest.mark.parametrize("size", [2, 3, 10])
async def test_what_is_vital_is_served_while_all_else_is_in_use(
    database_url: str, size: int
) -> None:
    async with open_pool(database_url, size=size) as pool, AsyncExitStack() as held:
        connections = Connections(pool)
        asking = []
        for number in range(2 * size):

            async def hold(number: int = number) -> None:
                async with transaction(connections.other(f"tenant-{number}")) as db:
                    await db.execute("SELECT pg_sleep(2)")

            asking.append(asyncio.create_task(hold()))
        held.callback(lambda: [each.cancel() for each in asking])

        async def is_full() -> bool:
            return connections.waiting > 0

        await eventually(is_full)

        async with asyncio.timeout(1):
            assert await ask(connections.vital("agent")) == 1
        assert use_of(pool).in_use < size
        for each in asking:
            each.cancel()
        await asyncio.wait(asking)


async def test_what_is_vital_may_use_every_connection(database_url: str) -> None:
    async with open_pool(database_url, size=4) as pool, AsyncExitStack() as held:
        connections = Connections(pool)
        for _ in range(4):
            await held.enter_async_context(transaction(connections.vital("agent")))

        assert use_of(pool).in_use == 4


async def test_one_party_may_use_what_nobody_else_wants(database_url: str) -> None:
    async with open_pool(database_url, size=8) as pool, AsyncExitStack() as held:
        connections = Connections(pool)
        for _ in range(6):  # all but the two that are reserved
            await held.enter_async_context(transaction(connections.other("tenant")))

        assert use_of(pool).in_use == 6


async def test_who_waits_is_served_in_turn_and_not_in_order() -> None:
    places = Places(1)
    served: list[str] = []
    await places.take("first")

    async def come(party: str) -> None:
        await places.take(party)
        served.append(party)
        places.give()

    crowd = [asyncio.create_task(come("crowd")) for _ in range(5)]
    await eventually(waits(places, 5))
    others = [asyncio.create_task(come(each)) for each in ("one", "two")]
    await eventually(waits(places, 7))
    places.give()
    await asyncio.gather(*crowd, *others)

    assert served[:3] == ["crowd", "one", "two"]
    assert len(served) == 7
    assert places.is_idle


async def test_who_gives_up_waiting_leaves_no_trace() -> None:
    places = Places(1)
    await places.take("first")
    waiting = [asyncio.create_task(places.take("crowd")) for _ in range(3)]
    await eventually(waits(places, 3))

    waiting[0].cancel()
    places.give()  # goes to the second
    waiting[1].cancel()  # who gives up in the same moment, so it goes to the third
    await asyncio.wait(waiting)
    assert not waiting[2].cancelled()
    places.give()

    assert places.is_idle


async def test_searches_of_one_party_wait_for_each_other_and_then_are_refused(
    database_url: str,
) -> None:
    async with open_pool(database_url, size=10) as pool:
        connections = Connections(pool)

        async def search(party: str) -> None:
            async with connections.search(party) as share, transaction(share) as db:
                await db.execute("SELECT pg_sleep(0.3)")

        mine = [asyncio.create_task(search("mine")) for _ in range(40)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(1):
            await search("theirs")
        results = await asyncio.gather(*mine, return_exceptions=True)

        refused = [each for each in results if isinstance(each, LimitReached)]
        assert len(refused) == 40 - MAX_WAITING_SEARCHES - 2
        assert all(each is None for each in results if each not in refused)
        assert connections.waiting == 0


async def test_searches_leave_room_for_submissions(database_url: str) -> None:
    async with open_pool(database_url, size=10) as pool, AsyncExitStack() as held:
        connections = Connections(pool)

        async def search(party: str) -> None:
            async with connections.search(party) as share, transaction(share) as db:
                await db.execute("SELECT pg_sleep(1)")

        many = [asyncio.create_task(search(f"tenant-{number}")) for number in range(20)]
        held.callback(lambda: [each.cancel() for each in many])
        await asyncio.sleep(0.1)
        async with asyncio.timeout(0.5):
            assert await ask(connections.other("tenant")) == 1
        for each in many:
            each.cancel()
        await asyncio.wait(many)


async def test_whose_turn_does_not_come_in_time_is_told_so(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokkr.broker.db.pool._ACQUIRE_TIMEOUT_SECONDS", 0.1)
    async with open_pool(database_url, size=2) as pool:
        connections = Connections(pool)
        async with transaction(connections.other("one")):
            with pytest.raises(DatabaseUnavailable, match="no answer in time"):
                await ask(connections.other("two"))

        assert await ask(connections.other("two")) == 1

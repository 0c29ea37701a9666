"""The rules of a work queue."""

import asyncio
from datetime import timedelta

import pytest

from brokkr.agent.controller.workqueue import SURPRISES, Workqueue, work_off
from brokkr.work.errors import BrokerUnavailable


def a_queue() -> Workqueue:
    return Workqueue(jitter=lambda: 1.0)


async def is_empty(queue: Workqueue) -> bool:
    try:
        async with asyncio.timeout(0.02):
            await queue.get()
    except TimeoutError:
        return True
    return False


async def test_a_key_added_twice_waits_once() -> None:
    queue = a_queue()
    queue.add("a")
    queue.add("a")

    assert await queue.get() == "a"
    queue.done("a")
    assert await is_empty(queue)


async def test_a_key_in_work_is_not_handed_out_again_until_it_is_done() -> None:
    queue = a_queue()
    queue.add("a")
    await queue.get()
    queue.add("a")

    assert await is_empty(queue)
    queue.done("a")
    assert await queue.get() == "a"


async def test_keys_come_in_the_order_they_were_added() -> None:
    queue = a_queue()
    for key in "cab":
        queue.add(key)

    assert [await queue.get() for _ in range(3)] == ["c", "a", "b"]


async def test_a_delayed_key_comes_when_it_is_due() -> None:
    queue = a_queue()
    queue.add_later("a", timedelta(milliseconds=50))

    assert await is_empty(queue)
    assert await queue.get() == "a"


async def test_news_overtakes_a_delay() -> None:
    queue = a_queue()
    queue.add_later("a", timedelta(hours=1))
    queue.add("a")

    assert await queue.get() == "a"


async def test_the_earlier_of_two_delays_counts() -> None:
    queue = a_queue()
    queue.add_later("a", timedelta(milliseconds=10))
    queue.add_later("a", timedelta(hours=1))

    assert await queue.get() == "a"


async def test_failures_in_a_row_back_off_and_a_success_forgets_them() -> None:
    queue = a_queue()
    delays = [queue.add_after_failure("a").total_seconds() for _ in range(4)]
    queue.forget_failures("a")

    assert delays == [0.1, 0.2, 0.4, 0.8]
    assert queue.add_after_failure("a").total_seconds() == 0.1


async def test_the_backoff_has_a_ceiling() -> None:
    queue = a_queue()

    assert [queue.add_after_failure("a") for _ in range(100)][-1] == timedelta(seconds=30)


@pytest.mark.parametrize(
    ("asked_for", "delays"),
    [
        (0, [0.1, 0.2, 0.4]),
        (0.3, [0.3, 0.3, 0.4]),
        (5, [5, 5, 5]),
        (1e300, [30, 30, 30]),  # nobody silences an agent for long
    ],
)
async def test_who_asks_to_be_left_alone_is_not_asked_before(
    asked_for: float, delays: list[float]
) -> None:
    queue = a_queue()

    assert [
        queue.add_after_failure("a", asked_for=asked_for).total_seconds() for _ in delays
    ] == delays


async def test_what_is_asked_for_is_spread_after_and_not_before_its_time() -> None:
    queue = Workqueue(jitter=lambda: 0.75)

    assert queue.add_after_failure("a", asked_for=4) == timedelta(seconds=5)


async def test_a_reconcile_waits_for_as_long_as_a_broker_asks() -> None:
    queue = a_queue()
    clock = asyncio.get_running_loop().time
    times: list[float] = []
    done = asyncio.Event()

    async def reconcile(_: str) -> timedelta | None:
        times.append(clock())
        if len(times) == 1:
            error = BrokerUnavailable("busy")
            error.retry_after = 0.4
            raise error
        done.set()
        return None

    queue.add("a")
    workers = asyncio.create_task(work_off(queue, reconcile, workers=1))
    async with asyncio.timeout(5):
        await done.wait()
    workers.cancel()

    assert times[1] - times[0] >= 0.4


async def test_a_reconcile_that_raises_is_tried_again_and_others_go_on() -> None:
    queue = a_queue()
    seen: list[str] = []
    done = asyncio.Event()

    async def reconcile(key: str) -> timedelta | None:
        seen.append(key)
        if seen.count("bad") == 2 and "good" in seen:
            done.set()
        if key == "bad":
            raise ValueError("a mistake of our own")
        return None

    queue.add("bad")
    queue.add("good")
    workers = asyncio.create_task(work_off(queue, reconcile, workers=1))
    async with asyncio.timeout(5):
        await done.wait()
    workers.cancel()

    assert seen[:2] == ["bad", "good"]


async def test_a_key_that_surprises_again_and_again_is_given_up_and_the_others_go_on() -> None:
    queue = a_queue()
    seen: list[str] = []
    given_up: list[tuple[str, str]] = []
    done, went_well = asyncio.Event(), asyncio.Event()

    async def reconcile(key: str) -> timedelta | None:
        seen.append(key)
        if key == "bad":
            raise ValueError("a mistake of our own")
        went_well.set()
        return None

    async def give_up(key: str, error: Exception) -> None:
        given_up.append((key, str(error)))
        done.set()
        raise RuntimeError("and this surprises, too")

    queue.add("bad")
    workers = asyncio.create_task(work_off(queue, reconcile, workers=1, give_up=give_up))
    async with asyncio.timeout(30):
        await done.wait()
        queue.add("good")
        await went_well.wait()
    workers.cancel()

    assert seen.count("bad") >= SURPRISES
    assert given_up[0] == ("bad", "a mistake of our own")


async def test_one_key_is_never_reconciled_by_two_workers_at_once() -> None:
    queue = a_queue()
    inside = most = runs = 0
    done = asyncio.Event()

    async def reconcile(key: str) -> timedelta | None:
        nonlocal inside, most, runs
        inside += 1
        most = max(most, inside)
        queue.add(key)
        await asyncio.sleep(0)
        inside -= 1
        runs += 1
        if runs == 20:
            done.set()
        return None

    queue.add("a")
    workers = asyncio.create_task(work_off(queue, reconcile, workers=4))
    async with asyncio.timeout(5):
        await done.wait()
    workers.cancel()

    assert most == 1

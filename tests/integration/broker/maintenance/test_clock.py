from datetime import timedelta

from structlog.testing import capture_logs

from brokkr.broker.db.clock import DatabaseClock
from brokkr.broker.maintenance.clock import read_clock
from support.queue import Queue


async def test_a_broker_follows_the_clock_of_the_database(queue: Queue) -> None:
    clock = DatabaseClock(wall_ns=lambda: 0)

    with capture_logs() as logs:
        await read_clock(queue.pool, clock)
        await read_clock(queue.pool, clock)

    now = await queue.pool.fetchval("SELECT extract(epoch FROM clock_timestamp())")
    assert abs(clock.time_ns() / 1e9 - float(now)) < 1
    # That machine's clock stands at 1970, so one of the two has jumped.
    assert [each["event"] for each in logs] == ["database clock jumped"]


async def test_a_clock_that_is_right_is_steady(queue: Queue) -> None:
    clock = DatabaseClock()

    await read_clock(queue.pool, clock)

    assert clock.is_steady
    assert timedelta(microseconds=clock.time_ns() // 1000) > timedelta(days=365 * 50)

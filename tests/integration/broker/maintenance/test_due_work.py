import asyncio

from structlog.testing import capture_logs

from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.maintenance.due_work import move_due_work
from brokkr.broker.metrics import Metrics
from brokkr.wire.bodies import WorkState
from support.dispatch import WITHIN, a_replica
from support.queue import Queue


async def run(
    queue: Queue, metrics: Metrics | None = None, dispatcher: Dispatcher | None = None
) -> None:
    await move_due_work(
        queue.pool, dispatcher=dispatcher or Dispatcher(), metrics=metrics or Metrics()
    )


async def a_delayed_work(queue: Queue, number: int = 1, *, by: str = "-1 second") -> None:
    """Put Works into the queue whose time to start is so far from now."""
    work_id = await queue.submit()
    await queue.pool.execute(
        "INSERT INTO work_queue (id, work_type, crd_spec, selector_id, priority, max_retries,"
        " not_before, is_due)"
        " SELECT gen_random_uuid(), work_type, crd_spec, selector_id, priority, max_retries,"
        " now() + $3::text::interval, false"
        " FROM work_queue, generate_series(1, $2::int) WHERE id = $1",
        work_id,
        number,
        by,
    )
    await queue.cancel(work_id)


async def test_work_enters_its_lane_when_its_time_has_come_and_wakes_who_waits(
    queue: Queue, database_url: str
) -> None:
    agent = await queue.an_agent()
    await a_delayed_work(queue)
    async with a_replica(database_url) as replica:
        waiter = await replica.parked(agent)
        assert await queue.claim_some(agent) == []

        with capture_logs() as logs:
            await run(queue, dispatcher=replica.dispatcher)

        assert await waiter.is_woken(within=WITHIN)
        assert len(await queue.claim_some(agent)) == 1
    assert {"event": "work entered its lanes", "count": 1, "log_level": "info"} in logs


async def test_work_whose_time_has_not_come_stays_out(queue: Queue) -> None:
    agent = await queue.an_agent()
    await a_delayed_work(queue, by="1 minute")

    await run(queue)

    assert await queue.claim_some(agent) == []


async def test_more_than_a_batch_is_moved_and_by_several_replicas_each_work_once(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    await a_delayed_work(queue, 1100)

    with capture_logs() as logs:
        await asyncio.gather(*(run(queue) for _ in range(3)))

    assert len(await queue.pending(agent, limit=2000)) == 1100
    assert sum(line["count"] for line in logs) == 1100


async def test_work_that_nobody_claimed_in_time_expires_and_is_counted(queue: Queue) -> None:
    work_id = await queue.submit(start_within_seconds=3600)
    await queue.pool.execute("UPDATE work_queue SET start_deadline = now() - interval '1 second'")
    metrics = Metrics()

    with capture_logs() as logs:
        await run(queue, metrics)

    assert (await queue.look(work_id)).status is WorkState.EXPIRED
    assert logs == [{"event": "work expired", "count": 1, "log_level": "info"}]
    assert b'finished_work_total{outcome="expired"} 1.0' in metrics.render()

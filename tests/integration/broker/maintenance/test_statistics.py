from uuid import UUID

from brokkr.broker.db.pool import transaction
from brokkr.broker.db.statistics import refresh_statistics as is_refreshed
from brokkr.broker.maintenance.statistics import refresh_statistics
from support.queue import Queue

DEPTH = 5_000


async def grow(queue: Queue, work_id: UUID) -> None:
    """Queue many Works like this one, as one long night of submissions would."""
    await queue.pool.execute(
        "INSERT INTO work_queue (id, work_type, crd_spec, selector_id, priority, max_retries)"
        " SELECT gen_random_uuid(), work_type, crd_spec, selector_id, priority, max_retries"
        "   FROM work_queue, generate_series(1, $2::int) WHERE id = $1",
        work_id,
        DEPTH,
    )
    await count_now(queue)


async def count_now(queue: Queue) -> None:
    """Let the server's counters say what has happened so far, and not a second later."""
    await queue.pool.execute("SELECT pg_stat_force_next_flush()")


async def rows_read_by_a_life(queue: Queue, by_name: str) -> int:
    """Submit, claim, renew and complete a Work, and count the rows that this has read."""
    counters = (
        "SELECT sum(seq_tup_read + idx_tup_fetch)::int FROM pg_stat_user_tables"
        " WHERE relname IN ('work_queue', 'work_claims', 'work_execution_log')"
    )
    agent = await queue.an_agent(by_name)
    await count_now(queue)
    before = await queue.pool.fetchval(counters)
    work_id = await queue.submit({"agents": [by_name]})
    claim = await queue.claim(work_id, by=agent)
    await queue.renew(claim, by=agent)
    await queue.complete(claim, by=agent)
    await count_now(queue)
    after = await queue.pool.fetchval(counters)
    return int(after - before)


async def test_plans_made_for_an_empty_queue_do_not_outlive_it(queue: Queue) -> None:
    await queue.pool.execute("VACUUM (ANALYZE) work_queue, work_claims, work_execution_log")
    await rows_read_by_a_life(queue, "first")
    await grow(queue, await queue.submit())

    await refresh_statistics(queue.pool)

    assert await rows_read_by_a_life(queue, "second") < DEPTH / 50


async def test_statistics_that_are_true_are_left_alone(queue: Queue) -> None:
    await grow(queue, await queue.submit())
    await queue.pool.execute("ANALYZE work_queue")

    async with transaction(queue.pool) as db:
        assert not await is_refreshed(db)

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from brokkr.broker.db.pool import transaction
from brokkr.broker.db.work_queue import lock_sweep
from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.maintenance.stale_claims import release_stale_claims
from brokkr.broker.metrics import Metrics
from brokkr.wire.bodies import WorkState
from support.dispatch import WITHIN, a_replica
from support.queue import Queue

INTERVAL = timedelta(seconds=10)


async def run(
    queue: Queue, metrics: Metrics | None = None, dispatcher: Dispatcher | None = None
) -> None:
    await release_stale_claims(
        queue.pool,
        interval=INTERVAL,
        max_lost_claims=3,
        metrics=metrics or Metrics(),
        dispatcher=dispatcher or Dispatcher(),
    )


async def test_more_than_a_batch_is_released(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    await queue.pool.execute(
        "INSERT INTO work_queue (id, work_type, crd_spec, selector_id, priority, max_retries,"
        " status, claimed_by, claimed_at, claim_id, lease_expires_at, lease_check_at)"
        " SELECT gen_random_uuid(), 'build', '{}', selector_id, 0, 3, 'CLAIMED', $1, now(),"
        " gen_random_uuid(), now() - interval '1 minute', now() - interval '1 minute'"
        " FROM work_queue, generate_series(1, 1100) WHERE id = $2",
        agent.id,
        work_id,
    )
    metrics = Metrics()

    await run(queue, metrics)

    assert (
        await queue.pool.fetchval("SELECT count(*) FROM work_queue WHERE status = 'CLAIMED'") == 0
    )
    assert b"brokkr_broker_lost_claims_total 1100.0" in metrics.render()


async def test_one_replica_at_a_time_looks(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lapse(claim)

    async with transaction(queue.pool) as other_replica:
        assert await lock_sweep(other_replica)
        await run(queue)
        assert (await queue.look(claim.work_id)).status is WorkState.CLAIMED

    await asyncio.gather(run(queue), run(queue))
    assert (await queue.look(claim.work_id)).lost_claims == 1


async def test_after_an_outage_leases_are_extended_once(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(claim_timeout_seconds=60), by=agent)
    await queue.pool.execute("UPDATE broker_instance SET swept_at = now() - interval '1 hour'")
    await queue.pool.execute(
        "UPDATE work_queue SET lease_expires_at = now() - interval '59 minutes 20 seconds',"
        " lease_check_at = now() - interval '59 minutes 20 seconds'"
    )

    await run(queue)
    await run(queue)

    work = await queue.look(claim.work_id)
    assert work.status is WorkState.CLAIMED
    assert work.lease_seconds is not None
    assert 0 < work.lease_seconds <= 40


async def test_what_is_given_back_wakes_an_agent_that_waits(
    queue: Queue, database_url: str
) -> None:
    holder, other = await queue.an_agent(), await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=holder)
    await queue.lapse(claim)
    async with a_replica(database_url) as replica:
        waiter = await replica.parked(other)

        await run(queue, dispatcher=replica.dispatcher)

        assert await waiter.is_woken(within=WITHIN)
        assert [each.work_id for each in await queue.claim_some(other)] == [claim.work_id]


async def test_each_lost_claim_is_logged_with_what_became_of_its_work(queue: Queue) -> None:
    agent = await queue.an_agent()
    again, cancelled = [await queue.claim(await queue.submit(), by=agent) for _ in range(2)]
    await queue.cancel(cancelled.work_id)
    await queue.lapse(again, cancelled)
    metrics = Metrics()

    with capture_logs() as logs:
        await run(queue, metrics)

    lost = {line["work_id"]: line["outcome"] for line in logs if line["event"] == "claim lost"}
    assert lost == {str(again.work_id): "pending again", str(cancelled.work_id): "cancelled"}
    assert b'finished_work_total{outcome="cancelled"} 1.0' in metrics.render()


@pytest.mark.parametrize("is_alive", [True, False])
async def test_a_lease_that_was_given_while_the_clock_was_ahead_is_short_again(
    queue: Queue, is_alive: bool
) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(claim_timeout_seconds=5), by=agent)
    await queue.later(-timedelta(days=1))  # the clock is set back by a day

    if is_alive:
        [renewed] = await queue.renew(claim, by=agent)
        assert renewed.lease_seconds <= 5
    else:
        await run(queue)
    row = await queue.pool.fetchrow(
        "SELECT extract(epoch FROM lease_expires_at - now()) AS lease,"
        " extract(epoch FROM lease_check_at - now()) AS look FROM work_queue"
    )
    assert row is not None
    assert max(row["lease"], row["look"]) <= 5


async def test_leases_are_whole_again_after_the_clock_was_ahead_and_set_back(queue: Queue) -> None:
    agent = await queue.an_agent()
    claims = [
        await queue.claim(await queue.submit(claim_timeout_seconds=seconds), by=agent)
        for seconds in (5, 3600)
    ]
    await run(queue)
    await queue.later(timedelta(days=1))
    await run(queue)  # as after an outage of a day: leases get their time back
    await queue.later(-timedelta(days=1))

    renewed = await queue.renew(*claims, by=agent)

    assert sorted(round(each.lease_seconds, -1) for each in renewed) == [0, 3600]
    assert await queue.sweep() == []


async def test_shortening_leaves_leases_alone_that_are_as_they_should_be(queue: Queue) -> None:
    agent = await queue.an_agent()
    await queue.claim(await queue.submit(claim_timeout_seconds=1), by=agent)
    before = await queue.pool.fetchrow("SELECT lease_expires_at, lease_check_at FROM work_queue")

    await run(queue)

    after = await queue.pool.fetchrow("SELECT lease_expires_at, lease_check_at FROM work_queue")
    assert after == before

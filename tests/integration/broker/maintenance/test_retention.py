import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from brokkr.broker.db import retention
from brokkr.broker.db.clock import DatabaseClock
from brokkr.broker.db.pool import Connection, transaction
from brokkr.broker.db.submissions import Submission, Submitted, Submitter, submit_work
from brokkr.broker.db.work_queue import requeue_work
from brokkr.broker.maintenance.retention import prune
from brokkr.broker.metrics import Metrics
from brokkr.broker.settings import RetentionSettings
from brokkr.wire.bodies import AgentBody, SubmitWork, TargetBody
from brokkr.work.errors import PayloadPruned, WorkNotFound
from support.factories import a_build_template
from support.queue import Queue
from support.signals import eventually

FOR_EVER = RetentionSettings(
    succeeded_days=0,
    failed_days=0,
    cancelled_days=0,
    expired_days=0,
    quarantined_days=0,
    payload_days=0,
    events_days=0,
)


async def run(
    queue: Queue, metrics: Metrics | None = None, batch: int = 500, **days: float
) -> None:
    settings = FOR_EVER.model_copy(update={f"{what}_days": each for what, each in days.items()})
    await prune(
        queue.pool, settings, metrics=metrics or Metrics(), clock=DatabaseClock(), batch=batch
    )


async def a_finished_work(
    queue: Queue, agent: AgentBody, *, days_ago: float = 10, **report: Any
) -> UUID:
    work_id = await queue.submit(labels={"team": "ml"})
    await queue.complete(await queue.claim(work_id, by=agent), agent, **report)
    await queue.pool.execute(
        "UPDATE work_execution_log SET completed_at = now() - $2 * interval '1 day' WHERE id = $1",
        work_id,
        days_ago,
    )
    return work_id


async def left_of(queue: Queue, work_id: UUID) -> dict[str, int]:
    """Return how many rows of each table speak of a Work."""
    tables = {
        "work_execution_log": "id",
        "work_events": "work_id",
        "work_claims": "work_id",
        "work_labels": "work_id",
    }
    return {
        table: await queue.pool.fetchval(
            f"SELECT count(*) FROM {table} WHERE {column} = $1", work_id
        )
        for table, column in tables.items()
    }


async def test_what_ended_long_ago_is_forgotten_with_all_that_was_known_of_it(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    old = await a_finished_work(queue, agent, days_ago=10)
    young = await a_finished_work(queue, agent, days_ago=1)
    metrics = Metrics()

    with capture_logs() as logs:
        await run(queue, metrics, succeeded=5)

    assert set((await left_of(queue, old)).values()) == {0}
    assert await left_of(queue, young) == {
        "work_execution_log": 1,
        "work_events": 3,
        "work_claims": 1,
        "work_labels": 1,
    }
    assert b'brokkr_broker_pruned_total{kind="work"} 1.0' in metrics.render()
    assert [(each["event"], each["kind"], each["count"]) for each in logs] == [
        ("old data pruned", "work", 1)
    ]


async def test_each_outcome_has_an_age_of_its_own_and_no_age_is_for_ever(queue: Queue) -> None:
    agent = await queue.an_agent()
    succeeded = await a_finished_work(queue, agent)
    failed = await a_finished_work(queue, agent, success=False)

    await run(queue, failed=5)

    with pytest.raises(WorkNotFound):
        await queue.look(failed)
    assert (await queue.look(succeeded)).success


@pytest.mark.setting(
    "broker.retention.succeeded_days",
    "broker.retention.failed_days",
    "broker.retention.cancelled_days",
    "broker.retention.expired_days",
    "broker.retention.quarantined_days",
)
async def test_what_is_as_old_as_one_setting_says_is_forgotten_and_no_other_outcome(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    works = {outcome: await a_finished_work(queue, agent) for outcome in retention.OUTCOMES}
    for outcome, work_id in works.items():
        await queue.pool.execute(
            "UPDATE work_execution_log SET outcome = $2 WHERE id = $1", work_id, outcome
        )

    for outcome in retention.OUTCOMES:
        days: dict[str, Any] = {outcome: 5}
        await run(queue, **days)

        del works[outcome]
        left = await queue.pool.fetch("SELECT id FROM work_execution_log")
        assert {row["id"] for row in left} == set(works.values())


async def test_more_than_a_batch_is_forgotten_in_one_run(queue: Queue) -> None:
    agent = await queue.an_agent()
    for _ in range(7):
        await a_finished_work(queue, agent)

    await run(queue, batch=2, succeeded=5, payload=1, events=1)

    assert await queue.pool.fetchval("SELECT count(*) FROM work_execution_log") == 0


@pytest.mark.setting("broker.retention.payload_days")
async def test_a_work_without_its_payload_is_shown_and_cannot_be_requeued(queue: Queue) -> None:
    agent = await queue.an_agent()
    old = await a_finished_work(queue, agent, days_ago=10)
    young = await a_finished_work(queue, agent, days_ago=1)

    await run(queue, payload=5)

    assert (await queue.look(old)).resource is None
    with pytest.raises(PayloadPruned):
        await queue.requeue(old)
    await queue.requeue(young)


async def test_payloads_and_events_that_ended_at_one_time_are_all_pruned(queue: Queue) -> None:
    """A batch ends in the middle of them, and the next one begins behind its last."""
    agent = await queue.an_agent()
    for _ in range(5):
        await a_finished_work(queue, agent)
    await queue.pool.execute("UPDATE work_execution_log SET completed_at = '2020-01-01Z'")

    await run(queue, batch=2, payload=5, events=5)

    left = await queue.pool.fetchval("SELECT count(crd_spec) FROM work_execution_log")
    assert left == 0
    assert await queue.pool.fetchval("SELECT count(*) FROM work_events") == 0


async def test_what_has_been_pruned_is_not_read_again(queue: Queue) -> None:
    agent = await queue.an_agent()
    for _ in range(5):
        await a_finished_work(queue, agent)
    await run(queue, payload=5, events=5)

    async with transaction(queue.pool) as db:
        for step in (retention.prune_payloads, retention.prune_events):
            again = await step(db, "succeeded", age=timedelta(days=5), limit=1)
            assert again.is_last


@pytest.mark.setting("broker.retention.events_days")
async def test_events_go_on_where_they_were_if_a_work_without_them_is_requeued(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    work_id = await a_finished_work(queue, agent)

    await run(queue, events=5)
    await queue.requeue(work_id)

    rows = await queue.pool.fetch("SELECT number, kind FROM work_events")
    assert [tuple(row) for row in rows] == [(4, "requeued")]


async def test_a_work_that_is_being_requeued_is_not_forgotten(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await a_finished_work(queue, agent)

    async with transaction(queue.pool) as db:
        await queue_again(db, work_id)
        await run(queue, succeeded=5)  # skips it, and does not wait for it

    assert (await queue.look(work_id)).status == "PENDING"
    assert await queue.events(work_id) == ["submitted", "claimed", "completed", "requeued"]


async def test_a_work_that_is_being_forgotten_is_not_requeued(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await a_finished_work(queue, agent)

    async with transaction(queue.pool) as db:
        await retention.prune_log(db, "succeeded", age=timedelta(days=5), limit=10)
        requeue = asyncio.create_task(queue.requeue(work_id))
        await eventually(lambda: somebody_waits(queue))

    with pytest.raises(WorkNotFound):
        await requeue
    assert set((await left_of(queue, work_id)).values()) == {0}


async def test_of_a_requeue_and_a_pruned_payload_the_first_wins(queue: Queue) -> None:
    agent = await queue.an_agent()
    queued, pruned = [await a_finished_work(queue, agent) for _ in range(2)]

    async with transaction(queue.pool) as db:
        await queue_again(db, queued)
        pruning = asyncio.create_task(run(queue, payload=5))
        await eventually(lambda: somebody_waits(queue))
    await pruning

    assert (await queue.look(queued)).resource is not None
    with pytest.raises(PayloadPruned):
        await queue.requeue(pruned)


async def queue_again(db: Connection, work_id: UUID) -> None:
    await requeue_work(db, work_id, actor="admin:test", reason="")


async def somebody_waits(queue: Queue) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return bool(await queue.pool.fetchval(f"{waiting} AND datname = current_database()"))


async def test_one_replica_at_a_time_prunes(queue: Queue) -> None:
    agent = await queue.an_agent()
    await a_finished_work(queue, agent)

    async with transaction(queue.pool) as other_replica:
        assert await retention.lock_retention(other_replica)
        await run(queue, succeeded=5)
        assert await queue.pool.fetchval("SELECT count(*) FROM work_execution_log") == 1

    await asyncio.gather(run(queue, succeeded=5), run(queue, succeeded=5))
    assert await queue.pool.fetchval("SELECT count(*) FROM work_execution_log") == 0


async def test_idempotency_keys_are_forgotten_when_they_have_expired(queue: Queue) -> None:
    for key in ("old", "new"):
        await queue.submit(idempotency_key=key)
    await queue.pool.execute(
        "UPDATE idempotency_keys SET expires_at = now() - interval '1 second' WHERE key = 'old'"
    )

    await run(queue)

    assert await queue.pool.fetchval("SELECT array_agg(key) FROM idempotency_keys") == ["new"]


async def test_processes_that_were_superseded_long_ago_are_forgotten(queue: Queue) -> None:
    agent = await queue.an_agent()
    superseded_lately, current = uuid4(), uuid4()
    for incarnation in (uuid4(), superseded_lately, current):
        await queue.touch(agent, incarnation)
    await queue.pool.execute(
        "UPDATE agent_incarnations SET first_seen_at = now() - interval '31 days'"
        " WHERE incarnation <> $1",
        superseded_lately,
    )

    await run(queue)

    left = await queue.pool.fetch("SELECT incarnation FROM agent_incarnations")
    assert {row["incarnation"] for row in left} == {superseded_lately, current}


async def selectors(queue: Queue) -> int:
    count: int = await queue.pool.fetchval("SELECT count(*) FROM selectors")
    return count


async def age_selectors(queue: Queue) -> None:
    await queue.pool.execute("UPDATE selectors SET created_at = now() - interval '2 days'")


async def test_a_target_that_no_work_has_any_more_is_forgotten_a_day_later(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    await queue.cancel(work_id)
    await queue.pool.execute("DELETE FROM work_execution_log")

    await run(queue)
    assert await selectors(queue) == 1
    await age_selectors(queue)
    await run(queue)

    assert await selectors(queue) == 0
    assert await queue.pool.fetchval("SELECT count(*) FROM agent_selectors") == 0
    assert [each.id for each in await queue.pending(agent)] == []
    again = await queue.submit()
    assert [each.id for each in await queue.pending(agent)] == [again]


async def test_a_target_stays_while_work_has_it_wherever_that_is(queue: Queue) -> None:
    agent = await queue.an_agent(a="x", b="x", c="x", d="x")
    await queue.submit({"match_labels": {"a": "x"}})
    claimed = await queue.submit({"match_labels": {"b": "x"}})
    await queue.claim(claimed, by=agent)
    finished = await queue.submit({"match_labels": {"c": "x"}})
    await queue.complete(await queue.claim(finished, by=agent), agent)
    later = {"match_labels": {"d": "x"}}
    delayed = await queue.submit(later)
    await queue.pool.execute(
        "UPDATE work_queue SET is_due = false, not_before = now() + interval '1 day' WHERE id = $1",
        delayed,
    )
    await age_selectors(queue)

    await run(queue)

    assert await selectors(queue) == 4


async def test_a_whole_target_stays_while_there_is_a_narrower_one(queue: Queue) -> None:
    agents = [await queue.an_agent() for _ in range(2)]
    for each in agents:
        await queue.touch(each)
    work_id = await queue.submit(max_handoffs=1)
    claim = await queue.claim(work_id, by=agents[0])
    await queue.complete(claim, agents[0], success=False, retryable=True)
    await age_selectors(queue)

    await run(queue)
    assert await selectors(queue) == 2
    await queue.cancel(work_id)
    await queue.pool.execute("DELETE FROM work_execution_log")
    await run(queue)
    await run(queue)

    assert await selectors(queue) == 0


async def test_who_has_just_found_a_target_keeps_it(queue: Queue) -> None:
    """It is about to be forgotten, and a submission that is not committed has it already."""
    agent = await queue.an_agent()
    await queue.cancel(await queue.submit())
    await queue.pool.execute("DELETE FROM work_execution_log")
    await age_selectors(queue)

    async with transaction(queue.pool) as db:
        template = a_build_template()
        target = TargetBody(match_labels={"any": "yes"})
        body = SubmitWork(work_type="build", template=template, target=target)
        [submitted] = await submit_work(
            db, [Submission(body=body, template=template)], by=Submitter(actor="admin:test")
        )
        await run(queue)

    assert isinstance(submitted, Submitted)
    assert [each.id for each in await queue.pending(agent)] == [submitted.work_id]


async def test_who_looks_for_a_target_while_it_is_forgotten_makes_another(queue: Queue) -> None:
    agent = await queue.an_agent()
    await queue.cancel(await queue.submit())
    await queue.pool.execute("DELETE FROM work_execution_log")
    await age_selectors(queue)

    async with transaction(queue.pool) as db:
        done, _ = await retention.prune_selectors(db, after=0, age=timedelta(days=1), limit=10)
        assert done.pruned == 1
        submission = asyncio.create_task(queue.submit())
        await eventually(lambda: somebody_waits(queue))

    work_id = await submission
    assert [each.id for each in await queue.pending(agent)] == [work_id]


async def test_nothing_is_forgotten_for_a_day_after_the_clock_of_the_database_has_jumped(
    queue: Queue,
) -> None:
    work_id = await a_finished_work(queue, await queue.an_agent(), days_ago=10)
    clock = DatabaseClock()
    async with transaction(queue.pool) as db:
        await clock.read(db)
        now = await db.fetchval("SELECT now()")
    clock.note(now + timedelta(days=365), at=clock.monotonic_ns())
    settings = FOR_EVER.model_copy(update={"succeeded_days": 5})

    with capture_logs() as logs:
        await prune(queue.pool, settings, metrics=Metrics(), clock=clock)

    assert (await queue.look(work_id)).success
    assert [each["event"] for each in logs] == ["old data not pruned"]
    await prune(queue.pool, settings, metrics=Metrics(), clock=DatabaseClock())
    with pytest.raises(WorkNotFound):
        await queue.look(work_id)

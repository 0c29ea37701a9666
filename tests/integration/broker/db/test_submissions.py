import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from brokkr.broker.db import retention, submissions
from brokkr.broker.db.pool import transaction
from brokkr.broker.db.submissions import Submitted, Submitter
from brokkr.wire.bodies import WorkState
from brokkr.work.errors import IdempotencyKeyReused, LimitReached
from support.queue import Queue, a_submission, is_known
from support.signals import eventually

DAY = timedelta(days=1)
ADMIN = Submitter(actor="admin:test")


async def a_tenant(queue: Queue, name: str) -> Submitter:
    generator_id = uuid4()
    await queue.pool.execute(
        "INSERT INTO generators (id, name) VALUES ($1, $2)", generator_id, name
    )
    return Submitter(actor=f"generator:{name}", generator_id=generator_id)


# -- what is stored --------------------------------------------------------------------


async def test_a_submission_is_stored_as_it_was_meant(queue: Queue) -> None:
    by = await a_tenant(queue, "ci")
    [submitted] = await queue.submit_all(
        a_submission(
            {"match_labels": {"gpu": "true"}},
            priority=-7,
            max_retries=5,
            max_handoffs=2,
            claim_timeout_seconds=90,
            labels={"team": "ml"},
            start_within_seconds=60,
        ),
        by=by,
    )

    assert isinstance(submitted, Submitted)
    work = await queue.look(submitted.work_id)
    assert (work.status, work.work_type, work.round) == (WorkState.PENDING, "build", 0)
    assert (work.priority, work.max_retries, work.max_handoffs) == (-7, 5, 2)
    assert (work.claim_timeout_seconds, work.labels) == (90, {"team": "ml"})
    assert work.target == [{"match_labels": {"gpu": "true"}}]
    assert (work.generator, work.generator_id) == ("ci", by.generator_id)
    assert work.not_before is None
    assert work.start_deadline is not None
    assert abs(work.start_deadline - datetime.now(UTC) - timedelta(seconds=60)).seconds < 10
    [event] = await queue.pool.fetch("SELECT number, kind, actor FROM work_events")
    assert tuple(event) == (1, "submitted", "generator:ci")


async def test_several_works_are_queued_in_the_order_in_which_they_were_given(
    queue: Queue,
) -> None:
    agent = await queue.an_agent(gpu="true")
    several = [
        a_submission({"match_labels": {"gpu": "true"}} if number % 3 else None)
        for number in range(20)
    ]

    queued = await queue.submit_all(*several)

    ids = [each.work_id for each in queued if isinstance(each, Submitted)]
    assert len(ids) == 20
    assert [each.id for each in await queue.pending(agent)] == ids


async def test_a_new_target_among_known_ones_changes_no_order(queue: Queue) -> None:
    agent = await queue.an_agent(gpu="true")
    first = await queue.submit()

    queued = await queue.submit_all(
        a_submission({"match_labels": {"gpu": "true"}}), a_submission(), a_submission()
    )

    ids = [each.work_id for each in queued if isinstance(each, Submitted)]
    assert [each.id for each in await queue.pending(agent)] == [first, *ids]
    assert len(ids) == 3


async def test_a_lane_that_is_deleted_meanwhile_is_made_again(queue: Queue) -> None:
    agent = await queue.an_agent()
    await queue.cancel(await queue.submit())
    async with transaction(queue.pool) as db:
        await db.execute("DELETE FROM work_execution_log")
        await db.execute("DELETE FROM agent_selectors")
        await db.execute("DELETE FROM selectors")
        submitting = asyncio.create_task(queue.submit())
        await eventually(queue.somebody_waits)

    work_id = await submitting
    assert [each.id for each in await queue.pending(agent)] == [work_id]


async def test_keys_are_locked_in_one_order_before_any_is_kept(queue: Queue) -> None:
    await queue.submit()
    async with transaction(queue.pool) as db:
        await db.execute(
            "SELECT pg_advisory_xact_lock(4, hashtext($1::uuid::text || 'b'))", UUID(int=0)
        )
        submitting = asyncio.create_task(
            queue.submit_all(a_submission(idempotency_key="a"), a_submission(idempotency_key="b"))
        )
        await eventually(queue.somebody_waits)
        assert await db.fetchval("SELECT count(*) FROM idempotency_keys") == 0

    assert all(isinstance(each, Submitted) and each.is_new for each in await submitting)


async def test_only_what_can_be_claimed_now_is_announced(queue: Queue) -> None:
    tomorrow = (datetime.now(UTC) + DAY).isoformat()

    now, later, again = await queue.submit_all(
        a_submission(idempotency_key="k"),
        a_submission(not_before=tomorrow),
        a_submission(idempotency_key="k"),
    )

    assert isinstance(now, Submitted)
    assert isinstance(later, Submitted)
    lane = await queue.pool.fetchval("SELECT id FROM selectors")
    assert (now.selector_id, later.selector_id) == (lane, None)
    assert is_known(again, now.work_id)


async def test_requests_with_the_same_new_targets_in_other_orders_do_not_block_each_other(
    queue: Queue,
) -> None:
    await queue.an_agent()
    for number in range(5):
        several = [a_submission({"match_labels": {f"x-{number}": each}}) for each in "abcdef"]

        forth, back = await asyncio.gather(
            queue.submit_all(*several), queue.submit_all(*several[::-1])
        )

        assert all(isinstance(each, Submitted) for each in [*forth, *back])
        lanes = [each.selector_id for each in forth if isinstance(each, Submitted)]
        assert lanes == [each.selector_id for each in back[::-1] if isinstance(each, Submitted)]


# -- idempotency keys ------------------------------------------------------------------


async def test_the_same_key_gets_the_same_work(queue: Queue) -> None:
    first = await queue.submit(idempotency_key="k")

    [again] = await queue.submit_all(a_submission(idempotency_key="k"))

    assert is_known(again, first)
    assert await queue.pool.fetchval("SELECT count(*) FROM work_queue") == 1
    assert await queue.events(first) == ["submitted"]


async def test_a_key_stands_for_its_work_also_when_that_is_finished(queue: Queue) -> None:
    work_id = await queue.submit(idempotency_key="k")
    await queue.cancel(work_id)

    [again] = await queue.submit_all(a_submission(idempotency_key="k"))

    assert is_known(again, work_id)


async def test_the_same_key_with_another_body_is_refused(queue: Queue) -> None:
    work_id = await queue.submit(idempotency_key="k")

    [refused] = await queue.submit_all(a_submission(idempotency_key="k", priority=1))

    assert isinstance(refused, IdempotencyKeyReused)
    assert refused.key == "k"
    [again] = await queue.submit_all(a_submission(idempotency_key="k"))
    assert is_known(again, work_id)


async def test_what_is_said_in_other_words_is_the_same_body(queue: Queue) -> None:
    labels = {"a": "1", "b": "2"}
    work_id = await queue.submit(idempotency_key="k", labels=labels)

    [again] = await queue.submit_all(
        a_submission(
            idempotency_key="k", labels=dict(reversed(labels.items())), priority=0, max_retries=3
        )
    )

    assert is_known(again, work_id)


async def test_a_key_is_its_owner_s(queue: Queue) -> None:
    owners = [ADMIN, await a_tenant(queue, "ci"), await a_tenant(queue, "nightly")]

    answers = [
        (await queue.submit_all(a_submission(idempotency_key="k"), by=owner))[0] for owner in owners
    ]

    assert [isinstance(each, Submitted) and each.is_new for each in answers] == [True] * 3


async def test_of_two_at_once_with_the_same_key_one_is_new(queue: Queue) -> None:
    answers = await asyncio.gather(
        *(queue.submit_all(a_submission(idempotency_key="k")) for _ in range(6))
    )

    submitted = [each for [each] in answers if isinstance(each, Submitted)]
    assert [each.is_new for each in submitted].count(True) == 1
    assert len({each.work_id for each in submitted}) == 1
    assert await queue.pool.fetchval("SELECT count(*) FROM work_queue") == 1


@pytest.mark.parametrize("is_committed", [False, True])
async def test_who_sends_a_key_that_is_being_used_waits_for_what_becomes_of_it(
    queue: Queue, is_committed: bool
) -> None:
    async with queue.pool.acquire() as db:
        original = db.transaction()
        await original.start()
        [first] = await submissions.submit_work(db, [a_submission(idempotency_key="k")], by=ADMIN)
        repeat = asyncio.create_task(queue.submit_all(a_submission(idempotency_key="k")))
        await eventually(queue.somebody_waits)
        await (original.commit() if is_committed else original.rollback())

    assert isinstance(first, Submitted)
    [again] = await repeat
    assert isinstance(again, Submitted)
    assert again.is_new is not is_committed
    assert (again.work_id == first.work_id) is is_committed


async def test_a_key_expires_after_a_day(queue: Queue) -> None:
    first = await queue.submit(idempotency_key="k")
    await queue.later(DAY - timedelta(minutes=1))
    [same] = await queue.submit_all(a_submission(idempotency_key="k"))
    assert is_known(same, first)

    await queue.later(timedelta(minutes=1))
    [other] = await queue.submit_all(a_submission(idempotency_key="k", priority=1))

    assert isinstance(other, Submitted)
    assert other.is_new
    [again] = await queue.submit_all(a_submission(idempotency_key="k", priority=1))
    assert is_known(again, other.work_id)


async def test_keys_count_among_the_items_of_one_request_too(queue: Queue) -> None:
    earlier = await queue.submit(idempotency_key="earlier")

    one, two, known, refused, three = await queue.submit_all(
        a_submission(idempotency_key="k"),
        a_submission(),
        a_submission(idempotency_key="earlier"),
        a_submission(idempotency_key="k", priority=1),
        a_submission(idempotency_key="k"),
    )

    assert isinstance(one, Submitted)
    assert isinstance(two, Submitted)
    assert one.is_new
    assert two.is_new
    assert is_known(known, earlier)
    assert isinstance(refused, IdempotencyKeyReused)
    assert is_known(three, one.work_id)
    assert await queue.pool.fetchval("SELECT count(*) FROM work_queue") == 3


async def test_requests_with_the_same_keys_in_opposite_orders_do_not_wait_for_each_other(
    queue: Queue,
) -> None:
    async def several(*keys: str) -> Any:
        return await queue.submit_all(*(a_submission(idempotency_key=key) for key in keys))

    async with transaction(queue.pool) as db:
        held = [a_submission(idempotency_key="middle")]
        middle: Any = (await submissions.submit_work(db, held, by=ADMIN))[0]
        there = asyncio.create_task(several("first", "middle", "last"))
        await eventually(lambda: _waiting(queue, 1))
        back = asyncio.create_task(several("last", "first"))
        await eventually(lambda: _waiting(queue, 2))

    first, same, last = await there
    assert same.work_id == middle.work_id
    assert [each.work_id for each in await back] == [last.work_id, first.work_id]


async def _waiting(queue: Queue, number: int) -> bool:
    waiting = "SELECT count(*) = $1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return bool(await queue.pool.fetchval(f"{waiting} AND datname = current_database()", number))


async def test_a_generator_at_its_limit_finds_its_own_keys_and_no_others(queue: Queue) -> None:
    other, limited = await a_tenant(queue, "ci"), await a_tenant(queue, "nightly")
    await queue.pool.execute("UPDATE generators SET max_pending = 1 WHERE name = 'nightly'")
    await queue.submit_all(a_submission(idempotency_key="theirs"), by=other)
    mine, theirs = a_submission(idempotency_key="mine"), a_submission(idempotency_key="theirs")

    [first] = await queue.submit_all(mine, by=limited)
    [again, unknown] = await queue.submit_all(mine, theirs, by=limited)
    await queue.later(DAY)
    [expired] = await queue.submit_all(mine, by=limited)

    assert isinstance(first, Submitted)
    assert first.is_new
    assert is_known(again, first.work_id)
    assert isinstance(unknown, LimitReached)
    assert isinstance(expired, LimitReached)


async def test_a_key_that_was_used_anew_outlives_the_work_that_had_it_before(
    queue: Queue,
) -> None:
    earlier = await queue.submit(idempotency_key="k")
    await queue.cancel(earlier)
    await queue.later(DAY)
    work_id = await queue.submit(idempotency_key="k")
    async with transaction(queue.pool) as db:
        await retention.prune_log(db, "cancelled", age=timedelta(hours=1), limit=10)

    [again] = await queue.submit_all(a_submission(idempotency_key="k"))

    assert work_id != earlier
    assert is_known(again, work_id)


@pytest.mark.parametrize("is_tenant", [False, True])
async def test_a_key_is_forgotten_with_its_work(queue: Queue, is_tenant: bool) -> None:
    """Work can be kept for less than a day; its key must not lead to nothing."""
    by = await a_tenant(queue, "ci") if is_tenant else ADMIN
    for key in ("k", "other"):
        [submitted] = await queue.submit_all(a_submission(idempotency_key=key), by=by)
    await queue.pool.execute("DELETE FROM work_queue WHERE idempotency_key = 'other'")
    work_id = await queue.pool.fetchval("SELECT id FROM work_queue")
    await queue.cancel(work_id)
    await queue.later(timedelta(hours=2))
    async with transaction(queue.pool) as db:
        await retention.prune_log(db, "cancelled", age=timedelta(hours=1), limit=10)

    [submitted] = await queue.submit_all(a_submission(idempotency_key="k"), by=by)

    assert isinstance(submitted, Submitted)
    assert submitted.is_new
    keys = await queue.pool.fetch("SELECT key FROM idempotency_keys ORDER BY key")
    assert [each["key"] for each in keys] == ["k", "other"]

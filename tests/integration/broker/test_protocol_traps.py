"""
The traps of the queue's protocol, one test each, and what other systems of this kind fell into.

Where a trap is one of concurrency, two transactions are held open and interleaved.  The parts
that lead out of each trap have tests of their own, in more detail, beside the modules.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from brokkr.broker.db import agents, claims, execution_log, submissions, work_queue
from brokkr.broker.db.pool import transaction
from brokkr.broker.db.statements import fetch_all
from brokkr.broker.db.submissions import Submitter
from brokkr.wire.bodies import ClaimBody, Heartbeat, RelabelAgent, RenewedLease, WorkState
from brokkr.work.errors import (
    AgentSuperseded,
    ClaimLost,
    WorkFinished,
    WorkNotClaimable,
    WorkNotFound,
)
from support.queue import Queue, a_report, a_submission, holder, is_known
from support.signals import eventually

HOUR = timedelta(hours=1)


async def test_trap_01_a_resend_after_a_hand_off_is_answered_from_the_record(
    queue: Queue,
) -> None:
    """
    Claims have a history.  Looked up in the queue alone, the resend would find the Work PENDING
    or in other hands, and end it or be refused.
    """
    tired, fresh = await queue.an_agent(), await queue.an_agent()
    await queue.touch(fresh)
    work_id = await queue.submit(max_handoffs=5)
    claim = await queue.claim(work_id, by=tired)
    answer = await queue.hand_on(claim, by=tired)
    await queue.claim(work_id, by=fresh)

    assert await queue.hand_on(claim, by=tired) == answer
    assert await queue.history(work_id) == ["handed_off", None]
    assert (await queue.look(work_id)).claimed_by == fresh.id


async def test_trap_01_a_late_report_counts_for_the_newest_claim_if_its_lease_was_lost(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    lost, given_back = [await queue.claim(await queue.submit(), by=agent) for _ in range(2)]
    await queue.lose(lost)
    await queue.order_release(given_back.work_id)

    assert (await queue.complete(lost, by=agent)).status is WorkState.SUCCEEDED
    with pytest.raises(ClaimLost):
        await queue.complete(given_back, by=agent)


async def test_trap_02_a_claim_whose_answer_was_lost_is_not_lost(queue: Queue) -> None:
    agent, request_id = await queue.an_agent(), uuid4()
    await queue.submit()
    await queue.submit()

    [claim] = await queue.claim_some(agent, request_id=request_id)
    [again] = await queue.claim_some(agent, request_id=request_id)
    async with transaction(queue.pool) as db:  # or its process has died with the request
        touched = await agents.touch_agent(db, agent.id, Heartbeat(incarnation=uuid4()))
        [held] = await claims.list_held_claims(db, agent_id=agent.id)

    assert touched.is_first
    assert claim.claim_id == again.claim_id == held.claim_id
    assert claim.spec == again.spec == held.spec


async def test_trap_03_a_heartbeat_renews_exactly_what_it_lists(queue: Queue) -> None:
    """A wedged controller loses what it has not looked at, though its agent is alive."""
    agent, other = await queue.an_agent(), await queue.an_agent()
    for _ in range(3):
        await queue.submit()
    listed, unlisted = await queue.claim_some(agent, limit=2)
    [foreign] = await queue.claim_some(other)
    await queue.lapse(listed, unlisted, foreign)

    renewed = await queue.renew(listed, foreign, by=agent)

    assert [each.claim_id for each in renewed] == [listed.claim_id]
    swept = {each.work_id for each in await queue.sweep()}
    assert swept == {unlisted.work_id, foreign.work_id}


async def test_trap_04_an_outage_of_the_broker_costs_no_lease(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(claim_timeout_seconds=60), by=agent)
    async with transaction(queue.pool) as db:
        await work_queue.mark_swept(db)
    await queue.later(HOUR)

    for _ in range(2):
        async with transaction(queue.pool) as db:
            await work_queue.extend_leases(db, longest_pause=timedelta(seconds=30))
            lost, _ = await work_queue.release_stale_claims(db, max_lost_claims=3, limit=10)
            await work_queue.mark_swept(db)
        assert lost == []

    assert (await queue.look(claim.work_id)).lease_seconds == pytest.approx(60, abs=5)


@pytest.mark.parametrize("way", ["sweep", "release", "order", "hand-off", "deletion"])
async def test_trap_05_a_cancel_survives_every_way_back_to_pending(queue: Queue, way: str) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(max_handoffs=3), by=agent)
    await queue.cancel(claim.work_id)

    match way:
        case "sweep":
            await queue.lose(claim)
        case "release":
            await queue.release(claim, by=agent)
        case "order":
            await queue.order_release(claim.work_id)
        case "hand-off":
            await queue.hand_on(claim, by=agent)
        case "deletion":
            await queue.delete_agent(agent)

    assert (await queue.look(claim.work_id)).status is WorkState.CANCELLED


async def test_trap_06_a_sweep_does_not_take_a_lease_that_is_being_renewed(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lapse(claim)

    async with transaction(queue.pool) as db:
        await claims.renew_claims(db, [claim.claim_id], by=holder(agent))
        assert await queue.sweep() == []

    assert await queue.sweep() == []
    assert (await queue.look(claim.work_id)).status is WorkState.CLAIMED


async def test_trap_06_a_lease_that_is_being_swept_is_revived_and_not_half_renewed(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lapse(claim)

    async with transaction(queue.pool) as db:
        await work_queue.release_stale_claims(db, max_lost_claims=3, limit=10)
        renewal = asyncio.create_task(queue.renew(claim, by=agent))
        await eventually(queue.somebody_waits)

    assert len(await renewal) == 1
    work = await queue.look(claim.work_id)
    assert (work.status, work.lost_claims, work.round) == (WorkState.CLAIMED, 0, 1)
    assert await queue.history(claim.work_id) == [None]
    assert await queue.events(claim.work_id) == [
        "submitted",
        "claimed",
        "lease_lost",
        "lease_revived",
    ]


@pytest.mark.parametrize("is_relabelled_first", [False, True])
async def test_trap_07_a_new_target_and_new_labels_at_once_find_each_other(
    queue: Queue, is_relabelled_first: bool
) -> None:
    agent = await queue.an_agent()
    target = {"match_labels": {"gpu": "true"}}
    labels = RelabelAgent(labels={"gpu": "true"})

    async with transaction(queue.pool) as db:
        if is_relabelled_first:
            await agents.relabel_agent(db, agent.name, labels)
            other = asyncio.create_task(_submit(queue, target))
        else:
            await submissions.submit_work(
                db, [a_submission(target)], by=Submitter(actor="admin:test")
            )
            other = asyncio.create_task(queue.relabel(agent, gpu="true"))
        await eventually(queue.somebody_waits)
    await other

    assert len(await queue.pending(agent)) == 1


async def _submit(queue: Queue, target: object) -> None:
    await queue.submit(target)


async def test_trap_08_work_that_is_not_due_does_not_stand_before_what_is(queue: Queue) -> None:
    agent = await queue.an_agent()
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    for _ in range(20):
        await queue.submit(priority=100, not_before=tomorrow)
    ready = await queue.submit(priority=-100)

    async with transaction(queue.pool) as db:
        rows = await fetch_all(
            db,
            "claim_some_work",
            agent_id=agent.id,
            types=None,
            limit=1,
            depth=1,
            request_id=None,
            waited=0.0,
            actor="",
        )

    assert [(row["id"], row["seen"]) for row in rows] == [(ready, 1)]


async def test_trap_09_an_idempotency_key_outlives_the_queue_row(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(idempotency_key="k")
    await queue.complete(await queue.claim(work_id, by=agent), by=agent)

    [again] = await queue.submit_all(a_submission(idempotency_key="k"))

    assert is_known(again, work_id)


async def test_trap_10_a_work_that_moves_can_be_read_at_any_moment(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    seen: set[WorkState] = set()

    async def watch() -> None:
        while not seen.issuperset({WorkState.SUCCEEDED, WorkState.PENDING}):
            seen.add((await queue.look(claim.work_id)).status)

    watching = [asyncio.create_task(watch()) for _ in range(4)]
    async with asyncio.timeout(20):
        while not all(each.done() for each in watching):
            await queue.complete(claim, by=agent)
            await asyncio.sleep(0.01)
            await queue.requeue(claim.work_id)
            await asyncio.sleep(0.01)
            claim = await queue.claim(claim.work_id, by=agent)
    await asyncio.gather(*watching)

    assert seen <= {WorkState.CLAIMED, WorkState.SUCCEEDED, WorkState.PENDING}


async def test_trap_10_a_snapshot_holds_a_work_once_wherever_it_goes(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    async with queue.pool.acquire() as db, db.transaction(isolation="repeatable_read"):
        before = await execution_log.get_work(db, claim.work_id)
        await queue.complete(claim, by=agent)
        after = await execution_log.get_work(db, claim.work_id)
        times = "SELECT count(*) FROM works WHERE id = $1"
        assert await db.fetchval(times, claim.work_id) == 1

    assert before.status is after.status is WorkState.CLAIMED


async def test_trap_11_who_commits_later_has_the_later_number(queue: Queue) -> None:
    """From a global sequence the slow one would have had the smaller number, and been skipped."""
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    async with transaction(queue.pool) as slow:
        await work_queue.cancel_work(slow, claim.work_id, actor="admin:slow")
        quick = asyncio.create_task(queue.progress(claim, by=agent))
        await eventually(queue.somebody_waits)
        assert await queue.events(claim.work_id) == ["submitted", "claimed"]
    await quick

    assert await queue.events(claim.work_id) == [
        "submitted",
        "claimed",
        "cancel_requested",
        "progress",
    ]


async def test_trap_12_a_result_is_the_word_of_the_agent_that_holds_the_work(
    queue: Queue,
) -> None:
    agent, thief = await queue.an_agent(), await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    with pytest.raises(ClaimLost):
        await queue.complete(claim, by=thief, result={"digest": "sha256:forged"})
    finished = await queue.complete(claim, by=agent, result={"digest": "sha256:1"})

    assert (finished.agent, finished.result) == (agent.name, {"digest": "sha256:1"})
    with pytest.raises(ValueError, match="larger than 65536 bytes"):
        a_report(claim, result={"log": "x" * 70_000})


# -- what others fell into -------------------------------------------------------------


async def test_failure_01_an_agent_that_is_slow_and_alive_runs_nothing_twice(
    queue: Queue,
) -> None:
    """Its lease has run out, was swept, and it beats again before anybody else has claimed."""
    agent, other = await queue.an_agent(), await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lose(claim)

    assert len(await queue.renew(claim, by=agent)) == 1
    with pytest.raises(WorkNotClaimable):
        await queue.claim(claim.work_id, by=other)


async def test_failure_02_work_may_take_longer_than_its_lease(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(claim_timeout_seconds=60), by=agent)

    for _ in range(10):
        await queue.later(timedelta(seconds=50))
        await queue.renew(claim, by=agent)
        assert await queue.sweep() == []


async def test_failure_05_a_completion_can_be_sent_until_it_is_acknowledged(queue: Queue) -> None:
    """Also if its lease has run out, it was sent twice at once, or the Work is queued again."""
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lose(claim)

    first, second = await asyncio.gather(*(queue.complete(claim, by=agent) for _ in range(2)))
    await queue.requeue(claim.work_id)
    third = await queue.complete(claim, by=agent)

    assert first == second == third
    assert (await queue.look(claim.work_id)).status is WorkState.PENDING


async def test_failure_06_work_that_kills_its_agents_ends_in_quarantine(queue: Queue) -> None:
    """Claims count, not failures: who dies reports none."""
    agents_ = [await queue.an_agent(f"victim-{number}") for number in range(3)]
    work_id = await queue.submit()
    for agent in agents_:
        await queue.lose(await queue.claim(work_id, by=agent))

    work = await queue.look(work_id)
    assert work.status is WorkState.QUARANTINED
    assert work.result is not None
    assert [each["agent"] for each in work.result["claims"]] == [each.name for each in agents_]


async def test_failure_07_what_an_agent_holds_is_counted_and_not_remembered(queue: Queue) -> None:
    agent = await queue.an_agent()
    for _ in range(4):
        await queue.submit(max_handoffs=1)
    finished, handed_on, lost, _ = await queue.claim_some(agent, limit=4)
    await queue.complete(finished, by=agent)
    await queue.hand_on(handed_on, by=agent)
    await queue.lose(lost)

    async with transaction(queue.pool) as db:
        assert (await agents.get_agent(db, agent.name)).claimed == 1


async def test_failure_08_a_cancel_that_races_with_the_claim_reaches_its_holder(
    queue: Queue,
) -> None:
    agent, request_id = await queue.an_agent(), uuid4()
    work_id = await queue.submit()

    async with transaction(queue.pool) as db:
        claim = await claims.claim_work(db, work_id, by=holder(agent), request_id=request_id)
        cancel = asyncio.create_task(queue.cancel(work_id))
        await eventually(queue.somebody_waits)

    assert await cancel is False
    assert (await queue.claim(work_id, by=agent, request_id=request_id)).cancel_requested
    [renewed] = await queue.renew(claim, by=agent)
    assert renewed.cancel_requested


async def test_failure_11_a_holder_that_was_away_for_a_while_has_lost_nothing(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    held = [await queue.claim(await queue.submit(), by=agent) for _ in range(3)]
    await queue.later(24 * HOUR)
    await queue.sweep()

    assert len(await queue.renew(*held, by=agent)) == 3
    assert {(await queue.look(each.work_id)).lost_claims for each in held} == {0}


async def test_failure_12_heartbeats_do_not_write_what_need_not_be_written(queue: Queue) -> None:
    agent = await queue.an_agent()
    held = [await queue.claim(await queue.submit(), by=agent) for _ in range(5)]
    versions = "SELECT xmin::text, xmax::text FROM work_queue ORDER BY id"
    before = await queue.pool.fetch(versions)

    assert len(await queue.renew(*held, by=agent)) == 5

    assert await queue.pool.fetch(versions) == before


async def test_failure_14_nothing_is_announced_from_within_a_writing_transaction(
    queue: Queue,
) -> None:
    triggers = await queue.pool.fetch(
        "SELECT tgname, prosrc FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid"
        " WHERE NOT tgisinternal"
    )
    assert [each["tgname"] for each in triggers] == ["copy_label"]
    assert "notify" not in triggers[0]["prosrc"].lower()
    queries = Path(execution_log.__file__).parent / "queries"
    assert [
        each.name for each in queries.glob("*.sql") if "notify" in each.read_text().lower()
    ] == ["notify.sql"]


async def test_failure_15_the_hot_table_is_kept_small_and_no_transaction_is_left_open(
    queue: Queue,
) -> None:
    options = await queue.pool.fetchval(
        "SELECT reloptions FROM pg_class WHERE relname = 'work_queue'"
    )
    limits = await queue.pool.fetch(
        "SELECT name FROM pg_settings WHERE setting::bigint > 0"
        " AND name IN ('statement_timeout', 'idle_in_transaction_session_timeout')"
    )

    assert {each.partition("=")[0] for each in options} >= {
        "fillfactor",
        "autovacuum_vacuum_scale_factor",
    }
    assert len(limits) == 2


async def test_failure_17_an_agent_that_is_busy_taking_work_holds_nobody_up(queue: Queue) -> None:
    slow, quick = await queue.an_agent(), await queue.an_agent()
    works = [await queue.submit() for _ in range(30)]

    async with transaction(queue.pool) as db:
        await claims.claim_some_work(db, by=holder(slow), limit=29)
        async with asyncio.timeout(5):
            [claim] = await queue.claim_some(quick)

    assert claim.work_id == works[-1]


async def test_failure_18_agents_are_told_what_is_left_and_not_what_time_it_is() -> None:
    for body in (ClaimBody, RenewedLease):
        assert "lease_seconds" in body.model_fields
        assert [
            name for name, field in body.model_fields.items() if field.annotation is datetime
        ] == []


async def test_failure_26_what_is_finished_stays_finished(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.complete(claim, by=agent)
    before = await queue.everything()

    assert await queue.renew(claim, by=agent) == []
    for refused in (
        queue.claim(claim.work_id, by=agent),
        queue.progress(claim, by=agent),
        queue.release(claim, by=agent),
        queue.order_release(claim.work_id),
        queue.cancel(claim.work_id),
    ):
        with pytest.raises((WorkNotClaimable, ClaimLost, WorkFinished)):
            await refused
    await queue.sweep()
    await queue.move_due()

    assert await queue.everything() == before


async def test_failure_28_the_newest_process_is_the_agent_and_a_name_is_not(queue: Queue) -> None:
    agent = await queue.an_agent("edge-7")
    older, newer = uuid4(), uuid4()
    await queue.touch(agent, older)
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.touch(agent, newer)

    with pytest.raises(AgentSuperseded):
        await queue.touch(agent, older)
    await queue.delete_agent(agent)
    successor = await queue.an_agent("edge-7")
    with pytest.raises(ClaimLost):
        await queue.complete(claim, by=successor)


async def test_failure_28_what_an_agent_never_had_it_does_not_find(queue: Queue) -> None:
    owner, stranger = await queue.an_agent("owner"), await queue.an_agent()
    claim = await queue.claim(await queue.submit({"agents": ["owner"]}), by=owner)

    with pytest.raises(WorkNotFound):
        await queue.complete(claim, by=stranger)

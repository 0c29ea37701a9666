import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from brokkr.broker.db import claims, work_queue
from brokkr.broker.db.claims import ClaimedWork
from brokkr.broker.db.pool import transaction
from brokkr.broker.db.statements import fetch_all, fetch_value
from brokkr.broker.db.work_queue import Completed, GivenBack, HandOffPolicy
from brokkr.wire.bodies import AgentBody, WorkState
from brokkr.work.errors import (
    ClaimLost,
    WorkFinished,
    WorkNotClaimable,
    WorkNotFinished,
    WorkNotFound,
    WorkNotHeld,
)
from support.queue import Queue, a_report, holder
from support.signals import eventually

HOUR = timedelta(hours=1)


# -- stale claims ----------------------------------------------------------------------


async def test_a_stale_claim_is_given_back_and_counted(queue: Queue) -> None:
    first, second = await queue.an_agent(), await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=first)

    await queue.lose(claim)

    work = await queue.look(work_id)
    assert (work.status, work.claimed_by, work.lost_claims) == (WorkState.PENDING, None, 1)
    assert (await queue.claim(work_id, by=second)).round == 2
    assert await queue.history(work_id) == ["lease_lost", None]


async def test_a_claim_with_time_left_is_not_swept(queue: Queue) -> None:
    agent = await queue.an_agent()
    await queue.claim(await queue.submit(), by=agent)

    assert await queue.sweep() == []


async def test_the_last_lost_claim_puts_a_work_into_quarantine(queue: Queue) -> None:
    queue.max_lost_claims = 2
    agent = await queue.an_agent("lossy")
    work_id = await queue.submit()
    await queue.lose(await queue.claim(work_id, by=agent))
    last = await queue.claim(work_id, by=agent)

    await queue.lose(last)

    work = await queue.look(work_id)
    assert (work.status, work.success, work.lost_claims) == (WorkState.QUARANTINED, False, 2)
    assert work.result is not None
    evidence = work.result["claims"]
    assert [each["agent"] for each in evidence] == ["lossy", "lossy"]
    assert [each["ended_as"] for each in evidence] == ["lease_lost", "lease_lost"]
    with pytest.raises(ClaimLost, match="QUARANTINED"):
        await queue.complete(last, by=agent)


async def test_sweeps_and_heartbeats_that_race_leave_the_claim_whole(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=agent)

    for _ in range(20):
        await queue.lapse(claim)
        renewed, *_ = await asyncio.gather(
            queue.renew(claim, by=agent), queue.sweep(), queue.sweep()
        )

        assert [each.claim_id for each in renewed] == [claim.claim_id]
        work = await queue.look(work_id)
        ended = await queue.history(work_id)
        if work.status is WorkState.PENDING:
            assert (ended, work.lost_claims) == (["lease_lost"], 1)
            await queue.renew(claim, by=agent)
        else:
            assert (ended, work.lost_claims) == ([None], 0)


async def test_leases_get_the_time_of_an_outage_back(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(claim_timeout_seconds=60), by=agent)
    await queue.pool.execute("UPDATE broker_instance SET swept_at = now() - interval '1 hour'")
    await queue.pool.execute(
        "UPDATE work_queue SET lease_expires_at = now() - interval '59 minutes 30 seconds'"
    )

    await queue.extend(longest_pause=timedelta(seconds=30))

    assert await queue.sweep() == []
    assert (await queue.look(claim.work_id)).lease_seconds == pytest.approx(30, abs=5)


async def test_leases_get_nothing_for_the_usual_pause(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.pool.execute("UPDATE broker_instance SET swept_at = now() - interval '20 seconds'")
    await queue.lapse(claim)

    await queue.extend(longest_pause=timedelta(seconds=30))

    assert len(await queue.sweep()) == 1


async def test_a_lease_that_was_renewed_after_an_outage_gets_no_more_than_a_whole_one(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(claim_timeout_seconds=60), by=agent)
    await queue.pool.execute("UPDATE broker_instance SET swept_at = now() - interval '1 hour'")
    await queue.lapse(claim)
    await queue.renew(claim, by=agent)

    await queue.extend(longest_pause=timedelta(seconds=30))

    assert (await queue.look(claim.work_id)).lease_seconds == pytest.approx(60, abs=5)


async def test_a_sweep_leaves_alone_what_somebody_is_reporting_on(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lapse(claim)

    async with transaction(queue.pool) as db:
        await work_queue.complete_work(db, [a_report(claim)], by=holder(agent), policy=queue.policy)
        assert await queue.sweep() == []

    assert (await queue.look(claim.work_id)).status is WorkState.SUCCEEDED


async def test_a_lease_that_is_renewed_between_two_steps_of_a_sweep_is_left_alone(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lapse(claim)

    async with transaction(queue.pool) as db:
        await fetch_value(db, "postpone_lease_checks", limit=10)
        await queue.renew(claim, by=agent)
        assert await fetch_all(db, "lock_stale_claims", limit=10) == []


async def test_a_claim_that_was_revived_does_not_count_as_lost(queue: Queue) -> None:
    queue.max_lost_claims = 2
    agent = await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=agent)
    for _ in range(3):
        await queue.lose(claim)
        await queue.renew(claim, by=agent)

    work = await queue.look(work_id)
    assert (work.status, work.lost_claims) == (WorkState.CLAIMED, 0)


async def test_a_cancelled_work_is_cancelled_and_not_quarantined(queue: Queue) -> None:
    queue.max_lost_claims = 1
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.cancel(claim.work_id)

    await queue.lose(claim)

    work = await queue.look(claim.work_id)
    assert (work.status, work.lost_claims) == (WorkState.CANCELLED, 1)
    assert await queue.history(claim.work_id) == ["lease_lost"]


# -- start deadlines -------------------------------------------------------------------


async def test_work_that_nobody_claims_in_time_expires(queue: Queue) -> None:
    work_id = await queue.submit(start_within_seconds=60)
    assert await queue.move_due() == 0

    await queue.later(timedelta(seconds=60))
    assert await queue.move_due() == 1

    work = await queue.look(work_id)
    assert (work.status, work.success, work.claimed_by) == (WorkState.EXPIRED, False, None)
    assert work.result_message == "no agent claimed it before its start deadline"
    assert await queue.events(work_id) == ["submitted", "expired"]
    assert await queue.move_due() == 0


async def test_delayed_work_that_nobody_claims_in_time_expires_later(queue: Queue) -> None:
    due = (datetime.now(UTC) + HOUR).isoformat()
    work_id = await queue.submit(not_before=due, start_within_seconds=60)

    await queue.later(HOUR)
    assert await queue.move_due() == 0
    await queue.later(timedelta(seconds=60))
    assert await queue.move_due() == 1

    assert (await queue.look(work_id)).status is WorkState.EXPIRED


async def test_what_is_running_or_was_lost_does_not_expire(queue: Queue) -> None:
    agent = await queue.an_agent()
    works = [await queue.submit(start_within_seconds=60) for _ in range(2)]
    _, lost = await queue.claim_some(agent, limit=2)
    await queue.lose(lost)
    await queue.later(HOUR)

    assert await queue.move_due() == 0
    assert [(await queue.look(each)).status for each in works] == [
        WorkState.CLAIMED,
        WorkState.PENDING,
    ]


async def test_a_claim_and_a_start_deadline_that_meet_have_one_winner(queue: Queue) -> None:
    """A claim counts from when its request began, so it may still come when time is over."""
    agent = await queue.an_agent()
    late, claimed = [await queue.submit(start_within_seconds=1) for _ in range(2)]

    async with transaction(queue.pool) as slow:
        await claims.claim_work(slow, claimed, by=holder(agent))
        await eventually(
            lambda: queue.pool.fetchval("SELECT max(start_deadline) < now() FROM work_queue")
        )
        async with transaction(queue.pool) as db:
            assert await work_queue.expire_work(db, limit=10) == 1
            claim = asyncio.create_task(claims.claim_work(slow, late, by=holder(agent)))
            await eventually(queue.somebody_waits)
        with pytest.raises(WorkNotClaimable):
            await claim

    states = [(await queue.look(each)).status for each in (late, claimed)]
    assert states == [WorkState.EXPIRED, WorkState.CLAIMED]


# -- completing ------------------------------------------------------------------------


async def test_a_completed_work_is_in_the_log_and_not_in_the_queue(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(priority=3)
    claim = await queue.claim(work_id, by=agent)

    finished = await queue.complete(
        claim, by=agent, retries=2, message="built", result={"digest": "sha256:1"}
    )

    assert finished.success is True
    assert finished.retries_attempted == 2
    assert finished.result_message == "built"
    assert finished.result == {"digest": "sha256:1"}
    assert finished.agent == agent.name
    assert finished.priority == 3
    assert await queue.pool.fetchval("SELECT count(*) FROM work_queue") == 0
    seen = await queue.look(work_id)
    assert seen.model_dump(exclude={"resource", "eligible_agents"}) == finished.model_dump(
        exclude={"resource", "eligible_agents"}
    )


async def test_a_repeated_completion_gets_the_first_answer(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    first = await queue.complete(claim, by=agent, message="first")

    again = await queue.complete(claim, by=agent, success=False, message="second")

    assert again == first
    assert await queue.pool.fetchval("SELECT count(*) FROM work_execution_log") == 1


async def test_completions_that_race_are_answered_alike(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    answers = await asyncio.gather(
        *(queue.complete(claim, by=agent, message=f"{number}") for number in range(8))
    )

    assert all(each == answers[0] for each in answers)


async def test_a_recorded_answer_is_for_its_agent_alone(queue: Queue) -> None:
    agent, other = await queue.an_agent(), await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.complete(claim, by=agent)

    with pytest.raises(ClaimLost):
        await queue.complete(claim, by=other)


@pytest.mark.parametrize(
    ("report", "state"),
    [
        ({"success": False}, WorkState.FAILED),
        ({"success": None, "outcome": "cancelled"}, WorkState.CANCELLED),
        ({"success": None, "outcome": "succeeded"}, WorkState.SUCCEEDED),
    ],
)
async def test_a_work_ends_as_its_agent_says(
    queue: Queue, report: dict[str, object], state: WorkState
) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    finished = await queue.complete(claim, by=agent, **report)

    assert finished.status is state
    assert finished.success is (state is WorkState.SUCCEEDED)


async def test_a_work_that_moves_to_the_log_can_be_read_at_any_moment(queue: Queue) -> None:
    agent = await queue.an_agent()
    claims = [await queue.claim(await queue.submit(), by=agent) for _ in range(20)]

    for claim in claims:
        _, *seen = await asyncio.gather(
            queue.complete(claim, by=agent), *(queue.look(claim.work_id) for _ in range(6))
        )
        assert all(each.status in {WorkState.CLAIMED, WorkState.SUCCEEDED} for each in seen)


async def test_each_of_several_reports_is_answered_by_itself_and_in_order(queue: Queue) -> None:
    agent = await queue.an_agent()
    for _ in range(3):
        await queue.submit()
    first, gone, last = await queue.claim_some(agent, limit=3)
    await queue.complete(gone, by=agent, message="earlier")
    nothing = replace(first, work_id=uuid4())
    stale = replace(first, claim_id=uuid4())

    answers = await queue.complete_all(
        a_report(last, message="last"),
        a_report(nothing),
        a_report(stale),
        a_report(gone, message="again"),
        a_report(first, success=False, message="first"),
        by=agent,
    )

    assert [type(each) for each in answers] == [
        Completed,
        WorkNotFound,
        ClaimLost,
        Completed,
        Completed,
    ]
    assert [each.work.result_message for each in answers if isinstance(each, Completed)] == [
        "last",
        "earlier",
        "first",
    ]
    assert [each.outcome for each in answers if isinstance(each, Completed)] == [
        "succeeded",
        None,
        "failed",
    ]


PASSING: dict[str, Any] = {"success": False, "retryable": True}


@pytest.mark.parametrize(
    ("reports", "state"),
    [
        ([{}, {"success": False}], WorkState.SUCCEEDED),
        ([{"success": False}, {}], WorkState.FAILED),
        ([{}, PASSING], WorkState.SUCCEEDED),
        ([PASSING, {}], WorkState.PENDING),
    ],
)
async def test_of_two_reports_with_one_claim_in_one_request_the_first_counts(
    queue: Queue, reports: list[dict[str, Any]], state: WorkState
) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(max_handoffs=1), by=agent)

    one, two = await queue.complete_all(*(a_report(claim, **each) for each in reports), by=agent)

    assert isinstance(one, Completed)
    assert isinstance(two, Completed)
    assert two.work == one.work
    assert (two.outcome, two.is_handed_on, two.lanes) == (None, False, [])
    assert (await queue.look(claim.work_id)).status is state
    assert len(await queue.history(claim.work_id)) == 1


@pytest.mark.parametrize("report", [{}, PASSING])
async def test_of_two_claims_on_one_work_in_one_request_the_newer_counts(
    queue: Queue, report: dict[str, Any]
) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(max_handoffs=1)
    older = await queue.claim(work_id, by=agent)
    await queue.lose(older)
    newer = await queue.claim(work_id, by=agent)

    for order in ((older, newer), (newer, older)):
        answers = await queue.complete_all(*(a_report(each, **report) for each in order), by=agent)

        assert isinstance(answers[order.index(older)], ClaimLost)
        assert isinstance(answers[order.index(newer)], Completed)
    assert await queue.history(work_id) == ["lease_lost", "handed_off" if report else "completed"]


@pytest.mark.parametrize("report", [{}, PASSING])
async def test_a_report_with_the_wrong_work_does_not_keep_the_right_one_out(
    queue: Queue, report: dict[str, Any]
) -> None:
    agent = await queue.an_agent()
    for _ in range(2):
        await queue.submit(max_handoffs=1)
    one, other = await queue.claim_some(agent, limit=2)
    wrong = replace(other, claim_id=one.claim_id)

    answers = await queue.complete_all(
        a_report(wrong, **report), a_report(one, **report), a_report(wrong, **report), by=agent
    )

    assert [type(each) for each in answers] == [ClaimLost, Completed, ClaimLost]
    assert (await queue.look(other.work_id)).status is WorkState.CLAIMED


async def test_requests_that_report_on_the_same_works_do_not_block_each_other(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    for _ in range(10):
        for handoffs in (0, 1, 0, 1):
            await queue.submit(max_handoffs=handoffs)
        held = await queue.claim_some(agent, limit=4)
        await queue.lapse(*held)
        reports = [a_report(each, **PASSING) for each in held]

        forth, back, _ = await asyncio.gather(
            queue.complete_all(*reports, by=agent),
            queue.complete_all(*reports[::-1], by=agent),
            queue.renew(*held, by=agent),
        )

        assert all(isinstance(each, Completed) for each in [*forth, *back])
        await queue.pool.execute("DELETE FROM work_queue")


# -- handing on ------------------------------------------------------------------------


async def two_agents(queue: Queue) -> tuple[AgentBody, AgentBody]:
    """Return two agents that were heard of just now."""
    both = await queue.an_agent("tired"), await queue.an_agent("fresh")
    for agent in both:
        await queue.touch(agent)
    return both


async def test_a_failure_that_may_pass_is_handed_on(queue: Queue) -> None:
    tired, fresh = await two_agents(queue)
    work_id = await queue.submit(max_handoffs=1)
    claim = await queue.claim(work_id, by=tired)

    answer = await queue.hand_on(claim, by=tired, retries=3, message="disk full")

    assert (answer.status, answer.handoffs, answer.claimed_by) == (WorkState.PENDING, 1, None)
    assert await queue.targets(work_id) == {"fresh"}
    assert await queue.claim_some(tired) == []
    with pytest.raises(WorkNotClaimable):
        await queue.claim(work_id, by=tired)
    [next_claim] = await queue.claim_some(fresh)
    assert (next_claim.work_id, next_claim.round) == (work_id, 2)
    assert await queue.history(work_id) == ["handed_off", None]


async def test_each_holder_has_the_full_budget_of_retries_and_the_log_has_the_total(
    queue: Queue,
) -> None:
    tired, fresh = await two_agents(queue)
    work_id = await queue.submit(max_handoffs=1, max_retries=3)
    first = await queue.claim(work_id, by=tired)
    await queue.hand_on(first, by=tired, retries=3, message="disk full")
    second = await queue.claim(work_id, by=fresh)

    finished = await queue.complete(
        second, by=fresh, retries=2, message="built", result={"digest": "sha256:1"}
    )

    assert first.spec["maxRetries"] == second.spec["maxRetries"] == 3
    assert finished.retries_attempted == 2
    assert finished.result is not None
    assert finished.result["digest"] == "sha256:1"
    assert finished.result["total_retries"] == 5
    assert [
        (each["round"], each["agent"], each["ended_as"], each["retries"], each["message"])
        for each in finished.result["claims"]
    ] == [
        (1, "tired", "handed_off", 3, "disk full"),
        (2, "fresh", "completed", 2, "built"),
    ]


async def test_the_next_holder_is_told_what_was_spent_on_infrastructure(queue: Queue) -> None:
    tired, fresh = await two_agents(queue)
    work_id = await queue.submit(max_handoffs=2)
    first = await queue.claim(work_id, by=tired)
    assert "infrastructureRetriesSpent" not in first.spec

    await queue.progress(first, by=tired, attempt=2, infrastructure_retries=1)
    await queue.lose(first)
    second = await queue.claim(work_id, by=fresh)
    assert second.spec["infrastructureRetriesSpent"] == 1

    # Some of it was not told before the end; the result has it.
    await queue.hand_on(second, by=fresh, result={"infrastructure_retries": 3})
    await queue.later(by=timedelta(hours=1))
    [third] = await queue.claim_some(tired)
    assert third.spec["infrastructureRetriesSpent"] == 3

    await queue.complete(third, by=tired, success=False)
    await queue.requeue(work_id)
    fourth = await queue.claim(work_id, by=tired)
    assert "infrastructureRetriesSpent" not in fourth.spec


@pytest.mark.parametrize("told", [None, "3", True, [3], {}, -5])
async def test_what_is_no_number_is_not_taken_for_spent_retries(queue: Queue, told: object) -> None:
    tired, fresh = await two_agents(queue)
    work_id = await queue.submit(max_handoffs=1)

    await queue.hand_on(
        await queue.claim(work_id, by=tired), by=tired, result={"infrastructure_retries": told}
    )

    await queue.later(by=timedelta(hours=1))
    [claim] = await queue.claim_some(fresh)
    assert "infrastructureRetriesSpent" not in claim.spec


async def test_an_attempt_that_was_lost_and_is_repeated_is_an_event_like_a_failed_one(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    await queue.progress(claim, by=agent)
    await queue.progress(claim, by=agent, attempt=2, infrastructure_retries=1)
    await queue.progress(claim, by=agent, attempt=2, infrastructure_retries=1, message="on")
    await queue.progress(claim, by=agent, attempt=3, infrastructure_retries=1, retries=1)

    kinds = (await queue.events(claim.work_id))[2:]
    assert kinds == ["progress", "attempt_failed", "progress", "attempt_failed"]


async def test_work_that_was_never_handed_on_has_its_agent_s_result_alone(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(max_handoffs=1), by=agent)

    finished = await queue.complete(claim, by=agent, result={"digest": "sha256:1"})

    assert finished.result == {"digest": "sha256:1"}


def test_a_handed_off_work_waits_twice_as_long_each_time_up_to_a_limit() -> None:
    policy = HandOffPolicy(base=timedelta(seconds=10), cap=timedelta(seconds=60))

    waits = [policy.delay(handoffs).total_seconds() for handoffs in (0, 1, 2, 3, 1000)]

    assert waits == [10, 20, 40, 60, 60]


async def test_a_handed_off_work_waits_before_anybody_gets_it(queue: Queue) -> None:
    queue.policy = HandOffPolicy(base=HOUR, cap=10 * HOUR)
    agents = await two_agents(queue)
    work_id = await queue.submit(max_handoffs=2)

    for agent, wait in zip(agents, (HOUR, 2 * HOUR), strict=True):
        claim = await queue.claim(work_id, by=agent)
        answer = await queue.hand_on(claim, by=agent)
        assert answer.not_before is not None
        assert (answer.not_before - datetime.now(UTC)).total_seconds() == pytest.approx(
            wait.total_seconds(), abs=5
        )
        await queue.move_due()
        for each in agents:
            assert await queue.claim_some(each) == []
        await queue.later(wait)
        await queue.move_due()
    assert (await queue.look(work_id)).handoffs == 2


async def test_who_waits_for_a_handed_off_work_hears_of_it_unless_it_waits_too(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    lanes = []
    for base in (timedelta(), HOUR):
        queue.policy = HandOffPolicy(base=base)
        claim = await queue.claim(await queue.submit(max_handoffs=1), by=agent)
        [answer] = await queue.complete_all(a_report(claim, **PASSING), by=agent)
        assert isinstance(answer, Completed)
        lanes.append(answer.lanes)

    assert lanes == [
        [await queue.pool.fetchval("SELECT selector_id FROM work_queue WHERE is_due")],
        [],
    ]


async def _nobody_else(_queue: Queue, _other: AgentBody) -> None:
    """Do nothing: the other agent is no target."""


async def _is_drained(queue: Queue, other: AgentBody) -> None:
    await queue.relabel(other, role="builder")
    await queue.touch(other)
    await queue.drain(other)


async def _is_deleted(queue: Queue, other: AgentBody) -> None:
    await queue.relabel(other, role="builder")
    await queue.touch(other)
    await queue.delete_agent(other)


async def _was_never_heard_of(queue: Queue, other: AgentBody) -> None:
    await queue.relabel(other, role="builder")


async def _was_heard_of_long_ago(queue: Queue, other: AgentBody) -> None:
    await queue.relabel(other, role="builder")
    await queue.touch(other)
    await queue.later(timedelta(minutes=3))


async def _cannot_execute_the_type_now(queue: Queue, other: AgentBody) -> None:
    await queue.relabel(other, role="builder")
    await queue.declare(other, build="no disk")


@pytest.mark.parametrize(
    "the_other",
    [
        _nobody_else,
        _is_drained,
        _is_deleted,
        _was_never_heard_of,
        _was_heard_of_long_ago,
        _cannot_execute_the_type_now,
    ],
)
async def test_who_had_it_may_try_again_if_nobody_else_can(
    queue: Queue, the_other: Callable[[Queue, AgentBody], Awaitable[None]]
) -> None:
    agent, other = await queue.an_agent(role="builder"), await queue.an_agent()
    await the_other(queue, other)
    await queue.touch(agent)
    claim = await queue.claim(
        await queue.submit({"match_labels": {"role": "builder"}}, max_handoffs=1), by=agent
    )

    await queue.hand_on(claim, by=agent)

    [again] = await queue.claim_some(agent)
    assert (again.work_id, again.round) == (claim.work_id, 2)


async def test_who_had_it_may_try_again_while_the_others_cannot(queue: Queue) -> None:
    tired, fresh = await two_agents(queue)
    work_id = await queue.submit(max_handoffs=1)
    await queue.hand_on(await queue.claim(work_id, by=tired), by=tired)
    assert await queue.pending(tired) == []

    await queue.drain(fresh)
    assert [each.id for each in await queue.pending(tired)] == [work_id]
    await queue.drain(fresh, is_drained=False)
    assert await queue.pending(tired) == []
    await queue.relabel(fresh, any=None)
    assert [each.id for each in await queue.pending(tired)] == [work_id]
    await queue.relabel(fresh, any="yes")
    assert await queue.pending(tired) == []
    await queue.delete_agent(fresh)
    assert [each.id for each in await queue.pending(tired)] == [work_id]
    latest = await queue.an_agent()
    await queue.touch(latest)
    await queue.drain(latest, is_drained=False)
    assert await queue.pending(tired) == []
    assert [each.id for each in await queue.pending(latest)] == [work_id]


async def test_an_agent_that_is_no_target_any_more_does_not_get_it_back(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(max_handoffs=1), by=agent)
    await queue.relabel(agent, any=None)

    await queue.hand_on(claim, by=agent)

    assert await queue.targets(claim.work_id) == set()


async def test_handed_on_again_it_is_for_those_who_have_not_had_it_yet(queue: Queue) -> None:
    agents = [await queue.an_agent(name) for name in ("a", "b", "c")]
    for agent in agents:
        await queue.touch(agent)
    work_id = await queue.submit(max_handoffs=3)

    left = []
    for agent in agents:
        await queue.hand_on(await queue.claim(work_id, by=agent), by=agent)
        left.append(await queue.targets(work_id))

    assert left == [{"b", "c"}, {"c"}, {"a", "b", "c"}]


async def test_works_that_the_same_agents_have_tried_share_a_lane(queue: Queue) -> None:
    tired, fresh = await two_agents(queue)
    works = [await queue.submit(max_handoffs=1) for _ in range(3)]
    held = await queue.claim_some(tired, limit=3)

    await queue.complete_all(*(a_report(each, **PASSING) for each in held), by=tired)

    assert await queue.pool.fetchval("SELECT count(DISTINCT selector_id) FROM work_queue") == 1
    assert [each.id for each in await queue.pending(fresh)] == works


async def test_hand_offs_that_make_the_same_lane_at_once_share_it(queue: Queue) -> None:
    tired, fresh = await two_agents(queue)
    works = [await queue.submit(max_handoffs=1) for _ in range(6)]
    held = await queue.claim_some(tired, limit=6)

    await asyncio.gather(*(queue.hand_on(each, by=tired) for each in held))

    assert [each.id for each in await queue.pending(fresh)] == works
    assert await queue.pending(tired) == []


async def test_a_hand_off_that_is_sent_again_is_answered_from_the_record(queue: Queue) -> None:
    tired, fresh = await two_agents(queue)
    work_id = await queue.submit(max_handoffs=5)
    claim = await queue.claim(work_id, by=tired)
    first = await queue.hand_on(claim, by=tired)

    assert await queue.hand_on(claim, by=tired) == first
    next_claim = await queue.claim(work_id, by=fresh)
    before = await queue.everything()
    assert await queue.hand_on(claim, by=tired) == first
    assert await queue.complete(claim, by=tired) == first
    assert await queue.everything() == before
    finished = await queue.complete(next_claim, by=fresh)
    assert await queue.hand_on(claim, by=tired) == first
    assert await queue.look(work_id) == finished.model_copy(
        update=(await queue.look(work_id)).model_dump(include={"resource", "eligible_agents"})
    )


async def test_a_failure_is_final_when_the_hand_offs_are_spent(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(max_handoffs=1)
    await queue.hand_on(await queue.claim(work_id, by=agent), by=agent)

    finished = await queue.hand_on(await queue.claim(work_id, by=agent), by=agent)

    assert (finished.status, finished.handoffs) == (WorkState.FAILED, 1)
    assert await queue.history(work_id) == ["handed_off", "completed"]


@pytest.mark.parametrize(
    "report",
    [
        {"success": False, "retryable": False},
        {"success": True, "retryable": True},
        {"success": None, "outcome": "cancelled", "retryable": True},
    ],
)
async def test_only_a_failure_that_may_pass_is_handed_on(
    queue: Queue, report: dict[str, Any]
) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(max_handoffs=1), by=agent)

    finished = await queue.complete(claim, by=agent, **report)

    assert finished.status.is_finished
    assert finished.handoffs == 0


async def test_a_cancelled_work_is_not_handed_on(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(max_handoffs=1), by=agent)
    await queue.cancel(claim.work_id)

    finished = await queue.hand_on(claim, by=agent, retries=2, message="disk full")

    assert finished.status is WorkState.CANCELLED
    assert (finished.retries_attempted, finished.result_message) == (2, "disk full")
    assert await queue.hand_on(claim, by=agent) == finished


async def test_a_cancelled_work_that_could_not_be_handed_on_has_failed(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.cancel(claim.work_id)

    assert (await queue.hand_on(claim, by=agent)).status is WorkState.FAILED


async def test_a_cancel_that_comes_while_a_work_is_handed_on_ends_it(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(max_handoffs=1), by=agent)

    async with transaction(queue.pool) as db:
        report = a_report(claim, **PASSING)
        await work_queue.complete_work(db, [report], by=holder(agent), policy=queue.policy)
        cancel = asyncio.create_task(queue.cancel(claim.work_id))
        await eventually(queue.somebody_waits)

    assert await cancel is True
    assert (await queue.look(claim.work_id)).status is WorkState.CANCELLED


async def test_a_lost_claim_that_nobody_took_is_handed_on_all_the_same(queue: Queue) -> None:
    tired, _ = await two_agents(queue)
    claim = await queue.claim(await queue.submit(max_handoffs=1), by=tired)
    await queue.lose(claim)

    answer = await queue.hand_on(claim, by=tired)

    assert (answer.status, answer.handoffs) == (WorkState.PENDING, 1)
    assert await queue.targets(claim.work_id) == {"fresh"}
    assert await queue.renew(claim, by=tired) == []
    assert await queue.history(claim.work_id) == ["handed_off"]


# -- giving back -----------------------------------------------------------------------


async def test_who_gives_a_work_back_leaves_it_to_others(queue: Queue) -> None:
    tired, _ = await two_agents(queue)
    claim = await queue.claim(await queue.submit(), by=tired)

    given = await queue.release(claim, by=tired, reason="draining")

    work = await queue.look(claim.work_id)
    assert (work.status, work.lost_claims, work.handoffs) == (WorkState.PENDING, 0, 0)
    assert given.lanes == [await queue.pool.fetchval("SELECT selector_id FROM work_queue")]
    assert await queue.targets(claim.work_id) == {"fresh"}
    assert await queue.history(claim.work_id) == ["released"]


async def test_what_its_only_agent_gives_back_it_may_have_again(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    await queue.release(claim, by=agent)

    assert (await queue.claim(claim.work_id, by=agent)).round == 2


async def test_work_can_be_given_back_for_later(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    given = await queue.release(claim, by=agent, delay_seconds=3600)

    assert given.lanes == []
    assert await queue.claim_some(agent) == []
    await queue.later(HOUR)
    await queue.move_due()
    assert len(await queue.claim_some(agent)) == 1


async def test_an_operator_takes_a_work_from_its_holder(queue: Queue) -> None:
    agent, other = await two_agents(queue)
    claim = await queue.claim(await queue.submit(), by=agent)

    given = await queue.order_release(claim.work_id)

    assert given.lanes == [await queue.pool.fetchval("SELECT selector_id FROM work_queue")]
    assert await queue.renew(claim, by=agent) == []
    with pytest.raises(ClaimLost):
        await queue.complete(claim, by=agent)
    assert await queue.claim_some(agent) == []  # it would get it back before anybody else can
    assert (await queue.claim(claim.work_id, by=other)).round == 2
    assert await queue.events(claim.work_id) == ["submitted", "claimed", "released", "claimed"]


async def test_an_operator_who_takes_work_from_the_only_agent_delays_nothing(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    await queue.order_release(claim.work_id)

    assert (await queue.claim(claim.work_id, by=agent)).round == 2


async def test_what_an_agent_cannot_work_on_is_given_to_others_and_counts_for_nothing(
    queue: Queue,
) -> None:
    agent, other = await two_agents(queue)
    claim = await queue.claim(await queue.submit(), by=agent)

    given = await queue.unworkable(claim, by=agent, reason="it does not answer")

    work = await queue.look(claim.work_id)
    assert given.lanes == [await queue.pool.fetchval("SELECT selector_id FROM work_queue")]
    assert (work.status, work.lost_claims) == (WorkState.PENDING, 0)
    assert await queue.claim_some(agent) == []
    assert (await queue.claim(claim.work_id, by=other)).round == 2
    assert await queue.renew(claim, by=agent) == []
    told = await queue.pool.fetchval("SELECT detail FROM work_events WHERE kind = 'unworkable'")
    assert told["message"] == "unable: it does not answer"


async def test_a_claim_that_could_not_be_worked_on_is_revived_with_what_was_begun(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lose(claim)
    await queue.renew(claim, by=agent)
    await queue.lose(claim)
    claim = await queue.claim(claim.work_id, by=agent)

    await queue.unworkable(claim, by=agent)
    assert await queue.unworkable(claim, by=agent) == GivenBack()  # once is enough
    assert [each.claim_id for each in await queue.renew(claim, by=agent)] == [claim.claim_id]

    work = await queue.complete(claim, by=agent)
    assert (work.status, work.lost_claims, work.round) == (WorkState.SUCCEEDED, 1, 2)


async def test_three_broken_clusters_quarantine_no_work(queue: Queue) -> None:
    queue.policy = HandOffPolicy(base=timedelta(), cap=timedelta())
    agents = [await queue.an_agent() for _ in range(3)]
    work_id = await queue.submit()

    for agent in 2 * agents:
        await queue.unworkable(await queue.claim(work_id, by=agent), by=agent)
        assert await queue.sweep() == []

    work = await queue.look(work_id)
    assert (work.status, work.lost_claims, work.round) == (WorkState.PENDING, 0, 6)


async def test_only_its_holder_says_that_it_cannot_work_on_a_claim(queue: Queue) -> None:
    agent, other = await queue.an_agent(), await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    assert await queue.unworkable(claim, by=other) == GivenBack()

    assert (await queue.look(claim.work_id)).status is WorkState.CLAIMED


async def test_a_cancelled_work_that_cannot_be_worked_on_is_over(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.cancel(claim.work_id)

    given = await queue.unworkable(claim, by=agent)

    assert (given.lanes, given.outcomes) == ([], ["cancelled"])


async def test_work_that_goes_from_one_broken_cluster_to_the_next_waits_longer_each_time(
    queue: Queue,
) -> None:
    """As often as there are agents, and it rests."""
    queue.policy = HandOffPolicy(base=timedelta(seconds=10), cap=timedelta(minutes=10))
    agents = [await queue.an_agent() for _ in range(4)]
    work_id = await queue.submit()
    waits = []

    for agent in agents:
        claim = await queue.claim(work_id, by=agent)
        await queue.release(claim, by=agent, reason="unable: it does not answer")
        wait = await queue.pool.fetchval(
            "SELECT extract(epoch FROM not_before - now()) FROM work_queue"
        )
        waits.append(wait and round(wait, -1))
        await queue.later(HOUR)
        await queue.move_due()

    assert waits == [None, 10, 20, 600]
    claim = await queue.claim(work_id, by=agents[0])
    await queue.release(claim, by=agents[0], reason="the agent was stopped")
    claim = await queue.claim(work_id, by=agents[0])
    given = await queue.unworkable(claim, by=agents[0])
    assert len(given.lanes) == 1  # another reason came between: it is the first time again


async def test_no_work_makes_more_lanes_than_it_may(queue: Queue) -> None:
    queue.policy = HandOffPolicy(base=timedelta(), cap=timedelta())
    agents = [await queue.an_agent() for _ in range(25)]
    work_id = await queue.submit()

    for agent in agents:
        claim = await queue.claim(work_id, by=agent)
        await queue.release(claim, by=agent, reason="unable: it does not answer")

    assert await queue.pool.fetchval("SELECT count(*) FROM selectors") == 1 + 20


@pytest.mark.parametrize("is_ordered", [False, True])
async def test_a_cancelled_work_that_is_given_back_is_over(queue: Queue, is_ordered: bool) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.cancel(claim.work_id)

    given = await (
        queue.order_release(claim.work_id) if is_ordered else queue.release(claim, by=agent)
    )

    assert (given.lanes, given.outcomes) == ([], ["cancelled"])
    assert (await queue.look(claim.work_id)).status is WorkState.CANCELLED
    assert await queue.history(claim.work_id) == ["released"]


async def test_work_is_given_back_once_and_with_its_own_claim(queue: Queue) -> None:
    agent, other = await queue.an_agent(), await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    with pytest.raises(ClaimLost):
        await queue.release(replace(claim, claim_id=uuid4()), by=agent)
    with pytest.raises(ClaimLost):
        await queue.release(claim, by=other)
    with pytest.raises(WorkNotFound):
        await queue.release(replace(claim, work_id=uuid4()), by=agent)
    assert (await queue.look(claim.work_id)).status is WorkState.CLAIMED
    await queue.release(claim, by=agent)
    with pytest.raises(ClaimLost):
        await queue.release(claim, by=agent)


async def test_only_what_is_held_can_be_taken_from_its_holder(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()

    with pytest.raises(WorkNotHeld):
        await queue.order_release(work_id)
    claim = await queue.claim(work_id, by=agent)
    await queue.complete(claim, by=agent)
    with pytest.raises(WorkFinished, match="succeeded"):
        await queue.order_release(work_id)
    with pytest.raises(ClaimLost, match="SUCCEEDED"):
        await queue.release(claim, by=agent)
    with pytest.raises(WorkNotFound):
        await queue.order_release(uuid4())


async def test_a_lost_claim_that_is_given_back_is_over(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lose(claim)

    await queue.release(claim, by=agent)

    assert await queue.renew(claim, by=agent) == []
    assert await queue.history(claim.work_id) == ["released"]


async def test_what_a_deleted_agent_held_is_free_and_what_it_was_to_stop_is_over(
    queue: Queue,
) -> None:
    agent, other = await queue.an_agent(), await queue.an_agent()
    cancelled, kept = await queue.submit(), await queue.submit()
    elsewhere = await queue.submit()
    await queue.claim_some(agent, limit=2)
    await queue.claim(elsewhere, by=other)
    await queue.cancel(cancelled)

    given = await queue.delete_agent(agent)

    assert given.lanes == [
        await queue.pool.fetchval("SELECT selector_id FROM work_queue WHERE id = $1", kept)
    ]
    assert given.outcomes == ["cancelled"]
    states = [(await queue.look(each)).status for each in (cancelled, kept, elsewhere)]
    assert states == [WorkState.CANCELLED, WorkState.PENDING, WorkState.CLAIMED]
    assert await queue.history(kept) == ["released"]
    assert (await queue.claim(kept, by=other)).round == 2


# -- queueing again --------------------------------------------------------------------


async def test_a_finished_work_is_queued_again_under_its_id(queue: Queue) -> None:
    queue.max_lost_claims = 2
    agent = await queue.an_agent()
    work_id = await queue.submit(priority=7, max_handoffs=2, max_retries=4, labels={"team": "ml"})
    first = await queue.look(work_id)
    for _ in range(2):
        await queue.lose(await queue.claim(work_id, by=agent))
    assert (await queue.look(work_id)).status is WorkState.QUARANTINED

    await queue.requeue(work_id)

    work = await queue.look(work_id)
    kept = {"created_at", "priority", "max_retries", "max_handoffs", "labels", "target", "resource"}
    assert work.model_dump(include=kept) == first.model_dump(include=kept)
    assert work.status is WorkState.PENDING
    assert (work.lost_claims, work.handoffs, work.result, work.completed_at) == (0, 0, None, None)
    assert work.requeued_at is not None
    assert await queue.pool.fetchval("SELECT count(*) FROM work_execution_log") == 0
    assert (await queue.claim(work_id, by=agent)).round == 3
    assert await queue.history(work_id) == ["lease_lost", "lease_lost", None]
    assert await queue.events(work_id) == [
        "submitted",
        *("claimed", "lease_lost") * 1,
        *("claimed", "quarantined"),
        *("requeued", "claimed"),
    ]


async def test_the_claims_of_a_work_before_it_was_queued_again_are_worth_nothing(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=agent)
    finished = await queue.complete(claim, by=agent)
    await queue.requeue(work_id)

    assert await queue.renew(claim, by=agent) == []
    with pytest.raises(ClaimLost, match="PENDING"):
        await queue.progress(claim, by=agent)
    with pytest.raises(ClaimLost):
        await queue.release(claim, by=agent)
    assert await queue.complete(claim, by=agent) == finished
    assert (await queue.look(work_id)).status is WorkState.PENDING


async def test_a_claim_that_was_lost_before_the_end_is_not_revived_after_it(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lose(claim)
    await queue.cancel(claim.work_id)
    await queue.requeue(claim.work_id)

    assert await queue.renew(claim, by=agent) == []
    with pytest.raises(ClaimLost):
        await queue.complete(claim, by=agent)


async def test_work_that_is_queued_again_is_for_its_whole_target_and_counts_anew(
    queue: Queue,
) -> None:
    tired, fresh = await two_agents(queue)
    work_id = await queue.submit(max_handoffs=1)
    await queue.hand_on(await queue.claim(work_id, by=tired), by=tired, retries=3)
    await queue.hand_on(await queue.claim(work_id, by=fresh), by=fresh, retries=2)

    await queue.requeue(work_id)

    assert await queue.targets(work_id) == {"tired", "fresh"}
    await queue.hand_on(await queue.claim(work_id, by=fresh), by=fresh, retries=1)
    assert await queue.targets(work_id) == {"tired"}
    finished = await queue.complete(await queue.claim(work_id, by=tired), by=tired)
    assert finished.result is not None
    assert finished.result["total_retries"] == 1
    assert [each["round"] for each in finished.result["claims"]] == [3, 4]


async def test_work_that_is_queued_again_comes_behind_what_waits(queue: Queue) -> None:
    agent = await queue.an_agent()
    old = await queue.submit()
    young = await queue.submit()
    await queue.cancel(old)

    await queue.requeue(old)

    assert [each.id for each in await queue.pending(agent)] == [young, old]
    assert (await queue.look(old)).cancel_requested_at is None


async def test_expired_work_that_is_queued_again_may_start_at_any_time(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(start_within_seconds=60)
    await queue.later(HOUR)
    await queue.move_due()

    await queue.requeue(work_id)
    await queue.later(HOUR)

    assert await queue.move_due() == 0
    assert (await queue.claim(work_id, by=agent)).round == 1


async def test_of_two_who_queue_a_work_again_one_does(queue: Queue) -> None:
    work_id = await queue.submit()
    await queue.cancel(work_id)

    outcomes = await asyncio.gather(
        *(queue.requeue(work_id) for _ in range(4)), return_exceptions=True
    )

    assert [type(each) for each in outcomes].count(WorkNotFinished) == 3
    assert await queue.pool.fetchval("SELECT count(*) FROM work_queue") == 1
    assert await queue.events(work_id) == ["submitted", "cancelled", "requeued"]


async def test_what_is_queued_or_unknown_cannot_be_queued_again(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()

    with pytest.raises(WorkNotFinished, match="PENDING"):
        await queue.requeue(work_id)
    await queue.claim(work_id, by=agent)
    with pytest.raises(WorkNotFinished, match="CLAIMED"):
        await queue.requeue(work_id)
    with pytest.raises(WorkNotFound):
        await queue.requeue(uuid4())


# -- cancelling ------------------------------------------------------------------------


async def test_a_pending_work_is_cancelled_at_once(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()

    assert await queue.cancel(work_id) is True

    work = await queue.look(work_id)
    assert (work.status, work.success) == (WorkState.CANCELLED, False)
    assert await queue.pending(agent) == []


async def test_the_holder_of_a_work_hears_of_its_cancel(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=agent)

    assert await queue.cancel(work_id) is False
    assert await queue.cancel(work_id) is False

    [renewed] = await queue.renew(claim, by=agent)
    assert renewed.cancel_requested
    finished = await queue.complete(claim, by=agent, success=None, outcome="cancelled")
    assert finished.status is WorkState.CANCELLED


async def test_a_cancelled_work_whose_claim_is_lost_is_not_run_again(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=agent)
    await queue.cancel(work_id)

    await queue.lose(claim)

    assert (await queue.look(work_id)).status is WorkState.CANCELLED
    with pytest.raises(ClaimLost, match="CANCELLED"):
        await queue.complete(claim, by=agent)


async def test_a_lost_claim_is_not_revived_after_a_cancel(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=agent)
    await queue.lose(claim)

    assert await queue.cancel(work_id) is True

    assert await queue.renew(claim, by=agent) == []


async def test_a_finished_work_cannot_be_cancelled(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.complete(claim, by=agent)

    with pytest.raises(WorkFinished, match="succeeded"):
        await queue.cancel(claim.work_id)


async def test_what_does_not_exist_cannot_be_cancelled(queue: Queue) -> None:
    with pytest.raises(WorkNotFound):
        await queue.cancel(uuid4())


async def test_a_cancel_that_races_with_a_claim_ends_or_flags_the_work(queue: Queue) -> None:
    agent = await queue.an_agent()
    for _ in range(20):
        work_id = await queue.submit()

        claim, is_over = await asyncio.gather(
            queue.claim(work_id, by=agent), queue.cancel(work_id), return_exceptions=True
        )

        work = await queue.look(work_id)
        if is_over is True:
            assert isinstance(claim, WorkNotClaimable)
            assert work.status is WorkState.CANCELLED
        else:
            assert isinstance(claim, ClaimedWork)
            assert work.cancel_requested_at is not None


async def test_nothing_is_seen_of_a_hand_off_before_all_of_it_is_done(queue: Queue) -> None:
    agent = await queue.an_agent()
    await queue.an_agent()
    work_id = await queue.submit(max_handoffs=1)
    claim = await queue.claim(work_id, by=agent)
    async with transaction(queue.pool) as db:
        await db.execute("LOCK TABLE selectors IN SHARE MODE")  # the narrower lane has to wait
        handing = asyncio.create_task(queue.complete(claim, agent, success=False, retryable=True))
        await eventually(queue.somebody_waits)
        assert (await queue.look(work_id)).status is WorkState.CLAIMED

    await handing
    assert (await queue.look(work_id)).status is WorkState.PENDING

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import uuid4

import pytest

from brokkr.broker.db import claims
from brokkr.broker.db.claims import ClaimedWork
from brokkr.broker.db.pool import transaction
from brokkr.wire.bodies import AgentBody, WorkState
from brokkr.work.errors import ClaimLost, WorkFinished, WorkNotClaimable, WorkNotFound
from support.queue import Queue, holder
from support.signals import eventually

# -- claiming --------------------------------------------------------------------------


async def test_of_ten_racing_agents_exactly_one_wins(queue: Queue) -> None:
    agents = [await queue.an_agent() for _ in range(10)]
    work_id = await queue.submit()

    outcomes = await asyncio.gather(
        *(queue.claim(work_id, by=agent) for agent in agents), return_exceptions=True
    )

    assert [type(each) for each in outcomes].count(WorkNotClaimable) == 9
    [winner] = [each for each in outcomes if isinstance(each, ClaimedWork)]
    assert (await queue.look(work_id)).claimed_by == agents[outcomes.index(winner)].id


async def test_ten_racing_agents_that_take_what_there_is_share_ten_works(queue: Queue) -> None:
    agents = [await queue.an_agent() for _ in range(10)]
    submitted = {await queue.submit() for _ in range(10)}

    taken = await asyncio.gather(*(queue.claim_some(agent, limit=10) for agent in agents))

    assert sorted(each.work_id for claims in taken for each in claims) == sorted(submitted)


async def test_a_claim_carries_the_work_and_its_lease(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(claim_timeout_seconds=90, max_retries=7)

    claim = await queue.claim(work_id, by=agent)

    work = await queue.look(work_id)
    assert claim.round == 1
    assert claim.lease == timedelta(seconds=90)
    assert claim.spec["maxRetries"] == 7
    assert claim.spec["template"]["kind"] == "Build"
    assert work.status is WorkState.CLAIMED
    assert work.lease_seconds == pytest.approx(90, abs=5)
    assert await queue.pending(agent) == []


async def test_an_agent_that_is_no_target_does_not_find_the_work(queue: Queue) -> None:
    meant, other = await queue.an_agent("meant"), await queue.an_agent("other")
    work_id = await queue.submit({"agents": ["meant"]})

    with pytest.raises(WorkNotFound):
        await queue.claim(work_id, by=other)

    assert await queue.claim_some(other) == []
    assert await queue.pending(other) == []
    assert [each.id for each in await queue.pending(meant)] == [work_id]


async def test_a_claim_for_a_work_that_does_not_exist_finds_none(queue: Queue) -> None:
    with pytest.raises(WorkNotFound):
        await queue.claim(uuid4(), by=await queue.an_agent())


async def test_priority_comes_before_age_across_all_lanes(queue: Queue) -> None:
    agent = await queue.an_agent(gpu="true")
    gpu = {"match_labels": {"gpu": "true"}}
    old = await queue.submit()
    urgent = await queue.submit(gpu, priority=5)
    young = await queue.submit(gpu)
    youngest = await queue.submit()

    order = [urgent, old, young, youngest]
    assert [each.id for each in await queue.pending(agent)] == order
    assert [each.work_id for each in await queue.claim_some(agent, limit=3)] == order[:3]
    assert [each.work_id for each in await queue.claim_some(agent, limit=3)] == order[3:]


async def test_an_agent_gets_only_the_types_that_it_asks_for(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()

    assert await queue.claim_some(agent, types=["backup"]) == []
    assert [each.work_id for each in await queue.claim_some(agent, types=["build"])] == [work_id]


async def test_a_claim_does_not_wait_for_work_that_another_is_taking(queue: Queue) -> None:
    slow, quick = await queue.an_agent(), await queue.an_agent()
    first, second = await queue.submit(), await queue.submit()

    async with transaction(queue.pool) as db:
        [slow_claim] = await claims.claim_some_work(db, by=holder(slow))
        async with asyncio.timeout(5):
            [quick_claim] = await queue.claim_some(quick)

    assert (slow_claim.work_id, quick_claim.work_id) == (first, second)


# -- a request whose answer was lost ---------------------------------------------------


async def test_a_repeated_request_gets_the_same_claims(queue: Queue) -> None:
    agent, request_id = await queue.an_agent(), uuid4()
    for _ in range(5):
        await queue.submit()

    first = await queue.claim_some(agent, limit=2, request_id=request_id)
    again = await queue.claim_some(agent, limit=2, request_id=request_id)
    other = await queue.claim_some(agent, limit=2, request_id=uuid4())

    assert [each.claim_id for each in again] == [each.claim_id for each in first]
    assert len(first) == len(other) == 2
    assert not {each.work_id for each in first} & {each.work_id for each in other}


async def test_a_repeat_that_overtakes_its_request_waits_for_it(queue: Queue) -> None:
    agent, request_id = await queue.an_agent(), uuid4()
    for _ in range(5):
        await queue.submit()

    async def is_waiting() -> bool:
        found: bool = await queue.pool.fetchval(
            "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            " WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted)"
        )
        return found

    async with transaction(queue.pool) as db:
        original = await claims.claim_some_work(db, by=holder(agent), request_id=request_id)
        repeat = asyncio.create_task(queue.claim_some(agent, request_id=request_id))
        await eventually(is_waiting)

    assert [each.claim_id for each in await repeat] == [each.claim_id for each in original]


async def test_a_repeated_request_for_one_work_gets_the_same_claim(queue: Queue) -> None:
    agent, request_id = await queue.an_agent(), uuid4()
    work_id = await queue.submit()

    first = await queue.claim(work_id, by=agent, request_id=request_id)

    assert (await queue.claim(work_id, by=agent, request_id=request_id)).claim_id == first.claim_id
    with pytest.raises(WorkNotClaimable):
        await queue.claim(work_id, by=agent)


async def test_another_agents_request_id_means_nothing(queue: Queue) -> None:
    mine, other = await queue.an_agent(), await queue.an_agent()
    request_id = uuid4()
    work_id = await queue.submit()
    await queue.claim(work_id, by=mine, request_id=request_id)

    with pytest.raises(WorkNotClaimable):
        await queue.claim(work_id, by=other, request_id=request_id)


async def test_a_repeated_request_does_not_bring_a_finished_claim_back(queue: Queue) -> None:
    agent, request_id = await queue.an_agent(), uuid4()
    await queue.submit()
    [claim] = await queue.claim_some(agent, request_id=request_id)
    await queue.complete(claim, by=agent)
    await queue.submit()

    assert await queue.claim_some(agent, request_id=request_id) == []


# -- leases ----------------------------------------------------------------------------


async def test_a_heartbeat_renews_exactly_the_listed_claims(queue: Queue) -> None:
    agent = await queue.an_agent()
    await queue.submit()
    await queue.submit()
    listed, unlisted = await queue.claim_some(agent, limit=2)
    await queue.lapse(listed, unlisted)

    renewed = await queue.renew(listed, by=agent)

    assert [each.claim_id for each in renewed] == [listed.claim_id]
    assert [each.work_id for each in await queue.sweep()] == [unlisted.work_id]


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


Report = Callable[[Queue, ClaimedWork, AgentBody], Awaitable[object]]


async def _renew(queue: Queue, claim: ClaimedWork, agent: AgentBody) -> None:
    """As a heartbeat: what is not renewed is lost."""
    if not await queue.renew(claim, by=agent):
        raise ClaimLost(claim.work_id)


async def _progress(queue: Queue, claim: ClaimedWork, agent: AgentBody) -> None:
    await queue.progress(claim, by=agent)


async def _complete(queue: Queue, claim: ClaimedWork, agent: AgentBody) -> None:
    await queue.complete(claim, by=agent)


@pytest.mark.parametrize("report", [_renew, _progress])
async def test_a_lost_claim_that_nobody_took_is_revived(queue: Queue, report: Report) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=agent)
    await queue.lose(claim)

    await report(queue, claim, agent)

    work = await queue.look(work_id)
    assert (work.status, work.claimed_by) == (WorkState.CLAIMED, agent.id)
    assert (work.round, work.lost_claims) == (1, 0)
    assert await queue.history(work_id) == [None]
    assert (await queue.complete(claim, by=agent)).status is WorkState.SUCCEEDED


async def test_a_completion_is_accepted_for_a_lost_claim_that_nobody_took(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=agent)
    await queue.lose(claim)

    finished = await queue.complete(claim, by=agent)

    assert (finished.status, finished.claimed_by) == (WorkState.SUCCEEDED, agent.id)
    assert finished.claimed_at is not None
    assert await queue.history(work_id) == ["completed"]


@pytest.mark.parametrize("report", [_renew, _progress, _complete])
async def test_who_lost_the_work_to_another_agent_is_told(queue: Queue, report: Report) -> None:
    first, second = await queue.an_agent(), await queue.an_agent()
    work_id = await queue.submit()
    lost = await queue.claim(work_id, by=first)
    await queue.lose(lost)
    held = await queue.claim(work_id, by=second)

    with pytest.raises(ClaimLost):
        await report(queue, lost, first)

    work = await queue.look(work_id)
    assert (work.status, work.claimed_by, work.round) == (WorkState.CLAIMED, second.id, 2)
    assert work.progress is None
    assert (await queue.complete(held, by=second)).status is WorkState.SUCCEEDED


@pytest.mark.parametrize("report", [_renew, _progress, _complete])
async def test_an_agents_own_older_claim_is_lost_to_its_newer_one(
    queue: Queue, report: Report
) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    older = await queue.claim(work_id, by=agent)
    await queue.lose(older)
    await queue.claim(work_id, by=agent)

    with pytest.raises(ClaimLost):
        await report(queue, older, agent)

    assert (await queue.look(work_id)).status is WorkState.CLAIMED


@pytest.mark.parametrize("report", [_renew, _progress, _complete])
async def test_a_claim_id_is_worth_nothing_to_another_agent(queue: Queue, report: Report) -> None:
    holder, thief = await queue.an_agent(), await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=holder)
    await queue.lapse(claim)

    with pytest.raises(ClaimLost):
        await report(queue, claim, thief)

    work = await queue.look(work_id)
    assert (work.status, work.claimed_by, work.lease_seconds) == (
        WorkState.CLAIMED,
        holder.id,
        0,
    )


@pytest.mark.parametrize("report", [_renew, _progress, _complete])
async def test_a_lost_claim_can_be_revived_by_its_own_agent_alone(
    queue: Queue, report: Report
) -> None:
    holder, thief = await queue.an_agent(), await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=holder)
    await queue.lose(claim)

    with pytest.raises(ClaimLost):
        await report(queue, claim, thief)

    assert (await queue.look(work_id)).status is WorkState.PENDING


@pytest.mark.parametrize("report", [_progress, _complete])
async def test_a_work_is_unknown_to_an_agent_it_was_never_for(queue: Queue, report: Report) -> None:
    holder, stranger = await queue.an_agent("holder"), await queue.an_agent()
    claim = await queue.claim(await queue.submit({"agents": ["holder"]}), by=holder)

    with pytest.raises(WorkNotFound):
        await report(queue, claim, stranger)


@pytest.mark.parametrize("report", [_renew, _progress, _complete])
async def test_a_claim_of_another_work_moves_nothing(queue: Queue, report: Report) -> None:
    agent = await queue.an_agent()
    await queue.submit()
    await queue.submit()
    one, other = await queue.claim_some(agent, limit=2)
    mixed = ClaimedWork(
        work_id=one.work_id,
        claim_id=uuid4(),
        round=1,
        work_type="build",
        lease=timedelta(),
        cancel_requested=False,
        spec={},
    )

    with pytest.raises(ClaimLost):
        await report(queue, mixed, agent)

    states = [(await queue.look(each.work_id)).status for each in (one, other)]
    assert states == [WorkState.CLAIMED, WorkState.CLAIMED]


@pytest.mark.parametrize("report", [_progress, _complete])
async def test_a_report_on_one_work_with_the_claim_of_another_is_refused(
    queue: Queue, report: Report
) -> None:
    agent = await queue.an_agent()
    await queue.submit()
    await queue.submit()
    one, other = await queue.claim_some(agent, limit=2)
    mixed = ClaimedWork(
        work_id=one.work_id,
        claim_id=other.claim_id,
        round=1,
        work_type="build",
        lease=timedelta(),
        cancel_requested=False,
        spec={},
    )

    with pytest.raises(ClaimLost):
        await report(queue, mixed, agent)

    states = [(await queue.look(each.work_id)).status for each in (one, other)]
    assert states == [WorkState.CLAIMED, WorkState.CLAIMED]


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

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from brokkr.broker.db import agents, claims, work_queue
from brokkr.broker.db.claims import ClaimedWork
from brokkr.broker.db.pool import transaction
from brokkr.wire.bodies import AgentBody, WorkState
from brokkr.work.errors import (
    AgentDrained,
    AgentNotFound,
    ClaimLost,
    WorkNotClaimable,
    WorkNotFound,
)
from support.queue import Queue, holder
from support.signals import eventually

HOUR = timedelta(hours=1)


def in_an_hour() -> str:
    return (datetime.now(UTC) + HOUR).isoformat()


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
    await queue.cancel(await queue.submit({"agents": ["other"]}))
    work_id = await queue.submit({"agents": ["meant"]})

    with pytest.raises(WorkNotFound):
        await queue.claim(work_id, by=other)

    assert await queue.claim_some(other) == []
    assert await queue.pending(other) == []
    assert [each.id for each in await queue.pending(meant)] == [work_id]


async def test_a_claim_for_a_work_that_does_not_exist_finds_none(queue: Queue) -> None:
    with pytest.raises(WorkNotFound):
        await queue.claim(uuid4(), by=await queue.an_agent())


@pytest.mark.parametrize("at_once", [1, 2, 3])
async def test_priority_comes_before_age_across_all_lanes(queue: Queue, at_once: int) -> None:
    agent = await queue.an_agent(gpu="true")
    gpu = {"match_labels": {"gpu": "true"}}
    old = await queue.submit()
    urgent = await queue.submit(gpu, priority=5)
    young = await queue.submit(gpu)
    youngest = await queue.submit()

    order = [urgent, old, young, youngest]
    assert [each.id for each in await queue.pending(agent)] == order
    taken = []
    while claimed := await queue.claim_some(agent, limit=at_once):
        taken += [each.work_id for each in claimed]
    assert taken == order


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


@pytest.mark.parametrize("at_once", [1, 10])
async def test_the_whole_range_of_priorities_is_served_highest_first(
    queue: Queue, at_once: int
) -> None:
    agent = await queue.an_agent()
    by_priority = {
        priority: await queue.submit(priority=priority) for priority in (0, -100, 100, -1, 1)
    }
    second = await queue.submit(priority=100)

    taken = []
    while claimed := await queue.claim_some(agent, limit=at_once):
        taken += [each.work_id for each in claimed]

    assert taken == [
        by_priority[100],
        second,
        *(by_priority[priority] for priority in (1, 0, -1, -100)),
    ]


async def test_work_that_is_given_back_keeps_its_place(queue: Queue) -> None:
    agent = await queue.an_agent()
    old, young = await queue.submit(), await queue.submit()
    await queue.release(await queue.claim(old, by=agent), by=agent)

    assert [each.id for each in await queue.pending(agent)] == [old, young]


async def test_ten_racing_agents_with_room_for_one_work_each_get_one(queue: Queue) -> None:
    agents = [await queue.an_agent() for _ in range(10)]
    submitted = {await queue.submit() for _ in range(10)}

    taken = await asyncio.gather(*(queue.claim_some(agent) for agent in agents))

    assert sorted(each.work_id for [each] in taken) == sorted(submitted)


async def test_a_claim_keeps_nobody_from_what_it_does_not_take(queue: Queue) -> None:
    greedy, modest = await queue.an_agent(gpu="true"), await queue.an_agent(gpu="true")
    urgent = await queue.submit(priority=1)
    other = await queue.submit({"match_labels": {"gpu": "true"}})

    async with transaction(queue.pool) as db:
        [first] = await claims.claim_some_work(db, by=holder(greedy))
        [second] = await queue.claim_some(modest)

    assert (first.work_id, second.work_id) == (urgent, other)


# -- work that may not start yet, or not any more --------------------------------------


async def test_delayed_work_enters_its_lane_when_it_is_due(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(not_before=in_an_hour())

    assert await queue.pending(agent) == []
    assert await queue.claim_some(agent) == []
    with pytest.raises(WorkNotClaimable):
        await queue.claim(work_id, by=agent)
    await queue.move_due()
    assert await queue.claim_some(agent) == []

    await queue.later(HOUR)
    assert await queue.claim_some(agent) == []
    await queue.move_due()

    assert [each.work_id for each in await queue.claim_some(agent)] == [work_id]


async def test_delayed_work_is_not_among_what_claims_read(queue: Queue) -> None:
    """The lane is an index of what is due; a claim asks for nothing else."""
    await queue.submit(not_before=in_an_hour())
    index = "SELECT pg_get_indexdef('work_queue_lane'::regclass)"

    assert "is_due" in await queue.pool.fetchval(index)
    assert await queue.pool.fetchval("SELECT count(*) FROM work_queue WHERE is_due") == 0


async def test_work_enters_its_lane_once(queue: Queue) -> None:
    await queue.an_agent()
    await queue.submit(not_before=in_an_hour())
    lane = await queue.pool.fetchval("SELECT id FROM selectors")
    await queue.later(HOUR)

    entered = []
    for _ in range(2):
        async with transaction(queue.pool) as db:
            entered.append(await work_queue.enter_lanes(db, limit=10))

    assert entered == [[lane], []]


async def test_a_time_that_has_passed_delays_nothing(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(not_before="2001-01-01T00:00:00Z")

    assert [each.work_id for each in await queue.claim_some(agent)] == [work_id]


async def test_a_start_deadline_counts_from_when_work_may_start(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(not_before=in_an_hour(), start_within_seconds=60)

    work = await queue.look(work_id)
    assert work.not_before is not None
    assert work.start_deadline == work.not_before + timedelta(seconds=60)
    await queue.later(HOUR)
    assert await queue.move_due() == 0
    assert [each.work_id for each in await queue.claim_some(agent)] == [work_id]


async def test_nobody_gets_work_after_its_start_deadline_though_it_is_still_there(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(start_within_seconds=60)
    await queue.later(timedelta(seconds=60))

    assert await queue.pending(agent) == []
    assert await queue.claim_some(agent) == []
    with pytest.raises(WorkNotClaimable):
        await queue.claim(work_id, by=agent)

    assert (await queue.look(work_id)).status is WorkState.PENDING


async def test_work_that_was_started_in_time_has_no_start_deadline_any_more(queue: Queue) -> None:
    agent = await queue.an_agent()
    works = [await queue.submit(start_within_seconds=60) for _ in range(2)]
    for claim in await queue.claim_some(agent, limit=2):
        await queue.release(claim, by=agent)
    await queue.later(HOUR)

    assert await queue.move_due() == 0
    assert [each.id for each in await queue.pending(agent)] == works
    assert (await queue.claim(works[0], by=agent)).round == 2
    assert [each.work_id for each in await queue.claim_some(agent)] == [works[1]]


# -- agents that are drained or deleted ------------------------------------------------


async def test_a_drained_agent_is_offered_nothing_and_what_it_holds_goes_on(queue: Queue) -> None:
    agent = await queue.an_agent()
    held = await queue.claim(await queue.submit(), by=agent)
    waiting = await queue.submit()

    await queue.drain(agent)

    assert await queue.pending(agent) == []
    assert await queue.claim_some(agent) == []
    with pytest.raises(AgentDrained):
        await queue.claim(waiting, by=agent)
    await queue.lapse(held)
    assert len(await queue.renew(held, by=agent)) == 1
    await queue.lose(held)
    assert len(await queue.renew(held, by=agent)) == 1
    assert (await queue.complete(held, by=agent)).status is WorkState.SUCCEEDED
    await queue.drain(agent, is_drained=False)
    assert [each.work_id for each in await queue.claim_some(agent)] == [waiting]


async def test_who_drains_an_agent_twice_learns_when_it_was_drained(queue: Queue) -> None:
    agent = await queue.an_agent()
    drained = []
    for _ in range(2):
        async with transaction(queue.pool) as db:
            body, _ = await agents.drain_agent(db, agent.name, is_drained=True)
            drained.append(body.drained_at)

    assert drained[0] is not None
    assert drained[0] == drained[1]


async def _claim_this(queue: Queue, agent: AgentBody) -> int:
    """Claim what is pending; say how many Works that is."""
    work_id = await queue.pool.fetchval("SELECT id FROM work_queue")
    try:
        await queue.claim(work_id, by=agent)
    except (AgentDrained, WorkNotFound, WorkNotClaimable):
        return 0
    return 1


async def _claim_any(queue: Queue, agent: AgentBody) -> int:
    return len(await queue.claim_some(agent))


Taking = Callable[[Queue, AgentBody], Coroutine[Any, Any, int]]


@pytest.mark.parametrize("take", [_claim_this, _claim_any])
async def test_a_claim_waits_for_the_deletion_of_its_agent_and_gets_nothing(
    queue: Queue, take: Taking
) -> None:
    agent = await queue.an_agent()
    await queue.submit()

    async with transaction(queue.pool) as db:
        await agents.delete_agent(db, agent.name, actor="admin:test")
        taking = asyncio.create_task(take(queue, agent))
        await eventually(queue.somebody_waits)

    assert await taking == 0


@pytest.mark.parametrize("take", [_claim_this, _claim_any])
async def test_a_claim_waits_for_the_drain_of_its_agent_and_gets_nothing(
    queue: Queue, take: Taking
) -> None:
    agent = await queue.an_agent()
    await queue.submit()

    async with transaction(queue.pool) as db:
        await agents.drain_agent(db, agent.name, is_drained=True)
        taking = asyncio.create_task(take(queue, agent))
        await eventually(queue.somebody_waits)

    assert await taking == 0


@pytest.mark.parametrize("is_any", [False, True])
async def test_the_deletion_of_an_agent_waits_for_its_claim_and_gives_it_back(
    queue: Queue, is_any: bool
) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()

    async with transaction(queue.pool) as db:
        if is_any:
            await claims.claim_some_work(db, by=holder(agent))
        else:
            await claims.claim_work(db, work_id, by=holder(agent))
        deletion = asyncio.create_task(queue.delete_agent(agent))
        await eventually(queue.somebody_waits)
    await deletion

    assert (await queue.look(work_id)).status is WorkState.PENDING
    assert await queue.history(work_id) == ["released"]


async def test_a_deleted_agent_revives_nothing(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lose(claim)

    async with transaction(queue.pool) as db:
        await agents.delete_agent(db, agent.name, actor="admin:test")
        report = asyncio.create_task(queue.progress(claim, by=agent))
        await eventually(queue.somebody_waits)

    with pytest.raises(ClaimLost):
        await report
    assert (await queue.look(claim.work_id)).status is WorkState.PENDING


async def test_a_deleted_agent_that_is_heard_of_is_none(queue: Queue) -> None:
    agent = await queue.an_agent()
    await queue.delete_agent(agent)

    with pytest.raises(AgentNotFound):
        await queue.touch(agent)


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


@pytest.mark.parametrize("works", [1, 5], ids=["all there is", "more than it takes"])
async def test_a_repeat_that_overtakes_its_request_waits_for_it(queue: Queue, works: int) -> None:
    agent, request_id = await queue.an_agent(), uuid4()
    for _ in range(works):
        await queue.submit()

    async with transaction(queue.pool) as db:
        original = await claims.claim_some_work(db, by=holder(agent), request_id=request_id)
        repeat = asyncio.create_task(queue.claim_some(agent, request_id=request_id))
        await eventually(queue.somebody_waits)

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


async def test_a_repeat_after_the_claim_was_lost_gets_nothing_and_takes_nothing(
    queue: Queue,
) -> None:
    agent, request_id = await queue.an_agent(), uuid4()
    work_id = await queue.submit()
    [claim] = await queue.claim_some(agent, request_id=request_id)
    await queue.lose(claim)

    assert await queue.claim_some(agent, request_id=request_id) == []
    with pytest.raises(WorkNotClaimable):
        await queue.claim(work_id, by=agent, request_id=request_id)
    assert (await queue.look(work_id)).status is WorkState.PENDING


async def test_a_repeat_does_not_bring_back_what_the_agent_has_lost_and_claimed_again(
    queue: Queue,
) -> None:
    agent, earlier = await queue.an_agent(), uuid4()
    work_id = await queue.submit()
    [lost] = await queue.claim_some(agent, request_id=earlier)
    await queue.lose(lost)
    await queue.claim(work_id, by=agent)

    assert await queue.claim_some(agent, request_id=earlier) == []


async def test_a_request_id_stands_for_what_was_claimed_with_it_and_nothing_else(
    queue: Queue,
) -> None:
    agent, request_id = await queue.an_agent(), uuid4()
    mine, other = await queue.submit(), await queue.submit()
    await queue.claim(mine, by=agent, request_id=request_id)

    with pytest.raises(WorkNotClaimable):
        await queue.claim(other, by=agent, request_id=request_id)

    assert (await queue.look(other)).status is WorkState.PENDING


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


async def test_a_request_that_waits_does_not_get_what_its_own_agent_lost_meanwhile(
    queue: Queue,
) -> None:
    """Who waits may be cut off, and still execute it; a heartbeat revives the claim."""
    loser, other = await queue.an_agent(), await queue.an_agent()
    work_id = await queue.submit()
    lost = await queue.claim(work_id, by=loser)
    await queue.lose(lost)

    assert await queue.claim_some(loser, waited=timedelta(seconds=30)) == []
    [taken] = await queue.claim_some(other, waited=timedelta(seconds=30))
    assert taken.work_id == work_id


async def test_who_has_lost_one_work_while_it_waited_still_gets_another(queue: Queue) -> None:
    agent = await queue.an_agent()
    lost = await queue.claim(await queue.submit(), by=agent)
    await queue.lose(lost)
    another = await queue.submit()

    claimed = await queue.claim_some(agent, limit=10, waited=timedelta(seconds=30))

    assert [each.work_id for each in claimed] == [another]


async def test_the_next_request_of_who_has_lost_it_may_have_it(queue: Queue) -> None:
    agent = await queue.an_agent()
    lost = await queue.claim(await queue.submit(), by=agent)
    await queue.lose(lost)
    await queue.later(timedelta(seconds=1))

    [again] = await queue.claim_some(agent)
    assert (again.work_id, again.round) == (lost.work_id, 2)


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
    mixed = replace(one, claim_id=uuid4())

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
    mixed = replace(one, claim_id=other.claim_id)

    with pytest.raises(ClaimLost):
        await report(queue, mixed, agent)

    states = [(await queue.look(each.work_id)).status for each in (one, other)]
    assert states == [WorkState.CLAIMED, WorkState.CLAIMED]


async def test_a_renewed_lease_is_a_whole_one_again(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(claim_timeout_seconds=3600), by=agent)
    await queue.later(timedelta(minutes=50))
    assert (await queue.look(claim.work_id)).lease_seconds == pytest.approx(600, abs=5)

    [renewed] = await queue.renew(claim, by=agent)

    assert renewed.lease_seconds == pytest.approx(3600, abs=5)
    assert (renewed.work_id, renewed.round) == (claim.work_id, claim.round)
    assert (await queue.look(claim.work_id)).lease_seconds == pytest.approx(3600, abs=5)


async def test_a_lease_that_is_nearly_whole_is_confirmed_and_not_written(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(claim_timeout_seconds=3600), by=agent)
    await queue.later(timedelta(minutes=5))
    before = await queue.everything()

    [renewed] = await queue.renew(claim, by=agent)

    assert renewed.lease_seconds == pytest.approx(3300, abs=5)
    assert await queue.everything() == before


async def test_a_renewed_claim_is_looked_at_again_when_it_would_run_out_now(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(claim_timeout_seconds=3600), by=agent)
    await queue.later(timedelta(minutes=50))
    await queue.renew(claim, by=agent)
    await queue.later(timedelta(minutes=50))

    assert await queue.sweep() == []

    await queue.later(timedelta(minutes=10))
    assert [each.work_id for each in await queue.sweep()] == [claim.work_id]


async def test_a_revived_claim_has_a_whole_lease_that_runs_out_as_any(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(claim_timeout_seconds=3600), by=agent)
    await queue.lose(claim)

    [renewed] = await queue.renew(claim, by=agent)

    assert renewed.lease_seconds == pytest.approx(3600, abs=5)
    await queue.later(timedelta(minutes=59))
    assert await queue.sweep() == []
    await queue.later(timedelta(minutes=1))
    assert [each.work_id for each in await queue.sweep()] == [claim.work_id]
    assert await queue.events(claim.work_id) == [
        "submitted",
        "claimed",
        "lease_lost",
        "lease_revived",
        "lease_lost",
    ]


async def test_what_is_said_of_a_work_is_kept_until_somebody_else_has_it(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.progress(claim, by=agent, retries=1, attempt=2, message="building")
    await queue.release(claim, by=agent)

    given_back = (await queue.look(claim.work_id)).progress
    await queue.claim(claim.work_id, by=agent)

    assert given_back is not None
    assert (given_back.retries, given_back.attempt, given_back.message) == (1, 2, "building")
    assert (await queue.look(claim.work_id)).progress is None


async def test_who_reports_is_alive_and_keeps_its_lease(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lapse(claim)

    await queue.progress(claim, by=agent)

    assert await queue.sweep() == []


async def test_a_refused_report_renews_nothing(queue: Queue) -> None:
    agent = await queue.an_agent()
    await queue.submit()
    await queue.submit()
    one, other = await queue.claim_some(agent, limit=2)
    await queue.lapse(one, other)

    with pytest.raises(ClaimLost):
        await queue.progress(replace(one, claim_id=other.claim_id), by=agent)

    assert len(await queue.sweep()) == 2


async def test_an_agent_that_starts_anew_is_told_what_it_holds(queue: Queue) -> None:
    agent, other = await queue.an_agent(), await queue.an_agent()
    works = [await queue.submit() for _ in range(4)]
    held, finished, lost = [await queue.claim(each, by=agent) for each in works[:3]]
    await queue.claim(works[3], by=other)
    await queue.complete(finished, by=agent)
    await queue.lose(lost)
    await queue.cancel(held.work_id)

    async with transaction(queue.pool) as db:
        [told] = await claims.list_held_claims(db, agent_id=agent.id)

    assert (told.work_id, told.claim_id, told.round) == (held.work_id, held.claim_id, held.round)
    assert told.cancel_requested
    assert told.spec == held.spec

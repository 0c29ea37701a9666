"""A target is a lane while Work is queued for it; then it rests, and costs nobody anything."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from brokkr.broker.db import lanes
from brokkr.broker.db.lanes import LaneLimits
from brokkr.broker.db.pool import autocommit, transaction
from brokkr.broker.db.submissions import Submitted, Submitter, submit_work
from brokkr.wire.bodies import AgentBody
from brokkr.work.errors import LimitReached
from support.queue import Queue, a_submission
from support.signals import eventually

GPU = {"match_labels": {"gpu": "true"}}


async def rest(queue: Queue) -> list[int]:
    """Let every lane rest in which nothing is queued."""
    async with transaction(queue.pool) as db:
        look = await lanes.note_idle_lanes(db, after=0, limit=1000, age=timedelta())
    async with transaction(queue.pool) as db:
        return await lanes.rest_lanes(db, look.may_rest)


async def lanes_of(queue: Queue, agent: AgentBody) -> int:
    found: int = await queue.pool.fetchval(
        "SELECT count(*) FROM agent_selectors WHERE agent_id = $1", agent.id
    )
    return found


async def a_finished_work(queue: Queue, agent: AgentBody, target: Any = None) -> UUID:
    work_id = await queue.submit(target)
    await queue.complete(await queue.claim(work_id, by=agent), agent)
    return work_id


async def test_what_is_queued_keeps_its_lane_in_every_state(queue: Queue) -> None:
    agent = await queue.an_agent(gpu="true")
    await queue.submit({"match_labels": {"gpu": "true"}})
    claimed = await queue.submit({"agents": [agent.name]})
    await queue.claim(claimed, by=agent)
    await queue.submit(
        {"match_expressions": [{"key": "gpu", "operator": "Exists"}]},
        not_before="2100-01-01T00:00:00Z",
    )

    assert await rest(queue) == []
    assert await lanes_of(queue, agent) == 3


async def test_a_lane_rests_although_the_log_refers_to_it_and_says_whom_it_was_for(
    queue: Queue,
) -> None:
    agent, other = await queue.an_agent(gpu="true"), await queue.an_agent(gpu="true")
    stranger = await queue.an_agent()
    work_id = await a_finished_work(queue, agent, GPU)

    assert len(await rest(queue)) == 1

    assert await lanes_of(queue, agent) == 0
    assert await queue.targets(work_id) == {agent.name, other.name}
    work = await queue.look(work_id)
    assert work.eligible_agents == 2
    assert work.target == [GPU]
    await queue.delete_agent(other)
    assert await queue.targets(work_id) == {agent.name}
    await queue.relabel(stranger, gpu="true")
    assert await lanes_of(queue, stranger) == 0


async def test_a_lane_that_is_used_again_selects_whom_it_selects_now(queue: Queue) -> None:
    before, after = await queue.an_agent(gpu="true"), await queue.an_agent()
    first = await a_finished_work(queue, before, GPU)
    await rest(queue)
    await queue.relabel(before, gpu=None)
    await queue.relabel(after, gpu="true")

    work_id = await queue.submit(GPU)

    assert (await queue.claim(work_id, by=after)).work_id == work_id
    assert await queue.targets(work_id) == {after.name}
    assert await queue.targets(first) == {after.name}
    assert await queue.pool.fetchval("SELECT count(*) FROM selectors") == 1


async def test_a_finished_work_is_queued_again_although_its_lane_rests(queue: Queue) -> None:
    agent = await queue.an_agent(gpu="true")
    work_id = await a_finished_work(queue, agent, GPU)
    await rest(queue)

    await queue.requeue(work_id)

    assert [each.work_id for each in await queue.claim_some(agent)] == [work_id]


async def test_a_narrower_lane_rests_and_is_used_again(queue: Queue) -> None:
    one, two = await queue.an_agent(gpu="true"), await queue.an_agent(gpu="true")
    for agent in (one, two):
        await queue.touch(agent)
    for _ in range(2):
        work_id = await queue.submit(GPU, max_handoffs=2)
        await queue.hand_on(await queue.claim(work_id, by=one), one)
        assert await queue.targets(work_id) == {two.name}
        assert await rest(queue) == []  # the whole target stays as long as the narrower one
        await queue.complete(await queue.claim(work_id, by=two), two)

        assert len(await rest(queue)) == 1
        assert len(await rest(queue)) == 1  # the whole one after the narrower
        assert await lanes_of(queue, one) == await lanes_of(queue, two) == 0
        assert await queue.targets(work_id) == {two.name}


async def test_a_lane_is_idle_for_a_while_before_it_rests(queue: Queue) -> None:
    agent = await queue.an_agent(gpu="true")
    await a_finished_work(queue, agent, GPU)

    async def look() -> list[int]:
        async with transaction(queue.pool) as db:
            return (await lanes.note_idle_lanes(db, after=0, limit=1000)).may_rest

    assert await look() == []
    await queue.later(timedelta(minutes=1))
    assert await look() == []
    work_id = await queue.submit(GPU)
    assert await look() == []
    await queue.complete(await queue.claim(work_id, by=agent), agent)
    assert await look() == []
    await queue.later(timedelta(minutes=2))
    assert await look() == []
    await queue.later(timedelta(minutes=1))
    assert len(await look()) == 1


async def test_work_that_comes_while_its_lane_comes_to_rest_is_claimed(queue: Queue) -> None:
    agent = await queue.an_agent(gpu="true")
    for _ in range(20):
        work_id, _ = await asyncio.gather(queue.submit(GPU), rest(queue))
        await rest(queue)

        [claim] = await queue.claim_some(agent)
        assert claim.work_id == work_id
        await queue.complete(claim, by=agent)


async def test_two_submissions_that_wake_a_lane_at_once_make_it_one(queue: Queue) -> None:
    agent = await queue.an_agent(gpu="true")
    for _ in range(5):
        await a_finished_work(queue, agent, GPU)
        await rest(queue)

        await asyncio.gather(*(queue.submit(GPU) for _ in range(8)))

        assert await lanes_of(queue, agent) == 1
        for claim in await queue.claim_some(agent, limit=100):
            await queue.complete(claim, by=agent)


async def test_an_agent_that_is_relabelled_while_a_lane_wakes_finds_it(queue: Queue) -> None:
    agent = await queue.an_agent()
    for number in range(10):
        label = {f"round-{number}": "x"}
        first = await queue.submit({"match_labels": label})
        await queue.cancel(first)
        await rest(queue)

        work_id, _ = await asyncio.gather(
            queue.submit({"match_labels": label}), queue.relabel(agent, **label)
        )

        assert [each.id for each in await queue.pending(agent)] == [work_id]
        await queue.cancel(work_id)


async def test_a_lane_is_held_by_a_submission_that_is_not_committed(queue: Queue) -> None:
    agent = await queue.an_agent(gpu="true")
    await a_finished_work(queue, agent, GPU)
    async with transaction(queue.pool) as db:
        await db.fetchval("SELECT id FROM selectors WHERE agents IS NULL FOR KEY SHARE")
        assert await rest(queue) == []

    assert len(await rest(queue)) == 1


async def test_a_lane_that_a_broker_of_an_earlier_version_has_not_woken_is_woken(
    queue: Queue,
) -> None:
    """It finds the selector, whether it rests or not, and queues Work for it."""
    one, two = await queue.an_agent(gpu="true"), await queue.an_agent(gpu="true")
    for agent in (one, two):
        await queue.touch(agent)
    whole = await queue.submit(GPU)
    narrow = await queue.submit(GPU, max_handoffs=2)
    await queue.hand_on(await queue.claim(narrow, by=one), one)
    await queue.pool.execute("UPDATE selectors SET agents = '{}'")
    await queue.pool.execute("DELETE FROM agent_selectors WHERE agent_id = $1", one.id)

    async with transaction(queue.pool) as db:
        woken = await lanes.wake_lost_lanes(db, limit=10)

    assert len(woken) == 2
    assert await queue.targets(whole) == {one.name, two.name}
    assert await queue.targets(narrow) == {two.name}


# -- limits ------------------------------------------------------------------------------


async def a_generator(queue: Queue) -> Submitter:
    generator_id = uuid4()
    await queue.pool.execute(
        "INSERT INTO generators (id, name) VALUES ($1, $2)", generator_id, f"g-{generator_id}"
    )
    return Submitter(actor="generator:test", generator_id=generator_id)


async def submit(
    queue: Queue, *targets: str, by: Submitter, limits: LaneLimits, **fields: Any
) -> list[bool]:
    """Submit Works with one request; say of each whether it was accepted."""
    several = [a_submission({"match_labels": {"t": each}}, **fields) for each in targets]
    async with autocommit(queue.pool) as db:
        answers = await submit_work(db, several, by=by, limits=limits)
    assert all(isinstance(each, Submitted | LimitReached) for each in answers)
    return [isinstance(each, Submitted) for each in answers]


async def test_a_generator_has_so_many_targets_and_no_more(queue: Queue) -> None:
    limits = LaneLimits(each=2, total=100)
    one, two = await a_generator(queue), await a_generator(queue)

    assert await submit(queue, "a", "a", "b", "c", "a", by=one, limits=limits) == [
        *(True, True, True, False, True)
    ]
    assert await submit(queue, "d", by=one, limits=limits) == [False]
    assert await submit(queue, "b", by=one, limits=limits) == [True]
    assert await submit(queue, "a", "c", "d", by=two, limits=limits) == [True, True, True]
    # What another has made a lane costs nothing.
    assert await submit(queue, "c", by=one, limits=limits) == [True]


async def test_a_place_is_free_again_when_a_lane_rests(queue: Queue) -> None:
    limits = LaneLimits(each=1, total=100)
    by = await a_generator(queue)
    await submit(queue, "a", by=by, limits=limits)
    assert await submit(queue, "b", by=by, limits=limits) == [False]
    work_id = await queue.pool.fetchval("SELECT id FROM work_queue")
    await queue.cancel(work_id)
    assert await submit(queue, "b", by=by, limits=limits) == [False]

    await rest(queue)

    assert await submit(queue, "b", by=by, limits=limits) == [True]
    assert await submit(queue, "a", by=by, limits=limits) == [False]


async def test_all_together_have_so_many_targets(queue: Queue) -> None:
    limits = LaneLimits(each=2, total=3)
    one, two = await a_generator(queue), await a_generator(queue)
    admin = Submitter(actor="admin:test")

    assert await submit(queue, "a", "b", by=one, limits=limits) == [True, True]
    assert await submit(queue, "c", "d", by=two, limits=limits) == [True, False]
    assert await submit(queue, "e", by=admin, limits=limits) == [False]
    assert await submit(queue, "c", by=admin, limits=limits) == [True]


async def test_what_is_refused_keeps_no_idempotency_key(queue: Queue) -> None:
    limits = LaneLimits(each=1, total=100)
    by = await a_generator(queue)
    await submit(queue, "a", by=by, limits=limits)
    assert await submit(queue, "b", by=by, limits=limits, idempotency_key="k") == [False]

    assert await submit(queue, "a", by=by, limits=limits, idempotency_key="k") == [True]


async def test_a_known_key_is_answered_whatever_the_limit_says(queue: Queue) -> None:
    by = await a_generator(queue)
    roomy, full = LaneLimits(each=1, total=100), LaneLimits(each=1, total=1)
    assert await submit(queue, "a", by=by, limits=roomy, idempotency_key="k") == [True]
    assert await submit(queue, "a", by=by, limits=full, idempotency_key="k") == [True]


async def test_who_spend_the_last_place_at_once_never_get_more(queue: Queue) -> None:
    limits = LaneLimits(each=5, total=1000)
    for number in range(5):
        by = await a_generator(queue)

        answers = await asyncio.gather(
            *(
                submit(queue, *(f"{number}-{each}-{one}" for one in range(3)), by=by, limits=limits)
                for each in range(8)
            )
        )

        assert sum(map(sum, answers)) == 5


async def test_a_frozen_submission_stops_new_targets_of_its_own_generator_only(
    queue: Queue,
) -> None:
    limits = LaneLimits(each=5, total=1000)
    one, two = await a_generator(queue), await a_generator(queue)
    async with transaction(queue.pool) as db:
        await lanes.find_room(db, [], generator_id=one.generator_id, limits=limits)
        waiting = asyncio.create_task(submit(queue, "a", by=one, limits=limits))
        await eventually(queue.somebody_waits)

        assert await submit(queue, "b", by=two, limits=limits) == [True]
        assert await submit(queue, "b", by=one, limits=limits) == [True]
    assert await waiting == [True]

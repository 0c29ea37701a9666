"""A list is what a filter over all Work would give, newest first; by example and by chance."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from brokkr.broker.db import execution_log
from brokkr.broker.db.execution_log import WorkFilter, list_work
from brokkr.broker.db.pool import transaction
from brokkr.broker.db.submissions import Submitted, Submitter
from brokkr.wire.bodies import WorkBody, WorkState
from brokkr.work.errors import InvalidInput
from support.queue import Queue, a_submission

FINISHED = (WorkState.SUCCEEDED, WorkState.FAILED, WorkState.CANCELLED)


async def listed(
    queue: Queue, *, before: UUID | None = None, limit: int = 100, **wanted: Any
) -> list[WorkBody]:
    async with transaction(queue.pool) as db:
        return await list_work(db, WorkFilter(**wanted), before=before, limit=limit)


async def ids(queue: Queue, **wanted: Any) -> list[UUID]:
    return [work.id for work in await listed(queue, **wanted)]


async def test_any_filters_together_give_what_they_give_one_after_the_other(queue: Queue) -> None:
    random = Random(7)
    everything = await some_of_everything(queue, random)
    agents = {work.claimed_by for work in everything}
    generators = {work.generator_id for work in everything}

    for _ in range(150):
        labels = {f"k{number}": random.choice("ab") for number in range(random.randrange(3))}
        states = random.choice([None, random.sample(list(WorkState), random.randrange(1, 4))])
        agent, generator = random.choice([*agents, None]), random.choice([*generators, None])
        type_ = random.choice([None, "build", "rare"])
        since = random.choice([None, everything[10].created_at])
        limit = random.choice([3, 100])

        found = await listed(
            queue,
            labels=labels,
            states=states,
            agent_id=agent,
            generator_id=generator,
            type=type_,
            since=since,
            limit=limit,
        )

        assert [work.id for work in found] == [
            work.id
            for work in everything
            if (states is None or work.status in states)
            and labels.items() <= work.labels.items()
            and agent in (None, work.claimed_by)
            and generator in (None, work.generator_id)
            and type_ in (None, work.work_type)
            and (since is None or work.created_at >= since)
        ][:limit]


async def some_of_everything(queue: Queue, random: Random) -> list[WorkBody]:
    """Queue, claim and finish some Work, and return it, newest first."""
    agents = [await queue.an_agent() for _ in range(2)]
    generators = [uuid4(), uuid4()]
    for number, generator in enumerate(generators):
        await queue.pool.execute(
            "INSERT INTO generators (id, name) VALUES ($1, $2)", generator, f"generator-{number}"
        )
    for _ in range(60):
        labels = {f"k{number}": random.choice("ab") for number in range(random.randrange(3))}
        by = Submitter(actor="test", generator_id=random.choice([*generators, None]))
        [submitted] = await queue.submit_all(a_submission(labels=labels), by=by)
        assert isinstance(submitted, Submitted)
        work_id = submitted.work_id
        await queue.pool.execute(
            "UPDATE work_queue SET work_type = $2 WHERE id = $1",
            work_id,
            random.choice(["build", "build", "rare"]),
        )
        if random.random() < 0.6:
            agent = random.choice(agents)
            claim = await queue.claim(work_id, by=agent)
            if random.random() < 0.7:
                outcome = random.choice(["succeeded", "failed", "cancelled"])
                await queue.complete(claim, agent, success=None, outcome=outcome)
    everything = await listed(queue)
    assert {work.status for work in everything} == {
        WorkState.PENDING,
        WorkState.CLAIMED,
        *FINISHED,
    }
    assert sorted(everything, key=lambda work: work.id, reverse=True) == everything
    return everything


async def test_pages_hold_everything_once_also_if_work_moves_between_them(queue: Queue) -> None:
    agent = await queue.an_agent()
    submitted = [await queue.submit() for _ in range(7)]

    first = await listed(queue, limit=3)
    await queue.complete(await queue.claim(submitted[0], by=agent), agent)
    second = await listed(queue, limit=3, before=first[-1].id)
    third = await listed(queue, limit=3, before=second[-1].id)

    assert [work.id for work in (*first, *second, *third)] == submitted[::-1]
    assert third[-1].status is WorkState.SUCCEEDED


async def test_work_keeps_its_labels_until_it_is_forgotten(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(labels={"team": "ml"})

    claim = await queue.claim(work_id, by=agent)
    assert await ids(queue, labels={"team": "ml"}) == [work_id]
    await queue.complete(claim, agent)
    assert await ids(queue, labels={"team": "ml"}) == [work_id]
    await queue.requeue(work_id)
    assert await ids(queue, labels={"team": "ml"}, states=[WorkState.PENDING]) == [work_id]


async def test_a_label_is_key_and_value_and_not_the_text_of_both(queue: Queue) -> None:
    await queue.submit(labels={"a": "b"})

    assert await ids(queue, labels={"a": ""}) == []
    assert await ids(queue, labels={"a": "b", "c": "d"}) == []
    assert len(await ids(queue, labels={"a": "b"})) == 1


async def test_since_is_about_when_work_was_submitted(queue: Queue) -> None:
    work_id = await queue.submit()
    now = datetime.now(UTC)

    assert await ids(queue, since=now - timedelta(minutes=1)) == [work_id]
    assert await ids(queue, since=now + timedelta(minutes=1)) == []


async def test_a_list_that_takes_too_long_is_refused_and_says_what_to_do(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.submit()
    monkeypatch.setattr(execution_log, "_LONGEST_SEARCH", "50ms")

    async with queue.pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE work_queue IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(InvalidInput, match="ask for less"):
            await listed(queue)

    assert len(await listed(queue)) == 1
    assert await statement_timeout(queue) == "15s"


async def statement_timeout(queue: Queue) -> str:
    async with transaction(queue.pool) as db:
        assert isinstance(db, asyncpg.pool.PoolConnectionProxy)
        timeout: str = await db.fetchval("SHOW statement_timeout")
    return timeout

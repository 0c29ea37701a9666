"""Tenants: what they are told, and how much they may submit."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from brokkr.broker.db.generators import keep_budget, lock_budget
from brokkr.broker.db.pool import transaction
from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimOne, SubmitBatch, SubmitWork, WorkState
from brokkr.wire.tenants import CreatedGenerator, CreateGenerator, LimitGenerator
from brokkr.work.errors import (
    GeneratorNameTaken,
    GeneratorNotFound,
    IdempotencyKeyReused,
    LimitReached,
    Unauthenticated,
    WorkNotFound,
)
from support.factories import a_build_template

from .conftest import Served


def a_submission(agent: str = "nobody", **fields: Any) -> SubmitWork:
    body = {"work_type": "build", "template": a_build_template(), "target": {"agents": [agent]}}
    return SubmitWork.model_validate(body | fields)


async def a_generator(
    served: Served, name: str = "team", **limits: int
) -> tuple[CreatedGenerator, BrokerClient]:
    generator = await served.admin.create_generator(CreateGenerator(name=name, **limits))
    return generator, await served.client(generator.key)


async def submit(client: BrokerClient, count: int = 1, **fields: Any) -> list[int]:
    """Submit a batch, and return the status of each item."""
    items = [a_submission(**fields).model_dump(exclude_unset=True) for _ in range(count)]
    answers = await client.submit_some(SubmitBatch(items=items))
    return [each.status for each in answers]


async def refill(served: Served, seconds: float) -> None:
    """Let so much time pass for all generators."""
    await served.broker.pool.execute(
        "UPDATE generators SET tokens_at = tokens_at - make_interval(secs => $1)", seconds
    )


async def test_a_generators_work_carries_its_name_from_the_queue_into_the_log(
    served: Served,
) -> None:
    generator, client = await a_generator(served)
    agent, worker = await served.an_agent()
    work = await client.submit_work(a_submission(agent.name))
    cancelled = await client.submit_work(a_submission())
    await worker.claim_work(work.id, ClaimOne())

    await client.cancel_work(cancelled.id)

    for work_id, status in ((work.id, WorkState.CLAIMED), (cancelled.id, WorkState.CANCELLED)):
        seen = await served.admin.get_work(work_id)
        assert (seen.status, seen.generator, seen.generator_id) == (status, "team", generator.id)
    actors = await served.broker.pool.fetch(
        "SELECT actor FROM work_events WHERE work_id = $1 ORDER BY number", cancelled.id
    )
    assert [row["actor"] for row in actors] == ["generator:team", "generator:team"]


async def test_generators_are_listed_by_name_in_pages(served: Served) -> None:
    for name in ("c", "a", "b"):
        await a_generator(served, name)

    first = await served.admin.list_generators(limit=2)
    second = await served.admin.list_generators(limit=2, cursor=first.next_cursor)

    assert [each.name for each in [*first.items, *second.items]] == ["a", "b", "c"]
    assert second.next_cursor is None


async def test_what_is_pending_is_counted_and_what_is_claimed_is_not(served: Served) -> None:
    agent, worker = await served.an_agent()
    _, client = await a_generator(served)
    works = [await client.submit_work(a_submission(agent.name)) for _ in range(3)]
    await worker.claim_work(works[0].id, ClaimOne())

    assert (await served.admin.get_generator("team")).pending == 2
    assert [each.pending for each in (await served.admin.list_generators()).items] == [2]


async def test_a_deleted_generator_is_gone_and_its_work_goes_on(served: Served) -> None:
    agent, worker = await served.an_agent()
    first, client = await a_generator(served)
    work = await client.submit_work(a_submission(agent.name))

    await served.admin.delete_generator("team")

    with pytest.raises(Unauthenticated):
        await client.get_work(work.id)
    with pytest.raises(GeneratorNotFound):
        await served.admin.get_generator(first.id)
    with pytest.raises(GeneratorNotFound):
        await served.admin.rotate_generator_key("team")
    with pytest.raises(GeneratorNotFound):
        await served.admin.delete_generator("team")
    assert (await worker.claim_work(work.id, ClaimOne())).round == 1
    assert (await served.admin.get_work(work.id)).generator == "team"


async def test_a_name_is_free_again_and_its_new_owner_does_not_inherit(served: Served) -> None:
    _, client = await a_generator(served)
    work = await client.submit_work(a_submission())
    with pytest.raises(GeneratorNameTaken):
        await a_generator(served)

    await served.admin.delete_generator("team")
    _, successor = await a_generator(served)

    with pytest.raises(WorkNotFound):
        await successor.get_work(work.id)


async def test_a_rotated_key_replaces_the_old_one(served: Served) -> None:
    generator, client = await a_generator(served)
    work = await client.submit_work(a_submission())

    rotated = await served.admin.rotate_generator_key("team")

    assert rotated.id == generator.id
    with pytest.raises(Unauthenticated):
        await client.get_work(work.id)
    assert (await (await served.client(rotated.key)).get_work(work.id)).id == work.id


async def test_limits_are_set_and_removed_one_by_one(served: Served) -> None:
    await a_generator(served, max_pending=5)

    added = await served.admin.limit_generator("team", LimitGenerator(max_submissions_per_minute=7))
    removed = await served.admin.limit_generator("team", LimitGenerator(max_pending=None))

    assert (added.max_pending, added.max_submissions_per_minute) == (5, 7)
    assert (removed.max_pending, removed.max_submissions_per_minute) == (None, 7)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "Team 7"}, "name"),
        ({"name": ""}, "name"),
        ({"name": str(uuid4())}, "name"),
        ({"name": uuid4().hex}, "name"),
        ({"name": "a", "max_pending": -1}, "max_pending"),
        ({"name": "a", "max_submissions_per_minute": 0}, "max_submissions_per_minute"),
        ({"name": "a", "max_pendings": 1}, "max_pendings"),
        ({}, "name"),
    ],
)
async def test_creation_names_the_field_that_it_refuses(
    served: Served, body: dict[str, Any], field: str
) -> None:
    status, problem = await served.request("POST", "/api/v1/generators", json=body)

    assert (status, problem["field"]) == (422, field)


async def test_a_generator_cannot_have_more_pending_than_its_limit(served: Served) -> None:
    agent, worker = await served.an_agent()
    _, client = await a_generator(served, max_pending=2)
    works = [await client.submit_work(a_submission(agent.name)) for _ in range(2)]

    with pytest.raises(LimitReached) as reached:
        await client.submit_work(a_submission())
    assert "2 pending" in str(reached.value)

    await worker.claim_work(works[0].id, ClaimOne())
    await client.submit_work(a_submission())
    with pytest.raises(LimitReached):
        await client.submit_work(a_submission())
    await client.cancel_work(works[1].id)
    await client.submit_work(a_submission())


async def test_a_generator_cannot_submit_faster_than_its_limit(served: Served) -> None:
    _, client = await a_generator(served, max_submissions_per_minute=6)
    assert await submit(client, 8) == [201] * 6 + [429] * 2

    await refill(served, 21)
    assert await submit(client, 3) == [201] * 2 + [429]
    await refill(served, 3600)
    assert await submit(client, 8) == [201] * 6 + [429] * 2


async def test_who_is_refused_is_told_when_to_come_back(served: Served) -> None:
    generator, client = await a_generator(served, max_submissions_per_minute=6)
    await submit(client, 6)

    async with served.http.post(
        f"{served.url}/api/v1/work",
        headers={"Authorization": f"Bearer {generator.key}"},
        json=a_submission().model_dump(exclude_unset=True),
    ) as response:
        problem = await response.json(content_type=None)

    assert (response.status, problem["code"]) == (429, "limit_reached")
    assert response.headers["Retry-After"] == "10"
    assert 9 < problem["retry_after"] <= 10
    await refill(served, problem["retry_after"])
    await client.submit_work(a_submission())


async def test_a_repeat_costs_nothing_and_is_answered_beyond_the_limit(served: Served) -> None:
    _, client = await a_generator(served, max_submissions_per_minute=1, max_pending=1)
    first = await client.submit_work(a_submission(idempotency_key="once"))

    again = await client.submit_work(a_submission(idempotency_key="once"))

    assert again.id == first.id
    with pytest.raises(IdempotencyKeyReused):
        await client.submit_work(a_submission(idempotency_key="once", priority=1))
    with pytest.raises(LimitReached):
        await client.submit_work(a_submission(idempotency_key="another"))


async def test_a_key_of_a_submission_that_was_refused_stands_for_nothing(served: Served) -> None:
    _, client = await a_generator(served, max_submissions_per_minute=60)
    await submit(client, 59)
    keys = ["a", "b", "c", "a"]
    items = [a_submission(idempotency_key=key).model_dump(exclude_unset=True) for key in keys]

    answers = await client.submit_some(SubmitBatch(items=items))
    assert [each.status for each in answers] == [201, 429, 429, 200]
    await refill(served, 5)
    later = await client.submit_some(SubmitBatch(items=items))

    assert [each.status for each in later] == [200, 201, 201, 200]
    assert later[1].work is not None
    assert (await client.get_work(later[1].work.id)).status is WorkState.PENDING


async def test_generators_do_not_share_idempotency_keys(served: Served) -> None:
    _, mine = await a_generator(served, "mine")
    _, other = await a_generator(served, "other")

    first = await mine.submit_work(a_submission(idempotency_key="once"))
    second = await other.submit_work(a_submission(idempotency_key="once", priority=1))

    assert first.id != second.id


async def test_bad_items_of_a_batch_cost_nothing(served: Served) -> None:
    _, client = await a_generator(served, max_pending=1)
    good = a_submission().model_dump(exclude_unset=True)

    answers = await client.submit_some(SubmitBatch(items=[{}, good, good]))

    assert [each.status for each in answers] == [422, 201, 429]
    assert answers[2].problem is not None
    assert answers[2].problem["retry_after"] > 0


async def test_submissions_at_once_do_not_slip_through_a_limit(served: Served) -> None:
    _, client = await a_generator(served, max_pending=5)

    async def attempt() -> bool:
        try:
            await client.submit_work(a_submission())
        except LimitReached:
            return False
        return True

    accepted = await asyncio.gather(*(attempt() for _ in range(20)))

    assert accepted.count(True) == 5
    assert (await served.admin.get_generator("team")).pending == 5


async def test_a_generator_that_may_have_nothing_pending_is_stopped(served: Served) -> None:
    _, client = await a_generator(served, max_pending=0)

    with pytest.raises(LimitReached):
        await client.submit_work(a_submission())


async def test_a_limit_that_is_lowered_holds_at_once(served: Served) -> None:
    _, client = await a_generator(served, max_submissions_per_minute=100)
    await submit(client, 1)

    await served.admin.limit_generator("team", LimitGenerator(max_submissions_per_minute=2))

    assert await submit(client, 3) == [201, 201, 429]


async def test_one_generators_limit_is_not_anothers(served: Served) -> None:
    _, full = await a_generator(served, "full", max_pending=1)
    _, free = await a_generator(served, "free", max_pending=1)
    await full.submit_work(a_submission())

    await free.submit_work(a_submission())
    await served.admin.submit_work(a_submission())
    with pytest.raises(LimitReached):
        await full.submit_work(a_submission())


async def test_while_a_generator_submits_its_other_work_can_be_finished(served: Served) -> None:
    generator, client = await a_generator(served, max_pending=5)
    work = await client.submit_work(a_submission())

    async with transaction(served.broker.pool) as db:
        await lock_budget(db, generator.id)
        async with asyncio.timeout(5):
            await served.admin.cancel_work(work.id)


async def test_a_submission_that_began_before_another_ended_mints_no_tokens(
    served: Served,
) -> None:
    generator, client = await a_generator(served, max_submissions_per_minute=6)
    async with transaction(served.broker.pool) as db:
        began_at = await db.fetchval("SELECT now()")
        await submit(client, 6)
        budget = await lock_budget(db, generator.id)
        await keep_budget(db, generator.id, budget)

    row = await served.broker.pool.fetchrow("SELECT tokens, tokens_at FROM generators")
    assert row is not None
    assert row["tokens"] < 1
    assert row["tokens_at"] > began_at


async def test_a_key_that_has_expired_does_not_open_a_limit(served: Served) -> None:
    _, client = await a_generator(served, max_pending=1)
    await client.submit_work(a_submission(idempotency_key="once"))
    await served.broker.pool.execute("UPDATE idempotency_keys SET expires_at = now()")

    with pytest.raises(LimitReached):
        await client.submit_work(a_submission(idempotency_key="once"))


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_limit_heals_at_once_when_the_clock_was_set(served: Served, hours: int) -> None:
    """Whether it was ahead when the tokens were counted, or is now."""
    _, client = await a_generator(served, max_submissions_per_minute=2)
    await submit(client, 2)
    with pytest.raises(LimitReached):
        await client.submit_work(a_submission())
    await refill(served, hours * 3600)

    await submit(client, 2)

    with pytest.raises(LimitReached):
        await client.submit_work(a_submission())

"""What happened to a Work: each change once, in order, without gaps."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from brokkr.broker.db.pool import transaction
from brokkr.broker.db.work_events import News, list_news
from brokkr.wire.events import WorkEvent
from brokkr.work.errors import BrokkrError
from support.queue import Queue


async def news_of(queue: Queue, work_id: UUID, after: int = 0, limit: int = 1000) -> News:
    place = (work_id, after)
    async with transaction(queue.pool) as db:
        return (await list_news(db, [place], limit=limit)).get(place, News())


async def events_of(queue: Queue, work_id: UUID) -> list[WorkEvent]:
    return (await news_of(queue, work_id)).events


async def last_of(queue: Queue, work_id: UUID) -> tuple[str, str, dict[str, Any]]:
    """Return the newest event; that there is one for each change, `queue.events` has checked."""
    event = (await events_of(queue, work_id))[-1]
    return event.kind, event.actor, event.detail


async def test_each_change_has_one_event_that_says_who_and_what(queue: Queue) -> None:
    agent = await queue.an_agent("edge-1")
    # Python and PostgreSQL write the zeros at the end of a fraction differently.
    later = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    delayed = await queue.submit(priority=7, not_before=later)
    work_id = await queue.submit(max_handoffs=1)

    assert await last_of(queue, delayed) == (
        "submitted",
        "admin:test",
        {"work_type": "build", "priority": 7, "not_before": later.isoformat()},
    )
    claim = await queue.claim(work_id, agent)
    of_claim = {"claim_id": str(claim.claim_id), "round": 1}
    assert await last_of(queue, work_id) == (
        "claimed",
        "agent:edge-1",
        {**of_claim, "lease_seconds": 3600},
    )
    await queue.lose(claim)
    assert await last_of(queue, work_id) == (
        "lease_lost",
        "broker",
        {**of_claim, "agent": "edge-1", "lost_claims": 1},
    )
    await queue.renew(claim, by=agent)
    assert await last_of(queue, work_id) == ("lease_revived", "agent:edge-1", of_claim)
    await queue.release(claim, agent, reason="draining")
    assert await last_of(queue, work_id) == (
        "released",
        "agent:edge-1",
        {**of_claim, "agent": "edge-1", "message": "draining"},
    )
    claim = await queue.claim(work_id, agent)
    await queue.complete(claim, agent, success=False, retryable=True, message="evicted")
    of_claim = {"claim_id": str(claim.claim_id), "round": 2}
    assert await last_of(queue, work_id) == (
        "handed_off",
        "agent:edge-1",
        {**of_claim, "agent": "edge-1", "message": "evicted", "retries": 0},
    )
    claim = await queue.claim(work_id, agent)
    await queue.cancel(work_id)
    assert await last_of(queue, work_id) == ("cancel_requested", "admin:test", {"agent": "edge-1"})
    await queue.complete(claim, agent, success=None, outcome="cancelled", message="stopped")
    of_claim = {"claim_id": str(claim.claim_id), "round": 3}
    assert await last_of(queue, work_id) == (
        "completed",
        "agent:edge-1",
        {**of_claim, "outcome": "cancelled", "message": "stopped", "retries": 0},
    )
    await queue.requeue(work_id)
    kind, actor, detail = await last_of(queue, work_id)
    assert (kind, actor, detail["outcome"]) == ("requeued", "admin:test", "cancelled")
    await queue.cancel(work_id)
    kind, actor, detail = await last_of(queue, work_id)
    assert (kind, actor, detail["outcome"]) == ("cancelled", "admin:test", "cancelled")

    assert await queue.events(work_id) == [
        *("submitted", "claimed", "lease_lost", "lease_revived", "released", "claimed"),
        *("handed_off", "claimed", "cancel_requested", "completed", "requeued", "cancelled"),
    ]


async def test_who_cancels_a_claimed_work_again_changes_nothing(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    await queue.claim(work_id, by=agent)
    await queue.cancel(work_id)
    before = await queue.everything()

    await queue.cancel(work_id)

    assert await queue.everything() == before


async def test_only_what_is_new_in_a_report_is_an_event(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()
    claim = await queue.claim(work_id, agent)

    for fields in (
        {"message": "pulling"},
        {"message": "pulling"},
        {"message": "pushing"},
        {"attempt": 2, "retries": 1, "phase": "Pending", "message": "evicted"},
        {"attempt": 2, "retries": 1, "phase": "Pending", "message": "evicted"},
        {"attempt": 2, "retries": 1},
    ):
        await queue.progress(claim, agent, **fields)

    assert (await queue.events(work_id))[2:] == [
        *("progress", "progress", "attempt_failed", "progress")
    ]
    assert (await queue.look(work_id)).progress is not None


async def test_an_agent_that_talks_without_end_does_not_fill_the_table(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokkr.broker.db.claims._MAX_EVENTS", 5)
    agent = await queue.an_agent()
    work_id = await queue.submit()

    for _ in range(2):  # each claim has as many anew
        claim = await queue.claim(work_id, agent)
        for number in range(9):
            await queue.progress(claim, agent, message=f"step {number}")
        progress = (await queue.look(work_id)).progress
        assert progress is not None
        assert progress.message == "step 8"
        await queue.lose(claim)

    assert await queue.events(work_id) == [
        "submitted",
        *("claimed", *["progress"] * 5, "lease_lost"),
        *("claimed", *["progress"] * 5, "lease_lost"),
    ]


async def test_numbers_have_no_gaps_whoever_races(queue: Queue) -> None:
    agents = [await queue.an_agent() for _ in range(3)]
    works = [await queue.submit(max_handoffs=3) for _ in range(3)]

    async def attempts(step: Callable[[], Awaitable[object]]) -> None:
        for _ in range(12):
            with suppress(BrokkrError):  # it lost the race, and left nothing behind
                await step()

    def steps(work_id: UUID) -> list[Callable[[], Awaitable[object]]]:
        async def one_life(agent: Any = agents[0]) -> None:
            claim = await queue.claim(work_id, agent)
            await asyncio.gather(
                *(queue.progress(claim, agent, message=f"step {each}") for each in range(3)),
                queue.lose(claim),
                queue.renew(claim, by=agent),
                return_exceptions=True,
            )
            await queue.complete(claim, agent, success=False, retryable=True)

        return [
            *(lambda agent=agent: one_life(agent) for agent in agents),
            lambda: queue.order_release(work_id),
            lambda: queue.requeue(work_id),
            queue.sweep,
        ]

    await asyncio.gather(*(attempts(step) for work_id in works for step in steps(work_id)))

    for work_id in works:
        kinds = await queue.events(work_id)  # checks that the numbers have no gaps
        assert len(kinds) > 10
        stored = await queue.pool.fetchval("SELECT events FROM works WHERE id = $1", work_id)
        assert stored == len(kinds)
        at = [event.at for event in await events_of(queue, work_id)]
        assert len(at) == len(kinds)


async def test_news_are_told_of_many_works_at_once_and_only_where_there_are_some(
    queue: Queue,
) -> None:
    agent = await queue.an_agent()
    quiet, busy, done = [await queue.submit() for _ in range(3)]
    await queue.claim(busy, agent)
    await queue.complete(await queue.claim(done, agent), agent)
    gone = UUID(int=1)
    places = [(quiet, 1), (busy, 0), (busy, 1), (done, 1), (done, 3), (gone, 0)]

    async with transaction(queue.pool) as db:
        found = await list_news(db, places, limit=2)

    told = {
        place: ([event.kind for event in news.events], news.is_over)
        for place, news in found.items()
    }
    assert told == {
        (busy, 0): (["submitted", "claimed"], False),
        (busy, 1): (["claimed"], False),
        (done, 1): (["claimed", "completed"], False),  # there may be more than the limit
        (done, 3): ([], True),
        (gone, 0): ([], True),
    }
    assert (await news_of(queue, done, after=2)).is_over

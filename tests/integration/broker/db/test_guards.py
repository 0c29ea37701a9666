"""
What belongs to somebody else stays as it is, whatever statement is sent at it.

Each statement with a guard is sent by an agent, with a claim, in each situation in which it
may not have its way; nothing that is kept of the Work may change by it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest

from brokkr.broker.db import claims, statements, work_queue
from brokkr.broker.db.pool import Connection, transaction
from brokkr.broker.db.statements import fetch_all, statement
from brokkr.wire.bodies import AgentBody
from support.queue import Queue, holder
from support.signals import eventually


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An agent that wants something of a Work, and with which claim."""

    work_id: UUID
    claim_id: UUID
    by: AgentBody


Rows = list[asyncpg.Record]
Send = Callable[[Connection, Attempt], Awaitable[Rows]]


async def _claim_work(db: Connection, attempt: Attempt) -> Rows:
    return await fetch_all(
        db,
        "claim_work",
        work_id=attempt.work_id,
        agent_id=attempt.by.id,
        request_id=None,
        actor="",
    )


async def _claim_some_work(db: Connection, attempt: Attempt) -> Rows:
    rows = await fetch_all(
        db,
        "claim_some_work",
        agent_id=attempt.by.id,
        types=None,
        limit=10,
        depth=10,
        request_id=None,
        waited=0.0,
        actor="",
    )
    return [row for row in rows if row["id"] is not None]


async def _renew_claims(db: Connection, attempt: Attempt) -> Rows:
    return await fetch_all(
        db, "renew_claims", claim_ids=[attempt.claim_id], agent_id=attempt.by.id, actor=""
    )


async def _record_progress(db: Connection, attempt: Attempt) -> Rows:
    return await fetch_all(
        db,
        "record_progress",
        work_id=attempt.work_id,
        claim_id=attempt.claim_id,
        agent_id=attempt.by.id,
        actor="",
        progress={"phase": "Running", "attempt": 1, "retries": 0},
        max_events=100,
    )


async def _finish_work(db: Connection, attempt: Attempt) -> Rows:
    report = {
        "work_id": str(attempt.work_id),
        "claim_id": str(attempt.claim_id),
        "outcome": "succeeded",
        "ended_as": "completed",
    }
    return await fetch_all(
        db, "finish_work", reports=[report], actor="", kind="completed", agent_id=attempt.by.id
    )


async def _lock_claimed_work(db: Connection, attempt: Attempt) -> Rows:
    return await fetch_all(
        db,
        "lock_claimed_work",
        work_ids=[attempt.work_id],
        claim_ids=[attempt.claim_id],
        agent_id=attempt.by.id,
    )


async def _lock_held_work(db: Connection, attempt: Attempt) -> Rows:
    return await fetch_all(db, "lock_held_work", agent_id=attempt.by.id)


async def _lock_listed_claims(db: Connection, attempt: Attempt) -> Rows:
    return await fetch_all(
        db, "lock_listed_claims", claim_ids=[attempt.claim_id], agent_id=attempt.by.id
    )


# -- situations ------------------------------------------------------------------------


async def _another_holds_it(queue: Queue) -> Attempt:
    owner, thief = await queue.an_agent(), await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=owner)
    await queue.lapse(claim)
    return Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=thief)


async def _another_has_just_claimed_it(queue: Queue) -> Attempt:
    owner, thief = await queue.an_agent(), await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=owner)
    return Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=thief)


async def _another_has_lost_it(queue: Queue) -> Attempt:
    owner, thief = await queue.an_agent(), await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=owner)
    await queue.lose(claim)
    return Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=thief)


async def _another_has_taken_it_since(queue: Queue) -> Attempt:
    earlier, owner = await queue.an_agent(), await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=earlier)
    await queue.lose(claim)
    await queue.lapse(await queue.claim(claim.work_id, by=owner))
    return Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=earlier)


async def _it_has_a_newer_claim_itself(queue: Queue) -> Attempt:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lose(claim)
    await queue.lapse(await queue.claim(claim.work_id, by=agent))
    return Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=agent)


async def _it_has_given_it_back(queue: Queue) -> Attempt:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.release(claim, by=agent)
    return Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=agent)


async def _it_is_finished_and_queued_again(queue: Queue) -> Attempt:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.complete(claim, by=agent)
    await queue.requeue(claim.work_id)
    return Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=agent)


async def _it_is_finished(queue: Queue) -> Attempt:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.complete(claim, by=agent)
    return Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=agent)


async def _it_is_not_for_this_agent(queue: Queue) -> Attempt:
    owner, stranger = await queue.an_agent("owner"), await queue.an_agent()
    claim = await queue.claim(await queue.submit({"agents": ["owner"]}), by=owner)
    await queue.release(claim, by=owner)
    return Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=stranger)


async def _it_cannot_execute_the_type_now(queue: Queue) -> Attempt:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.release(claim, by=agent)
    await queue.declare(agent, build="no disk")
    return Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=agent)


Situation = Callable[[Queue], Awaitable[Attempt]]
BY_CLAIM: Final[tuple[Situation, ...]] = (
    _another_holds_it,
    _another_has_just_claimed_it,
    _another_has_lost_it,
    _another_has_taken_it_since,
    _it_has_a_newer_claim_itself,
    _it_has_given_it_back,
    _it_is_finished,
    _it_is_finished_and_queued_again,
    _it_is_not_for_this_agent,
)
TO_CLAIM: Final[tuple[Situation, ...]] = (
    _another_holds_it,
    _another_has_taken_it_since,
    _it_has_a_newer_claim_itself,
    _it_is_finished,
    _it_is_not_for_this_agent,
    _it_cannot_execute_the_type_now,
)
OF_AN_AGENT: Final[tuple[Situation, ...]] = (
    _another_holds_it,
    _another_has_taken_it_since,
    _it_is_not_for_this_agent,
)

GUARDED: Final[dict[str, tuple[Send, tuple[Situation, ...]]]] = {
    "claim_some_work": (_claim_some_work, TO_CLAIM),
    "claim_work": (_claim_work, TO_CLAIM),
    "finish_work": (_finish_work, BY_CLAIM),
    "lock_claimed_work": (_lock_claimed_work, BY_CLAIM),
    "lock_held_work": (_lock_held_work, OF_AN_AGENT),
    "lock_listed_claims": (_lock_listed_claims, BY_CLAIM),
    "record_progress": (_record_progress, BY_CLAIM),
    "renew_claims": (_renew_claims, BY_CLAIM),
}
"""By the statement's name: who sends it, and in which situations it must do nothing."""

BY_WHO_HOLDS_THE_LOCK: Final = {
    "give_back_work",
    "move_to_selector",
    "request_cancel",
}
"""These have no guard of their own: their caller has locked the Work and seen whose it is."""

NOBODY_S: Final = {
    "enter_lanes",
    "extend_leases",
    "shorten_leases",
    "insert_work",
    "lock_expired_work",
    "lock_stale_claims",
    "lock_work",
    "postpone_lease_checks",
    "requeue_work",
}
"""These do what time, the broker or a user wants, to Work that is anybody's."""


@pytest.mark.parametrize(
    ("name", "situation"),
    [
        pytest.param(name, situation, id=f"{name}-if{situation.__name__}")
        for name, (_, situations) in GUARDED.items()
        for situation in situations
    ],
)
async def test_a_statement_changes_nothing_for_an_agent_that_may_not(
    queue: Queue, name: str, situation: Situation
) -> None:
    attempt = await situation(queue)
    before = await queue.everything()

    async with transaction(queue.pool) as db:
        send, _ = GUARDED[name]
        assert await send(db, attempt) == []

    assert await queue.everything() == before


async def _take(db: Connection, work_id: UUID, by: AgentBody) -> None:
    await claims.claim_work(db, work_id, by=holder(by))


async def _end(db: Connection, work_id: UUID, by: AgentBody) -> None:
    await work_queue.cancel_work(db, work_id, actor="admin:test")


@pytest.mark.parametrize("change", [_take, _end])
@pytest.mark.parametrize("name", ["claim_work", "finish_work", "lock_claimed_work", "renew_claims"])
async def test_a_statement_that_waits_for_a_work_sees_whose_it_is_then(
    queue: Queue, name: str, change: Callable[[Connection, UUID, AgentBody], Awaitable[None]]
) -> None:
    """An agent's lost claim is still its own when the statement begins."""
    earlier, owner = await queue.an_agent(), await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=earlier)
    await queue.lose(claim)
    attempt = Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=earlier)
    send, _ = GUARDED[name]

    async def sent() -> tuple[Rows, dict[str, Any]]:
        async with transaction(queue.pool) as db:
            rows = await send(db, attempt)
        return rows, await queue.everything()

    async with transaction(queue.pool) as db:
        await change(db, claim.work_id, owner)
        sending = asyncio.create_task(sent())
        await eventually(queue.somebody_waits)
    before = await queue.everything()
    rows, after = await sending

    assert rows == []
    assert after == before


@pytest.mark.parametrize("name", ["lock_held_work", "lock_listed_claims", "record_progress"])
async def test_a_statement_that_waits_for_a_held_work_finds_that_it_is_lost(
    queue: Queue, name: str
) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)
    await queue.lapse(claim)
    attempt = Attempt(work_id=claim.work_id, claim_id=claim.claim_id, by=agent)
    send, _ = GUARDED[name]

    async def sent() -> Rows:
        async with transaction(queue.pool) as db:
            return await send(db, attempt)

    async with transaction(queue.pool) as db:
        await work_queue.release_stale_claims(db, max_lost_claims=3, limit=10)
        sending = asyncio.create_task(sent())
        await eventually(queue.somebody_waits)
    before = await queue.everything()

    assert await sending == []
    assert await queue.everything() == before


def test_every_statement_that_locks_or_changes_the_queue_is_guarded_or_says_why_not() -> None:
    touches = re.compile(
        r"(UPDATE|DELETE FROM|INSERT INTO) work_queue\b|\bwork_queue\b.*FOR (NO KEY )?UPDATE",
        re.DOTALL,
    )
    names = {path.stem for path in (Path(statements.__file__).parent / "queries").glob("*.sql")}
    found = {name for name in names if touches.search(statement(name).sql)}

    assert sorted(found) == sorted([*GUARDED, *BY_WHO_HOLDS_THE_LOCK, *NOBODY_S])

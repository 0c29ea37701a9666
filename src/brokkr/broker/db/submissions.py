"""
Work on its way into the queue: lanes, idempotency keys, and the rows themselves.

Several Works are stored with one statement; one Work is the shortest such list.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import orjson

from brokkr.broker.db.execution_log import get_works
from brokkr.broker.db.generators import keep_budget, lock_budget
from brokkr.broker.db.lanes import Lane, LaneLimits, Room, find_room
from brokkr.broker.db.pool import Connection
from brokkr.broker.db.selectors import digest_of, selectors_of
from brokkr.broker.db.statements import fetch_all, fetch_one
from brokkr.broker.db.work_ids import new_work_id
from brokkr.wire.bodies import SubmitWork, WorkBody, WorkState
from brokkr.wire.custom_resource import API_VERSION, KIND, render_spec
from brokkr.work.errors import IdempotencyKeyReused, LimitReached
from brokkr.work.model import Manifest

Refused: TypeAlias = IdempotencyKeyReused | LimitReached
"""Why a submission is not accepted that has nothing wrong with it."""

_KEY_LIFETIME = timedelta(hours=24)
_NO_LIMITS = LaneLimits()
_NO_OWNER = UUID(int=0)
"""Whose idempotency keys those of admins are."""


class _NoLane(Exception):
    """A target among those of a submission is no lane, so nothing was queued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A Work to be queued, checked.

    Attributes:
        template: What ``body.template`` means, as one object.
    """

    body: SubmitWork
    template: Manifest

    @property
    def lane(self) -> Lane:
        """Return where it will wait."""
        return digest_of(self.body.targets), self.body.work_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitter:
    """On whose behalf Work is queued.

    Attributes:
        actor: How the audit trail names who it was.
        generator_id: The tenant; None for an admin.
    """

    actor: str
    generator_id: UUID | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A Work that is queued; or was, by an earlier request with the same key.

    Attributes:
        selector_id: Its lane, if it can be claimed at once and is new.
    """

    work: WorkBody
    is_new: bool
    selector_id: int | None = None

    @property
    def work_id(self) -> UUID:
        """Return its id."""
        return self.work.id


async def submit_work(
    db: Connection,
    submissions: Sequence[Submission],
    *,
    by: Submitter,
    limits: LaneLimits = _NO_LIMITS,
    now_ns: Callable[[], int] = time.time_ns,
) -> list[Submitted | Refused]:
    """
    Queue Works in this order, as many as the generator may submit.

    Those whose idempotency key is known are there already, and cost nothing.

    Args:
        db: Outside a transaction: one statement does it, unless a target or a key among them
            makes more of it, or the generator has limits.
        limits: How many targets may become lanes.
        now_ns: The time at the database, for the ids.
    """
    if not submissions:
        return []
    new = [(new_work_id(now_ns), each) for each in submissions]
    # Broken by a key that another request is keeping at this moment, or that is there twice.
    with suppress(asyncpg.UniqueViolationError):
        if stored := await _insert(db, new, by=by, is_alone=True):
            return list(stored)
    with suppress(_NoLane):
        async with db.transaction():
            return await _submit_one_by_one(db, new, by=by)
    async with db.transaction():
        return await _submit_one_by_one(db, new, by=by, limits=limits)


async def _submit_one_by_one(
    db: Connection,
    asked: Sequence[tuple[UUID, Submission]],
    *,
    by: Submitter,
    limits: LaneLimits | None = None,
) -> list[Submitted | Refused]:
    """
    Ask of each whether it is known, and whether it may be submitted; then queue the rest.

    Args:
        limits: How many targets may become lanes.

    Raises:
        _NoLane: A target would have to become one, and no limits are given.
    """
    results: list[UUID | Refused] = []
    new: list[tuple[UUID, Submission]] = []
    budget = await lock_budget(db, by.generator_id)
    keys = [key for _, each in asked if (key := each.body.idempotency_key) is not None]
    if len(keys) > 1:
        await fetch_all(db, "lock_idempotency_keys", owner=_owner_of_keys(by), keys=keys)
    room: Room | None = None
    if limits is not None:
        lanes = {each.lane for _, each in asked}
        room = await find_room(db, lanes, generator_id=by.generator_id, limits=limits)
    for work_id, each in asked:
        limit = budget.problem() or (room and room.problem(each.lane))
        known = await _known_by_key(db, each.body, None if limit else work_id, by=by)
        results.append(known or limit or work_id)
        if known is None and limit is None:
            budget.spend()
            if room is not None:
                room.take(each.lane)
            new.append((work_id, each))
    if new and room is not None:
        wanted = ((each.body.work_type, each.body.targets) for _, each in new)
        await selectors_of(db, wanted, generator_id=by.generator_id)
    queued = await _insert(db, new, by=by) if new else []
    if new and not queued:
        raise _NoLane
    stored = {each.work_id: each for each in queued}
    if new:
        await keep_budget(db, by.generator_id, budget)
    earlier = [each for each in results if isinstance(each, UUID) and each not in stored]
    works = await get_works(db, earlier) if earlier else {}
    works |= {work_id: each.work for work_id, each in stored.items()}
    # Of several with one key in one request the first is new.
    return [
        stored.pop(each, Submitted(work=works[each], is_new=False))
        if isinstance(each, UUID)
        else each
        for each in results
    ]


async def _insert(
    db: Connection,
    new: Sequence[tuple[UUID, Submission]],
    *,
    by: Submitter,
    is_alone: bool = False,
) -> list[Submitted]:
    """Queue Works with one statement: all, or none; see ``queries/insert_work.sql``."""
    resources = {work_id: _resource(each, work_id=work_id) for work_id, each in new}
    rows = await fetch_all(
        db,
        "insert_work",
        works=[
            _row(each.body, work_id=work_id, resource=resources[work_id], is_alone=is_alone)
            for work_id, each in new
        ],
        is_alone=is_alone,
        owner=_owner_of_keys(by),
        key_lifetime=_KEY_LIFETIME,
        generator_id=by.generator_id,
        actor=by.actor,
        traceparent=by.traceparent,
    )
    stored = {row["id"]: row for row in rows}
    return [
        Submitted(
            work=_body(each.body, stored[work_id], resource=resources[work_id], by=by),
            is_new=True,
            selector_id=stored[work_id]["selector_id"] if stored[work_id]["is_due"] else None,
        )
        for work_id, each in new
        if stored
    ]


async def _known_by_key(
    db: Connection, body: SubmitWork, work_id: UUID | None, *, by: Submitter
) -> UUID | IdempotencyKeyReused | None:
    """
    Return the Work that the body's key stands for, if it is known.

    Args:
        work_id: What it stands for from now on, if it is not; None keeps nothing.
    """
    if body.idempotency_key is None:
        return None
    owner, digest = _owner_of_keys(by), _digest(body)
    if work_id is None:
        row = await fetch_one(db, "find_idempotency_key", owner=owner, key=body.idempotency_key)
    else:
        row = await fetch_one(
            db,
            "keep_idempotency_key",
            owner=owner,
            key=body.idempotency_key,
            body_sha256=digest,
            work_id=work_id,
            lifetime=_KEY_LIFETIME,
        )
    if row is None or row["work_id"] == work_id:
        return None
    if row["body_sha256"] != digest:
        return IdempotencyKeyReused(body.idempotency_key)
    known: UUID = row["work_id"]
    return known


def _owner_of_keys(by: Submitter) -> UUID:
    return by.generator_id or _NO_OWNER


def _digest(body: SubmitWork) -> bytes:
    """Digest what was asked for: the order of members and what is default do not matter."""
    content = body.model_dump(mode="json", exclude={"idempotency_key"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def _resource(submission: Submission, *, work_id: UUID) -> dict[str, Any]:
    body = submission.body
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": f"work-{work_id}"},
        "spec": render_spec(
            work_type=body.work_type,
            max_retries=body.max_retries,
            claim_timeout=timedelta(seconds=body.claim_timeout_seconds),
            template=submission.template,
        ),
    }


def _row(body: SubmitWork, *, work_id: UUID, resource: Manifest, is_alone: bool) -> dict[str, Any]:
    keeps_key = is_alone and body.idempotency_key is not None
    return {
        "id": str(work_id),
        "work_type": body.work_type,
        "crd_spec": orjson.dumps(resource).decode(),
        "target_sha256": digest_of(body.targets).hex(),
        "priority": body.priority,
        "max_retries": body.max_retries,
        "max_handoffs": body.max_handoffs,
        "claim_timeout_seconds": body.claim_timeout_seconds,
        "not_before": body.not_before and body.not_before.isoformat(),
        "start_within_seconds": body.start_within_seconds,
        "labels": body.labels,
        "idempotency_key": body.idempotency_key,
        "body_sha256": _digest(body).hex() if keeps_key else None,
    }


def _body(
    body: SubmitWork, row: asyncpg.Record, *, resource: dict[str, Any], by: Submitter
) -> WorkBody:
    """Say what a Work is that was queued just now."""
    return WorkBody(
        id=row["id"],
        work_type=body.work_type,
        status=WorkState.PENDING,
        created_at=row["created_at"],
        priority=body.priority,
        max_retries=body.max_retries,
        claim_timeout_seconds=body.claim_timeout_seconds,
        max_handoffs=body.max_handoffs,
        not_before=row["not_before"],
        start_deadline=row["start_deadline"],
        labels=body.labels,
        generator=row["generator"],
        generator_id=by.generator_id,
        traceparent=by.traceparent,
        target=row["target"],
        eligible_agents=row["eligible_agents"],
        resource=resource,
    )

"""
Work on its way into the queue: lanes, idempotency keys, and the rows themselves.

Several Works are stored with one statement; one Work is the shortest such list.  The
caller owns the transaction.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from brokkr.broker.db.generators import keep_budget, lock_budget
from brokkr.broker.db.pool import Connection
from brokkr.broker.db.selectors import selectors_of
from brokkr.broker.db.statements import fetch_all, fetch_one
from brokkr.wire.bodies import SubmitWork
from brokkr.wire.custom_resource import API_VERSION, KIND, render_spec
from brokkr.work.errors import IdempotencyKeyReused, LimitReached
from brokkr.work.model import Manifest

Refused: TypeAlias = IdempotencyKeyReused | LimitReached
"""Why a submission is not accepted that has nothing wrong with it."""

_KEY_LIFETIME = timedelta(hours=24)
_NO_OWNER = UUID(int=0)
"""Whose idempotency keys those of admins are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A Work to be queued, checked.

    Attributes:
        template: What ``body.template`` means, as one object.
    """

    body: SubmitWork
    template: Manifest


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

    work_id: UUID
    is_new: bool
    selector_id: int | None = None


def new_work_id() -> UUID:
    """Make a UUID of version 7 (RFC 9562): it begins with the time, to a quarter of a µs."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    value = milliseconds << 80 | 7 << 76 | (rest * 4096 // 1_000_000) << 64 | 2 << 62
    return UUID(int=value | secrets.randbits(62))


def first_work_id_at(at: datetime) -> UUID:
    """Return an id below all that are made at that time, by clocks five minutes apart."""
    milliseconds = int(at.timestamp() * 1000) - 5 * 60 * 1000
    return UUID(int=max(milliseconds, 0) << 80)


async def submit_work(
    db: Connection, submissions: Sequence[Submission], *, by: Submitter
) -> list[Submitted | Refused]:
    """
    Queue Works in this order, as many as the generator may submit.

    Those whose idempotency key is known are there already, and cost nothing.
    """
    results: list[Submitted | Refused | None] = []
    new: list[tuple[UUID, Submission]] = []
    budget = await lock_budget(db, by.generator_id)
    keys = [key for each in submissions if (key := each.body.idempotency_key) is not None]
    if len(keys) > 1:
        await fetch_all(db, "lock_idempotency_keys", owner=_owner_of_keys(by), keys=keys)
    for each in submissions:
        work_id = new_work_id()
        limit = budget.problem()
        known = await _known_by_key(db, each.body, None if limit else work_id, by=by)
        results.append(known or limit)
        if known is None and limit is None:
            budget.spend()
            new.append((work_id, each))
    stored: dict[UUID, Submitted] = {}
    if new:
        await keep_budget(db, by.generator_id, budget)
        stored = await _insert(db, new, by=by)
    queued = iter(stored[work_id] for work_id, _ in new)
    return [next(queued) if each is None else each for each in results]


async def _insert(
    db: Connection, new: Sequence[tuple[UUID, Submission]], *, by: Submitter
) -> dict[UUID, Submitted]:
    lanes = await selectors_of(db, ((each.body.work_type, each.body.targets) for _, each in new))
    rows = await fetch_all(
        db,
        "insert_work",
        works=[
            _row(each, work_id=work_id, selector_id=lane)
            for (work_id, each), lane in zip(new, lanes, strict=True)
        ],
        generator_id=by.generator_id,
        actor=by.actor,
        traceparent=by.traceparent,
    )
    return {
        row["id"]: Submitted(
            work_id=row["id"],
            is_new=True,
            selector_id=row["selector_id"] if row["is_due"] else None,
        )
        for row in rows
    }


async def _known_by_key(
    db: Connection, body: SubmitWork, work_id: UUID | None, *, by: Submitter
) -> Submitted | IdempotencyKeyReused | None:
    """
    Return what the body's key stands for, if it is known.

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
    return Submitted(work_id=row["work_id"], is_new=False)


def _owner_of_keys(by: Submitter) -> UUID:
    return by.generator_id or _NO_OWNER


def _digest(body: SubmitWork) -> bytes:
    """Digest what was asked for: the order of members and what is default do not matter."""
    content = body.model_dump(mode="json", exclude={"idempotency_key"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def _row(submission: Submission, *, work_id: UUID, selector_id: int) -> dict[str, Any]:
    body = submission.body
    resource = {
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
    return {
        "id": str(work_id),
        "work_type": body.work_type,
        "crd_spec": json.dumps(resource),
        "selector_id": selector_id,
        "priority": body.priority,
        "max_retries": body.max_retries,
        "max_handoffs": body.max_handoffs,
        "claim_timeout_seconds": body.claim_timeout_seconds,
        "not_before": body.not_before and body.not_before.isoformat(),
        "start_within_seconds": body.start_within_seconds,
        "labels": body.labels,
        "idempotency_key": body.idempotency_key,
    }

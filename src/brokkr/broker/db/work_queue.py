"""
What happens to a Work while it is not finished, and the step that finishes it.

Each function is one transition; the guards stand in the statements, where races are
decided.  The caller owns the transaction.
"""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.selectors import selector_of
from brokkr.broker.db.statements import fetch_all, fetch_one, fetch_value
from brokkr.wire.bodies import (
    CompleteWork,
    PendingWork,
    RenewedLease,
    ReportProgress,
    SubmitWork,
    WorkBody,
    WorkState,
)
from brokkr.wire.custom_resource import API_VERSION, KIND, render_spec
from brokkr.work.errors import ClaimLost, WorkFinished, WorkNotClaimable, WorkNotFound
from brokkr.work.model import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedWork:
    """A Work that was claimed, as its holder needs it."""

    work_id: UUID
    claim_id: UUID
    round: int
    work_type: str
    lease: timedelta
    cancel_requested: bool
    spec: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class LostClaim:
    """A claim whose lease ran out; ``outcome`` if that ended the Work."""

    work_id: UUID
    agent_id: UUID
    outcome: str | None


def new_work_id() -> UUID:
    """Make a UUID of version 7 (RFC 9562): it begins with the time, to a quarter of a µs."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    value = milliseconds << 80 | 7 << 76 | (rest * 4096 // 1_000_000) << 64 | 2 << 62
    return UUID(int=value | secrets.randbits(62))


def first_work_id_at(at: datetime) -> UUID:
    """Return an id below all that are made at that time, by clocks five minutes apart."""
    milliseconds = int(at.timestamp() * 1000) - 5 * 60 * 1000
    return UUID(int=max(milliseconds, 0) << 80)


async def submit_work(db: Connection, body: SubmitWork, template: Manifest) -> UUID:
    """Queue a Work with this template, for those that its targets select; return its id."""
    work_id = new_work_id()
    resource = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": f"work-{work_id}"},
        "spec": render_spec(
            work_type=body.work_type,
            max_retries=body.max_retries,
            claim_timeout=timedelta(seconds=body.claim_timeout_seconds),
            template=template,
        ),
    }
    await fetch_value(
        db,
        "insert_work",
        id=work_id,
        work_type=body.work_type,
        crd_spec=json.dumps(resource),
        selector_id=await selector_of(db, body.targets),
        priority=body.priority,
        max_retries=body.max_retries,
        claim_timeout_seconds=body.claim_timeout_seconds,
    )
    return work_id


async def list_pending_work(
    db: Connection, *, agent_id: UUID, types: Sequence[str] | None, limit: int
) -> list[PendingWork]:
    """List what an agent could claim: highest priority first, then oldest."""
    rows = await fetch_all(db, "list_pending_work", agent_id=agent_id, types=types, limit=limit)
    return [PendingWork.model_validate(dict(row)) for row in rows]


async def claim_work(
    db: Connection, work_id: UUID, *, agent_id: UUID, request_id: UUID | None = None
) -> ClaimedWork:
    """
    Claim one Work for an agent; a repeated ``request_id`` gets the same claim.

    Raises:
        WorkNotFound: It does not exist, or is not for this agent.
        WorkNotClaimable: Somebody else has it, or it is finished.
    """
    earlier = await _requested_before(db, agent_id=agent_id, request_id=request_id)
    if earlier is not None:
        for claim in earlier:
            if claim.work_id == work_id:
                return claim
        raise WorkNotClaimable(work_id)
    row = await fetch_one(
        db, "claim_work", work_id=work_id, agent_id=agent_id, request_id=request_id
    )
    if row is None:
        refusal = await _explain(db, work_id, agent_id=agent_id)
        raise WorkNotClaimable(work_id) if refusal.is_visible else WorkNotFound(work_id)
    return _claimed(row)


async def claim_some_work(
    db: Connection,
    *,
    agent_id: UUID,
    types: Sequence[str] | None = None,
    limit: int = 1,
    request_id: UUID | None = None,
) -> list[ClaimedWork]:
    """Claim the first few Works for an agent; a repeated ``request_id`` gets the same ones."""
    earlier = await _requested_before(db, agent_id=agent_id, request_id=request_id)
    if earlier is not None:
        return earlier
    rows = await fetch_all(
        db, "claim_some_work", agent_id=agent_id, types=types, limit=limit, request_id=request_id
    )
    return [_claimed(row) for row in rows]


async def list_held_claims(db: Connection, *, agent_id: UUID) -> list[ClaimedWork]:
    """List everything that an agent holds."""
    return [_claimed(row) for row in await fetch_all(db, "list_held_claims", agent_id=agent_id)]


async def renew_claims(
    db: Connection, claim_ids: Sequence[UUID], *, agent_id: UUID
) -> list[RenewedLease]:
    """Renew the listed claims of an agent; those that are not returned are lost."""
    rows = await fetch_all(db, "renew_claims", claim_ids=claim_ids, agent_id=agent_id)
    return [RenewedLease.model_validate(dict(row)) for row in rows]


async def report_progress(
    db: Connection, work_id: UUID, body: ReportProgress, *, agent_id: UUID
) -> None:
    """
    Keep what a holder says of its Work; it is alive, so its lease is renewed.

    Raises:
        WorkNotFound: It does not exist, or is not for this agent.
        ClaimLost: The claim is over.
    """
    await renew_claims(db, [body.claim_id], agent_id=agent_id)
    recorded = await fetch_value(
        db,
        "record_progress",
        work_id=work_id,
        claim_id=body.claim_id,
        agent_id=agent_id,
        progress=body.model_dump(mode="json", exclude={"claim_id"}),
    )
    if recorded is None:
        refusal = await _explain(db, work_id, agent_id=agent_id, claim_id=body.claim_id)
        raise refusal.error


async def complete_work(
    db: Connection, work_id: UUID, body: CompleteWork, *, agent_id: UUID
) -> tuple[WorkBody, bool]:
    """
    Move a Work to the execution log; a repeat with the same claim gets the same answer.

    Returns:
        The Work, and whether it was this call that finished it.

    Raises:
        WorkNotFound: It does not exist, or is not for this agent.
        ClaimLost: The claim ended in another way.
    """
    answer = await fetch_value(
        db,
        "complete_work",
        work_id=work_id,
        claim_id=body.claim_id,
        agent_id=agent_id,
        outcome=body.ended_as,
        retries=body.retries,
        retryable=body.retryable,
        message=body.message,
        result=body.result,
    )
    if answer is not None:
        return WorkBody.model_validate(answer), True
    refusal = await _explain(db, work_id, agent_id=agent_id, claim_id=body.claim_id)
    if refusal.answer is None:
        raise refusal.error
    return WorkBody.model_validate(refusal.answer), False


async def cancel_work(db: Connection, work_id: UUID) -> bool:
    """
    Cancel a Work; say whether that was the end of it.

    If not, an agent holds it and will hear of the cancel with its next heartbeat.

    Raises:
        WorkNotFound: There is none.
        WorkFinished: It is in the execution log already.
    """
    status = await fetch_value(db, "cancel_work", work_id=work_id)
    if status is None:
        state = await fetch_value(db, "find_work_state", work_id=work_id)
        raise WorkNotFound(work_id) if state is None else WorkFinished(work_id, state.lower())
    return bool(status == WorkState.PENDING)


async def release_stale_claims(
    db: Connection, *, max_lost_claims: int, limit: int
) -> list[LostClaim]:
    """Give back at most ``limit`` claims whose lease ran out, and return them."""
    rows = await fetch_all(db, "release_stale_claims", max_lost_claims=max_lost_claims, limit=limit)
    return [LostClaim(**dict(row)) for row in rows]


async def lock_sweep(db: Connection) -> bool:
    """Take the turn to look for stale claims, until the transaction ends, if it is free."""
    return bool(await fetch_value(db, "lock_sweep"))


async def extend_leases(db: Connection, *, longest_pause: timedelta) -> None:
    """Give leases back the time in which nobody could renew them, if there was any."""
    await fetch_value(db, "extend_leases", longest_pause_seconds=longest_pause.total_seconds())


async def mark_swept(db: Connection) -> None:
    """Remember that stale claims were looked for now."""
    await fetch_value(db, "mark_swept")


async def count_queue(db: Connection) -> dict[str, int]:
    """Count what is queued, by status."""
    return {row["status"]: row["count"] for row in await fetch_all(db, "count_queue")}


async def get_broker_id(db: Connection) -> UUID:
    """Return the id of this database, by which resources in clusters name their broker."""
    broker_id: UUID = await fetch_value(db, "get_broker_id")
    return broker_id


async def _requested_before(
    db: Connection, *, agent_id: UUID, request_id: UUID | None
) -> list[ClaimedWork] | None:
    """Return what the request was answered before, as far as it holds; None if never."""
    if request_id is None:
        return None
    await fetch_value(db, "lock_claim_request", request_id=request_id)
    rows = await fetch_all(db, "list_requested_claims", agent_id=agent_id, request_id=request_id)
    return [_claimed(row) for row in rows if row["is_held"]] if rows else None


def _claimed(row: asyncpg.Record) -> ClaimedWork:
    return ClaimedWork(
        work_id=row["id"],
        claim_id=row["claim_id"],
        round=row["round"],
        work_type=row["work_type"],
        lease=timedelta(seconds=row["lease_seconds"]),
        cancel_requested=row["cancel_requested"],
        spec=json.loads(row["crd_spec"])["spec"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    work_id: UUID
    state: str | None
    answer: dict[str, Any] | None
    is_visible: bool

    @property
    def error(self) -> WorkNotFound | ClaimLost:
        """Return the error for a report that was refused."""
        if self.is_visible and self.state is not None:
            return ClaimLost(self.work_id, self.state)
        return WorkNotFound(self.work_id)


async def _explain(
    db: Connection, work_id: UUID, *, agent_id: UUID, claim_id: UUID | None = None
) -> _Refusal:
    row = await fetch_one(
        db, "explain_refusal", work_id=work_id, agent_id=agent_id, claim_id=claim_id
    )
    assert row is not None
    return _Refusal(
        work_id=work_id,
        state=row["state"],
        answer=row["answer"],
        is_visible=row["is_visible"],
    )

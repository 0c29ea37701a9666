"""
Claims while they live: given, listed, renewed, reported on.

How a claim ends is in :mod:`brokkr.broker.db.work_queue`.  The guards stand in the
statements, where races are decided.  The caller owns the transaction, but for claims: those
are given outside of any.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_all, fetch_one, fetch_value
from brokkr.wire.bodies import PendingWork, RenewedLease, ReportProgress
from brokkr.wire.custom_resource import INFRASTRUCTURE_RETRIES_SPENT
from brokkr.work.errors import (
    AgentDrained,
    ClaimLost,
    WorkNotClaimable,
    WorkNotFound,
    WorkTypeUnavailable,
)
from brokkr.work.model import Manifest

_MAX_EVENTS: Final = 500
"""How many events one claim is worth, before progress is no event any more."""
_ROOM: Final = 16
"""So many others can claim as much at the same moment, and still it is all to be had."""
_DEEPER: Final = 8
"""So many times as far is looked, if others are taking all that was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The agent that claims and holds.

    Attributes:
        name: For the audit trail.
    """

    id: UUID
    name: str

    @property
    def actor(self) -> str:
        """Return how the audit trail names it."""
        return f"agent:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedWork:
    """A Work that was claimed, as its holder needs it.

    Attributes:
        waited: How long it was to be had, if it was claimed just now.
        selector_id: From which lane, likewise.
    """

    work_id: UUID
    claim_id: UUID
    round: int
    work_type: str
    lease: timedelta
    cancel_requested: bool
    traceparent: str | None = None
    waited: timedelta | None = None
    selector_id: int | None = None
    spec: Manifest


async def list_pending_work(
    db: Connection, *, agent_id: UUID, types: Sequence[str] | None, limit: int
) -> list[PendingWork]:
    """List what an agent could claim: highest priority first, then oldest."""
    rows = await fetch_all(db, "list_pending_work", agent_id=agent_id, types=types, limit=limit)
    return [PendingWork.model_validate(dict(row)) for row in rows]


async def claim_work(
    db: Connection, work_id: UUID, *, by: Holder, request_id: UUID | None = None
) -> ClaimedWork:
    """
    Claim one Work for an agent; a repeated ``request_id`` gets the same claim.

    Raises:
        WorkNotFound: It does not exist, or is not for this agent.
        WorkNotClaimable: Somebody else has it, it may not start yet, or it is finished.
        AgentDrained: The agent is offered nothing.
        WorkTypeUnavailable: The agent has said that it cannot execute it now.
    """
    earlier = await _requested_before(db, agent_id=by.id, request_id=request_id)
    if earlier is not None:
        for claim in earlier:
            if claim.work_id == work_id:
                return claim
        raise WorkNotClaimable(work_id)
    row = await fetch_one(
        db, "claim_work", work_id=work_id, agent_id=by.id, request_id=request_id, actor=by.actor
    )
    if row is None:
        refusal = await explain_refusal(db, work_id, agent_id=by.id)
        if not refusal.is_visible:
            raise WorkNotFound(work_id)
        if refusal.is_drained:
            raise AgentDrained(by.name)
        if refusal.unavailable is not None:
            raise WorkTypeUnavailable(**refusal.unavailable)
        raise WorkNotClaimable(work_id)
    return _claimed(row)


async def claim_some_work(
    db: Connection,
    *,
    by: Holder,
    types: Sequence[str] | None = None,
    limit: int = 1,
    request_id: UUID | None = None,
    waited: timedelta = timedelta(0),
) -> list[ClaimedWork]:
    """
    Claim the first few Works for an agent; a repeated ``request_id`` gets the same ones.

    Args:
        db: Outside a transaction: nearly always this is one statement.
        waited: For how long it has been asking; what it has lost meanwhile it does not get.
    """
    depth, seen_before = limit + _ROOM * min(limit, _ROOM), 0
    # Broken by a repeat that did not see how the first one was answered.
    with suppress(asyncpg.UniqueViolationError):
        while True:
            rows = await fetch_all(
                db,
                "claim_some_work",
                agent_id=by.id,
                types=types,
                limit=limit,
                depth=depth,
                request_id=request_id,
                waited=waited.total_seconds(),
                actor=by.actor,
            )
            if claimed := [_claimed(row) for row in rows if row["id"] is not None]:
                return claimed
            seen = rows[0]["seen"]
            if seen == seen_before:
                break
            depth, seen_before = _DEEPER * depth, seen  # others are taking all of these
    if request_id is None:
        return []
    async with db.transaction():
        return await _requested_before(db, agent_id=by.id, request_id=request_id) or []


async def list_held_claims(db: Connection, *, agent_id: UUID) -> list[ClaimedWork]:
    """List everything that an agent holds."""
    return [_claimed(row) for row in await fetch_all(db, "list_held_claims", agent_id=agent_id)]


async def renew_claims(
    db: Connection, claim_ids: Sequence[UUID], *, by: Holder
) -> list[RenewedLease]:
    """Renew the listed claims of an agent; those that are not returned are lost."""
    rows = await fetch_all(db, "renew_claims", claim_ids=claim_ids, agent_id=by.id, actor=by.actor)
    return [RenewedLease.model_validate(dict(row)) for row in rows]


async def report_progress(
    db: Connection, work_id: UUID, body: ReportProgress, *, by: Holder
) -> None:
    """
    Keep what a holder says of its Work; it is alive, so its lease is renewed.

    Raises:
        WorkNotFound: It does not exist, or is not for this agent.
        ClaimLost: The claim is over.
    """
    await renew_claims(db, [body.claim_id], by=by)
    recorded = await fetch_value(
        db,
        "record_progress",
        work_id=work_id,
        claim_id=body.claim_id,
        agent_id=by.id,
        actor=by.actor,
        # What older agents do not say must not make their progress look new.
        progress={
            key: value
            for key, value in body.model_dump(mode="json", exclude={"claim_id"}).items()
            if value is not None or key != "infrastructure_retries"
        },
        max_events=_MAX_EVENTS,
    )
    if recorded is None:
        refusal = await explain_refusal(db, work_id, agent_id=by.id, claim_id=body.claim_id)
        raise refusal.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a claim, or a report on one, was not taken.

    Attributes:
        state: Where the Work is; None if there is none.
        answer: What an earlier completion with the same claim was told.
        is_visible: Whether the agent may know of the Work at all.
        unavailable: Of a pending Work, its ``work_type`` and the ``reason`` why the agent
            cannot execute it now, if it has said so.
    """

    work_id: UUID
    state: str | None
    answer: dict[str, Any] | None
    is_visible: bool
    is_drained: bool
    unavailable: dict[str, str] | None

    @property
    def error(self) -> WorkNotFound | ClaimLost:
        """Return the error for a report that was refused."""
        if self.is_visible and self.state is not None:
            return ClaimLost(self.work_id, self.state)
        return WorkNotFound(self.work_id)


async def explain_refusal(
    db: Connection, work_id: UUID, *, agent_id: UUID, claim_id: UUID | None = None
) -> Refusal:
    """Say why an agent was refused."""
    row = await fetch_one(
        db, "explain_refusal", work_id=work_id, agent_id=agent_id, claim_id=claim_id
    )
    assert row is not None
    return Refusal(work_id=work_id, **dict(row))


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
    waited = row.get("waited_seconds")
    spec = orjson.loads(row["crd_spec"])["spec"]
    if spent := row["infrastructure_retries"]:
        spec[INFRASTRUCTURE_RETRIES_SPENT] = spent
    return ClaimedWork(
        work_id=row["id"],
        claim_id=row["claim_id"],
        round=row["round"],
        work_type=row["work_type"],
        lease=timedelta(seconds=row["lease_seconds"]),
        cancel_requested=row["cancel_requested"],
        traceparent=row["traceparent"],
        waited=None if waited is None else timedelta(seconds=waited),
        selector_id=row.get("selector_id"),
        spec=spec,
    )

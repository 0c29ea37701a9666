"""
How a Work leaves CLAIMED, how it leaves the queue, and how it comes back.

Each is a lock, a decision and a write, in the caller's transaction.  What becomes PENDING
goes through ``give_back_work.sql``, and what is finished through ``finish_work.sql``.
"""

# Note [A cancel survives everything]
#
# Whatever would make a Work PENDING again (a lost lease, a release, a hand-off, the end of
# its agent) finishes it as cancelled instead, if its cancel was requested: nobody would be
# left to hear of the request.

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg

from brokkr.broker.db.claims import Holder, explain_refusal
from brokkr.broker.db.pool import Connection
from brokkr.broker.db.selectors import prefer_others, wake_selector
from brokkr.broker.db.statements import fetch_all, fetch_one, fetch_value
from brokkr.wire.bodies import (
    MAX_RETRIES_TOLD,
    UNABLE_PREFIX,
    CompleteOne,
    ReleaseWork,
    WorkBody,
    WorkState,
)
from brokkr.work.errors import (
    ClaimLost,
    PayloadPruned,
    WorkFinished,
    WorkNotFinished,
    WorkNotFound,
    WorkNotHeld,
)

BROKER: Final = "broker"
"""How the audit trail names what nobody asked for."""
_FEWEST_BEFORE_REST: Final = 2
"""The number of releases from which on they cost time, also with a single agent."""

_Claim: TypeAlias = tuple[UUID, UUID]
"""A Work, and which claim on it."""


class EndedAs(StrEnum):
    """How a claim ended."""

    COMPLETED = "completed"
    LEASE_LOST = "lease_lost"
    RELEASED = "released"
    HANDED_OFF = "handed_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class LostClaim:
    """A claim whose lease ran out; ``outcome`` if that ended the Work."""

    work_id: UUID
    agent_id: UUID
    outcome: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenBack:
    """What was given back or ended, because its holder has it no more.

    Attributes:
        lanes: The selectors of what can be claimed now, one for each Work.
        outcomes: How the others ended.
    """

    lanes: list[int] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOffPolicy:
    """
    How long a Work waits until another agent may have it.

    After a hand-off ``base * 2^handoffs``, and no longer than ``cap``.
    """

    base: timedelta = timedelta(seconds=10)
    cap: timedelta = timedelta(minutes=10)

    def delay(self, handoffs: int) -> timedelta:
        """Return the wait after so many hand-offs before this one."""
        return min(self.cap, self.base * float(2 ** min(handoffs, 30)))

    def rest(self, releases: int, *, agents: int) -> timedelta:
        """
        Return the wait after agents have given a Work back because they cannot work.

        The first release costs no time.  When the Work has gone round all agents, it rests.

        Args:
            releases: How often in a row, this release included.
            agents: How many agents the target of the Work selects.
        """
        if releases < _FEWEST_BEFORE_REST:
            return timedelta(0)
        return self.cap if releases >= agents else self.delay(releases - _FEWEST_BEFORE_REST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a completion was answered.

    Attributes:
        outcome: How the Work ended, if it was this completion that ended it.
        lanes: The selector of a Work that was handed on and can be claimed at once.
        is_handed_on: Whether it was this completion that handed it on.
    """

    work: WorkBody
    outcome: str | None = None
    is_handed_on: bool = False
    lanes: list[int] = field(default_factory=list)


async def complete_work(
    db: Connection,
    reports: Sequence[CompleteOne],
    *,
    by: Holder,
    policy: HandOffPolicy,
) -> list[Completed | WorkNotFound | ClaimLost]:
    """
    Finish Works as their holder reports, or hand them on to other agents.

    A repeat with the same claim gets the same answer and changes nothing.  Each report is
    answered by itself: what is refused does not keep the others out.

    Args:
        db: Outside a transaction: unless something may be handed on, one statement does it.
    """
    if not any(map(may_be_handed_on, reports)):
        return await _complete(db, reports, by=by, policy=policy)
    async with db.transaction():
        return await _complete(db, reports, by=by, policy=policy)


async def _complete(
    db: Connection, reports: Sequence[CompleteOne], *, by: Holder, policy: HandOffPolicy
) -> list[Completed | WorkNotFound | ClaimLost]:
    first: dict[_Claim, CompleteOne] = {}
    for each in reports:
        first.setdefault(_claim_of(each), each)
    locked = await _lock_handoffs(db, first, by=by)
    handed_on = {
        claim: await _hand_on(
            db, first[claim], delay=policy.delay(work["handoffs"]), actor=by.actor
        )
        for claim, work in locked.items()
        if not work["cancel_requested"]
    }
    finished = await _finish(
        db,
        [
            {
                "work_id": str(each.work_id),
                "claim_id": str(each.claim_id),
                # Note [A cancel survives everything]
                "outcome": "cancelled" if claim in locked else each.ended_as,
                "ended_as": EndedAs.COMPLETED,
                "retries": each.retries,
                "retryable": each.retryable,
                "message": each.message,
                "result": each.result,
            }
            for claim, each in first.items()
            if claim not in handed_on
        ],
        actor=by.actor,
        kind="completed",
        agent_id=by.id,
    )
    answers: list[Completed | WorkNotFound | ClaimLost] = []
    for each in reports:
        answer = handed_on.pop(_claim_of(each), None)
        row = finished.get(each.work_id)
        if answer is None and row is not None and row["claim_id"] == str(each.claim_id):
            del finished[each.work_id]
            answer = Completed(work=WorkBody.model_validate(row), outcome=row["outcome"])
        answers.append(answer or await _answer_again(db, each, by=by))
    return answers


def _claim_of(report: CompleteOne) -> _Claim:
    return report.work_id, report.claim_id


async def _lock_handoffs(
    db: Connection, reports: Mapping[_Claim, CompleteOne], *, by: Holder
) -> dict[_Claim, asyncpg.Record]:
    """
    Return the Works that go to another agent by these reports, unless they are cancelled.

    All that is reported on is locked with them, so that it is locked in one order.
    """
    if not any(map(may_be_handed_on, reports.values())):
        return {}
    # Before the rows' locks, as everywhere: who changes an agent takes it before rows, too.
    await fetch_value(db, "lock_selectors_shared")
    rows = await fetch_all(
        db,
        "lock_claimed_work",
        work_ids=[work_id for work_id, _ in reports],
        claim_ids=[claim_id for _, claim_id in reports],
        agent_id=by.id,
    )
    return {
        (row["id"], row["claim_id"]): row
        for row in rows
        if may_be_handed_on(reports[row["id"], row["claim_id"]])
        and row["handoffs"] < row["max_handoffs"]
    }


def _spent_on_infrastructure(report: CompleteOne) -> int | None:
    """Return what the result says of it; progress has said it before, if it came through."""
    told = report.result.get("infrastructure_retries")
    if isinstance(told, bool) or not isinstance(told, int):
        return None
    return min(told, MAX_RETRIES_TOLD)


def may_be_handed_on(report: CompleteOne) -> bool:
    """Say whether another agent could succeed."""
    return report.retryable and report.ended_as == "failed"


async def _hand_on(
    db: Connection, report: CompleteOne, *, delay: timedelta, actor: str
) -> Completed:
    """Give a locked Work to others."""
    [given] = await fetch_all(
        db,
        "give_back_work",
        work_ids=[report.work_id],
        ended_as=EndedAs.HANDED_OFF,
        delay=delay,
        actor=actor,
        retries=report.retries,
        message=report.message,
        kind=EndedAs.HANDED_OFF,
        is_revivable=False,
        infrastructure_retries=_spent_on_infrastructure(report),
    )
    selector = await prefer_others(db, report.work_id)
    answer = await fetch_value(db, "record_handoff_answer", claim_id=report.claim_id)
    return Completed(
        work=WorkBody.model_validate(answer),
        is_handed_on=True,
        lanes=[selector] if given["is_due"] else [],
    )


async def _answer_again(
    db: Connection, report: CompleteOne, *, by: Holder
) -> Completed | WorkNotFound | ClaimLost:
    refusal = await explain_refusal(db, report.work_id, agent_id=by.id, claim_id=report.claim_id)
    if refusal.answer is None:
        return refusal.error
    return Completed(work=WorkBody.model_validate(refusal.answer))


async def cancel_work(db: Connection, work_id: UUID, *, actor: str) -> bool:
    """
    Cancel a Work; say whether that was the end of it.

    If not, an agent holds it and will hear of the cancel with its next heartbeat.

    Raises:
        WorkNotFound: There is none.
        WorkFinished: It is in the execution log already.
    """
    work = await _lock(db, work_id)
    if work["status"] == WorkState.CLAIMED:
        await fetch_value(db, "request_cancel", work_id=work_id, actor=actor)
        return False
    await _finish(
        db,
        [
            {
                "work_id": str(work_id),
                "outcome": "cancelled",
                "message": "cancelled before an agent executed it",
            }
        ],
        actor=actor,
    )
    return True


async def release_work(
    db: Connection,
    work_id: UUID,
    body: ReleaseWork,
    *,
    actor: str,
    by: Holder | None = None,
    policy: HandOffPolicy,
) -> GivenBack:
    """
    Give a Work back to the queue: its holder's doing, or an operator's order.

    Agents that have not had it are preferred.

    Raises:
        WorkNotFound: It does not exist, or is not for this agent.
        ClaimLost: The claim is over; an operator need not name one.
        WorkNotHeld: Nobody has it.
        WorkFinished: It is in the execution log already.
    """
    # Before the row's lock, as everywhere: who changes an agent takes it before rows, too.
    await fetch_value(db, "lock_selectors_shared")
    if by is not None:
        work = await fetch_one(
            db,
            "lock_claimed_work",
            work_ids=[work_id],
            claim_ids=[body.claim_id],
            agent_id=by.id,
        )
        if work is None:
            refusal = await explain_refusal(db, work_id, agent_id=by.id, claim_id=body.claim_id)
            raise refusal.error
    else:
        work = await _lock(db, work_id)
        if work["status"] == WorkState.PENDING:
            raise WorkNotHeld(work_id)
        if body.claim_id not in (None, work["claim_id"]):
            raise ClaimLost(work_id, work["status"])
    delay = timedelta(seconds=body.delay_seconds)
    if by is not None and body.reason.startswith(UNABLE_PREFIX):
        delay = max(delay, await _rest(db, work_id, policy))
    given = await _give_back(
        db,
        [work],
        ended_as=EndedAs.RELEASED,
        actor=actor,
        delay=delay,
        message=body.reason or None,
    )
    if given.outcomes:
        return given
    selector = await prefer_others(db, work_id)
    return GivenBack(lanes=[selector for _ in given.lanes])


async def give_back_unworkable(
    db: Connection, reasons: Mapping[UUID, str], *, by: Holder, policy: HandOffPolicy
) -> GivenBack:
    """
    Give Works back that their holder cannot work on.

    No claim counts as lost by it.  Until another agent has claimed the Work, the holder may
    revive its claim, as after a lost lease: what it has begun may still go on.

    Args:
        reasons: Why, by the id of the claim; claims that are not held are left alone.
    """
    await fetch_value(db, "lock_selectors_shared")
    rows = await fetch_all(db, "lock_listed_claims", claim_ids=list(reasons), agent_id=by.id)
    lanes, outcomes = list[int](), list[str]()
    for work in rows:
        given = await _give_back(
            db,
            [work],
            ended_as=EndedAs.RELEASED,
            actor=by.actor,
            delay=await _rest(db, work["id"], policy),
            message=UNABLE_PREFIX + reasons[work["claim_id"]],
            is_unworkable=True,
        )
        outcomes += given.outcomes
        if not given.outcomes:
            selector = await prefer_others(db, work["id"])
            lanes += [selector for _ in given.lanes]
    return GivenBack(lanes=lanes, outcomes=outcomes)


async def _rest(db: Connection, work_id: UUID, policy: HandOffPolicy) -> timedelta:
    """Return how long a Work waits whose holder, once more, cannot work."""
    row = await fetch_one(db, "count_unable_releases", work_id=work_id, prefix=UNABLE_PREFIX)
    assert row is not None
    return policy.rest(row["releases"] + 1, agents=row["agents"])


async def requeue_work(db: Connection, work_id: UUID, *, actor: str, reason: str) -> int:
    """
    Put a finished Work back into the queue and return its lane's selector.

    Raises:
        WorkNotFound: There is none.
        WorkNotFinished: It is in the queue.
        PayloadPruned: Its template is no longer kept.
    """
    while True:
        row = await fetch_one(db, "requeue_work", work_id=work_id, actor=actor, reason=reason)
        if row is not None:
            return int(row["selector_id"])
        resting = await fetch_one(db, "find_resting_target", work_id=work_id)
        if resting is None:
            break
        await fetch_value(db, "lock_selectors_shared")
        await wake_selector(db, resting["digest"], resting["work_type"], targets=resting["targets"])
    state = await fetch_value(db, "find_work_state", work_id=work_id)
    if state is None:
        raise WorkNotFound(work_id)
    if WorkState(state).is_finished:
        raise PayloadPruned(work_id)
    raise WorkNotFinished(work_id, state)


async def release_claims_of_agent(db: Connection, agent_id: UUID, *, actor: str) -> GivenBack:
    """Give back all that an agent holds, because the agent is gone for good."""
    held = await fetch_all(db, "lock_held_work", agent_id=agent_id)
    return await _give_back(
        db, held, ended_as=EndedAs.RELEASED, actor=actor, message="its agent was deleted"
    )


async def release_stale_claims(
    db: Connection, *, max_lost_claims: int, limit: int
) -> tuple[list[LostClaim], list[int]]:
    """
    Give back at most ``limit`` claims whose lease ran out.

    Returns:
        The claims, and the selectors of what is pending again.
    """
    await fetch_value(db, "postpone_lease_checks", limit=limit)
    stale = await fetch_all(db, "lock_stale_claims", limit=limit)
    poison = [
        row
        for row in stale
        if row["lost_claims"] + 1 >= max_lost_claims and not row["cancel_requested"]
    ]
    await _finish(
        db,
        [
            {
                "work_id": str(row["id"]),
                "outcome": "quarantined",
                "ended_as": EndedAs.LEASE_LOST,
                "message": f"its claim was lost {row['lost_claims'] + 1} times: "
                "who took it was not heard of any more",
            }
            for row in poison
        ],
        actor=BROKER,
    )
    quarantined = {row["id"] for row in poison}
    given = await _give_back(
        db,
        [row for row in stale if row["id"] not in quarantined],
        ended_as=EndedAs.LEASE_LOST,
        actor=BROKER,
    )
    lost = [
        LostClaim(
            work_id=row["id"],
            agent_id=row["agent_id"],
            outcome="quarantined"
            if row["id"] in quarantined
            else "cancelled"
            if row["cancel_requested"]
            else None,
        )
        for row in stale
    ]
    return lost, given.lanes


async def expire_work(db: Connection, *, limit: int) -> int:
    """Finish at most ``limit`` Works that nobody claimed in time; say how many."""
    late = await fetch_all(db, "lock_expired_work", limit=limit)
    await _finish(
        db,
        [
            {
                "work_id": str(row["id"]),
                "outcome": "expired",
                "message": "no agent claimed it before its start deadline",
            }
            for row in late
        ],
        actor=BROKER,
    )
    return len(late)


async def enter_lanes(db: Connection, *, limit: int) -> list[int]:
    """Let at most ``limit`` Works be claimed whose time has come; return their selectors."""
    return [row["selector_id"] for row in await fetch_all(db, "enter_lanes", limit=limit)]


async def lock_sweep(db: Connection) -> bool:
    """Take the turn to look for stale claims, until the transaction ends, if it is free."""
    return bool(await fetch_value(db, "lock_sweep"))


async def extend_leases(db: Connection, *, longest_pause: timedelta) -> None:
    """Give leases back the time in which nobody could renew them, if there was any."""
    await fetch_value(db, "extend_leases", longest_pause_seconds=longest_pause.total_seconds())


async def shorten_leases(db: Connection) -> None:
    """Shorten leases that are longer than they may be, because a clock was set back."""
    await fetch_value(db, "shorten_leases")


async def mark_swept(db: Connection) -> None:
    """Remember that stale claims were looked for now."""
    await fetch_value(db, "mark_swept")


async def get_broker_id(db: Connection) -> UUID:
    """Return the id of this database, by which resources in clusters name their broker."""
    broker_id: UUID = await fetch_value(db, "get_broker_id")
    return broker_id


async def _lock(db: Connection, work_id: UUID) -> asyncpg.Record:
    """
    Lock a queued Work.

    Raises:
        WorkNotFound: There is none.
        WorkFinished: It is in the execution log.
    """
    work = await fetch_one(db, "lock_work", work_id=work_id)
    if work is None:
        state = await fetch_value(db, "find_work_state", work_id=work_id)
        raise WorkNotFound(work_id) if state is None else WorkFinished(work_id, state.lower())
    return work


async def _give_back(
    db: Connection,
    held: Iterable[asyncpg.Record],
    *,
    ended_as: EndedAs,
    actor: str,
    delay: timedelta = timedelta(),
    message: str | None = None,
    is_unworkable: bool = False,
) -> GivenBack:
    """Make locked Works PENDING again; or cancelled: Note [A cancel survives everything]."""
    held = list(held)
    cancelled = [row["id"] for row in held if row["cancel_requested"]]
    reason = message or "its agent was not heard of any more"
    await _finish(
        db,
        [
            {
                "work_id": str(work_id),
                "outcome": "cancelled",
                "ended_as": ended_as,
                "message": f"cancelled; {reason}",
            }
            for work_id in cancelled
        ],
        actor=actor,
    )
    others = [row["id"] for row in held if not row["cancel_requested"]]
    if not others:
        return GivenBack(outcomes=["cancelled" for _ in cancelled])
    rows = await fetch_all(
        db,
        "give_back_work",
        work_ids=others,
        ended_as=ended_as,
        delay=delay,
        actor=actor,
        retries=None,
        message=message,
        kind="unworkable" if is_unworkable else ended_as,
        is_revivable=is_unworkable or ended_as is EndedAs.LEASE_LOST,
        infrastructure_retries=None,
    )
    return GivenBack(
        lanes=[row["selector_id"] for row in rows if row["is_due"]],
        outcomes=["cancelled" for _ in cancelled],
    )


async def _finish(
    db: Connection,
    reports: Sequence[dict[str, Any]],
    *,
    actor: str,
    kind: str = "",
    agent_id: UUID | None = None,
) -> dict[UUID, dict[str, Any]]:
    """Move Works to the execution log; return what is said of each that was moved."""
    if not reports:
        return {}
    rows = await fetch_all(
        db, "finish_work", reports=reports, actor=actor, kind=kind, agent_id=agent_id
    )
    return {row["id"]: row["answer"] for row in rows}

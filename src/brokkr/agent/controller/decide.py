"""
Decide what one reconcile of a Work should do.

This is the agent's functional core.  All it needs arrives as arguments and all it wants
done leaves as a :class:`~brokkr.agent.controller.plan.Plan`: it opens no connection,
reads no clock and logs nothing.  :mod:`brokkr.agent.controller.loop` observes, calls
:func:`decide`, and carries the plan out.
"""

# Note [Attempts have predictable names]
#
# Attempt N of Work ``w`` is always the objects ``w-aN``, and N is always one more than the
# retries of both kinds.  So a controller that dies between creating them and recording
# it finds those same objects on its next reconcile instead of starting a second build.
# Two consequences keep that true:
#
# - A count of retries goes up when an attempt has *failed*, never when one starts.
# - The status is written after the actions.  Creating ``w-aN`` twice is harmless;
#   recording an attempt that was never started is not.
#
# Note [Who pays for a retry]
#
# A failure of the cluster or a node is infrastructure (:attr:`Fault.is_infrastructure`): its
# retries have a budget of their own, for the whole Work and all its claims, and spend none
# of the Work's ``maxRetries``.  All other failures spend those.  Neither pays for the
# other: so a bad cluster cannot use up what the user has asked for, nor a bad Dockerfile
# what is there for lost nodes.
#
# Note [A vanished attempt is not a new attempt]
#
# Once the uid of an attempt's executor is recorded, its absence means that somebody, or
# a TTL, deleted it.  Creating it again under the same number could build and push twice;
# so it counts as a failed attempt, which may be retried under the next number.
#
# Note [Stopping takes three steps]
#
# An attempt is stopped because somebody has cancelled the Work, or because the attempt
# did not end in its time (Shipwright has states without an end).  First it is asked, once,
# and the time of asking is recorded.  If it has not ended a grace later, those who were
# nearer to it may know how it ended (the verdict's ``if_stuck``).  If nobody knows, its
# executor is deleted, and what it runs goes with it.  Only when it is gone is the attempt
# judged: the next one must not run beside it.
#
# Note [Waiting survives a restart]
#
# A retry's due time is ``status.retry_at``, in the cluster, and not a timer in this
# process.  ``requeue_after`` is only a hint that saves polling.

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from brokkr.agent.controller.conditions import (
    REFUSED,
    TEMPLATE_APPLIED,
    find_condition,
)
from brokkr.agent.controller.failures import (
    ATTEMPT_MISSING,
    DEADLINE_EXCEEDED,
    NOT_STARTED,
    TEMPLATE_REFUSED,
    own_failure,
)
from brokkr.agent.controller.plan import (
    CancelAttempt,
    CreateObjects,
    DeleteAttempt,
    DeleteWork,
    Note,
    Plan,
)
from brokkr.agent.controller.record import (
    attempt_of,
    closed,
    cut,
    ended,
    find_attempt,
    judged,
    under_way,
    with_attempt,
)
from brokkr.agent.handlers.protocol import Cancellation
from brokkr.agent.handlers.verdict import (
    Cancelled,
    Failed,
    Incomplete,
    Running,
    Succeeded,
    Verdict,
)
from brokkr.work.backoff import Backoff
from brokkr.work.model import Attempt, Phase, Work

_LATE: Final = (DEADLINE_EXCEEDED, NOT_STARTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    The settings that decisions depend on.

    Attributes:
        stop_grace: How long an attempt that was told to stop may take to do so.
        infrastructure_retries: How many attempts of a Work that were lost to the
            infrastructure are repeated.
    """

    infrastructure_retries: int = 3
    backoff: Backoff
    keep_succeeded: timedelta
    keep_failed: timedelta
    stop_grace: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A Work and what its current attempt has come to, as observed just now.

    Attributes:
        executor_uid: The uid of the object that executes the attempt; None if there is
            no such object.
        cancellation: What asks the attempt to stop; None if nothing runs, or if it has
            been asked already.
    """

    work: Work
    verdict: Verdict
    executor_uid: str | None = None
    cancellation: Cancellation | None = None


def decide(seen: Seen, *, now: datetime, policy: Policy) -> Plan:
    """
    Compare a Work with its current attempt and say what to do next.

    Args:
        now: When this reconcile began, in UTC.
    """
    work = seen.work
    if work.is_deleting:
        return Plan(status=work.status)
    if work.status.phase.is_terminal:
        return _clean_up(work, now=now, policy=policy)
    if work.cancel_requested and seen.executor_uid is None and not _is_over(seen.verdict):
        return _cancel(work, work.cancel_reason, now=now)
    return _follow(seen, _effective_verdict(seen), now=now, policy=policy)


def _follow(seen: Seen, verdict: Verdict, *, now: datetime, policy: Policy) -> Plan:
    work = seen.work
    match verdict:
        case Incomplete():
            return _start_when_due(work, verdict, now=now)
        case Running():
            return _keep_watching(seen, verdict, now=now, policy=policy)
        case Succeeded():
            return _succeed(work, verdict, now=now)
        case Failed():
            return _retry_or_fail(work, verdict, now=now, policy=policy)
        case Cancelled():
            return _cancel(work, work.cancel_reason or verdict.message, now=now)
        case _:
            assert_never(verdict)


def _is_over(verdict: Verdict) -> bool:
    return isinstance(verdict, Succeeded | Failed | Cancelled)


def _effective_verdict(seen: Seen) -> Verdict:
    """Let what is recorded speak before what is merely not there."""
    work, verdict = seen.work, seen.verdict
    refused = find_condition(work.status.conditions, TEMPLATE_APPLIED)
    if refused is not None and refused.reason == REFUSED:
        return own_failure(TEMPLATE_REFUSED, refused.message)

    recorded = find_attempt(work)
    if (
        recorded is not None
        and recorded.uid is not None
        and recorded.uid != seen.executor_uid
        and not _is_over(verdict)
    ):
        # See Note [A vanished attempt is not a new attempt].
        gone = f"{recorded.name} was deleted before it ended"
        verdict = Cancelled(message=gone, unasked=own_failure(ATTEMPT_MISSING, gone))
    if isinstance(verdict, Cancelled) and not work.cancel_requested:
        return _unasked(work, recorded, verdict)
    return verdict


def _unasked(work: Work, recorded: Attempt | None, verdict: Cancelled) -> Failed:
    """Tell a stop for the deadline's sake from one that nobody here has asked for."""
    if recorded is None or recorded.stopping_at is None:
        return verdict.unasked
    reason, message = DEADLINE_EXCEEDED, "it did not end in time, and was stopped"
    if work.status.reason in _LATE:  # what was known when it was told to stop
        reason, message = work.status.reason, work.status.message
    return replace(own_failure(reason, message), result=verdict.unasked.result)


def _start_when_due(work: Work, verdict: Incomplete, *, now: datetime) -> Plan:
    """Create what the attempt needs next, unless its backoff has time left to run."""
    due = work.status.retry_at
    if due is not None and now < due:
        return Plan(status=work.status, requeue_after=due - now)

    number = _number(work)
    status = under_way(
        work,
        attempt_of(work, now=now),
        "AttemptStarted",
        f"{number}: {verdict.message}",
        now=now,
    )
    is_new = find_attempt(work) is None
    return Plan(
        actions=(CreateObjects(verdict.create),),
        status=status,
        notes=(Note(reason="AttemptStarted", message=number),) if is_new else (),
    )


def _keep_watching(seen: Seen, verdict: Running, *, now: datetime, policy: Policy) -> Plan:
    """
    Record progress and wait for the watch to report the end; stop it if it is to stop.

    Everything that the start recorded is recorded here too: its status write may not
    have happened.
    """
    work = seen.work
    attempt = replace(attempt_of(work, now=now), uid=seen.executor_uid)
    left = _time_left(attempt, verdict, now=now)
    is_late = left is not None and left <= timedelta(0)
    if seen.executor_uid is None and is_late:
        failure = own_failure(
            DEADLINE_EXCEEDED if verdict.is_begun else NOT_STARTED,
            f"within {verdict.limit} it came no further than: {verdict.message}",
        )
        plan = _retry_or_fail(work, failure, now=now, policy=policy)
        # There may be one that is not seen yet; it must not run beside the next attempt.
        return replace(plan, actions=(DeleteAttempt(),))

    if work.cancel_requested or is_late or attempt.stopping_at is not None:
        return _stop(seen, verdict, attempt, now=now, policy=policy)
    message = f"{_number(work)}: {verdict.message}"
    return Plan(
        status=under_way(work, attempt, "AttemptRunning", message, now=now), requeue_after=left
    )


def _time_left(attempt: Attempt, verdict: Running, *, now: datetime) -> timedelta | None:
    if verdict.limit is None or attempt.started_at is None:
        return None
    return attempt.started_at + verdict.limit - now


def _stop(seen: Seen, verdict: Running, attempt: Attempt, *, now: datetime, policy: Policy) -> Plan:
    """See Note [Stopping takes three steps]."""
    work = seen.work
    is_new = attempt.stopping_at is None
    if work.cancel_requested:
        reason, message = "Cancelling", work.cancel_reason
    elif not is_new and work.status.reason in _LATE:
        # What it waited for is worth more than that it is being stopped.
        reason, message = work.status.reason, work.status.message
    elif verdict.is_begun:
        reason, message = DEADLINE_EXCEEDED, f"not over after {verdict.limit}: {verdict.message}"
    else:
        reason, message = NOT_STARTED, f"not begun after {verdict.limit}: {verdict.message}"
    since = attempt.stopping_at or now
    left = since + policy.stop_grace - now
    if left <= timedelta(0) and verdict.if_stuck is not None:
        stuck = replace(seen, verdict=verdict.if_stuck)
        return _follow(stuck, _effective_verdict(stuck), now=now, policy=policy)

    ask = () if seen.cancellation is None else (CancelAttempt(seen.cancellation),)
    status = under_way(work, replace(attempt, stopping_at=since), reason, message, now=now)
    return Plan(
        actions=ask if left > timedelta(0) else (DeleteAttempt(),),
        status=status,
        notes=(Note(reason=reason, message=message, is_warning=not work.cancel_requested),)
        if is_new
        else (),
        requeue_after=max(left, timedelta(seconds=1)),
    )


def _succeed(work: Work, verdict: Succeeded, *, now: datetime) -> Plan:
    status = ended(work, Phase.SUCCEEDED, verdict.reason, verdict.message, now=now)
    warnings = verdict.result.get("warnings", ())
    return Plan(
        status=replace(status, result=verdict.result),
        notes=(
            *(Note(reason="Warning", message=each, is_warning=True) for each in warnings),
            Note(reason=verdict.reason, message=verdict.message),
        ),
    )


def _number(work: Work) -> str:
    """Say which attempt it is, of how many that there may be as things stand."""
    most = work.max_retries + work.status.infrastructure_retries + 1
    return f"attempt {work.attempt} of {most}"


def _retry_or_fail(work: Work, verdict: Failed, *, now: datetime, policy: Policy) -> Plan:
    """Spend a retry if the failure may pass and one is left; else give up."""
    # See Note [Who pays for a retry].
    is_paid_for = verdict.fault.is_infrastructure
    spent, most = (
        (work.infrastructure_retries, policy.infrastructure_retries)
        if is_paid_for
        else (work.status.retries, work.max_retries)
    )
    may_pass = _is_worth_retrying(work, verdict)
    if not may_pass or spent >= most or work.cancel_requested:
        is_exhausted = may_pass and most > 0 and not work.cancel_requested
        retryable = may_pass or verdict.fault.is_local
        return _fail(work, verdict, retryable=retryable, is_exhausted=is_exhausted, now=now)

    delay = policy.backoff.delay(spent + 1)
    seconds = f"{delay.total_seconds():g} s"
    attempt = closed(
        work, verdict.reason, verdict.message, now=now, failure=verdict, retryable=True
    )
    status = replace(
        with_attempt(work.status, attempt),
        phase=Phase.PENDING,
        retries=work.status.retries + (not is_paid_for),
        infrastructure_retries=work.status.infrastructure_retries + is_paid_for,
        retry_at=now + delay,
        reason=verdict.reason,
        message=cut(f"attempt {work.attempt} failed, retrying in {seconds}: {verdict.message}"),
        started_at=work.status.started_at or now,
        observed_generation=work.generation,
    )
    which = "infrastructure retry" if is_paid_for else "retry"
    return Plan(
        requeue_after=delay,
        status=judged(status, None, verdict.reason, verdict.message, now=now),
        notes=(
            Note(
                reason=verdict.reason,
                message=f"attempt {work.attempt} failed, {which} {spent + 1} of {most} "
                f"in {seconds}: {verdict.message}",
                is_warning=True,
            ),
        ),
    )


def _is_worth_retrying(work: Work, verdict: Failed) -> bool:
    limit = verdict.retry.limit
    before = sum(
        each.failure_class == verdict.failure_class
        for each in work.status.attempts
        if each.number < work.attempt
    )
    return limit is None or before < limit


def _fail(
    work: Work, verdict: Failed, *, retryable: bool, is_exhausted: bool, now: datetime
) -> Plan:
    message = verdict.message
    if is_exhausted:
        which = "infrastructure retries" if verdict.fault.is_infrastructure else "retries"
        message = f"{which} exhausted after {work.attempt} attempts: {message}"
    status = ended(
        work,
        Phase.FAILED,
        verdict.reason,
        message,
        now=now,
        failure=verdict,
        retryable=retryable,
    )
    return Plan(
        status=replace(status, result=verdict.result),
        notes=(Note(reason=verdict.reason, message=message, is_warning=True),),
    )


def _cancel(work: Work, message: str, *, now: datetime) -> Plan:
    return Plan(
        status=ended(work, Phase.CANCELLED, "Cancelled", message, now=now),
        notes=(Note(reason="Cancelled", message=message),),
    )


def _clean_up(work: Work, *, now: datetime, policy: Policy) -> Plan:
    """Keep a finished Work for its time after the broker has taken its result."""
    if work.acknowledged_at is None:
        return Plan(status=work.status)
    kept = policy.keep_succeeded if work.status.phase is Phase.SUCCEEDED else policy.keep_failed
    left = work.acknowledged_at + kept - now
    if left > timedelta(0):
        return Plan(status=work.status, requeue_after=left)
    return Plan(status=work.status, actions=(DeleteWork(),))

"""
Decide what one reconcile of a Work should do.

This is the agent's functional core.  All it needs arrives as arguments and all it wants
done leaves as a :class:`~brokkr.agent.controller.plan.Plan`: it opens no connection,
reads no clock and logs nothing.  :mod:`brokkr.agent.controller.loop` observes, calls
:func:`decide`, and carries the plan out.
"""

# Note [Attempts have predictable names]
#
# Attempt N of Work ``w`` is always the objects ``w-aN``, and N is always
# ``status.retries + 1``.  So a controller that dies between creating them and recording
# it finds those same objects on its next reconcile instead of starting a second build.
# Two consequences keep that true:
#
# - ``retries`` goes up when an attempt has *failed*, never when one starts.
# - The status is written after the actions.  Creating ``w-aN`` twice is harmless;
#   recording an attempt that was never started is not.
#
# Note [A vanished attempt is not a new attempt]
#
# Once the uid of an attempt's executor is recorded, its absence means that somebody, or
# a TTL, deleted it.  Creating it again under the same number could build and push twice;
# so it counts as a failed attempt, which may be retried under the next number.
#
# Note [Waiting survives a restart]
#
# A retry's due time is ``status.retry_at``, in the cluster, and not a timer in this
# process.  ``requeue_after`` is only a hint that saves polling.

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from brokkr.agent.controller.conditions import (
    REFUSED,
    TEMPLATE_APPLIED,
    TEMPLATE_SUCCEEDED,
    find_condition,
    with_condition,
)
from brokkr.agent.controller.plan import (
    CancelAttempt,
    CreateObjects,
    DeleteWork,
    Note,
    Plan,
)
from brokkr.agent.handlers.protocol import Cancellation
from brokkr.agent.handlers.verdict import (
    Cancelled,
    Failed,
    Incomplete,
    Retry,
    Running,
    Succeeded,
    Verdict,
)
from brokkr.work.backoff import Backoff
from brokkr.work.model import Attempt, Condition, Phase, Work, WorkStatus
from brokkr.work.names import attempt_name

MAX_MESSAGE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings that decisions depend on."""

    backoff: Backoff
    keep_succeeded: timedelta
    keep_failed: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A Work and what its current attempt has come to, as observed just now.

    Attributes:
        executor_uid: The uid of the object that executes the attempt; None if there is
            no such object.
        cancellation: What to patch if the attempt is to stop; None if nothing runs, or
            if it has been asked already.
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

    match _effective_verdict(seen):
        case Incomplete() as verdict:
            return _start_when_due(work, verdict, now=now)
        case Running() as verdict:
            return _keep_watching(seen, verdict, now=now)
        case Succeeded() as verdict:
            return _succeed(work, verdict, now=now)
        case Failed() as verdict:
            return _retry_or_fail(work, verdict, now=now, policy=policy)
        case Cancelled() as verdict:
            return _cancel(work, work.cancel_reason or verdict.message, now=now)
        case _ as verdict:
            assert_never(verdict)


def _is_over(verdict: Verdict) -> bool:
    return isinstance(verdict, Succeeded | Failed | Cancelled)


def _effective_verdict(seen: Seen) -> Verdict:
    """Let what is recorded speak before what is merely not there."""
    work = seen.work
    refused = find_condition(work.status.conditions, TEMPLATE_APPLIED)
    if refused is not None and refused.reason == REFUSED:
        return Failed(reason="TemplateRefused", message=refused.message, retry=Retry.NEVER)

    recorded = _current_attempt(work)
    if (
        recorded is not None
        and recorded.uid is not None
        and recorded.uid != seen.executor_uid
        and not _is_over(seen.verdict)
    ):
        # See Note [A vanished attempt is not a new attempt].
        return Failed(
            reason="AttemptMissing",
            message=f"{recorded.name} was deleted before it ended",
            retry=Retry.ALWAYS,
        )
    return seen.verdict


def _start_when_due(work: Work, verdict: Incomplete, *, now: datetime) -> Plan:
    """Create what the attempt needs next, unless its backoff has time left to run."""
    due = work.status.retry_at
    if due is not None and now < due:
        return Plan(status=work.status, requeue_after=due - now)

    is_new = _current_attempt(work) is None
    status = _with_attempt(work.status, _attempt(work, now=now))
    status = replace(
        status,
        phase=Phase.RUNNING,
        retry_at=None,
        reason="AttemptStarted",
        message=f"attempt {work.attempt} of {work.max_retries + 1}: {verdict.message}",
        started_at=work.status.started_at or now,
        observed_generation=work.generation,
        conditions=_applied(work.status, now=now),
    )
    started = Note(
        reason="AttemptStarted", message=f"attempt {work.attempt} of {work.max_retries + 1}"
    )
    return Plan(
        actions=(CreateObjects(verdict.create),),
        status=status,
        notes=(started,) if is_new else (),
    )


def _keep_watching(seen: Seen, verdict: Running, *, now: datetime) -> Plan:
    """
    Record progress and wait for the watch to report the end.

    Everything that the start recorded is recorded here too: its status write may not
    have happened.
    """
    work = seen.work
    attempt = replace(_attempt(work, now=now), uid=seen.executor_uid)
    status = replace(
        _with_attempt(work.status, attempt),
        phase=Phase.RUNNING,
        retry_at=None,
        reason="AttemptRunning",
        message=f"attempt {work.attempt} of {work.max_retries + 1}: {verdict.message}",
        started_at=work.status.started_at or now,
        observed_generation=work.generation,
        conditions=_applied(work.status, now=now),
    )
    if work.cancel_requested and seen.cancellation is not None:
        return Plan(
            status=replace(status, reason="Cancelling", message=work.cancel_reason),
            actions=(CancelAttempt(seen.cancellation),),
            notes=(Note(reason="Cancelling", message=work.cancel_reason),),
        )
    return Plan(status=status)


def _succeed(work: Work, verdict: Succeeded, *, now: datetime) -> Plan:
    return Plan(
        status=replace(
            _ended(work, Phase.SUCCEEDED, verdict.reason, verdict.message, now=now),
            result=verdict.result,
        ),
        notes=(Note(reason=verdict.reason, message=verdict.message),),
    )


def _retry_or_fail(work: Work, verdict: Failed, *, now: datetime, policy: Policy) -> Plan:
    """Spend a retry if the failure may pass and one is left; else give up."""
    retryable = _is_worth_retrying(work, verdict)
    if not retryable or work.status.retries >= work.max_retries or work.cancel_requested:
        return _fail(work, verdict, retryable=retryable, now=now)

    retry = work.status.retries + 1
    delay = policy.backoff.delay(retry)
    seconds = f"{delay.total_seconds():g} s"
    attempt = _closed(work, verdict.reason, verdict.message, retryable=True, now=now)
    status = replace(
        _with_attempt(work.status, attempt),
        phase=Phase.PENDING,
        retries=retry,
        retry_at=now + delay,
        reason=verdict.reason,
        message=_cut(f"attempt {retry} failed, retrying in {seconds}: {verdict.message}"),
        started_at=work.status.started_at or now,
        observed_generation=work.generation,
    )
    return Plan(
        requeue_after=delay,
        status=_judged(status, None, verdict.reason, verdict.message, now=now),
        notes=(
            Note(
                reason=verdict.reason,
                message=f"attempt {retry} failed, retry {retry} of {work.max_retries} "
                f"in {seconds}: {verdict.message}",
                is_warning=True,
            ),
        ),
    )


def _is_worth_retrying(work: Work, verdict: Failed) -> bool:
    match verdict.retry:
        case Retry.ALWAYS:
            return True
        case Retry.NEVER:
            return False
        case Retry.ONCE:
            return all(each.reason != verdict.reason for each in _earlier_attempts(work))


def _fail(work: Work, verdict: Failed, *, retryable: bool, now: datetime) -> Plan:
    exhausted = retryable and work.max_retries > 0 and not work.cancel_requested
    message = verdict.message
    if exhausted:
        message = f"retries exhausted after {work.attempt} attempts: {message}"
    status = _ended(work, Phase.FAILED, verdict.reason, message, retryable=retryable, now=now)
    return Plan(
        status=replace(status, result=verdict.result),
        notes=(Note(reason=verdict.reason, message=message, is_warning=True),),
    )


def _cancel(work: Work, message: str, *, now: datetime) -> Plan:
    return Plan(
        status=_ended(work, Phase.CANCELLED, "Cancelled", message, now=now),
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


def _ended(
    work: Work,
    phase: Phase,
    reason: str,
    message: str,
    *,
    now: datetime,
    retryable: bool | None = None,
) -> WorkStatus:
    """Close the current attempt, if there is one, and the Work with it."""
    status = work.status
    if _current_attempt(work) is not None or phase is not Phase.CANCELLED:
        status = _with_attempt(status, _closed(work, reason, message, retryable=retryable, now=now))
    status = replace(
        status,
        phase=phase,
        retry_at=None,
        reason=reason,
        message=_cut(message),
        started_at=status.started_at or now,
        completed_at=now,
        observed_generation=work.generation,
    )
    return _judged(status, phase is Phase.SUCCEEDED, reason, message, now=now)


def _judged(
    status: WorkStatus, succeeded: bool | None, reason: str, message: str, *, now: datetime
) -> WorkStatus:
    conditions = with_condition(
        status.conditions,
        TEMPLATE_SUCCEEDED,
        status=succeeded,
        reason=reason,
        message=_cut(message),
        now=now,
    )
    return replace(status, conditions=conditions)


def _applied(status: WorkStatus, *, now: datetime) -> tuple[Condition, ...]:
    conditions = with_condition(
        status.conditions,
        TEMPLATE_APPLIED,
        status=True,
        reason="Applied",
        message="the cluster has taken the template",
        now=now,
    )
    return with_condition(
        conditions,
        TEMPLATE_SUCCEEDED,
        status=None,
        reason="AttemptRunning",
        message="an attempt is under way",
        now=now,
    )


def _current_attempt(work: Work) -> Attempt | None:
    return next((each for each in work.status.attempts if each.number == work.attempt), None)


def _earlier_attempts(work: Work) -> tuple[Attempt, ...]:
    return tuple(each for each in work.status.attempts if each.number < work.attempt)


def _attempt(work: Work, *, now: datetime) -> Attempt:
    """Return the record of the current attempt, begun now if there is none yet."""
    return _current_attempt(work) or Attempt(
        number=work.attempt, name=attempt_name(work.name, work.attempt), started_at=now
    )


def _closed(
    work: Work, reason: str, message: str, *, retryable: bool | None, now: datetime
) -> Attempt:
    return replace(
        _attempt(work, now=now),
        ended_at=now,
        reason=reason,
        message=_cut(message),
        retryable=retryable,
    )


def _with_attempt(status: WorkStatus, attempt: Attempt) -> WorkStatus:
    others = tuple(each for each in status.attempts if each.number != attempt.number)
    return replace(status, attempts=(*others, attempt))


def _cut(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"

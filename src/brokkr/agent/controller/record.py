"""How a decision is written into a Work's status.  Pure; decides nothing."""

from dataclasses import replace
from datetime import datetime
from typing import Final

from brokkr.agent.controller.conditions import (
    TEMPLATE_APPLIED,
    TEMPLATE_SUCCEEDED,
    with_condition,
)
from brokkr.agent.handlers.verdict import Failed
from brokkr.work.model import Attempt, Condition, Phase, Work, WorkStatus
from brokkr.work.names import attempt_name
from brokkr.work.redaction import redact

MAX_MESSAGE: Final = 1024


def find_attempt(work: Work) -> Attempt | None:
    """Return the record of the current attempt, if there is one."""
    return next((each for each in work.status.attempts if each.number == work.attempt), None)


def attempt_of(work: Work, *, now: datetime) -> Attempt:
    """Return the record of the current attempt, begun now if there is none yet."""
    return find_attempt(work) or Attempt(
        number=work.attempt, name=attempt_name(work.name, work.attempt), started_at=now
    )


def under_way(
    work: Work, attempt: Attempt, reason: str, message: str, *, now: datetime
) -> WorkStatus:
    """Say that an attempt is under way, and all that follows from that."""
    return replace(
        with_attempt(work.status, attempt),
        phase=Phase.RUNNING,
        retry_at=None,
        reason=reason,
        message=cut(message),
        started_at=work.status.started_at or now,
        observed_generation=work.generation,
        conditions=_applied(work.status.conditions, now=now),
    )


def ended(
    work: Work,
    phase: Phase,
    reason: str,
    message: str,
    *,
    now: datetime,
    failure: Failed | None = None,
    retryable: bool | None = None,
) -> WorkStatus:
    """Close the current attempt, if there is one, and the Work with it."""
    status = work.status
    if find_attempt(work) is not None or phase is not Phase.CANCELLED:
        attempt = closed(work, reason, message, now=now, failure=failure, retryable=retryable)
        status = with_attempt(status, attempt)
    status = replace(
        status,
        phase=phase,
        retry_at=None,
        reason=reason,
        message=cut(message),
        started_at=status.started_at or now,
        completed_at=now,
        observed_generation=work.generation,
    )
    return judged(status, phase is Phase.SUCCEEDED, reason, message, now=now)


def closed(
    work: Work,
    reason: str,
    message: str,
    *,
    now: datetime,
    failure: Failed | None = None,
    retryable: bool | None = None,
) -> Attempt:
    """Return the record of the current attempt, ended now."""
    return replace(
        attempt_of(work, now=now),
        ended_at=now,
        reason=reason,
        message=cut(message),
        failure_class="" if failure is None else failure.failure_class,
        fault="" if failure is None else failure.fault.value,
        retryable=retryable,
    )


def judged(
    status: WorkStatus, succeeded: bool | None, reason: str, message: str, *, now: datetime
) -> WorkStatus:
    """Say under ``TemplateSucceeded`` how it went; None: it is not known yet."""
    conditions = with_condition(
        status.conditions,
        TEMPLATE_SUCCEEDED,
        status=succeeded,
        reason=reason,
        message=cut(message),
        now=now,
    )
    return replace(status, conditions=conditions)


def with_attempt(status: WorkStatus, attempt: Attempt) -> WorkStatus:
    """Return the status with this record in the place of the attempt's former one."""
    others = tuple(each for each in status.attempts if each.number != attempt.number)
    return replace(status, attempts=(*others, attempt))


def cut(message: str) -> str:
    """Keep a message as short as a status needs it, without credentials: others read it."""
    message = redact(message)  # first, for half a token has no shape any more
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def _applied(conditions: tuple[Condition, ...], *, now: datetime) -> tuple[Condition, ...]:
    applied = with_condition(
        conditions,
        TEMPLATE_APPLIED,
        status=True,
        reason="Applied",
        message="the cluster has taken the template",
        now=now,
    )
    return with_condition(
        applied,
        TEMPLATE_SUCCEEDED,
        status=None,
        reason="AttemptRunning",
        message="an attempt is under way",
        now=now,
    )

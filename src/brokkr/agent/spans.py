"""
What a finished Work looks like in its trace: one span, and one in it for each attempt.

They are read off the Work resource when it is over, like everything else, so an agent that
was killed half-way has lost none of them.  Pure.
"""

from datetime import datetime

from brokkr.work.model import Attempt, Phase, Work
from brokkr.work.trace import Span, TraceContext


def spans_of(work: Work) -> list[Span]:
    """Return the spans of a Work that is over; none if it is no part of a trace."""
    if work.trace is None or work.span is None or work.status.completed_at is None:
        return []
    status = work.status
    ended_at = max(work.status.completed_at, work.created_at)
    execution = Span(
        name=work.work_type,
        context=work.span,
        parent=work.trace,
        began_at=work.created_at,
        ended_at=ended_at,
        attributes={
            "brokkr.work.id": str(work.claim.work_id),
            "brokkr.work.type": work.work_type,
            "brokkr.work.round": work.claim.round,
            "brokkr.work.phase": status.phase.value,
            "brokkr.work.retries": status.retries,
            "brokkr.agent.id": str(work.claim.agent_id),
            "k8s.namespace.name": work.namespace,
        },
        failure=status.reason if status.phase is Phase.FAILED else None,
    )
    return [
        execution,
        *(_attempt(each, within=work.span, until=ended_at) for each in status.attempts),
    ]


def _attempt(attempt: Attempt, *, within: TraceContext, until: datetime) -> Span:
    began_at = attempt.started_at or until
    return Span(
        name=f"attempt {attempt.number}",
        context=within.child(attempt.number),
        parent=within,
        began_at=began_at,
        ended_at=max(attempt.ended_at or until, began_at),
        attributes={
            "brokkr.attempt.name": attempt.name,
            "brokkr.attempt.reason": attempt.reason,
        },
        failure=None if attempt.retryable is None else attempt.reason,
    )

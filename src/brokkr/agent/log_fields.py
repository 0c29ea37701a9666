"""What every log line about a Work says of it: which it is, and of which trace."""

from uuid import UUID

from brokkr.work.model import Work
from brokkr.work.trace import TraceContext


def about(work: Work) -> dict[str, str | int]:
    """Name a Work that has a resource, and its current attempt."""
    claim = work.claim
    fields = about_claim(claim.work_id, round=claim.round, span=work.span)
    return {**fields, "attempt": work.attempt}


def about_claim(work_id: UUID, *, round: int, span: TraceContext | None) -> dict[str, str | int]:
    """Name a Work of which there is no more than a claim."""
    fields: dict[str, str | int] = {"work_id": str(work_id), "round": round}
    return fields if span is None else {**fields, "trace_id": span.trace_id}

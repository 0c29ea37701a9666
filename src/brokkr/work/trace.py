"""
Which trace a Work belongs to, and where in it: W3C Trace Context, Level 1.

https://www.w3.org/TR/trace-context-1/.  A header that breaks its rules means no trace, and
is no error.  ``tracestate`` is not kept, which the recommendation permits.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Self

# A higher version may say more behind what version 00 has, after another dash.
_HEADER: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_SAMPLED: Final = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span of one trace: the parent of what is done next.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits; the recommendation calls it parent-id.
        is_sampled: Whether whoever began the trace keeps its spans.
    """

    trace_id: str
    span_id: str
    is_sampled: bool

    @classmethod
    def parse(cls, traceparent: object) -> Self | None:
        """Read a ``traceparent``, from wherever it came; None if it is not valid."""
        found = _HEADER.fullmatch(traceparent) if isinstance(traceparent, str) else None
        if (
            found is None
            or found["version"] == "ff"
            or (found["version"] == "00" and found["more"] is not None)
            or found["trace"] == _NO_TRACE
            or found["span"] == _NO_SPAN
        ):
            return None
        return cls(found["trace"], found["span"], bool(int(found["flags"], 16) & _SAMPLED))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"

    def child(self, name: object) -> Self:
        """
        Return the span of that name below this one.

        Its id is computed, not drawn: a process that was started again goes on with the
        spans of the one before.
        """
        span_id = hashlib.sha256(f"{self.trace_id}/{self.span_id}/{name}".encode()).hexdigest()
        return replace(self, span_id=span_id[:16])


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that was done, as a part of a trace.

    Attributes:
        parent: The span that it is a part of.
        failure: Why it failed, in a word; None if it did not.
    """

    name: str
    context: TraceContext
    parent: TraceContext
    began_at: datetime
    ended_at: datetime
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    failure: str | None = None

"""
What happened to a Work: as a page, and as a stream of server-sent events.

The stream is that of the HTML standard ("Server-sent events"): ``id`` is the event's number,
``event`` its kind, ``data`` all of it as JSON in one line.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

STREAM_MEDIA_TYPE: Final = "text/event-stream"
MAX_EVENT_BYTES: Final = 1024 * 1024
"""More than any event has: what is longer is no event, and must not be kept."""
STILL_THERE: Final = b": still there\n\n"
"""A comment: it says nothing, and keeps the connection open."""


class WorkEvent(BaseModel):
    """One thing that happened to a Work."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    number: int = Field(description="Counted within the Work from 1, without gaps.")
    at: datetime
    kind: str = Field(
        description="submitted, claimed, progress, attempt_failed, lease_lost, lease_revived, "
        "released, unworkable, handed_off, cancel_requested, completed, cancelled, expired, "
        "quarantined or requeued."
    )
    actor: str = Field(
        description="Whose doing it was: admin, viewer, generator or agent with a name, as "
        "agent:edge-7; or broker, if nobody asked for it."
    )
    detail: dict[str, Any] = Field(description="What else is to say of it; depends on the kind.")


class EventPage(BaseModel):
    """``GET /work/{id}/events``, the oldest first."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    items: list[WorkEvent]
    next_after: int | None = Field(
        default=None, description="What to give as `after` to read on; null at the end."
    )


def render_retry(milliseconds: int) -> bytes:
    """Render how long a reader should wait before it connects again."""
    return b"retry: %d\n\n" % milliseconds


def render_event(event: WorkEvent) -> bytes:
    """Render one event of a stream; JSON has no line ends of its own."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.number,
        event.kind.encode(),
        event.model_dump_json().encode(),
    )


class EventReader:
    """Reads a stream as it arrives, in chunks of any size."""

    def __init__(self) -> None:
        self._rest = b""

    def read(self, chunk: bytes) -> Iterator[WorkEvent]:
        """
        Yield the events that are complete with this chunk.

        Raises:
            ValueError: This is no stream of a Work's events.
        """
        *complete, self._rest = (self._rest + chunk).split(b"\n\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ValueError(f"an event exceeds {MAX_EVENT_BYTES} bytes")
        for block in complete:
            data = [line[5:] for line in block.split(b"\n") if line.startswith(b"data:")]
            if data:
                yield WorkEvent.model_validate_json(b"\n".join(data))

"""
Tell a Work's story while it happens, one line for each event.

What is told is made of what the broker has written down, times included, so a story that
is picked up late is the same story.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from pydantic import TypeAdapter, ValidationError

from brokkr.cli.output import plain, render_time
from brokkr.client import BrokerClient
from brokkr.client.asynchronous import patiently, watch
from brokkr.wire.bodies import Moment, WorkBody, WorkState
from brokkr.wire.events import WorkEvent
from brokkr.work.errors import BrokerUnavailable, LimitReached

Say = Callable[[str], None]

_COUNTED: Final = re.compile(r"attempt \d+ of \d+(: )?")
_MOMENT: Final = TypeAdapter[datetime](Moment)


async def follow(client: BrokerClient, work: WorkBody, *, say: Say) -> WorkBody:
    """
    Tell what happens to a Work until it is finished, and return it then.

    Raises:
        BrokerUnavailable: The broker did not answer for two minutes.
    """

    def away(error: BrokerUnavailable | LimitReached) -> None:
        say(f"the broker does not answer; asking again ({error})")

    try:
        async with aclosing(watch(client, work.id, away=away)) as events:
            async for event in events:
                seconds = (event.at - work.created_at).total_seconds()
                say(f"{seconds:7.1f} s  {plain(render_event(event))}")
                if event.kind == "submitted" and _matches_nobody(work):
                    say(f"{seconds:7.1f} s  waiting: no agent matches the target")
        return await patiently(lambda: client.get_work(work.id))
    except asyncio.CancelledError:
        say(
            f"not followed any more; the work goes on\n"
            f"  to follow it again:  brokkr work get {work.id} --follow\n"
            f"  to cancel it:        brokkr work cancel {work.id}"
        )
        raise


def render_event(event: WorkEvent) -> str:
    """Say in a line what happened."""
    render = _WORDS.get(event.kind)
    return _ended(event) if render is None else render(event)


def render_doing(attempt: object, phase: object, step: object) -> str:
    """Say which attempt is at what; a step that is not known is left out."""
    doing = f"attempt {attempt} {str(phase or '').lower()}"
    return f"{doing}, step {step}" if step else doing


def _matches_nobody(work: WorkBody) -> bool:
    return work.status is WorkState.PENDING and work.eligible_agents == 0


def _progress(event: WorkEvent) -> str:
    detail = event.detail
    said = _COUNTED.sub("", str(detail.get("message", "")), count=1)
    doing = render_doing(detail.get("attempt"), detail.get("phase"), detail.get("step"))
    return f"{doing}: {said}" if said else doing


def _attempt_failed(event: WorkEvent) -> str:
    failed = event.detail.get("message") or f"attempt {event.detail.get('retries')} failed"
    at = _time(event.detail.get("retry_at"))
    return f"{failed}; retry at {at.astimezone(UTC):%H:%M:%S} UTC" if at else failed


def _released(event: WorkEvent) -> str:
    whose = event.detail.get("agent", "its agent")
    by = "" if whose == _who(event) else f" by {event.actor}"
    return f"queued again: taken from {whose}{by}{_why(event)}{_not_before(event)}"


def _requeued(event: WorkEvent) -> str:
    reason = event.detail.get("reason")
    return f"queued again by {event.actor}" + (f": {reason}" if reason else "")


def _ended(event: WorkEvent) -> str:
    outcome = str(event.detail.get("outcome", event.kind))
    return outcome if outcome == "succeeded" else f"{outcome}{_why(event)}"


_WORDS: Final[Mapping[str, Callable[[WorkEvent], str]]] = MappingProxyType(
    {
        "submitted": lambda event: f"queued{_not_before(event)}",
        "claimed": lambda event: f"claimed by {_who(event)}",
        "progress": _progress,
        "attempt_failed": _attempt_failed,
        "lease_lost": lambda event: (
            f"queued again: lost by {event.detail.get('agent', 'its agent')}{_why(event)}"
        ),
        "lease_revived": lambda event: f"{_who(event)} is back, and goes on",
        "released": _released,
        "unworkable": lambda event: (
            f"queued again: {_who(event)} cannot work on it{_why(event)}{_not_before(event)}"
        ),
        "handed_off": lambda event: f"handed on by {_who(event)}{_why(event)}{_not_before(event)}",
        "cancel_requested": lambda _: "cancel requested",
        "requeued": _requeued,
    }
)
"""What is said of each kind; all others say how the Work ended."""


def _who(event: WorkEvent) -> str:
    return event.actor.partition(":")[2] or event.actor


def _why(event: WorkEvent) -> str:
    return f": {event.detail['message']}" if event.detail.get("message") else ""


def _not_before(event: WorkEvent) -> str:
    at = _time(event.detail.get("not_before"))
    return f"; not before {render_time(at)}" if at else ""


def _time(text: object) -> datetime | None:
    with suppress(ValidationError):
        return _MOMENT.validate_python(text)
    return None

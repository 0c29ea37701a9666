"""A Work's story, told of what the broker has written down."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from brokkr.cli.follow import follow, render_event
from brokkr.cli.main import tree
from brokkr.wire.bodies import WorkBody, WorkState
from brokkr.wire.events import WorkEvent
from brokkr.work.errors import BrokerUnavailable

START = datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC)
LATER = "2026-01-02T03:04:10+00:00"


def an_event(
    kind: str, *, number: int = 1, actor: str = "agent:edge-1", seconds: float = 0, **detail: Any
) -> WorkEvent:
    at = START + timedelta(seconds=seconds)
    return WorkEvent(number=number, at=at, kind=kind, actor=actor, detail=detail)


def a_work(status: WorkState = WorkState.PENDING, **fields: Any) -> WorkBody:
    return WorkBody.model_validate(
        {
            "id": UUID(int=1),
            "work_type": "build",
            "status": status,
            "created_at": START,
            "max_retries": 3,
            "claim_timeout_seconds": 60,
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (an_event("submitted", actor="admin:k", priority=1), "queued"),
        (an_event("submitted", not_before=LATER), "queued; not before 2026-01-02 03:04:10Z"),
        (an_event("claimed", round=1), "claimed by edge-1"),
        (an_event("progress", phase="Running", attempt=1), "attempt 1 running"),
        (
            an_event("progress", phase="Running", attempt=1, step="build", message="RUN make"),
            "attempt 1 running, step build: RUN make",
        ),
        (an_event("progress", phase="Running", attempt=1, step=None), "attempt 1 running"),
        (
            an_event("progress", phase="Running", attempt=2, message="attempt 2 of 4: pulling"),
            "attempt 2 running: pulling",
        ),
        (
            an_event("attempt_failed", retries=1, message="evicted", retry_at=LATER),
            "evicted; retry at 03:04:10 UTC",
        ),
        (an_event("attempt_failed", retries=1), "attempt 1 failed"),
        (an_event("lease_lost", actor="broker", agent="edge-2"), "queued again: lost by edge-2"),
        (an_event("lease_revived"), "edge-1 is back, and goes on"),
        (
            an_event("released", agent="edge-1", message="draining"),
            "queued again: taken from edge-1: draining",
        ),
        (
            an_event("released", actor="admin:k", agent="edge-1", not_before=LATER),
            "queued again: taken from edge-1 by admin:k; not before 2026-01-02 03:04:10Z",
        ),
        (
            an_event("handed_off", message="no disk", not_before=LATER),
            "handed on by edge-1: no disk; not before 2026-01-02 03:04:10Z",
        ),
        (
            an_event("unworkable", message="unable: it does not answer"),
            "queued again: edge-1 cannot work on it: unable: it does not answer",
        ),
        (an_event("cancel_requested", actor="admin:k"), "cancel requested"),
        (an_event("completed", outcome="succeeded", message="built"), "succeeded"),
        (an_event("completed", outcome="failed", message="no git"), "failed: no git"),
        (
            an_event("quarantined", actor="broker", outcome="quarantined", message="lost"),
            "quarantined: lost",
        ),
        (
            an_event("requeued", actor="admin:k", reason="the disk is larger", message="full"),
            "queued again by admin:k: the disk is larger",
        ),
        (an_event("promoted"), "promoted"),  # of a newer broker
        (an_event("submitted", not_before="soon"), "queued"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_event_is_told_in_a_line(event: WorkEvent, line: str) -> None:
    assert render_event(event) == line


class Script:
    """Plays a broker: what it sends to each who follows, and what it says of the Work then."""

    def __init__(
        self, *streams: list[WorkEvent | BrokerUnavailable], works: list[WorkBody]
    ) -> None:
        self.streams = list(streams)
        self.works = works
        self.asked_after: list[int] = []

    async def follow_events(
        self, work_id: UUID, *, after: int = 0, away: Any, patience_seconds: float = 0
    ) -> AsyncIterator[WorkEvent]:
        self.asked_after.append(after)
        for each in self.streams.pop(0):
            if isinstance(each, BrokerUnavailable):
                away(each)
            else:
                yield each

    async def get_work(self, work_id: UUID) -> WorkBody:
        return self.works.pop(0) if len(self.works) > 1 else self.works[0]


async def test_each_event_is_told_with_its_time() -> None:
    done = a_work(WorkState.SUCCEEDED)
    events = [
        an_event("submitted"),
        an_event("claimed", number=2, seconds=1),
        an_event("completed", number=3, seconds=65.25, outcome="succeeded"),
    ]
    lines: list[str] = []

    finished = await follow(
        Script([*events[:2], BrokerUnavailable("no answer"), events[2]], works=[done]),  # type: ignore[arg-type]
        a_work(),
        say=lines.append,
    )

    assert finished == done
    assert lines == [
        "    0.0 s  queued",
        "    1.0 s  claimed by edge-1",
        "the broker does not answer; asking again (no answer)",
        "   65.2 s  succeeded",
    ]


async def test_a_work_that_matches_nobody_is_said_to_wait() -> None:
    lines: list[str] = []

    await follow(
        Script([an_event("submitted")], works=[a_work(WorkState.CANCELLED)]),  # type: ignore[arg-type]
        a_work(eligible_agents=0),
        say=lines.append,
    )

    assert lines[1] == "    0.0 s  waiting: no agent matches the target"


async def test_a_work_that_was_queued_again_meanwhile_is_followed_on() -> None:
    script = Script(
        [an_event("completed", number=3, outcome="failed")],
        [an_event("requeued", number=4), an_event("completed", number=5, outcome="succeeded")],
        works=[a_work(), a_work(WorkState.SUCCEEDED)],
    )

    finished = await follow(script, a_work(), say=lambda _: None)  # type: ignore[arg-type]

    assert finished.status is WorkState.SUCCEEDED
    assert script.asked_after == [0, 3]


async def test_what_comes_from_elsewhere_does_not_command_the_terminal() -> None:
    lines: list[str] = []
    event = an_event("completed", outcome="failed", message="\x1b[2Jno\ngit")

    await follow(
        Script([event], works=[a_work(WorkState.FAILED)]),  # type: ignore[arg-type]
        a_work(),
        say=lines.append,
    )

    assert lines == ["    0.0 s  failed: [2Jno git"]


def test_followed_events_end_with_the_work_and_not_with_a_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An empty 204, which anything in between may send, looks like the end of a stream."""
    script = Script(
        [],
        [an_event("submitted")],
        [an_event("completed", number=2, outcome="succeeded")],
        works=[a_work(), a_work(WorkState.CLAIMED), a_work(WorkState.SUCCEEDED)],
    )
    monkeypatch.setattr("brokkr.client.asynchronous.RECONNECT_SECONDS", 0)
    monkeypatch.setattr("brokkr.cli.work.connect", lambda *_: nullcontext(script))

    shown = CliRunner().invoke(tree("work"), ["work", "events", str(UUID(int=1)), "--follow"])

    assert (shown.exit_code, script.asked_after) == (0, [0, 0, 1])
    assert [line.split()[-1] for line in shown.output.splitlines()] == ["queued", "succeeded"]

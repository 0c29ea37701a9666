"""A stream of events is read as it was written, whatever the network makes of it."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from brokkr.wire.events import STILL_THERE, EventReader, WorkEvent, render_event, render_retry

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
EVENTS = st.builds(
    WorkEvent,
    number=st.integers(min_value=1),
    at=st.datetimes(timezones=st.just(UTC)),
    kind=st.sampled_from(["claimed", "progress"]),
    actor=TEXTS,
    detail=st.dictionaries(TEXTS, TEXTS, max_size=3),
)
CLAIMED = WorkEvent(
    number=2,
    at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    kind="claimed",
    actor="agent:edge-7",
    detail={"round": 1},
)


def test_an_event_names_its_number_and_kind_for_readers_of_the_standard() -> None:
    lines = render_event(CLAIMED).decode().split("\n")

    assert lines[:2] == ["id: 2", "event: claimed"]
    assert json.loads(lines[2].removeprefix("data: "))["actor"] == "agent:edge-7"
    assert lines[3:] == ["", ""]


@given(events=st.lists(EVENTS, max_size=4), size=st.integers(min_value=1, max_value=64))
def test_a_stream_is_read_in_chunks_of_any_size(events: list[WorkEvent], size: int) -> None:
    stream = render_retry(1000) + b"".join(render_event(each) + STILL_THERE for each in events)
    reader = EventReader()

    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]

    assert [event for chunk in chunks for event in reader.read(chunk)] == events


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(ValidationError):
        list(EventReader().read(b"data: hello\n\n"))

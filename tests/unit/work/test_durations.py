from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.work.durations import parse_duration, render_duration


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("15m", timedelta(minutes=15)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1.5h", timedelta(minutes=90)),
        ("1m0.5s", timedelta(seconds=60.5)),
        ("250ms", timedelta(milliseconds=250)),
        ("7us", timedelta(microseconds=7)),
        ("7µs", timedelta(microseconds=7)),
        ("0s", timedelta(0)),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, value: timedelta) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1h ", "1 h", "1d", "1h-2m", "٣h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_duration_beyond_all_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="is too long"):
        parse_duration("9" * 400 + "h")


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=10_000)))
def test_a_duration_is_written_up_to_a_second_longer_and_never_shorter(value: timedelta) -> None:
    assert timedelta(0) <= parse_duration(render_duration(value)) - value < timedelta(seconds=1)

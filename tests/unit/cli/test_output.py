"""Answers for people and for programs."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
import yaml
from pydantic import BaseModel

from brokkr.cli.output import (
    Format,
    render_columns,
    render_facts,
    render_pairs,
    render_seconds,
    render_size,
    render_time,
    show,
)


class Answer(BaseModel):
    name: str
    at: datetime


ANSWER = Answer(name="no", at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


def test_programs_get_json_and_yaml_that_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    show(ANSWER, Format.JSON, table=str)
    as_json = json.loads(capsys.readouterr().out)
    show(ANSWER, Format.YAML, table=str)
    as_yaml = yaml.safe_load(capsys.readouterr().out)

    assert as_json == as_yaml == {"name": "no", "at": "2026-01-02T03:04:05Z"}


def test_people_get_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    show(ANSWER, Format.TABLE, table=lambda: "a table")

    assert capsys.readouterr().out == "a table\n"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert render_columns(("A", "B"), [("long cell", "x"), ("y", "")]) == (
        "A          B\nlong cell  x\ny"
    )


def test_what_comes_from_elsewhere_stays_on_its_line_and_cannot_command_the_terminal() -> None:
    assert render_columns(("A",), [("two\nlines \x1b[31m",)]) == "A\ntwo lines [31m"
    assert render_facts([("message", "a\r\nb")]) == "message  a b"


def test_facts_without_a_value_are_left_out() -> None:
    assert render_facts([("id", "1"), ("agent", ""), ("status", "x")]) == "id      1\nstatus  x"
    assert render_facts([]) == ""


def test_labels_are_written_in_one_order() -> None:
    assert render_pairs({"b": "2", "a": "1"}) == "a=1,b=2"


def test_times_are_in_utc() -> None:
    at = datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))

    assert render_time(at) == "2025-12-31 23:00:00Z"
    assert render_time(None) == ""


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB (1536 bytes)"),
        (5 * 1024**4, "5120.0 GiB (5497558138880 bytes)"),
    ],
)
def test_sizes_are_readable_and_exact(size: int, text: str) -> None:
    assert render_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_how_long_something_takes_is_said_in_units_that_matter(
    seconds: float | None, text: str
) -> None:
    assert render_seconds(seconds) == text

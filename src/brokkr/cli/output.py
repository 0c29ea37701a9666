"""
Answers as tables for people, and as JSON or YAML for programs.

Tables are plain text whose columns are never cut: they can be piped and searched.
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
import yaml
from pydantic import BaseModel


class Format(StrEnum):
    """How to print an answer."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the answer.")]


def show(answer: BaseModel, output: Format, *, table: Callable[[], str]) -> None:
    """Print an answer to standard output; the table is made only if it is wanted."""
    match output:
        case Format.TABLE:
            if text := table():
                print(text)
        case Format.JSON:
            print(json.dumps(answer.model_dump(mode="json"), indent=2))
        case Format.YAML:
            print(yaml.safe_dump(answer.model_dump(mode="json"), sort_keys=False), end="")


def say(line: str) -> None:
    """Tell a person something that is not the answer; if nobody can hear it, go on."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def render_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render rows under a head, each column as wide as its widest cell."""
    lines = [head, *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def render_facts(facts: Sequence[tuple[str, str]]) -> str:
    """Render what is known, one fact a line; facts without a value are left out."""
    known = [(name, plain(value)) for name, value in facts if value]
    width = max((len(name) for name, _ in known), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in known)


def plain(text: str) -> str:
    """Make one line of a text from elsewhere, without what would command the terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def render_pairs(pairs: dict[str, str]) -> str:
    """Render labels as they are written on the command line."""
    return ",".join(f"{key}={value}" for key, value in sorted(pairs.items()))


def render_time(at: datetime | None) -> str:
    """Render a time in UTC, to the second."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def render_seconds(seconds: float | None) -> str:
    """Render how long something takes, in the largest units that matter."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def render_size(size_bytes: int) -> str:
    """Render a size for people, with the exact number."""
    value, unit = float(size_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit} ({size_bytes} bytes)"

"""Durations as Go writes them (``1h30m``), which is how Kubernetes resources do."""

import math
import re
from datetime import timedelta
from functools import lru_cache
from typing import Final

_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", re.ASCII)


@lru_cache(maxsize=256)
def parse_duration(text: str) -> timedelta:
    """
    Read a duration.

    Raises:
        ValueError: It is not one, or too long to be meant seriously.
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 90m or 1h30m")
    try:
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError as error:
        raise ValueError(f"{text!r} is too long") from error


def render_duration(value: timedelta) -> str:
    """Write whole seconds, rounded up: a wait that was asked for never becomes none."""
    return f"{math.ceil(value.total_seconds())}s"

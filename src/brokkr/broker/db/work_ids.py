"""Ids of Works: they begin with the time, so that they are in the order of submission."""

import secrets
import time
from collections.abc import Callable
from datetime import datetime
from uuid import UUID


def new_work_id(now_ns: Callable[[], int] = time.time_ns) -> UUID:
    """
    Make a UUID of version 7 (RFC 9562): it begins with the time, to a quarter of a µs.

    Args:
        now_ns: Nanoseconds since 1970; brokers ask a :class:`~.clock.DatabaseClock`.
    """
    milliseconds, rest = divmod(now_ns(), 1_000_000)
    value = milliseconds << 80 | 7 << 76 | (rest * 4096 // 1_000_000) << 64 | 2 << 62
    return UUID(int=value | secrets.randbits(62))


def first_work_id_at(at: datetime) -> UUID:
    """Return an id below all that are made at that time, by clocks five minutes apart."""
    milliseconds = int(at.timestamp() * 1000) - 5 * 60 * 1000
    return UUID(int=max(milliseconds, 0) << 80)

"""Run a job again and again, with jitter, until cancelled."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

_log = structlog.get_logger()


async def every(interval: timedelta, job: Callable[[], Awaitable[None]], *, name: str) -> None:
    """
    Run ``job`` every ``interval``, a tenth more or less, first after one interval.

    A run that fails is logged, and does not end the series.
    """
    while True:
        await asyncio.sleep(interval.total_seconds() * random.uniform(0.9, 1.1))  # noqa: S311
        try:
            await job()
        except Exception:  # noqa: BLE001  (whatever it was, the next run may do better)
            _log.exception("job failed", job=name)

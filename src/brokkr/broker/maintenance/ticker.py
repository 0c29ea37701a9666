"""Run a job again and again, with jitter, until cancelled."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

from brokkr.broker.db.outage import Outage

_LONGEST_RUN = timedelta(minutes=5)


async def every(
    interval: timedelta,
    job: Callable[[], Awaitable[None]],
    *,
    name: str,
    longest: timedelta = _LONGEST_RUN,
) -> None:
    """
    Run ``job`` every ``interval``, a tenth more or less, first after one interval.

    A run that fails is logged, and does not end the series; nor does one that hangs, which
    is cancelled after ``longest``.
    """
    outage = Outage(job=name)
    while True:
        await asyncio.sleep(interval.total_seconds() * random.uniform(0.9, 1.1))  # noqa: S311
        try:
            async with asyncio.timeout(longest.total_seconds()):
                await job()
            outage.end()
        except Exception as error:  # noqa: BLE001  (whatever it was, the next run may do better)
            outage.note(error)

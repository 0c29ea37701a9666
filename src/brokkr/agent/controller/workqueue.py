"""
Where keys wait to be reconciled, and the workers that take them.

The rules of Kubernetes' own work queues: a key waits once however often it is added, is
never handed to two workers at a time (added meanwhile, it comes again afterwards), can
be added for later, and backs off by itself when it fails.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from brokkr.agent.kube.errors import KubeConflict, KubeError
from brokkr.client.transport import retry_after_of
from brokkr.work.errors import BrokkrError

log = structlog.get_logger()

FIRST_BACKOFF = timedelta(milliseconds=100)
LAST_BACKOFF = timedelta(seconds=30)
SURPRISES = 6
"""So many unexpected exceptions in a row, and a key is given up; about six seconds."""


class Workqueue:
    """Deduplicated keys, with delays and a backoff for each."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        """
        Make an empty queue.

        Args:
            jitter: A factor near 1 for each backoff, so that failures do not march in step.
        """
        self._jitter = jitter
        self._waiting: deque[str] = deque()
        self._dirty: set[str] = set()
        self._busy: set[str] = set()
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self._surprises: dict[str, int] = {}
        self._available = asyncio.Event()

    def __len__(self) -> int:
        """Return how many keys wait to be taken now."""
        return len(self._waiting)

    def add(self, key: str) -> None:
        """Add a key, unless it waits already."""
        self._cancel_later(key)
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._busy:
            self._waiting.append(key)
            self._available.set()

    def add_later(self, key: str, delay: timedelta) -> None:
        """Add a key after a delay, or earlier if it is to come earlier already."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(delay.total_seconds(), 0.0)
        before = self._later.get(key)
        if before is not None:
            if before.when() <= due:
                return
            before.cancel()
        self._later[key] = loop.call_at(due, self.add, key)

    def add_after_failure(self, key: str, *, asked_for: float = 0) -> timedelta:
        """
        Add a key after a delay that doubles with each failure in a row; return it.

        Args:
            asked_for: Seconds for which whoever failed asks to be left alone.  It is given no
                more than :data:`LAST_BACKOFF`, and a little is added, for it asks many.
        """
        count, jitter = self._failures.get(key, 0), self._jitter()
        self._failures[key] = count + 1
        doubled = min(FIRST_BACKOFF * 2.0 ** min(count, 20), LAST_BACKOFF)
        asked = min(asked_for, LAST_BACKOFF.total_seconds())
        delay = max(doubled * jitter, timedelta(seconds=asked * (2 - jitter)))
        self.add_later(key, delay)
        return delay

    def forget_failures(self, key: str) -> None:
        """Start the key's backoff over: it went well."""
        self._failures.pop(key, None)
        self._surprises.pop(key, None)

    def count_surprise(self, key: str) -> int:
        """Count an exception that nobody expected; return how many there were in a row."""
        self._surprises[key] = self._surprises.get(key, 0) + 1
        return self._surprises[key]

    async def get(self) -> str:
        """Wait for a key and take it; :meth:`done` must follow."""
        while not self._waiting:
            self._available.clear()
            await self._available.wait()
        key = self._waiting.popleft()
        self._dirty.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: str) -> None:
        """Give the key back; it comes again if it was added meanwhile."""
        self._busy.discard(key)
        if key in self._dirty:
            self._waiting.append(key)
            self._available.set()

    def _cancel_later(self, key: str) -> None:
        handle = self._later.pop(key, None)
        if handle is not None:
            handle.cancel()


async def _never(_key: str, _error: Exception) -> None:
    """Give nothing up."""


async def work_off(
    queue: Workqueue,
    reconcile: Callable[[str], Awaitable[timedelta | None]],
    *,
    workers: int,
    give_up: Callable[[str, Exception], Awaitable[None]] = _never,
) -> None:
    """
    Take keys and reconcile them, for ever; one that fails comes back after a backoff.

    Args:
        give_up: Called with a key that has surprised :data:`SURPRISES` times in a row, and
            with the last exception: so that it is over, whatever is wrong with it.
    """
    async with asyncio.TaskGroup() as tasks:
        for _ in range(workers):
            tasks.create_task(_work(queue, reconcile, give_up))


async def _work(
    queue: Workqueue,
    reconcile: Callable[[str], Awaitable[timedelta | None]],
    give_up: Callable[[str, Exception], Awaitable[None]],
) -> None:
    while True:
        key = await queue.get()
        # What is learnt about the key by looking at it, `reconcile` adds to all lines.
        structlog.contextvars.clear_contextvars()
        try:
            requeue_after = await reconcile(key)
        except KubeConflict:
            # What was observed is out of date; its next event brings the key back, and
            # if that came already, this does.
            queue.add_after_failure(key)
        except (KubeError, BrokkrError) as error:
            delay = queue.add_after_failure(key, asked_for=retry_after_of(error))
            log.warning(
                "reconcile delayed", work=key, error=str(error), seconds=delay.total_seconds()
            )
        except Exception as error:
            queue.add_after_failure(key)
            log.exception("reconcile failed", work=key)
            if queue.count_surprise(key) >= SURPRISES:
                await _give_up(key, error, give_up)
        else:
            queue.forget_failures(key)
            if requeue_after is not None:
                queue.add_later(key, requeue_after)
        finally:
            queue.done(key)


async def _give_up(
    key: str, error: Exception, give_up: Callable[[str, Exception], Awaitable[None]]
) -> None:
    try:
        await give_up(key, error)
    except Exception as again:  # noqa: BLE001 - it comes back, and the others go on meanwhile
        log.warning("giving up delayed", work=key, error=repr(again))

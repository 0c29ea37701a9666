"""
Hearing what other connections, and other brokers, say with ``NOTIFY``.

One connection does nothing but listen.  It is looked after: what is said while it is
away is lost, so the caller is told whenever it is (again) there.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog

from brokkr.broker.db.pool import connect
from brokkr.work.errors import DatabaseUnavailable

CHANNEL = "brokkr"

_CHECK_SECONDS = 30
_RECONNECT_SECONDS = 1

_log = structlog.get_logger()


async def listen(url: str, *, heard: Callable[[str], None], listening: Callable[[], None]) -> None:
    """
    Listen until cancelled, and connect again as often as it takes.

    Args:
        heard: Called with the payload of each notification.
        listening: Called when a connection has begun to listen.
    """
    while True:
        try:
            await _listen_once(url, heard=heard, listening=listening)
        except DatabaseUnavailable as error:
            _log.warning("database connection lost", error=str(error))
        await asyncio.sleep(_RECONNECT_SECONDS)


async def _listen_once(
    url: str, *, heard: Callable[[str], None], listening: Callable[[], None]
) -> None:
    closed = asyncio.Event()

    def on_notification(_db: Any, _pid: int, _channel: str, payload: object) -> None:
        heard(str(payload))

    async with connect(url) as db:
        assert isinstance(db, asyncpg.Connection)
        db.add_termination_listener(lambda _db: closed.set())
        await db.add_listener(CHANNEL, on_notification)
        listening()
        while not closed.is_set():
            try:
                await asyncio.wait_for(closed.wait(), _CHECK_SECONDS)
            except TimeoutError:
                # A peer that vanished without a word is noticed only by talking to it.
                await db.execute("SELECT 1", timeout=_CHECK_SECONDS)

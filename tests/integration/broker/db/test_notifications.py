"""The connection between brokers: told, heard, lost and found again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from brokkr.broker.db import notifications
from brokkr.broker.db.notifications import Channel, News
from brokkr.broker.db.pool import Pool
from support.relay import relayed
from support.signals import eventually


@dataclass
class Party:
    """A broker's end of the channel, and what came to it."""

    heard: News = field(default_factory=News)
    messages: int = 0
    listened: int = 0

    def __post_init__(self) -> None:
        self.channel = Channel(heard=self._hear, listening=self._listen)

    def _hear(self, news: News) -> None:
        self.messages += 1
        self.heard.add(news)

    def _listen(self) -> None:
        self.listened += 1

    async def until(self, **expected: object) -> None:
        async def is_so() -> bool:
            return all(getattr(self, name) == value for name, value in expected.items())

        await eventually(is_so)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Party]:
    party = Party()
    running = asyncio.create_task(party.channel.run(url))
    try:
        await party.until(listened=1)
        yield party
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()


def works(**counts: int) -> News:
    return News(works=Counter({int(key.strip("_")): value for key, value in counts.items()}))


async def test_the_others_hear_what_one_tells_and_it_does_not_hear_itself(
    database_url: str,
) -> None:
    agent_id = uuid4()
    async with connected(database_url) as one, connected(database_url) as other:
        one.channel.tell(News(works=Counter({7: 2}), agents={agent_id}))
        await other.until(heard=News(works=Counter({7: 2}), agents={agent_id}))
        other.channel.tell(works(_1=1))
        await one.until(heard=works(_1=1))


async def test_what_comes_while_something_is_told_is_told_together(database_url: str) -> None:
    async with connected(database_url) as one, connected(database_url) as other:
        for _ in range(1000):
            one.channel.tell(works(_7=1))
            await asyncio.sleep(0)
        await other.until(heard=works(_7=1000))

        assert other.messages < 100


async def test_what_is_told_before_there_is_a_connection_is_told_with_the_first(
    database_url: str,
) -> None:
    async with connected(database_url) as other:
        early = Party()
        early.channel.tell(works(_7=1))
        running = asyncio.create_task(early.channel.run(database_url))
        await early.channel.until_told()

        await other.until(heard=works(_7=1))
        running.cancel()


async def test_a_channel_with_nothing_to_tell_keeps_quiet(database_url: str, pool: Pool) -> None:
    async with connected(database_url):
        seen = "SELECT query, state_change FROM pg_stat_activity"
        seen += " WHERE application_name = 'brokkr-channel'"
        before = await pool.fetchrow(seen)
        await asyncio.sleep(0.5)

        assert await pool.fetchrow(seen) == before


async def test_a_connection_that_is_ended_is_replaced_and_nothing_told_is_lost(
    database_url: str, pool: Pool
) -> None:
    async with connected(database_url) as one, connected(database_url) as other:
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'brokkr-channel' AND datname = current_database()"
        )
        await other.until(listened=2)
        one.channel.tell(works(_7=1))  # whether or not it has noticed

        await other.until(heard=works(_7=1))
        assert one.listened == 2


async def test_a_connection_that_died_silently_is_noticed_and_replaced(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_CHECK_SECONDS", 0.2)
    monkeypatch.setattr(notifications, "_PATIENCE_SECONDS", 0.2)
    async with relayed(database_url) as line, connected(line.url) as one:
        line.relay.silence()

        await one.until(listened=2)


async def test_what_was_being_told_over_a_dead_connection_is_told_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_PATIENCE_SECONDS", 0.2)
    async with (
        relayed(database_url) as line,
        connected(line.url) as one,
        connected(database_url) as other,
    ):
        line.relay.silence()
        one.channel.tell(works(_7=1))

        await other.until(heard=works(_7=1))


async def test_a_channel_outlives_what_nobody_had_thought_of(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_RECONNECT_SECONDS", 0.01)
    times = 0

    def listening() -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise ZeroDivisionError("nobody had thought of it")

    channel = Channel(heard=lambda _: None, listening=listening)
    running = asyncio.create_task(channel.run(database_url))
    channel.tell(works(_7=1))
    async with asyncio.timeout(10):
        await channel.until_told()

    assert times == 2
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()

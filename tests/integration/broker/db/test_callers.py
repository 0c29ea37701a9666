"""What one process remembers of keys, and when it asks again."""

from dataclasses import dataclass

import pytest

from brokkr.broker.db import callers as module
from brokkr.broker.db.callers import LIFETIME, Callers
from brokkr.broker.db.keys import (
    Role,
    SentKey,
    StoredKey,
    find_key,
    issue_key,
    revoke_key,
)
from brokkr.broker.db.pool import Connection, Pool, transaction
from support.queue import Queue


@dataclass
class Clock:
    """Stands still until it is moved."""

    now: float = 0

    def __call__(self) -> float:
        return self.now


@dataclass
class Door:
    """One process's memory of callers, and the database behind it."""

    pool: Pool
    clock: Clock
    callers: Callers

    async def a_key(self, role: Role = Role.VIEWER) -> str:
        async with transaction(self.pool) as db:
            return (await issue_key(db, role, name="test")).key

    async def opens(self, key: str) -> bool:
        return await self.callers.find(self.pool, key) is not None

    async def revoke(self, key: str) -> None:
        async with transaction(self.pool) as db:
            await revoke_key(db, key[len("brokkr_vwr") :][:10])


@pytest.fixture
def door(pool: Pool) -> Door:
    clock = Clock()
    return Door(pool, clock, Callers(clock=clock))


async def test_a_revoked_key_opens_nothing_once_it_is_forgotten(door: Door) -> None:
    key = await door.a_key()
    assert await door.opens(key)

    await door.revoke(key)
    door.callers.forget()

    assert not await door.opens(key)


async def test_a_key_that_another_replica_has_revoked_opens_for_a_few_seconds(door: Door) -> None:
    key = await door.a_key()
    assert await door.opens(key)
    await door.revoke(key)

    door.clock.now += LIFETIME.total_seconds() - 0.1
    assert await door.opens(key)
    door.clock.now += 0.1
    assert not await door.opens(key)
    assert LIFETIME.total_seconds() <= 10


async def test_a_key_that_is_in_use_does_not_live_longer_for_it(door: Door) -> None:
    key = await door.a_key()
    for _ in range(10):
        assert await door.opens(key)
        door.clock.now += LIFETIME.total_seconds() / 5
    await door.revoke(key)
    door.clock.now += LIFETIME.total_seconds()

    assert not await door.opens(key)


async def test_a_wrong_secret_opens_nothing_whether_the_key_is_remembered_or_not(
    door: Door,
) -> None:
    key = await door.a_key()
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")

    assert not await door.opens(wrong)
    assert await door.opens(key)
    assert not await door.opens(wrong)
    assert await door.opens(key)


async def test_a_key_that_was_revoked_while_it_was_looked_up_is_not_remembered(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await door.a_key()

    async def find_and_revoke(db: Connection, sent: SentKey) -> StoredKey | None:
        found = await find_key(db, sent)
        await door.revoke(key)
        door.callers.forget()
        return found

    monkeypatch.setattr(module, "find_key", find_and_revoke)
    assert await door.opens(key)  # it was good when it was read
    monkeypatch.undo()

    assert not await door.opens(key)


async def test_no_more_keys_are_remembered_than_there_is_room_for(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    keys = [await door.a_key() for _ in range(5)]

    for key in keys:
        assert await door.opens(key)

    assert len(door.callers._remembered) == 3
    assert keys[-1][len("brokkr_vwr") :][:10] in door.callers._remembered


async def test_the_database_is_asked_once_for_many_requests(door: Door) -> None:
    key = await door.a_key()
    for _ in range(50):
        assert await door.opens(key)

    assert len(door.callers._remembered) == 1
    await door.pool.execute("DELETE FROM api_keys")
    assert await door.opens(key)


async def test_it_is_noted_when_a_key_was_used_but_not_each_time(door: Door, pool: Pool) -> None:
    used, unused = await door.a_key(), await door.a_key()
    await door.opens(used)
    await door.callers.note_use(pool)

    rows = await pool.fetch("SELECT short_id, last_used_at FROM api_keys")
    noted = {row["short_id"]: row["last_used_at"] for row in rows}
    short = {key: key[len("brokkr_vwr") :][:10] for key in (used, unused)}
    assert noted[short[used]] is not None
    assert noted[short[unused]] is None

    door.clock.now += 60
    await door.opens(used)
    await door.callers.note_use(pool)
    assert await last_used(pool, short[used]) == noted[short[used]]

    await pool.execute("UPDATE api_keys SET last_used_at = now() - interval '10 minutes'")
    door.clock.now += 60
    await door.opens(used)
    await door.callers.note_use(pool)
    assert await last_used(pool, short[used]) > noted[short[used]]


async def last_used(pool: Pool, short_id: str) -> object:
    return await pool.fetchval("SELECT last_used_at FROM api_keys WHERE short_id = $1", short_id)


async def test_a_row_that_is_locked_does_not_hold_up_the_note(door: Door, pool: Pool) -> None:
    key = await door.a_key()
    await door.opens(key)
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM api_keys FOR UPDATE")
        await door.callers.note_use(pool)

    assert await pool.fetchval("SELECT last_used_at FROM api_keys") is None


async def test_an_agents_key_says_which_agent(door: Door, queue: Queue) -> None:
    agent = await queue.an_agent("edge-7")
    async with transaction(door.pool) as db:
        key = (await issue_key(db, Role.AGENT, agent_id=agent.id)).key

    caller = await door.callers.find(door.pool, key)

    assert caller is not None
    assert (caller.role, caller.agent_id, caller.agent_name) == (Role.AGENT, agent.id, "edge-7")
    assert caller.generator_id is None
    assert caller.actor == "agent:edge-7"

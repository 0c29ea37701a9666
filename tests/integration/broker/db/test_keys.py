import asyncio
import re

import pytest

from brokkr.broker.db.keys import (
    Role,
    create_admin_key,
    find_key,
    issue_key,
    keep_admin_key,
    list_keys,
    parse_key,
    revoke_key,
)
from brokkr.broker.db.pool import Pool, transaction
from brokkr.wire.tenants import CreatedKey
from brokkr.work.errors import InvalidInput, KeyNotFound, LastAdminKey
from support.signals import eventually


async def a_key(pool: Pool, role: Role = Role.ADMIN, name: str = "test") -> CreatedKey:
    async with transaction(pool) as db:
        return await issue_key(db, role, name=name)


async def opens(pool: Pool, key: str) -> bool:
    sent = parse_key(key)
    assert sent is not None
    async with transaction(pool) as db:
        return await find_key(db, sent) is not None


async def revoke(pool: Pool, key: CreatedKey) -> None:
    async with transaction(pool) as db:
        await revoke_key(db, key.short_id)


async def test_an_admin_key_can_be_made_while_a_broker_runs_or_not(
    pool: Pool, database_url: str
) -> None:
    keys = [await create_admin_key(database_url) for _ in range(2)]

    assert len(set(keys)) == 2
    for key in keys:
        assert re.fullmatch(r"brokkr_adm[a-z2-7]{10}_[A-Za-z0-9_-]{43}", key)
        assert await opens(pool, key)


@pytest.mark.parametrize(("role", "kind"), [(Role.ADMIN, "adm"), (Role.VIEWER, "vwr")])
async def test_the_kind_of_a_key_can_be_read(pool: Pool, role: Role, kind: str) -> None:
    key = await a_key(pool, role)

    assert key.key.startswith(f"brokkr_{kind}{key.short_id}_")


async def test_the_database_does_not_know_the_secret(pool: Pool, database_url: str) -> None:
    key = await create_admin_key(database_url)

    row = await pool.fetchrow("SELECT * FROM api_keys")
    assert row is not None
    assert row["short_id"] in key
    assert key[-43:].encode() not in row["secret_sha256"]
    assert len(row["secret_sha256"]) == 32


async def test_the_kind_in_a_key_gives_no_rights(pool: Pool) -> None:
    viewer = await a_key(pool, Role.VIEWER)
    sent = parse_key(viewer.key.replace("brokkr_vwr", "brokkr_adm"))

    assert sent is not None
    async with transaction(pool) as db:
        found = await find_key(db, sent)
    assert found is not None
    assert found.caller.role is Role.VIEWER


@pytest.mark.parametrize(
    "text",
    [
        "",
        "brokkr",
        f"brokkr_xyz{'a' * 10}_{'x' * 43}",
        f"brokkr_adm{'A' * 10}_{'x' * 43}",
        f"brokkr_adm{'a' * 10}_{'x' * 42}",
        f"brokkr_adm{'a' * 10}_{'x' * 43}\n",
        f"brokkr_adm{'a' * 10}_{'é' * 43}",
        "x" * 100_000,
    ],
)
def test_what_does_not_look_like_a_key_is_none(text: str) -> None:
    assert parse_key(text) is None


async def test_the_last_admin_key_cannot_be_revoked(pool: Pool) -> None:
    first, second = await a_key(pool), await a_key(pool)
    viewer = await a_key(pool, Role.VIEWER)

    await revoke(pool, first)
    with pytest.raises(LastAdminKey):
        await revoke(pool, second)
    await revoke(pool, viewer)

    assert await opens(pool, second.key)
    assert not await opens(pool, first.key)
    assert not await opens(pool, viewer.key)


async def test_what_is_revoked_or_unknown_cannot_be_revoked(pool: Pool) -> None:
    first, _ = await a_key(pool), await a_key(pool)
    await revoke(pool, first)

    for short_id in (first.short_id, "a" * 10, "", "x" * 1000):
        with pytest.raises(KeyNotFound):
            async with transaction(pool) as db:
                await revoke_key(db, short_id)


@pytest.mark.parametrize(("same", "refusal"), [(False, LastAdminKey), (True, KeyNotFound)])
async def test_of_two_who_revoke_at_once_the_second_sees_what_the_first_has_done(
    pool: Pool, *, same: bool, refusal: type[Exception]
) -> None:
    first, second = await a_key(pool), await a_key(pool)
    async with transaction(pool) as db:
        await revoke_key(db, first.short_id)
        other = asyncio.create_task(revoke(pool, first if same else second))
        await eventually(lambda: is_waiting(pool))

    with pytest.raises(refusal):
        await other
    assert await opens(pool, second.key)


async def is_waiting(pool: Pool) -> bool:
    """Say whether a statement waits for another one's lock."""
    waiting: bool = await pool.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    return waiting


async def test_keys_are_listed_newest_first_in_pages(pool: Pool) -> None:
    made = [(await a_key(pool, Role.VIEWER, name=str(number))).short_id for number in range(5)]

    async with transaction(pool) as db:
        first = await list_keys(db, before=None, limit=3)
        second = await list_keys(db, before=first[-1].short_id, limit=3)

    assert [each.short_id for each in [*first, *second]] == made[::-1]
    assert [each.name for each in first] == ["4", "3", "2"]


GIVEN = "brokkr_admabcdefghij_" + "x" * 43


async def test_an_admin_key_can_be_given(pool: Pool) -> None:
    for _ in range(2):  # by one replica after the other
        async with transaction(pool) as db:
            await keep_admin_key(db, GIVEN)

    assert await opens(pool, GIVEN)
    assert not await opens(pool, GIVEN[:-1] + "y")


async def test_a_given_key_that_was_revoked_stays_so(pool: Pool) -> None:
    await a_key(pool)
    async with transaction(pool) as db:
        await keep_admin_key(db, GIVEN)
        await revoke_key(db, "abcdefghij")
        await keep_admin_key(db, GIVEN)

    assert not await opens(pool, GIVEN)


@pytest.mark.parametrize(
    "text", ["admin", GIVEN[:-1], GIVEN.replace("adm", "agt"), GIVEN.replace("adm", "gen")]
)
async def test_what_is_given_must_be_an_admin_key(pool: Pool, text: str) -> None:
    with pytest.raises(InvalidInput, match=r"broker\.admin_key: is no admin key"):
        async with transaction(pool) as db:
            await keep_admin_key(db, text)

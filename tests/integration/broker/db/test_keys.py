import re

from brokkr.broker.db.keys import Role, create_admin_key, find_caller
from brokkr.broker.db.pool import Pool, transaction


async def test_an_admin_key_can_be_made_while_a_broker_runs_or_not(
    pool: Pool, database_url: str
) -> None:
    keys = [await create_admin_key(database_url) for _ in range(2)]

    assert len(set(keys)) == 2
    for key in keys:
        assert re.fullmatch(r"brokkr_adm[a-z2-7]{10}_[A-Za-z0-9_-]{43}", key)
        async with transaction(pool) as db:
            caller = await find_caller(db, key)
        assert caller is not None
        assert caller.role is Role.ADMIN


async def test_the_database_does_not_know_the_secret(pool: Pool, database_url: str) -> None:
    key = await create_admin_key(database_url)

    row = await pool.fetchrow("SELECT * FROM api_keys")
    assert row is not None
    assert row["short_id"] in key
    assert key[-43:].encode() not in row["secret_sha256"]
    assert len(row["secret_sha256"]) == 32

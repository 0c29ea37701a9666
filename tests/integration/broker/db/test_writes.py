"""A database that takes no writes is said to be away, and is found again by itself."""

from pathlib import Path

import aiohttp
import asyncpg
import pytest

from brokkr.broker.db.embedded import embedded_postgres
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.db.pool import Pool, autocommit, open_pool, transaction
from brokkr.broker.db.writes import CHECK_SECONDS, RECHECK_SECONDS, Writes, probe_writes
from brokkr.broker.settings import BrokerSettings
from brokkr.work.errors import DatabaseUnavailable
from support.broker import serving
from support.disks import a_small_disk
from support.factories import a_build_template
from support.signals import eventually


async def make_read_only(url: str, *, value: str) -> None:
    """Do to new connections what a failover to a standby does."""
    connection = await asyncpg.connect(url)
    await connection.execute("SET transaction_read_only = off")
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute("SET default_transaction_read_only = off")
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")
    await connection.close()


async def test_the_probe_needs_room_on_the_disk(pool: Pool) -> None:
    async with transaction(pool) as db:
        await probe_writes(db)
        text = Path("src/brokkr/broker/db/queries/probe_writes.sql").read_text()
        plan = await db.fetch(f"EXPLAIN (ANALYZE) {text}")

    assert "Storage: Disk" in "".join(row[0] for row in plan)


async def test_a_database_that_became_read_only_is_away_until_it_is_another(
    database_url: str,
) -> None:
    async with open_pool(database_url) as pool:
        await make_read_only(database_url, value="on")
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            async with transaction(pool) as db:
                await db.execute("CREATE TABLE kept (value int)")
        with pytest.raises(DatabaseUnavailable, match="takes no writes"):
            async with transaction(pool) as db:
                await probe_writes(db)
        await make_read_only(database_url, value="off")
        with pytest.raises(DatabaseUnavailable):  # the connection is as old as the standby
            async with autocommit(pool) as db:
                await db.execute("CREATE TABLE kept (value int)")

        async with autocommit(pool) as db:
            await db.execute("CREATE TABLE kept (value int)")


async def test_it_is_looked_at_now_and_then_and_more_often_while_it_is_not_well(
    database_url: str,
) -> None:
    writes = Writes()
    async with open_pool(database_url) as pool:
        await writes.check(pool, now=100)
        await make_read_only(database_url, value="on")
        await pool.expire_connections()
        await writes.check(pool, now=100 + CHECK_SECONDS - 0.1)
        for now in (100 + CHECK_SECONDS, 100 + CHECK_SECONDS + RECHECK_SECONDS / 2):
            with pytest.raises(DatabaseUnavailable, match="takes no writes"):
                await writes.check(pool, now=now)
        await make_read_only(database_url, value="off")
        await pool.expire_connections()

        await writes.check(pool, now=100 + CHECK_SECONDS + RECHECK_SECONDS)


async def test_a_full_disk_is_503_and_over_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokkr.broker.db.writes.CHECK_SECONDS", 0.1)
    monkeypatch.setattr("brokkr.broker.db.writes.RECHECK_SECONDS", 0.1)
    body = {
        "work_type": "build",
        "template": a_build_template(),
        "target": {"agents": ["nobody"]},
        "labels": {f"filler-{number}": "x" * 63 for number in range(60)},
    }
    with a_small_disk(tmp_path / "disk", megabytes=120) as disk:
        async with embedded_postgres(disk.folder / "data") as url:
            key = await create_admin_key(url)
            settings = BrokerSettings(stale_claim_interval_seconds=0.2)
            async with (
                serving(settings, url) as app,
                aiohttp.ClientSession(app.url, headers={"Authorization": f"Bearer {key}"}) as http,
            ):

                async def submit() -> int:
                    async with http.post("/api/v1/work", json=body) as answer:
                        if answer.status == 503:
                            assert answer.headers["Retry-After"] == "5"
                        return answer.status

                async def is_ready() -> bool:
                    async with http.get("/readyz") as answer:
                        return answer.status == 200

                assert await submit() == 201
                assert await is_ready()
                disk.fill()
                seen = [await submit() for _ in range(300)]
                async with http.get("/readyz") as answer:
                    assert answer.status == 503
                async with http.get("/healthz") as answer:
                    assert answer.status == 200
                disk.free()
                await eventually(is_ready)

                assert set(seen) <= {201, 503}  # the first few may still find room
                assert seen[-1] == 503
                assert await submit() == 201

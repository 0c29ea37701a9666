import asyncio
import hashlib

import asyncpg
import pytest
from structlog.testing import capture_logs

from brokkr.broker.db.migrate import MigrationChanged, list_migrations, migrate
from brokkr.work.errors import BrokerUnavailable


@pytest.fixture
async def empty_url(database_url: str) -> str:
    """A database without any of our tables."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await connection.close()
    return database_url


async def columns(url: str) -> set[tuple[str, str, str]]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public'"
    )
    await connection.close()
    return {tuple(row) for row in rows}


async def test_an_empty_database_gets_all_migrations_once(empty_url: str) -> None:
    names = [each.name for each in list_migrations()]

    assert await migrate(empty_url) == names
    assert await migrate(empty_url) == []
    found = {(table, column) for table, column, _ in await columns(empty_url)}
    assert {("work_targets", "work_id"), ("work_targets", "agent_id")} <= found
    assert {("work_queue", "crd_spec"), ("work_execution_log", "outcome")} <= found


async def test_replicas_that_start_together_take_turns(empty_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_url) for _ in range(4)))

    assert sorted(len(each) for each in applied) == [0, 0, 0, len(list_migrations())]


async def test_a_migration_that_was_changed_afterwards_is_noticed(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE schema_migration SET sha256 = 'other'")
    await connection.close()

    with pytest.raises(MigrationChanged, match="0001_initial"):
        await migrate(database_url)


async def test_a_newer_brokers_migration_is_left_alone(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    digest = hashlib.sha256(b"").hexdigest()
    await connection.execute("INSERT INTO schema_migration VALUES ('9999_newer.sql', $1)", digest)
    await connection.close()

    assert await migrate(database_url) == []


async def test_a_database_that_is_not_there_is_said_to_be_unavailable(database_url: str) -> None:
    missing = database_url.replace("/test_", "/missing_")

    with pytest.raises(BrokerUnavailable, match="missing_"):
        await migrate(missing)


def test_migrations_are_numbered_without_gaps() -> None:
    numbers = [int(each.name[:4]) for each in list_migrations()]

    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_migration_that_waits_for_a_table_lets_others_through(
    database_url: str,
) -> None:
    """As while somebody makes a backup, which reads all tables in one transaction."""
    last = list_migrations()[-1]
    backup, other = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    await other.execute(
        "DROP TABLE generator_labels, label_copy; DROP FUNCTION copy_label CASCADE;"
        " ALTER TABLE work_labels DROP COLUMN is_copied"
    )
    await other.execute("DELETE FROM schema_migration WHERE name = $1", last.name)
    reading = backup.transaction()
    await reading.start()
    await backup.execute("SELECT FROM work_labels")

    migrating = asyncio.create_task(migrate(database_url))
    await asyncio.sleep(0.5)
    async with asyncio.timeout(4):
        await other.execute("INSERT INTO work_labels VALUES ('a=b', gen_random_uuid())")
    assert not migrating.done()
    await reading.commit()

    assert await migrating == [last.name]
    await backup.close()
    await other.close()


async def test_who_waits_for_another_brokers_migration_says_for_whom(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokkr.broker.db.migrate._TELL_SECONDS", 0.2)
    holder = await asyncpg.connect(empty_url, server_settings={"application_name": "the other"})
    pid = holder.get_server_pid()
    await holder.execute("SELECT pg_advisory_lock(4, 0)")
    with capture_logs() as logs:
        waiting = asyncio.create_task(migrate(empty_url))
        await asyncio.sleep(0.7)
        assert not waiting.done()
        await holder.close()
        assert await waiting

    said = [line for line in logs if line["event"] == "waiting for a migration"]
    assert len(said) in {2, 3}
    assert said[0]["holder"].startswith("the other at this machine since ")
    assert said[0]["holder_pid"] == pid

import asyncio

import pytest

from brokkr.broker.db import pool as pool_module
from brokkr.broker.db.pool import Pool, connect, open_pool, place_of, transaction
from brokkr.work.errors import DatabaseUnavailable, InvalidInput
from support.relay import relayed


async def ask(pool: Pool) -> int:
    async with transaction(pool) as db:
        answer: int = await db.fetchval("SELECT 1")
        return answer


async def test_connections_that_died_silently_are_given_up_and_replaced(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(pool_module, "_ACQUIRE_TIMEOUT_SECONDS", 0.3)
    async with relayed(database_url) as database, open_pool(database.url, size=2) as pool:
        await asyncio.gather(ask(pool), ask(pool))
        database.relay.silence()

        lost = await asyncio.gather(ask(pool), ask(pool), return_exceptions=True)

        assert [type(each) for each in lost] == [DatabaseUnavailable] * 2
        assert sum(await asyncio.gather(ask(pool), ask(pool))) == 2


async def test_a_pool_outlives_its_database(database_url: str) -> None:
    async with relayed(database_url) as database, open_pool(database.url) as pool:
        assert await ask(pool) == 1
        await database.relay.close()
        with pytest.raises(DatabaseUnavailable):
            await ask(pool)
        await database.relay.open()

        assert await ask(pool) == 1


async def test_a_server_that_has_said_goodbye_and_not_yet_hung_up_is_away(
    database_url: str,
) -> None:
    """The driver has then heard of the end, and still takes the connection for open."""
    async with relayed(database_url) as database, open_pool(database.url) as pool:
        await ask(pool)
        database.relay.say_goodbye()
        async with connect(database.url) as other:  # by then what was said before has come, too
            await other.fetchval("SELECT 1")

        with pytest.raises(DatabaseUnavailable):
            await ask(pool)


async def test_a_connection_to_a_dead_database_is_left_without_waiting(database_url: str) -> None:
    async def fail() -> None:
        async with asyncio.timeout(2), connect(database.url):
            database.relay.silence()
            raise RuntimeError("enough")

    async with relayed(database_url) as database:
        with pytest.raises(RuntimeError, match="enough"):
            await fail()


@pytest.mark.parametrize("url", ["mysql://localhost/brokkr", "nonsense"])
async def test_an_address_that_is_none_is_a_mistake_and_no_outage(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"database\.url"):
        async with connect(url):
            pass


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://me:secret@db.example.com:6432/brokkr", "db.example.com:6432/brokkr"),
        (
            "postgresql://me@/brokkr?host=%2Frun%2Fpostgresql&password=secret",
            "/run/postgresql/brokkr",
        ),
        ("postgresql://one,two/brokkr", "one,two/brokkr"),
    ],
)
def test_a_place_is_said_without_what_opens_it(url: str, place: str) -> None:
    assert place_of(url) == place

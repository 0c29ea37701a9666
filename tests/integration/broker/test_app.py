"""The broker as a process: how it starts, how it ends, and what it does in between."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import pytest

from brokkr.broker.app import AddressTaken, listening, serve
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.db.migrate import MigrationChanged
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimSome, RegisterAgent, SubmitWork, TargetBody
from brokkr.work.errors import BrokerUnavailable, InvalidInput, WorkNotFound
from support.broker import serving
from support.factories import a_build_template
from support.queue import Queue
from support.relay import relayed
from support.signals import eventually

_SERVE = """
import asyncio, sys
from brokkr.broker.app import serve
from brokkr.broker.settings import BrokerSettings
settings = BrokerSettings(port=int(sys.argv[1]), stale_claim_interval_seconds=0.2)
asyncio.run(serve(settings, sys.argv[2]))
print("ended well")
"""
STOP_SECONDS = 5


class Process:
    """A broker's process, and where it is."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.url = url
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def lines(self) -> list[str]:
        return self.log.splitlines()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it has ended, which must be soon; return its exit code."""
        async with asyncio.timeout(STOP_SECONDS):
            return await self._process.wait()

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as http, http.get(self.url + path) as answer:
            return answer.status, await answer.text()

    async def is_ready(self) -> bool:
        assert self._process.returncode is None, self.log
        try:
            return (await self.get("/readyz"))[0] == 200
        except aiohttp.ClientConnectionError:
            return False

    async def is_alive(self) -> bool:
        try:
            return (await self.get("/healthz"))[0] == 200
        except aiohttp.ClientConnectionError:
            return False


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def started(folder: Path, database_url: str) -> AsyncIterator[Process]:
    """Run a broker, whether or not its database is there."""
    port, log = a_free_port(), folder / "broker.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _SERVE, str(port), database_url), stdout=output, stderr=output
        )
    broker = Process(process, f"http://127.0.0.1:{port}", log)
    try:
        await eventually(broker.is_alive)
        yield broker
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def a_broker(folder: Path, database_url: str) -> AsyncIterator[Process]:
    async with started(folder, database_url) as broker:
        await eventually(broker.is_ready)
        yield broker


def a_submission(**fields: Any) -> SubmitWork:
    target = TargetBody(match_labels={"any": "yes"})
    return SubmitWork(work_type="build", template=a_build_template(), target=target, **fields)


async def parked(broker: Process, number: int) -> None:
    """Wait until so many long polls are parked."""

    async def is_so() -> bool:
        return f"waiting_polls {number}.0" in (await broker.get("/metrics"))[1]

    await eventually(is_so)


# -- the end -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_broker_that_is_told_to_stop_answers_first_and_ends_well(
    tmp_path: Path, database_url: str, number: signal.Signals
) -> None:
    key = await create_admin_key(database_url)
    async with (
        a_broker(tmp_path, database_url) as broker,
        BrokerClient(broker.url, key) as admin,
    ):
        agent = await admin.register_agent(RegisterAgent(name="edge"))
        async with BrokerClient(broker.url, agent.key) as client:
            polls = [
                asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
                for _ in range(50)
            ]
            await parked(broker, 50)
            broker.stop(number)
            began = monotonic()

            assert await asyncio.gather(*polls) == [[]] * 50
            assert monotonic() - began < 2
            assert await broker.ended() == 0
        assert broker.lines[-1] == "ended well"


async def test_a_request_that_is_being_served_is_finished_before_the_end(
    tmp_path: Path, database_url: str, queue: Queue
) -> None:
    key = await create_admin_key(database_url)
    async with (
        a_broker(tmp_path, database_url) as broker,
        BrokerClient(broker.url, key) as admin,
    ):
        async with queue.pool.acquire() as other, other.transaction():
            await other.execute("LOCK TABLE work_queue")
            submitting = asyncio.create_task(admin.submit_work(a_submission()))
            await eventually(lambda: blocked(queue))
            broker.stop()
            await eventually(lambda: refuses(broker))
        submitted = await submitting

        assert await broker.ended() == 0
    assert (await queue.look(submitted.id)).id == submitted.id


async def blocked(queue: Queue) -> bool:
    return bool(
        await queue.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
    )


async def refuses(broker: Process) -> bool:
    return not await broker.is_alive()


async def test_a_client_that_never_finishes_its_request_does_not_keep_the_broker(
    tmp_path: Path, database_url: str
) -> None:
    key = await create_admin_key(database_url)
    async with a_broker(tmp_path, database_url) as broker:
        _, writer = await asyncio.open_connection("127.0.0.1", int(broker.url.rpartition(":")[2]))
        head = f"POST /api/v1/work HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        writer.write(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        await writer.drain()
        await eventually(broker.is_alive)
        broker.stop()

        assert await broker.ended() == 0
        writer.transport.abort()


async def test_a_database_that_does_not_answer_does_not_keep_the_broker(
    tmp_path: Path, database_url: str
) -> None:
    key = await create_admin_key(database_url)
    async with (
        relayed(database_url) as database,
        a_broker(tmp_path, database.url) as broker,
        BrokerClient(broker.url, key) as admin,
    ):
        agent = await admin.register_agent(RegisterAgent(name="edge"))
        database.relay.silence(new_ones=True)
        asking = [asyncio.create_task(admin.get_agent(str(agent.id))) for _ in range(20)]
        await asyncio.sleep(1)
        broker.stop()

        assert await broker.ended() == 0
        answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(each, BrokerUnavailable) for each in answers)


# -- the database ------------------------------------------------------------------------


async def test_a_broker_waits_for_its_database_and_then_serves(
    tmp_path: Path, database_url: str
) -> None:
    await empty(database_url)
    async with relayed(database_url) as database:
        await database.relay.close()
        url = database.url.replace("://brokkr@", "://brokkr:secret@")
        async with started(tmp_path, url) as broker, aiohttp.ClientSession() as http:
            for path in ("/readyz", "/api/v1/work", "/api/v1/agents/self"):
                headers = {"Authorization": "Bearer brokkr_whatever"}
                async with http.get(broker.url + path, headers=headers) as answer:
                    assert answer.status == 503, path
                    assert answer.headers["Retry-After"]
                    assert (await answer.json(content_type=None))["code"] == "database_unavailable"
            assert await broker.is_alive()
            await asyncio.sleep(2.5)  # three attempts
            said = [line for line in broker.lines if "database not reached" in line]
            await database.relay.open()
            await eventually(broker.is_ready)
            key = await create_admin_key(database_url)
            async with BrokerClient(broker.url, key) as admin:
                await admin.submit_work(a_submission())

            assert len(said) == 1
            assert f"127.0.0.1:{database.relay.port}/test_" in said[0]
            assert "database.url" in said[0]
            assert "secret" not in broker.log
            assert "Traceback" not in broker.log


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda url: url.replace("/test_", "/missing_"), "does not exist"),
        (lambda url: url.replace("brokkr@", "stranger:secret@"), "authentication failed"),
    ],
)
async def test_a_database_that_does_not_let_the_broker_in_is_said_by_the_reason(
    tmp_path: Path, database_url: str, wrong: Any, problem: str
) -> None:
    async with started(tmp_path, wrong(database_url)) as broker:

        async def is_said() -> bool:
            return problem in broker.log

        await eventually(is_said)
        assert not await broker.is_ready()
        assert "secret" not in broker.log
        broker.stop()
        assert await broker.ended() == 0


async def test_a_broker_whose_database_goes_away_recovers_without_a_restart(
    tmp_path: Path, database_url: str, queue: Queue
) -> None:
    key = await create_admin_key(database_url)
    async with relayed(database_url) as database, a_broker(tmp_path, database.url) as broker:
        async with BrokerClient(broker.url, key) as admin:
            agent = await admin.register_agent(RegisterAgent(name="edge", labels={"any": "yes"}))
            async with BrokerClient(broker.url, agent.key) as client:
                poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
                await parked(broker, 1)
                await asyncio.sleep(0.5)  # the poll has looked, and would be told of an outage
                await database.relay.close()
                assert not await broker.is_ready()
                with pytest.raises(BrokerUnavailable):
                    await admin.submit_work(a_submission())
                # Another broker's, whose word of it is not heard.
                missed = await queue.submit()
                await asyncio.sleep(2.5)  # all that runs every so often has failed
                lines = len(broker.lines)
                await asyncio.sleep(2)
                quiet = broker.lines[lines:]
                await database.relay.open()

                async with asyncio.timeout(10):
                    [claim] = await poll
                await eventually(broker.is_ready)
        broker.stop()
        assert await broker.ended() == 0

    assert claim.id == missed
    assert quiet == []
    assert "Traceback" not in broker.log


async def test_what_may_not_have_been_committed_is_not_acknowledged(
    database_url: str, queue: Queue
) -> None:
    key = await create_admin_key(database_url)
    body = a_submission(idempotency_key="once")
    async with (
        relayed(database_url) as database,
        serving(BrokerSettings(), database.url) as broker,
        BrokerClient(broker.url, key) as admin,
    ):
        with pytest.raises(WorkNotFound):
            await admin.get_work(uuid4())  # so that the key is known, and the pool connected
        database.relay.cut_after(b"COMMIT;")
        with pytest.raises(BrokerUnavailable):
            await admin.submit_work(body)
        again = await admin.submit_work(body)

    assert [row["id"] for row in await queue.pool.fetch("SELECT id FROM work_queue")] == [again.id]


async def test_a_database_of_another_version_ends_the_broker(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE schema_migration SET sha256 = 'other'")
    await connection.close()

    with pytest.raises(MigrationChanged):
        await serve(BrokerSettings(port=0), database_url)


async def test_an_address_of_a_database_that_is_none_ends_the_broker() -> None:
    with pytest.raises(InvalidInput, match=r"database\.url"):
        await serve(BrokerSettings(port=0), "mysql://localhost/brokkr")


async def empty(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await connection.close()


# -- in between --------------------------------------------------------------------------


async def test_a_running_broker_gives_stale_claims_back(
    tmp_path: Path, database_url: str, queue: Queue
) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(claim_timeout_seconds=1)
    await queue.claim(work_id, by=agent)

    async def lost() -> int:
        return (await queue.look(work_id)).lost_claims

    async with a_broker(tmp_path, database_url):
        await eventually(lost)

    assert len(await queue.pending(agent)) == 1


async def test_a_taken_port_is_named(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(AddressTaken, match=str(port)):
            await serve(BrokerSettings(port=port), database_url)


async def test_a_connection_sends_small_answers_at_once() -> None:
    with listening("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

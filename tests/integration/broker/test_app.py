"""The broker as a process: how it starts, how it ends, and what it does in between."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from brokkr.broker.app import AddressTaken, listening, serve
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimSome
from brokkr.work.errors import BrokerUnavailable
from support.queue import Queue
from support.signals import eventually

_SERVE = """
import asyncio, sys
from brokkr.broker.app import serve
from brokkr.broker.settings import BrokerSettings
settings = BrokerSettings(port=int(sys.argv[1]), stale_claim_interval_seconds=0.2)
asyncio.run(serve(settings, sys.argv[2]))
print("ended well")
"""


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def a_broker(database_url: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    port = a_free_port()
    url = f"http://127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVE, str(port), database_url, stdout=asyncio.subprocess.PIPE
    )
    try:

        async def is_ready() -> bool:
            assert process.returncode is None
            try:
                return bool(await metrics(url))
            except aiohttp.ClientConnectionError:
                return False

        await eventually(is_ready)
        yield url, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_broker_that_is_told_to_stop_answers_first_and_ends_well(
    database_url: str, queue: Queue, number: signal.Signals
) -> None:
    key = await create_admin_key(database_url)
    async with a_broker(database_url) as (url, process), BrokerClient(url, key) as admin:
        agent = await queue.an_agent()
        rotated = await admin.rotate_agent_key(agent.id)
        async with BrokerClient(url, rotated.key) as client:
            poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))

            async def is_parked() -> bool:
                return "waiting_polls 1.0" in await metrics(url)

            await eventually(is_parked)
            process.send_signal(number)

            async with asyncio.timeout(10):
                assert list(await poll) == []
                out, _ = await process.communicate()
    assert process.returncode == 0
    assert out.decode().endswith("ended well\n")


async def test_a_running_broker_gives_stale_claims_back(database_url: str, queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit(claim_timeout_seconds=1)
    await queue.claim(work_id, by=agent)

    async def lost() -> int:
        return (await queue.look(work_id)).lost_claims

    async with a_broker(database_url):
        await eventually(lost)

    assert len(await queue.pending(agent)) == 1


async def test_a_taken_port_is_named(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(AddressTaken, match=str(port)):
            await serve(BrokerSettings(port=port), database_url)


async def test_a_database_that_is_away_is_named_at_the_start() -> None:
    url = f"postgresql://nobody@127.0.0.1:{a_free_port()}/nothing"

    with pytest.raises(BrokerUnavailable, match="database"):
        await serve(BrokerSettings(port=0), url)


async def metrics(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        return await response.text()


async def test_a_connection_sends_small_answers_at_once() -> None:
    with listening("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

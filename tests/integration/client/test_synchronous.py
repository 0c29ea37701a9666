"""The client for scripts: in threads, interrupted, and closed; the test plays the agent."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from brokkr.client import Client, WorkState
from brokkr.work.errors import Unauthenticated, WorkNotFound
from support.broker import RunningBroker
from support.played_agent import PlayedAgent
from support.signals import eventually
from support.templates import a_build

GPU = {"gpu": "true"}

WAITING = """
import sys
from brokkr.client import Client
from support.templates import a_build

with Client() as client:
    work = client.submit(a_build(), target={"gpu": "true"})
    print(work.id, flush=True)
    try:
        if sys.argv[1] == "wait":
            client.wait(work.id)
        else:
            for event in client.watch(work.id):
                print(event.kind, flush=True)
    except KeyboardInterrupt:
        print(client.cancel(work.id).status)
        raise
"""


@asynccontextmanager
async def a_client(broker: RunningBroker, key: str) -> AsyncIterator[Client]:
    """Make a client, and close it, in threads: the broker is served by this one."""
    client = await asyncio.to_thread(Client, broker.url, key)
    try:
        yield client
    finally:
        await asyncio.to_thread(client.close)


def clients_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "brokkr client"]


async def test_a_script_submits_waits_watches_and_cancels(
    broker: RunningBroker, admin_key: str, agent: PlayedAgent
) -> None:
    ready = threading.Event()

    def script() -> tuple[object, ...]:
        with Client(broker.url, admin_key) as client:
            built = client.submit(a_build(), target=GPU, priority=1)
            ready.set()
            built = client.wait(built.id, timeout_seconds=20)
            kinds = [event.kind for event in client.watch(built.id)]
            other = client.cancel(client.submit(a_build(), target=GPU).id)
            assert client.get(str(other.id)) == other
            return built.success, kinds, other.status

    running = asyncio.create_task(asyncio.to_thread(script))
    await agent.complete(await agent.claim(), "succeeded")

    assert await running == (
        True,
        ["submitted", "claimed", "completed"],
        WorkState.CANCELLED,
    )
    assert clients_threads() == []


async def test_several_threads_use_one_client_at_once(
    broker: RunningBroker, admin_key: str, agent: PlayedAgent
) -> None:
    def script(client: Client, number: int) -> tuple[int, object]:
        work = client.submit(a_build(), target=GPU, labels={"number": str(number)})
        return number, client.wait(work.id, timeout_seconds=30).labels["number"]

    async with a_client(broker, admin_key) as client:
        with ThreadPoolExecutor(8) as threads:
            loop = asyncio.get_running_loop()
            running = [loop.run_in_executor(threads, script, client, n) for n in range(8)]
            for _ in running:
                await agent.complete(await agent.claim(), "succeeded")
            done = await asyncio.gather(*running)

    assert done == [(number, str(number)) for number in range(8)]


async def test_errors_are_raised_where_the_call_was_made(
    broker: RunningBroker, admin_key: str
) -> None:
    nowhere = "01a20a77-7632-72f8-8020-15ec76278706"
    async with a_client(broker, admin_key) as client:
        with pytest.raises(WorkNotFound):
            await asyncio.to_thread(client.wait, nowhere)
        with pytest.raises(WorkNotFound):
            await asyncio.to_thread(lambda: list(client.watch(nowhere)))


async def test_without_a_key_there_is_no_client_and_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BROKKR_KEY", raising=False)

    with pytest.raises(Unauthenticated):
        Client()
    await eventually(lambda: _none(clients_threads()))


async def _none(found: list[str]) -> bool:
    return not found


async def test_a_watch_that_is_left_early_is_over(broker: RunningBroker, admin_key: str) -> None:
    def first(client: Client) -> str:
        work = client.submit(a_build(), target=GPU)
        for event in client.watch(work.id):
            return event.kind
        return ""

    async with a_client(broker, admin_key) as client:
        assert await asyncio.to_thread(first, client) == "submitted"
        await eventually(lambda: _nobody_follows(broker))


async def _nobody_follows(broker: RunningBroker) -> bool:
    return len(broker.parts.followers) == 0


async def test_closing_ends_the_calls_of_other_threads(
    broker: RunningBroker, admin_key: str
) -> None:
    async with a_client(broker, admin_key) as client:
        work = await asyncio.to_thread(client.submit, a_build(), target=GPU)
        waiting = asyncio.create_task(asyncio.to_thread(client.wait, work.id))
        await eventually(lambda: _somebody_follows(broker))
        await asyncio.to_thread(client.close)

        with pytest.raises(RuntimeError, match="was closed meanwhile"):
            await waiting
        with pytest.raises(RuntimeError, match="is closed"):
            client.get(work.id)


async def _somebody_follows(broker: RunningBroker) -> bool:
    return len(broker.parts.followers) > 0


@pytest.mark.parametrize("how", ["wait", "watch"])
async def test_ctrl_c_ends_a_call_and_the_client_is_still_good(
    broker: RunningBroker, admin_key: str, how: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        # Whoever runs the tests in the background has SIGINT ignored, and passes that on.
        *("env", "--default-signal=INT", sys.executable, "-c", WAITING, how),
        env={
            **os.environ,
            "BROKKR_URL": broker.url,
            "BROKKR_KEY": admin_key,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await eventually(lambda: _somebody_follows(broker))
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()

    assert out.decode().splitlines()[-1] == "CANCELLED"
    assert err.decode().splitlines()[-1] == "KeyboardInterrupt"

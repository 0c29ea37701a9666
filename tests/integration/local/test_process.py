import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from brokkr.local.process import ServerFailed, free_port, is_listening, running, tethered
from support.signals import eventually

LISTENER = """
import socket, sys, time
time.sleep(float(sys.argv[2]))
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    time.sleep(600)
"""

PARENT = """
import asyncio, sys
from pathlib import Path
from brokkr.local.process import running

async def main():
    async with running("sleeper", ["sleep", "600"], log=Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def is_alive(pid: int) -> bool:
    """Say whether a process exists that is more than an unread exit code."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def is_dead(pid: int) -> bool:
    return not is_alive(pid)


async def test_the_block_begins_when_the_server_is_ready_and_ends_with_it(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", LISTENER, str(port), "0.2"]

    async with running(
        "listener", command, log=tmp_path / "log", is_ready=lambda: is_listening(port)
    ) as server:
        assert await is_listening(port)
        assert is_alive(server.pid)

    assert not is_alive(server.pid)
    assert not await is_listening(port)


async def test_a_server_that_ends_too_early_says_why(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    with pytest.raises(ServerFailed, match=r"(?s)grumpy ended with code 3.*no disk") as caught:
        async with running(
            "grumpy", ["sh", "-c", "echo no disk; exit 3"], log=tmp_path / "log", is_ready=never
        ):
            pass

    assert caught.value.tail == "no disk"


async def test_a_server_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    with pytest.raises(ServerFailed, match="was not ready"):
        async with running(
            "slow",
            ["sh", "-c", "echo $$; exec sleep 600"],
            log=tmp_path / "log",
            is_ready=never,
            within=timedelta(seconds=0.3),
        ):
            pass

    assert not is_alive(int((tmp_path / "log").read_text()))


async def test_a_server_that_ignores_the_first_signal_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def is_deaf() -> bool:
        return "deaf" in log.read_text()

    command = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"]
    async with running("deaf", command, log=log, is_ready=is_deaf) as server:
        await server.stop(grace=timedelta(seconds=0.1))

    assert await server.wait() == -signal.SIGKILL


async def test_the_end_of_a_server_can_be_waited_for(tmp_path: Path) -> None:
    async with running("short", ["sh", "-c", "exit 7"], log=tmp_path / "log") as server:
        assert await server.wait() == 7


async def test_a_server_dies_with_its_killed_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, tmp_path / "log"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert is_alive(child)

    parent.kill()
    await parent.wait()

    await eventually(lambda: is_dead(child))


async def test_a_program_that_has_lost_its_parent_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent may die before the kernel was asked to tell."""
    ran = tmp_path / "ran"
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    command = tethered(["touch", ran])
    monkeypatch.undo()

    orphan = await asyncio.create_subprocess_exec(*command)

    assert await orphan.wait() != 0
    assert not ran.exists()

"""``brokkr local`` as a user runs it: started twice, interrupted, killed."""

import asyncio
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from brokkr.agent.kinds import NAMESPACES, SERVICE_ACCOUNTS
from brokkr.agent.kube.client import KubeClient
from brokkr.local.control_plane import ControlPlane
from support.command_line import CommandLine
from support.signals import eventually

pytestmark = [pytest.mark.build, pytest.mark.kube, pytest.mark.postgres]

LOCAL = CommandLine(Path(__file__).parents[3])


@asynccontextmanager
async def up(folder: Path, *more: str) -> AsyncIterator[tuple[Process, str]]:
    """Run ``brokkr local up`` in a folder until it is ready; yield what it printed."""
    ports = ("--broker-port", "0", "--registry-port", "0", "--git-port", "0")
    async with LOCAL.started("local", "up", "--folder", str(folder), *ports, *more) as process:
        assert process.stdout is not None
        printed = ""
        async with asyncio.timeout(60):
            while "kubectl get works" not in printed:
                if not (line := await process.stdout.readline()):
                    _, errors = await process.communicate()
                    pytest.fail(f"it ended before it was ready: {printed}{errors.decode()}")
                printed += line.decode()
        yield process, printed


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that work in a folder or name it."""
    found = []
    for each in Path("/proc").iterdir():
        if not each.name.isdigit() or int(each.name) == os.getpid():
            continue
        with suppress(OSError):
            command = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(folder) in command or (each / "cwd").readlink().is_relative_to(folder):
                found.append(command)
    return found


async def all_gone(folder: Path) -> None:
    async def are_gone() -> bool:
        return not processes_of(folder)

    try:
        await eventually(are_gone)
    except TimeoutError:
        pytest.fail(f"left behind: {processes_of(folder)}")


async def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    async with up(tmp_path) as (process, _):
        assert processes_of(tmp_path)
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()

    assert process.returncode == 130
    assert errors.decode().strip().endswith("stopped")
    assert [each.name for each in tmp_path.iterdir()] == ["brokkr-local.lock"]
    await all_gone(tmp_path)


async def test_a_second_one_in_the_same_folder_is_told_about_the_first(tmp_path: Path) -> None:
    async with up(tmp_path) as (first, _):
        second = await LOCAL("local", "up", "--folder", str(tmp_path))
        assert first.returncode is None

    assert second.code == 1
    assert f"process {first.pid}" in second.err


async def test_a_folder_with_other_files_in_it_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    refused = await LOCAL("local", "up", "--folder", str(tmp_path))

    assert refused.code == 1
    assert "would be emptied" in refused.err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


async def test_after_a_kill_nothing_is_left_and_the_next_one_works(tmp_path: Path) -> None:
    async with up(tmp_path) as (process, _):
        process.kill()
        await process.wait()
        await all_gone(tmp_path)
    async with up(tmp_path) as (_, printed):
        assert "broker      http://127.0.0.1:" in printed


async def test_a_part_that_dies_ends_all_and_is_named(tmp_path: Path) -> None:
    async with up(tmp_path) as (process, _):
        (agent,) = [
            int(each.name)
            for each in Path("/proc").iterdir()
            if each.name.isdigit() and b"agent\0run" in _command(each) and _works_in(each, tmp_path)
        ]
        os.kill(agent, signal.SIGKILL)
        _, errors = await process.communicate()

    assert process.returncode == 1
    assert "error: agent ended" in errors.decode()
    await all_gone(tmp_path)


async def test_with_a_kubeconfig_that_cluster_is_used_and_nothing_stands_in(
    tmp_path: Path, control_plane: ControlPlane, kube: KubeClient
) -> None:
    folder = tmp_path / "up"
    async with up(folder, "--kubeconfig", str(control_plane.kubeconfig)) as (_, printed):
        commands = " ".join(processes_of(folder))

    assert str(control_plane.kubeconfig) in printed
    assert "agent run" in commands
    assert "build_runner" not in commands
    assert "kube-apiserver" not in commands
    assert await kube.find(NAMESPACES, None, "brokkr-agent") is not None
    assert await kube.find(SERVICE_ACCOUNTS, "brokkr-system", "brokkr-agent") is not None


async def test_the_demo_proves_its_image_on_ports_that_are_free(tmp_path: Path) -> None:
    with socket.socket() as taken:
        with suppress(OSError):  # then somebody else has taken it, which is as good
            taken.bind(("127.0.0.1", 3000))
            taken.listen()
        demo = await LOCAL("local", "demo", "examples/hello-image")

    assert demo.code == 0, demo.err
    assert "port 3000 is taken" in demo.err
    assert "Hello from Brokkr" in demo.out


async def test_the_demo_killed_midway_leaves_no_process_behind() -> None:
    async with LOCAL.started("local", "demo", "examples/hello-image") as process:
        assert process.stdout is not None
        first = (await process.stdout.readline()).decode()
        folder = Path(first.partition("data in ")[2].strip().rstrip(")"))
        await process.stdout.readline()  # everything is started
        assert processes_of(folder)
        process.kill()
        await process.wait()
        await all_gone(folder)


async def test_a_folder_that_is_none_is_said_in_one_line(tmp_path: Path) -> None:
    demo = await LOCAL("local", "demo", str(tmp_path / "nothing"))

    assert demo.code == 2
    assert "nothing" in demo.err
    assert "Traceback" not in demo.err


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _works_in(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").readlink().is_relative_to(folder)
    except OSError:
        return False

"""A real server, real kills: what was acknowledged is kept, and nothing is left over."""

import asyncio
import os
import pwd
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from brokkr.broker.db.embedded import embedded_postgres
from brokkr.broker.db.postgres_programs import (
    EmbeddedPostgresFailed,
    reachable_programs,
    server_user,
)
from support.postgres import servers_of
from support.signals import eventually

pytestmark = pytest.mark.postgres

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")

OWNER = """
import asyncio, concurrent.futures.thread, encodings.idna, os, sys
from pathlib import Path
import structlog
from brokkr.broker.db.embedded import embedded_postgres

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    async with embedded_postgres(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

if len(sys.argv) > 2:
    os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
asyncio.run(main())
"""


@asynccontextmanager
async def an_owner(data_dir: Path, *, uid: int | None = None) -> AsyncIterator["Owner"]:
    """Another process that runs the server of a folder until its input ends."""
    arguments = [str(data_dir)] + ([] if uid is None else [str(uid)])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, *arguments, stdin=-1, stdout=-1
    )
    owner = Owner(process, await _line(process))
    try:
        yield owner
    finally:
        if process.returncode is None:
            await owner.end()


class Owner:
    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()

    async def die(self) -> None:
        self.process.kill()
        await self.process.wait()


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def write(url: str, value: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT pg_advisory_lock(1)")  # IF NOT EXISTS alone can race
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()


async def read(url: str) -> list[int]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT value FROM kept ORDER BY value")
    await connection.close()
    return [row["value"] for row in rows]


async def until(fact: Callable[[], bool]) -> None:
    async def ask() -> bool:
        return fact()

    await eventually(ask)


async def until_readable(url: str) -> list[int]:
    async def ask() -> list[int]:
        try:
            return await read(url)
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError):
            return []

    return await eventually(ask)


def program_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres/postmaster.pid").read_text().split()[0])


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path) as url:
        await write(url, 1)
    async with embedded_postgres(tmp_path) as url:
        await write(url, 2)

        assert await read(url) == [1, 2]
    assert servers_of(tmp_path) == []


async def test_a_server_that_is_killed_comes_back_with_all_that_it_acknowledged(
    tmp_path: Path,
) -> None:
    async with embedded_postgres(tmp_path) as url:
        for value in range(20):
            await write(url, value)
        killed = postmaster(tmp_path)
        os.kill(killed, signal.SIGKILL)
        await until(lambda: killed not in servers_of(tmp_path))

        assert await until_readable(url) == list(range(20))
        assert postmaster(tmp_path) != killed


async def test_no_server_outlives_a_killed_owner_and_the_next_one_finds_everything(
    tmp_path: Path,
) -> None:
    async with an_owner(tmp_path) as owner:
        await write(owner.url, 1)
        assert servers_of(tmp_path) != []
        await owner.die()
    await until(lambda: servers_of(tmp_path) == [])

    async with embedded_postgres(tmp_path) as url:
        assert await read(url) == [1]


async def test_a_start_right_after_a_kill_waits_for_what_is_left_over(tmp_path: Path) -> None:
    async with an_owner(tmp_path) as owner:
        await write(owner.url, 1)
        await owner.die()
        async with embedded_postgres(tmp_path) as url:
            assert await read(url) == [1]


async def test_a_second_opener_uses_the_running_server_and_leaves_it_running(
    tmp_path: Path,
) -> None:
    async with embedded_postgres(tmp_path) as url:
        running = postmaster(tmp_path)
        async with an_owner(tmp_path) as second:
            await write(second.url, 7)

        assert await read(url) == [7]
        assert postmaster(tmp_path) == running


async def test_who_is_left_starts_the_server_anew_when_its_owner_was_killed(tmp_path: Path) -> None:
    async with an_owner(tmp_path) as owner, embedded_postgres(tmp_path) as url:
        await write(url, 1)
        former = postmaster(tmp_path)
        await owner.die()
        await until(lambda: former not in servers_of(tmp_path))

        assert await until_readable(url) == [1]
        async with an_owner(tmp_path) as third:
            await write(third.url, 2)
        assert await read(url) == [1, 2]
    assert servers_of(tmp_path) == []


async def test_who_is_left_starts_the_server_anew_when_its_owner_ends(tmp_path: Path) -> None:
    async with an_owner(tmp_path) as owner:
        async with an_owner(tmp_path) as left:
            await write(left.url, 1)
            former = postmaster(tmp_path)
            await owner.end()
            await until(lambda: former not in servers_of(tmp_path))

            assert await until_readable(left.url) == [1]
        assert servers_of(tmp_path) == []


async def test_one_of_many_who_are_left_becomes_the_owner(tmp_path: Path) -> None:
    async with an_owner(tmp_path) as owner, embedded_postgres(tmp_path) as url:
        await write(url, 1)
        async with an_owner(tmp_path), an_owner(tmp_path):
            former = postmaster(tmp_path)
            await owner.die()
            await until(lambda: former not in servers_of(tmp_path))

            assert await until_readable(url) == [1]
    assert servers_of(tmp_path) == []


async def test_an_owner_that_is_killed_while_it_begins_is_followed_by_who_waits(
    tmp_path: Path,
) -> None:
    beginner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(tmp_path), stdin=-1, stdout=-1
    )
    await until((tmp_path / "postgres.partial").exists)
    opened = embedded_postgres(tmp_path)
    opening = asyncio.create_task(opened.__aenter__())
    await asyncio.sleep(0.3)
    beginner.kill()
    await beginner.wait()

    await write(await opening, 1)
    assert await read(opening.result()) == [1]
    await opened.__aexit__(None, None, None)


async def test_a_server_that_cannot_be_started_again_is_tried_until_it_can(
    tmp_path: Path,
) -> None:
    async with embedded_postgres(tmp_path) as url:
        await write(url, 1)
        running, folder = postmaster(tmp_path), tmp_path / "postgres"
        folder.rename(tmp_path / "aside")  # as good as a disk that is away
        (tmp_path / "postgres.partial").touch()  # nor can a new one be made
        os.kill(running, signal.SIGKILL)
        await asyncio.sleep(1)
        (tmp_path / "aside").rename(folder)

        assert await until_readable(url) == [1]


async def test_openers_that_come_at_once_share_one_new_server(tmp_path: Path) -> None:
    together = asyncio.Barrier(4)

    async def open_and_write(value: int) -> None:
        async with embedded_postgres(tmp_path) as url:
            await write(url, value)
            await together.wait()

            assert await read(url) == [0, 1, 2, 3]
            await together.wait()

    async with asyncio.TaskGroup() as group:
        for value in range(4):
            group.create_task(open_and_write(value))


async def test_an_interrupted_initialisation_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "postgres.partial/base").mkdir(parents=True)

    async with embedded_postgres(tmp_path) as url:
        await write(url, 1)

    assert not (tmp_path / "postgres.partial").exists()


async def test_a_pid_file_that_names_a_stranger_does_not_stop_the_start(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path) as url:
        await write(url, 1)
    user = server_user(tmp_path / "postgres")
    other: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid} if os.geteuid() == 0 else {}
    stranger = await asyncio.create_subprocess_exec("/bin/sleep", "60", **other)
    try:
        pid_file = tmp_path / "postgres/postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n/proc/self/cwd\n1\n5432\n.\n\n    1 1\n")
        async with embedded_postgres(tmp_path) as url:
            assert await read(url) == [1]
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_path_that_is_too_long_for_a_socket_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)

    async with embedded_postgres(deep) as url:
        await write(url, 1)
        async with embedded_postgres(deep) as second:
            assert await read(second) == [1]


async def test_only_our_own_folder_has_its_permissions_changed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = [(each, each.stat().st_mode, each.stat().st_uid) for each in (closed, tmp_path)]

    async with embedded_postgres(closed) as url:
        await write(url, 1)

    assert [(each, each.stat().st_mode, each.stat().st_uid) for each, *_ in before] == before
    assert (closed / "postgres").stat().st_mode & 0o777 == 0o700


@pytest.fixture
def nobody() -> Iterator[int]:
    """Become nobody for as long as the test likes: its own effective user, and back."""
    uid = pwd.getpwnam("nobody").pw_uid
    yield uid
    os.seteuid(0)


@as_root
async def test_another_user_of_the_machine_is_refused_by_folder_and_by_server(
    tmp_path: Path, nobody: int
) -> None:
    async with embedded_postgres(tmp_path) as url:
        handle = os.open(tmp_path / "postgres", os.O_PATH)
        reachable = f"postgresql://brokkr@/postgres?host=/proc/self/fd/{handle}&port=5432"
        os.seteuid(nobody)
        with pytest.raises(PermissionError):
            await asyncpg.connect(reachable)
        os.seteuid(0)
        (tmp_path / "postgres").chmod(0o711)
        os.seteuid(nobody)
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(reachable)
        os.seteuid(0)
        os.close(handle)

        await write(url, 1)


@as_root
async def test_an_ordinary_user_gets_a_server_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setenv("PATH", str(reachable_programs(nobody)), prepend=os.pathsep)
    home = Path("/tmp") / f"brokkr-test-{os.getpid()}"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    try:
        async with an_owner(home, uid=nobody.pw_uid) as owner:
            await write(owner.url, 1)

            assert await read(owner.url) == [1]
            assert (home / "postgres").owner() == "nobody"
        async with embedded_postgres(home) as url:  # root, after the user
            assert await read(url) == [1]
    finally:
        shutil.rmtree(home)


async def test_a_data_folder_that_is_a_file_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedPostgresFailed, match="cannot be used"):
        async with embedded_postgres(tmp_path / "file"):
            pass

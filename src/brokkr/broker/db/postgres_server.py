"""
The embedded PostgreSQL's files and process: made, started, started again, stopped.

Whoever calls holds the lock on the data folder, which is :mod:`brokkr.broker.db.embedded`'s.
"""

# Note [Root does not open its folders]
#
# PostgreSQL refuses to run as root, so it runs as the owner of its folder, who may not
# pass the folders above it (a home, a temporary folder).  Loosening those would be
# wrong.  Instead the server begins inside its folder: the working directory is set
# before the user is, and the server knows the folder as /proc/self/cwd.
#
# Note [Who may connect]
#
# Only a unix socket is opened, in a folder that is closed to everybody but its owner
# and root, and `peer` asks the kernel who is at the other end: the owner or root.

import asyncio
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import IO, Final
from urllib.parse import quote

import asyncpg
import structlog

from brokkr.broker.db.postgres_programs import (
    EmbeddedPostgresFailed,
    reachable_programs,
    server_user,
)

HERE: Final = "/proc/self/cwd"
MAX_SOCKET_PATH: Final = 107
START_SECONDS: Final = 120.0
LEFTOVER_SECONDS: Final = 10.0
STOP_SECONDS: Final = ((signal.SIGINT, 15), (signal.SIGQUIT, 10), (signal.SIGKILL, None))
RESTART_DELAYS: Final = (0.1, 0.5, 2.0, 5.0, 10.0)
HEALTHY_SECONDS: Final = 60.0

# Small, and nothing that trades durability for speed.  `jit` costs more than the
# broker's short statements; statements stay out of the log because they carry keys.
SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "port": "5432",
    "jit": "off",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "log_checkpoints": "off",
    "log_min_error_statement": "panic",
    "timezone": "UTC",
}

_SILENT: Final = (
    OSError,
    asyncpg.InternalClientError,  # it goes away in the middle of an answer
    asyncpg.OperatorInterventionError,  # it starts, or stops
    asyncpg.PostgresConnectionError,
)
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None)
log = structlog.get_logger(__name__)


class Server:
    """
    The server of one folder: its files and its process.

    Call it from a thread that lives as long as the server is to: the kernel ends the
    server with the thread that started it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log_file = folder.with_name("postgres.log")
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """
        Start the server with a new log, and wait until it answers.

        Raises:
            EmbeddedPostgresFailed: There are no programs, or it did not start.
        """
        self._log_file.unlink(missing_ok=True)
        self._process = await self._launch()
        deadline = monotonic() + START_SECONDS
        while self._process.poll() is None and monotonic() < deadline:
            if await answers(self._folder):
                return
            await asyncio.sleep(0.02)
        said = self._log_file.read_text(errors="replace").strip().splitlines()[-5:]
        raise EmbeddedPostgresFailed(f"PostgreSQL did not start: {' / '.join(said)}")

    async def keep_running(self) -> None:
        """Start the server whenever it does not run, until cancelled; no failure ends this."""
        failures = 0
        while True:
            started = monotonic()
            try:
                if self._process is None:
                    self._process = await self._launch()
                code = await asyncio.to_thread(self._process.wait)
                self._process = None
                problem = f"exited with code {code}"
            except (OSError, subprocess.SubprocessError, EmbeddedPostgresFailed) as error:
                problem = f"not started: {error}"  # a full disk, for instance
            failures = 0 if monotonic() - started > HEALTHY_SECONDS else failures
            delay = RESTART_DELAYS[min(failures, len(RESTART_DELAYS) - 1)]
            failures += 1
            log.error("embedded postgres stopped", problem=problem, restart_seconds=delay)
            await asyncio.sleep(delay)

    async def stop(self) -> None:
        """Stop the server if it runs, by force if it takes too long."""
        if self._process is None:
            return
        for number, seconds in STOP_SECONDS:
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, seconds)
                return

    async def _launch(self) -> subprocess.Popen[bytes]:
        user = server_user(self._folder)
        programs = await asyncio.to_thread(reachable_programs, user)
        if not self._folder.exists():
            log.info("embedded postgres is being initialised", folder=str(self._folder))
            await _initialise(self._folder, programs, user)
        await _clear_leftovers(self._folder)
        command = [str(programs / "postgres"), "-D", HERE]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        self._log_file.touch(mode=0o600)
        with self._log_file.open("ab") as output:
            # SIGQUIT ends a server at once and all its processes with it; what was
            # committed is read back from its journal at the next start.
            return _spawn(command, self._folder, user, output=output, on_death=signal.SIGQUIT)


async def answers(folder: Path) -> bool:
    """Say whether the server of a folder takes connections, even if it has no more to give."""
    with url_of(folder) as url:
        try:
            connection = await asyncpg.connect(url, timeout=5)
            await connection.close()
        except asyncpg.TooManyConnectionsError:
            return True
        except _SILENT:
            return False
        return True


@contextmanager
def url_of(folder: Path) -> Iterator[str]:
    """Make the URL; a path too long for a socket's address is shortened through /proc."""
    host = str(folder)
    if len(os.fsencode(f"{host}/.s.PGSQL.5432")) <= MAX_SOCKET_PATH or not folder.exists():
        yield _render_url(host)
        return
    handle = os.open(folder, os.O_PATH)
    try:
        yield _render_url(f"/proc/{os.getpid()}/fd/{handle}")
    finally:
        os.close(handle)


def _render_url(host: str) -> str:
    return f"postgresql://brokkr@/postgres?host={quote(host, safe='')}&port=5432"


async def _initialise(folder: Path, programs: Path, user: pwd.struct_passwd) -> None:
    """Make a cluster beside its place and move it there when it is whole."""
    partial = folder.with_name("postgres.partial")
    if partial.exists():
        # A former owner was killed: what its initdb had started may still write here.
        await _clear_leftovers(partial)
    _empty_folder(partial, user)
    command = [str(programs / "initdb"), "-D", HERE, "-U", "brokkr", "-A", "peer"]
    command += ["-E", "UTF8", "--locale=C", "--data-checksums", "--no-instructions"]
    initdb = _spawn(command, partial, user, output=subprocess.PIPE, on_death=signal.SIGKILL)
    output, _ = await asyncio.to_thread(initdb.communicate)
    if initdb.returncode != 0:
        raise EmbeddedPostgresFailed(f"initdb failed: {output.decode(errors='replace').strip()}")
    (partial / "pg_hba.conf").write_text("local all all peer map=brokkr\n")
    (partial / "pg_ident.conf").write_text(
        "".join(f'brokkr "{name}" brokkr\n' for name in ("root", user.pw_name))
    )
    partial.rename(folder)
    _sync(folder.parent)


def _empty_folder(path: Path, user: pwd.struct_passwd) -> None:
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(path, user.pw_uid, user.pw_gid)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


async def _clear_leftovers(folder: Path) -> None:
    """Wait out the processes of a former server, then remove the files that name it."""
    deadline = monotonic() + LEFTOVER_SECONDS
    while pids := [pid for pid in _all_pids() if serves(folder, pid)]:
        if monotonic() > deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.05)
    for name in ("postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
        (folder / name).unlink(missing_ok=True)


def _all_pids() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def serves(folder: Path, pid: int) -> bool:
    """Say whether a process is one of the server of a folder."""
    try:  # a zombie has no working directory, so it does not count
        is_postgres = Path(f"/proc/{pid}/comm").read_text() == "postgres\n"
        return is_postgres and Path(f"/proc/{pid}/cwd").samefile(folder)
    except OSError:
        return False


def _spawn(
    command: list[str],
    folder: Path,
    user: pwd.struct_passwd,
    *,
    output: int | IO[bytes],
    on_death: signal.Signals,
) -> subprocess.Popen[bytes]:
    """Run a program in a folder as a user, with a signal for when this process dies."""
    parent = os.getpid()

    def die_with_parent() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, on_death)
        if os.getppid() != parent:
            os._exit(1)

    is_root = os.geteuid() == 0
    return subprocess.Popen(
        command,
        cwd=folder,
        env={"LC_ALL": "C", "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the broker, which stops its server last
        user=user.pw_uid if is_root else None,
        group=user.pw_gid if is_root else None,
        extra_groups=[] if is_root else None,
        umask=0o077,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - it makes two system calls
    )

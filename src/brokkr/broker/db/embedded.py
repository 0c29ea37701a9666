"""
The default database: a PostgreSQL server of the broker's own, in its data folder.

Owns the server's whole life: its files, its process, its socket.  It takes no part in
what is stored there.  ``brokkr broker …`` opens it when ``database.url`` is not set.

The data folder then holds ``postgres/`` (the cluster, its socket included),
``postgres.log`` and ``postgres.lock``.
"""

# Note [One server per data folder]
#
# Whoever holds the lock on ``postgres.lock`` owns the server: starts it, restarts it,
# stops it.  Whoever finds the lock taken uses the owner's server and leaves it alone.
# The kernel frees the lock with its holder, however that ends, and PR_SET_PDEATHSIG
# ends the server with it too.  So a lock that is free means that no server is meant to
# run: processes that still stand in the folder are leftovers, and so is
# ``postmaster.pid``, whose number may be a zombie's or a stranger's by now.
#
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
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
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

_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None)
log = structlog.get_logger(__name__)


@asynccontextmanager
async def embedded_postgres(data_dir: Path) -> AsyncIterator[str]:
    """
    Run the PostgreSQL of a data folder, or use the one that runs there already.

    Call it from a thread that lives as long as the server is to: the kernel ends the
    server with the thread that started it.

    Yields:
        The URL of a database that only its owner and root can open.

    Raises:
        EmbeddedPostgresFailed: It cannot be started, or cannot be reached.
    """
    folder = _folder_in(data_dir)
    with _lock_file(folder) as lock:
        owner = await _own_or_attach(lock, folder)
        server = await _prepare(folder) if owner else None
        with _url_of(folder) as url:
            if server is None:
                yield url
                return
            async with server.running(url):
                yield url


class _Server:
    """The server's process: started, started again, stopped."""

    def __init__(self, folder: Path, programs: Path, user: pwd.struct_passwd) -> None:
        self.folder = folder
        self.user = user
        self.command = [str(programs / "postgres"), "-D", HERE]
        for name, value in SETTINGS.items():
            self.command += ["-c", f"{name}={value}"]
        self.log_file = folder.with_name("postgres.log")

    @asynccontextmanager
    async def running(self, url: str) -> AsyncIterator[None]:
        """Keep the server running until the block is left."""
        self.log_file.unlink(missing_ok=True)
        self.log_file.touch(mode=0o600)
        await self._launch()
        try:
            await self._wait_until_it_answers(url)
            keeper = asyncio.create_task(self._keep_running())
            try:
                yield
            finally:
                keeper.cancel()
                await asyncio.wait([keeper])
        finally:
            await self._stop()

    async def _launch(self) -> None:
        await _clear_leftovers(self.folder)
        with self.log_file.open("ab") as output:
            # SIGQUIT ends a server at once and all its processes with it; what was
            # committed is read back from its journal at the next start.
            self.process = _spawn(
                self.command, self.folder, self.user, output=output, on_death=signal.SIGQUIT
            )

    async def _wait_until_it_answers(self, url: str) -> None:
        deadline = monotonic() + START_SECONDS
        while self.process.poll() is None and monotonic() < deadline:
            if await _answers(url):
                return
            await asyncio.sleep(0.02)
        said = self.log_file.read_text(errors="replace").strip().splitlines()[-5:]
        raise EmbeddedPostgresFailed(f"PostgreSQL did not start: {' / '.join(said)}")

    async def _keep_running(self) -> None:
        crashes = 0
        while True:
            started = monotonic()
            code = await asyncio.to_thread(self.process.wait)
            crashes = 0 if monotonic() - started > HEALTHY_SECONDS else crashes
            delay = RESTART_DELAYS[min(crashes, len(RESTART_DELAYS) - 1)]
            crashes += 1
            log.error("embedded postgres exited", code=code, restart_seconds=delay)
            await asyncio.sleep(delay)
            await self._launch()

    async def _stop(self) -> None:
        for number, seconds in STOP_SECONDS:
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self.process.wait, seconds)
                return


# -- who owns the server ---------------------------------------------------------------


def _folder_in(data_dir: Path) -> Path:
    return data_dir.absolute() / "postgres"


@contextmanager
def _lock_file(folder: Path) -> Iterator[IO[bytes]]:
    path = folder.with_name("postgres.lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        lock = path.open("ab")
    except OSError as error:
        raise EmbeddedPostgresFailed(
            f"the data folder {path.parent} cannot be used: {error.strerror}"
        ) from error
    with lock:
        yield lock


async def _own_or_attach(lock: IO[bytes], folder: Path) -> bool:
    """Take the lock, or wait until its holder's server answers; say whether it is ours."""
    deadline = monotonic() + START_SECONDS
    while monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with _url_of(folder) as url:
                if await _answers(url):
                    return False
            await asyncio.sleep(0.1)
        else:
            return True
    raise EmbeddedPostgresFailed(
        f"another process holds {folder.parent}, and its PostgreSQL does not answer"
    )


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
        return False
    await connection.close()
    return True


@contextmanager
def _url_of(folder: Path) -> Iterator[str]:
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


# -- the cluster's folder --------------------------------------------------------------


async def _prepare(folder: Path) -> _Server:
    user = server_user(folder)
    programs = await asyncio.to_thread(reachable_programs, user)
    if _is_new(folder):
        log.info("embedded postgres is being initialised", folder=str(folder))
        await _initialise(folder, programs, user)
    return _Server(folder, programs, user)


def _is_new(folder: Path) -> bool:
    return not folder.exists()


async def _initialise(folder: Path, programs: Path, user: pwd.struct_passwd) -> None:
    """Make a cluster beside its place and move it there when it is whole."""
    partial = _empty_folder(folder.with_name("postgres.partial"), user)
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


def _empty_folder(path: Path, user: pwd.struct_passwd) -> Path:
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(path, user.pw_uid, user.pw_gid)
    return path


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


async def _clear_leftovers(folder: Path) -> None:
    """Wait out the processes of a former server, then remove the files that name it."""
    deadline = monotonic() + LEFTOVER_SECONDS
    while pids := [pid for pid in _all_pids() if _serves(folder, pid)]:
        if monotonic() > deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.05)
    for name in ("postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
        (folder / name).unlink(missing_ok=True)


def _all_pids() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def _serves(folder: Path, pid: int) -> bool:
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

"""
Run a server as a child process: started, ready, and gone when its block is left.

Every program of local mode is started here.  A child has a session of its own, so that
Ctrl-C reaches only the parent, which stops its children in order.  It writes to a log
file, whose end is in the error when it fails.
"""

# Note [Children die with their parent]
#
# A parent that is killed with SIGKILL cannot clean up, so the kernel does it:
# `setpriv --pdeathsig` asks for a SIGKILL when the parent is gone.  Two things to know:
#
# - "The parent" is the *thread* that forked.  Children are started by the event loop's
#   thread, which must therefore live as long as the process; the main thread does.
# - A parent that dies before `setpriv` has asked is never noticed.  So the shell after it
#   looks whether its parent is still the expected one before it becomes the program.
#
# It reaches children only, not theirs: a program that starts others has to see to them.

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

_POLL_SECONDS = 0.05
_TAIL_LINES = 15


class ServerFailed(Exception):
    """
    A server did not start, or ended on its own.

    Attributes:
        tail: The last lines of its log.
    """

    def __init__(self, name: str, what: str, log: Path) -> None:
        self.tail = _tail(log)
        super().__init__(f"{name} {what}; the end of {log}:\n{self.tail}")


class Server:
    """A running child process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self.log = log
        self._process = process

    async def wait(self) -> int:
        """Wait until it ends, and return its exit code (negative: the signal)."""
        return await self._process.wait()

    async def until_ready(
        self, is_ready: Callable[[], Awaitable[bool]], *, within: timedelta
    ) -> None:
        """
        Ask until the answer is yes.

        Raises:
            ServerFailed: It ended, or was not ready in time.
        """
        try:
            async with asyncio.timeout(within.total_seconds()):
                while not await is_ready():
                    if self._process.returncode is not None:
                        raise ServerFailed(
                            self.name, f"ended with code {self._process.returncode}", self.log
                        )
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            seconds = within.total_seconds()
            raise ServerFailed(
                self.name, f"was not ready after {seconds:.0f} s", self.log
            ) from None

    async def stop(self, *, grace: timedelta = timedelta(seconds=10)) -> None:
        """Ask it to end, and end it by force after ``grace``.  Stopping twice is harmless."""
        try:
            self._signal(signal.SIGTERM)
            async with asyncio.timeout(grace.total_seconds()):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            # Also when the wait was cancelled: nothing may be left behind.
            self._signal(signal.SIGKILL)
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


@asynccontextmanager
async def running(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    is_ready: Callable[[], Awaitable[bool]] | None = None,
    within: timedelta = timedelta(seconds=30),
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Server]:
    """
    Run a program for the length of the block, which begins when it is ready.

    Args:
        log: Where its output goes; what an earlier run left there is replaced.
        within: How long it may take to get ready.
        env: Its whole environment; ours if not given.

    Raises:
        ServerFailed: It ended, or was not ready in time.
    """
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *tethered(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
    server = Server(name, process, log)
    try:
        if is_ready is not None:
            await server.until_ready(is_ready, within=within)
        yield server
    finally:
        await server.stop()


def tethered(command: Sequence[str | Path]) -> list[str]:
    """Extend a command so that it dies with us: see Note [Children die with their parent]."""
    only_if_ours = '[ "$PPID" = "$0" ] && exec "$@"'
    return [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("/bin/sh", "-c", only_if_ours, str(os.getpid())),
        *map(str, command),
    ]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on; somebody may before you do."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def is_listening(port: int) -> bool:
    """Say whether something accepts connections on this port of 127.0.0.1."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "(nothing)"
    return "\n".join(lines[-_TAIL_LINES:]) or "(nothing)"

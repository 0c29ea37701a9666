"""A process that is started again whenever it ends, and what its ends were."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from brokkr.local.process import tethered

_RESTART_SECONDS = 0.5
_END_SECONDS = 10.0
# Of an agent there is one.  Others say it in a log, as JSON or plainly, or on the terminal.
_AGENTS_REASON = "a newer process of this agent is connected"
_REASONS = ('"level": "error"', '"level": "critical"', "[error", "error: ")


@dataclass(frozen=True, slots=True)
class Exit:
    """An end of a process that nobody here had asked for; a negative code is a signal."""

    name: str
    code: int
    last_words: str

    @property
    def has_reason(self) -> bool:
        """
        Say whether it has said why: an exit code, and an error in its log.

        An agent goes on whatever is away, or refuses; only to a newer process it gives way.
        """
        reasons = (_AGENTS_REASON,) if self.name.startswith("agent-") else _REASONS
        return self.code > 0 and any(each in self.last_words for each in reasons)


@dataclass(slots=True)
class _Started:
    """One process; ``told`` once it was killed, or told to end."""

    process: asyncio.subprocess.Process
    log: Path
    told: bool = False

    def signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


class Supervised:
    """
    One part of the system: one process, but for a predecessor that was frozen.

    Attributes:
        logs: One of each process that there was.
        exits: The ends that were its own doing.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Describe it; :meth:`run` starts it.

        Args:
            folder: For the logs.
            before: Called before each start, but not of a successor.
        """
        self.name = name
        self.logs: list[Path] = []
        self.exits: list[Exit] = []
        self._command = command
        self._folder = folder
        self._cwd = cwd
        self._env = env
        self._before = before
        self._alive: list[_Started] = []
        self._watching: set[asyncio.Task[None]] = set()
        self._is_gone = asyncio.Event()

    @property
    def alive(self) -> int:
        """Return how many processes there are."""
        return len(self._alive)

    async def run(self) -> None:
        """Keep it running until this is cancelled; then it is asked to end, and made to."""
        try:
            while True:
                self._before()
                await self._start()
                await self._is_gone.wait()
                await asyncio.sleep(_RESTART_SECONDS)
        finally:
            await self._end()

    def kill(self) -> None:
        """End it as a crash would."""
        for each in self._alive[-1:]:
            each.told = True
            each.signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it where it stands."""
        for each in self._alive[-1:]:
            each.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for each in self._alive[-1:]:
            each.signal(signal.SIGCONT)

    @asynccontextmanager
    async def replaced(self) -> AsyncIterator[None]:
        """
        Freeze it, start a successor, and let it go on at the end of the block beside that one.

        Raises:
            ProcessLookupError: There is none just now.
        """
        if not self._alive:
            raise ProcessLookupError
        predecessor = self._alive[-1]
        predecessor.signal(signal.SIGSTOP)
        try:
            await self._start()
            yield
        finally:
            predecessor.signal(signal.SIGCONT)

    async def _start(self) -> None:
        log = self._folder / f"{self.name}.{len(self.logs) + 1}.log"
        self.logs.append(log)
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *tethered(self._command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._cwd,
                env=self._env,
                start_new_session=True,
            )
        started = _Started(process, log)
        self._alive.append(started)
        self._is_gone.clear()
        watching = asyncio.create_task(self._watch(started))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def _watch(self, started: _Started) -> None:
        code = await started.process.wait()
        self._alive.remove(started)
        if not started.told:
            self.exits.append(Exit(self.name, code, _last_words(started.log)))
        if not self._alive:
            self._is_gone.set()

    async def _end(self) -> None:
        for each in self._alive:
            each.told = True
            each.signal(signal.SIGCONT)
            each.signal(signal.SIGTERM)
        watching = list(self._watching)
        if watching:
            await asyncio.wait(watching, timeout=_END_SECONDS)
        for each in self._alive:
            each.signal(signal.SIGKILL)
        await asyncio.gather(*watching)


def _last_words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-2:])

"""A process that is started again whenever it ends, and what its ends were."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from brokkr.local.process import tethered

_RESTART_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Exit:
    """An end of a process that nobody here had asked for; a negative code is a signal."""

    name: str
    code: int
    last_words: str

    @property
    def has_reason(self) -> bool:
        """Say whether it has said why: an exit code, and an error in its log."""
        return self.code > 0 and any(
            f'"level": "{level}"' in self.last_words for level in ("error", "critical")
        )


class Supervised:
    """
    One part of the system.

    Attributes:
        exits: The ends that were its own doing.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Describe it; :meth:`run` starts it.

        Args:
            before: Called before each start.
        """
        self.name = name
        self.log = log
        self.exits: list[Exit] = []
        self._command = command
        self._cwd = cwd
        self._env = env
        self._before = before
        self._process: asyncio.subprocess.Process | None = None
        self._killed = False

    async def run(self) -> None:
        """Keep it running until this is cancelled; then it is asked to end, and made to."""
        try:
            while True:
                self._before()
                await self._start()
                assert self._process is not None
                code = await self._process.wait()
                if not self._killed:
                    self.exits.append(Exit(self.name, code, _last_line(self.log)))
                self._killed = False
                await asyncio.sleep(_RESTART_SECONDS)
        finally:
            await self._end()

    def kill(self) -> None:
        """End it as a crash would."""
        self._killed = True
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it where it stands."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    async def _start(self) -> None:
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *tethered(self._command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._cwd,
                env=self._env,
                start_new_session=True,
            )

    async def _end(self) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), 10)
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""

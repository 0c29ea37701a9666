"""The command ``brokkr`` as a process, in a folder and an environment of its own."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """How a command went."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs ``brokkr``; no setting of the machine's owner gets through to it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("BROKKR")}
        self.folder = folder
        self.environment = {**inherited, "XDG_CONFIG_HOME": str(folder), **environment}

    async def __call__(self, *words: str, stdin: str = "") -> Outcome:
        """Run a command to its end."""
        async with self.started(*words) as process:
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Outcome(process.returncode, out.decode(), err.decode())

    @asynccontextmanager
    async def started(
        self, *words: str, stdout: int = PIPE, stderr: int = PIPE, is_stderr_closed: bool = False
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start a command; kill it if it is still running when the block is left."""
        process = await asyncio.create_subprocess_exec(
            # Whoever runs the tests in the background has SIGINT ignored, and passes that on.
            *("env", "--default-signal=INT"),
            *(("sh", "-c", 'exec "$@" 2>&-', "sh") if is_stderr_closed else ()),
            *(sys.executable, "-m", "brokkr", *words),
            cwd=self.folder,
            env=self.environment,
            stdin=PIPE,
            stdout=stdout,
            stderr=stderr,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

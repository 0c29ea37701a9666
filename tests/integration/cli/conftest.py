"""The command as a process, on a real broker."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from brokkr.broker.db.keys import create_admin_key
from support.broker import RunningBroker


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class CommandLine:
    """Runs ``brokkr`` in a folder of its own, with settings in its environment."""

    def __init__(self, folder: Path, **settings: str) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("BROKKR")}
        self.folder = folder
        self.environment = {**inherited, "XDG_CONFIG_HOME": str(folder), **settings}

    async def __call__(self, *words: str, stdin: str = "") -> Outcome:
        async with self.started(*words) as process:
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Outcome(process.returncode, out.decode(), err.decode())

    @asynccontextmanager
    async def started(self, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "brokkr", *words),
            cwd=self.folder,
            env=self.environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


@pytest.fixture
def command_line(tmp_path: Path) -> Callable[..., CommandLine]:
    def make(**settings: str) -> CommandLine:
        return CommandLine(tmp_path, **settings)

    return make


@pytest.fixture
async def brokkr(broker: RunningBroker, tmp_path: Path) -> CommandLine:
    """The command with the address and an admin's key of a running broker."""
    key = await create_admin_key(broker.database_url)
    return CommandLine(tmp_path, BROKKR_URL=broker.url, BROKKR_KEY=key)

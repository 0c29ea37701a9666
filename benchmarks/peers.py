"""What other queues on PostgreSQL do on the same server; see Note [What the peers do]."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

from brokkr.broker.db.pool import Connection, connect
from peer import UNFINISHED
from world import database

NAMES = tuple(UNFINISHED)
LOOK_SECONDS = 0.01
PATIENCE_SECONDS = 120
MAX_CLIENTS = 30
"""Each of them is a connection, and twice as many fit beside the brokers'."""


class Peer:
    """One of them, installed in a database of its own."""

    def __init__(self, name: str, url: str, db: Connection) -> None:
        self.name = name
        self._url = url
        self._db = db

    async def rate(self, *, clients: int, batch: int, jobs: int) -> float:
        """Let so many jobs through; return how many a second were submitted and executed."""
        clients = min(clients, MAX_CLIENTS)
        works = await self._start("work", clients, batch, jobs)
        submits = await self._start("submit", clients, batch, jobs)
        try:
            began = perf_counter()
            for each in (works, submits):
                assert each.stdin is not None
                each.stdin.write(b"go\n")
            async with asyncio.timeout(PATIENCE_SECONDS):
                if await submits.wait() != 0:
                    raise RuntimeError(f"{self.name} did not submit")
                while await self._db.fetchval(UNFINISHED[self.name]):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_SECONDS)
            return jobs / (perf_counter() - began)
        finally:
            for each in (works, submits):
                if each.returncode is None:
                    each.kill()
                await each.wait()

    async def install(self) -> None:
        """Make its tables."""
        process = await self._start("install", 1, 1, 0)
        if await process.wait() != 0:
            raise RuntimeError(f"{self.name} cannot be installed")

    async def _start(self, role: str, *numbers: int) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(Path(__file__).with_name("peer.py"))),
            *(self.name, role, self._url, *map(str, numbers)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        said = await process.stdout.readline()
        if role != "install" and said != b"ready\n":
            raise RuntimeError(f"{self.name} cannot {role}")
        return process


@asynccontextmanager
async def peer(server: str, name: str) -> AsyncIterator[Peer]:
    """Install one for the block, in a database of its own."""
    async with database(server, template="template1") as url, connect(url) as db:
        made = Peer(name, url, db)
        await made.install()
        yield made

"""A real ``brokkr broker serve`` process, and a client that costs little beside it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from brokkr.broker.db.keys import create_admin_key


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerProcess:
    """Where it is, who it is, and the key to it."""

    url: str
    pid: int
    admin_key: str


@asynccontextmanager
async def broker_process(database_url: str) -> AsyncIterator[BrokerProcess]:
    """Serve a database on a free port for the block, at the broker's own defaults."""
    key = await create_admin_key(database_url)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("brokkr")),
        *("broker", "serve", "--port", "0", "--database-url", database_url),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "BROKKR__BROKER__LOG_FORMAT": "json"},
    )
    assert process.stderr is not None
    try:
        url = await _url_from(process.stderr)
        drain = asyncio.create_task(process.stderr.read())
        yield BrokerProcess(url=url, pid=process.pid, admin_key=key)
        process.terminate()
        await drain
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _url_from(log: asyncio.StreamReader) -> str:
    url = ""
    async with asyncio.timeout(60):
        while line := await log.readline():
            said = json.loads(line) if line.startswith(b"{") else {}
            url = str(said.get("url", url))
            if said.get("event") == "broker ready":
                return url
    raise RuntimeError("the broker did not start")


class Http:
    """One connection that sends bytes made beforehand and parses as little as it can."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, key: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = (
            f" HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()

    @classmethod
    async def open(cls, url: str, key: str) -> Self:
        """Connect."""
        where = urlsplit(url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=2**22)
        return cls(reader, writer, where.netloc, key)

    async def post(self, path: str, body: bytes) -> bytes:
        """Post a body and return the answer's."""
        return await self._exchange(b"POST " + path.encode(), body)

    async def get(self, path: str) -> bytes:
        """Get what is there."""
        return await self._exchange(b"GET " + path.encode(), b"")

    async def _exchange(self, first: bytes, body: bytes) -> bytes:
        self._writer.write(b"%s%s%d\r\n\r\n%s" % (first, self._rest, len(body), body))
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        answer = await self._reader.readexactly(int(length))
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{first.decode()}: {head.decode()}{answer.decode()}")
        return answer

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()


async def call(broker: BrokerProcess, path: str, body: dict[str, Any]) -> Any:
    """Post once, as the admin, and return the answer."""
    http = await Http.open(broker.url, broker.admin_key)
    answer = json.loads(await http.post(path, json.dumps(body).encode()))
    await http.close()
    return answer

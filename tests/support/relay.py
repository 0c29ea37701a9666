"""A way to the test's PostgreSQL that a test can close, silence, or cut at a chosen moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit


class _Line:
    """One client's connection, and what is copied through it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.requests_pass = asyncio.Event()
        self.requests_pass.set()
        self.answers_pass = asyncio.Event()
        self.answers_pass.set()


class Relay:
    """Copies bytes between clients on a port of its own and the server's socket."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._lines: set[_Line] = set()
        self._copying: set[asyncio.Task[None]] = set()
        self._cut: bytes | None = None
        self._server: asyncio.Server | None = None
        self._is_silent = False
        self.port = 0

    async def open(self) -> None:
        """Let clients connect."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections, and end those that there are."""
        if self._server is not None:
            self._server.close()
        for line in list(self._lines):
            line.client.transport.abort()
            line.server.transport.abort()
        copying = list(self._copying)
        for each in copying:
            each.cancel()
        await asyncio.gather(*copying, return_exceptions=True)

    def silence(self, *, new_ones: bool = False) -> None:
        """Let nothing through the connections that there are; neither side notices."""
        self._is_silent = new_ones
        for line in self._lines:
            line.requests_pass.clear()
            line.answers_pass.clear()

    def hold_answers(self) -> None:
        """Let what clients ask through, and keep the answers until they are let through."""
        for line in self._lines:
            line.answers_pass.clear()

    def let_through(self) -> None:
        """Undo what keeps something from passing."""
        for line in self._lines:
            line.requests_pass.set()
            line.answers_pass.set()

    def say_goodbye(self) -> None:
        """Tell clients what a server says before it ends, without an end."""
        fields = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"
        for line in self._lines:
            line.client.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)

    def cut_after(self, words: bytes) -> None:
        """Once a client has said this, the server hears it and the client only the end."""
        self._cut = words

    async def _connect(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_unix_connection(self._socket_path)
        line = _Line(client, server)
        self._lines.add(line)
        if self._is_silent:
            line.requests_pass.clear()
        both = [
            asyncio.create_task(self._copy(line, reader, server, is_request=True)),
            asyncio.create_task(self._copy(line, answers, client, is_request=False)),
        ]
        self._copying.update(both)
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for each in both:
            each.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        self._copying.difference_update(both)
        self._lines.discard(line)
        client.transport.abort()
        server.transport.abort()

    async def _copy(
        self,
        line: _Line,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_request: bool,
    ) -> None:
        passes = line.requests_pass if is_request else line.answers_pass
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await passes.wait()
                is_last = is_request and self._cut is not None and self._cut in data
                if is_last:
                    self._cut = None
                    line.answers_pass.clear()
                writer.write(data)
                await writer.drain()
                if is_last:
                    await asyncio.sleep(0.2)  # for the server to do what it was told
                    return


class RelayedDatabase:
    """A database behind a relay."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        port = query.get("port", ["5432"])[0]
        self.relay = Relay(f"{query['host'][0]}/.s.PGSQL.{port}")
        self._user = parts.username or query["user"][0]
        self._name = parts.path

    @property
    def url(self) -> str:
        """Where the database is, by way of the relay."""
        return f"postgresql://{self._user}@127.0.0.1:{self.relay.port}{self._name}"


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[RelayedDatabase]:
    """Relay to a database for the length of the block."""
    database = RelayedDatabase(url)
    await database.relay.open()
    try:
        yield database
    finally:
        await database.relay.close()

"""
Stands between the agent and one of its servers, and lets a test cut in at any request.

Forwards everything, watches included, to the real server, unless it is told to answer by
itself.  Each request that changes something is forwarded inside the block that ``around_write``
makes: what stands before its ``yield`` happens before the server sees the request, what stands
after it before the agent sees the answer.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Instead = Callable[[web.Request], Answer | None]
"""Called with each request; returns who answers it, if it is not the server."""

Harm = Callable[[web.Request, dict[str, str]], Awaitable[web.Response | None]]
"""Called with each request and the headers to send on; may answer it instead."""

AroundWrite = Callable[[str, str], AbstractAsyncContextManager[None]]
"""Called with the method and the path of a request."""


class Streams:
    """The answers that are under way: watches, mostly."""

    def __init__(self) -> None:
        self._open: dict[int, web.Request] = {}

    @contextmanager
    def holding(self, request: web.Request) -> Iterator[None]:
        """Know of one for the length of the block."""
        self._open[id(request)] = request
        try:
            yield
        finally:
            del self._open[id(request)]

    def cut(self) -> int:
        """Break all of them off, as a lost connection would; say how many."""
        for request in self._open.values():
            if request.transport is not None:
                request.transport.abort()
        return len(self._open)


def _changes_nothing(request: web.Request) -> bool:
    """Say whether it only asks what would be: at times of its own, and so at no step of a test."""
    return "dryRun" in request.query or "/authorization.k8s.io/" in request.path


_HOP_BY_HOP = {"connection", "content-length", "host", "transfer-encoding", "content-encoding"}


@asynccontextmanager
async def proxy(
    upstream: str,
    around_write: AroundWrite,
    *,
    tls: ssl.SSLContext | None = None,
    streams: Streams | None = None,
    instead: Instead = lambda _: None,
    harm: Harm | None = None,
) -> AsyncIterator[str]:
    """Listen on a free port for the length of the block; yield the URL."""
    streams = streams or Streams()
    connector = aiohttp.TCPConnector(ssl=tls or True, limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            if answer_itself := instead(request):
                return await answer_itself(request)
            sent = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
            if harm is not None and (refusal := await harm(request, sent)) is not None:
                return refusal
            is_write = request.method != "GET" and not _changes_nothing(request)
            around = around_write(request.method, request.path) if is_write else nullcontext()
            async with (
                around,
                session.request(
                    request.method,
                    upstream + request.raw_path,
                    data=body or None,
                    headers=sent,
                    timeout=aiohttp.ClientTimeout(total=None),
                    allow_redirects=False,
                ) as answer,
            ):
                headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
                if is_write:
                    content = await answer.read()
                    return web.Response(status=answer.status, headers=headers, body=content)
                response = web.StreamResponse(status=answer.status, headers=headers)
                await response.prepare(request)
                with streams.holding(request):
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                    await response.write_eof()
                return response

        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()


@dataclass
class ApiLine:
    """
    What is done to all that goes over a line to an API server.

    Attributes:
        is_cut: Connections are closed without an answer.
        status: Every request is answered with this instead.
        token: Every request comes with this instead of its own.
        delay: How long each request waits before it goes on, in seconds.
    """

    is_cut: bool = False
    status: int | None = None
    token: str | None = None
    delay: float = 0.0
    streams: Streams = field(default_factory=Streams)

    def drop(self) -> None:
        """Break off what is under way: watches, mostly."""
        self.streams.cut()

    async def harm(self, request: web.Request, headers: dict[str, str]) -> web.Response | None:
        """Do what is to be done; return an answer if the server shall not see the request."""
        await asyncio.sleep(self.delay)
        if self.is_cut:
            assert request.transport is not None
            request.transport.abort()
        if self.status is not None:
            return web.json_response({"message": "out of order"}, status=self.status)
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return None

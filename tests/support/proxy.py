"""
Stands between the agent and one of its servers, and lets a test cut in at any request.

Forwards everything, watches included, to the real server, unless it is told to answer by
itself.  Each request that changes something is forwarded inside the block that ``around_write``
makes: what stands before its ``yield`` happens before the server sees the request, what stands
after it before the agent sees the answer.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)

import aiohttp
from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Instead = Callable[[web.Request], Answer | None]
"""Called with each request; returns who answers it, if it is not the server."""
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


_HOP_BY_HOP = {"connection", "content-length", "host", "transfer-encoding", "content-encoding"}


@asynccontextmanager
async def proxy(
    upstream: str,
    around_write: AroundWrite,
    *,
    tls: ssl.SSLContext | None = None,
    streams: Streams | None = None,
    instead: Instead = lambda _: None,
) -> AsyncIterator[str]:
    """Listen on a free port for the length of the block; yield the URL."""
    streams = streams or Streams()
    connector = aiohttp.TCPConnector(ssl=tls or True, limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            if answer_itself := instead(request):
                return await answer_itself(request)
            is_write = request.method != "GET"
            around = around_write(request.method, request.path) if is_write else nullcontext()
            async with (
                around,
                session.request(
                    request.method,
                    upstream + request.raw_path,
                    data=body or None,
                    headers={
                        k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP
                    },
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

"""
Stands between the agent and one of its servers, and lets a test cut in at any request.

Forwards everything, watches included, to the real server.  Before and after each request
that changes something it asks ``on_write``, which may kill the agent there.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

OnWrite = Callable[[str, str, str], Awaitable[None]]
"""Called with "before" or "after", the method and the path."""

_HOP_BY_HOP = {"connection", "content-length", "host", "transfer-encoding", "content-encoding"}


@asynccontextmanager
async def proxy(
    upstream: str, on_write: OnWrite, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Listen on a free port for the length of the block; yield the URL."""
    connector = aiohttp.TCPConnector(ssl=tls or True, limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            is_write = request.method != "GET"
            if is_write:
                await on_write("before", request.method, request.path)
            async with session.request(
                request.method,
                upstream + request.raw_path,
                data=body or None,
                headers={k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP},
                timeout=aiohttp.ClientTimeout(total=None),
                allow_redirects=False,
            ) as answer:
                headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
                if is_write:
                    content = await answer.read()
                    await on_write("after", request.method, request.path)
                    return web.Response(status=answer.status, headers=headers, body=content)
                response = web.StreamResponse(status=answer.status, headers=headers)
                await response.prepare(request)
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


async def nothing(when: str, method: str, path: str) -> None:
    """Let every request through."""
    await asyncio.sleep(0)

"""
The way from an agent to one of its servers, and what can be wrong with it.

A proxy that lets everything through, watches included, until it is told otherwise.
"""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from random import Random
from typing import Final

import aiohttp
from aiohttp import web

_PER_CONNECTION = {"connection", "content-length", "host", "transfer-encoding", "content-encoding"}
_WHOLE = ("POST", "PUT", "PATCH", "DELETE")
_GONE = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "Expired",
        "message": "too old resource version",
        "code": 410,
    },
}
_ANOTHER = "00000000-0000-4000-8000-000000000000"
_LOGIN = "<!doctype html><title>Sign in</title><form method=post></form>"
_PAGES: Final[Sequence[tuple[int, str]]] = (
    *((status, f"{status} page not found") for status in (401, 403, 404, 409, 410, 422, 502)),
    *((status, "") for status in (204, 404)),
    *((status, _LOGIN) for status in (200, 302, 307)),
    (404, '{"code": "work_not_found", "status": 404}'),
    (409, '{"code": "claim_lost", "status": 409}'),
    (409, '{"code": "agent_superseded", "status": 409}'),
)
"""What a proxy answers by itself, by status; JSON is a problem of another broker."""


class Line:
    """
    What is wrong now; nothing at first.

    Attributes:
        is_cut: Nothing gets through, and what is under way ends.
        delay_seconds: No request takes less than half of this longer, nor more than this.
        duplicates: The server gets each request that changes something twice, at once.
        loses_answers: Of every two such requests the answer of one is lost.
        refusals: One of these statuses answers every second request.
        pages: A proxy that answers every second request by itself: with pages, redirects, and
            in the name of another broker.
        spoils_tokens: The server does not know who sends a request.
        expires_watches: A watch is told that it asks for what is too old.
    """

    def __init__(self, dice: Random) -> None:
        self.is_cut = False
        self.delay_seconds = 0.0
        self.duplicates = False
        self.loses_answers = False
        self.refusals: Sequence[int] = ()
        self.pages = False
        self.spoils_tokens = False
        self.expires_watches = False
        self.dice = dice
        self._under_way: dict[int, web.Request] = {}  # requests cannot be hashed

    def drop(self) -> None:
        """Break off all that is under way."""
        for request in list(self._under_way.values()):
            if request.transport is not None:
                request.transport.abort()

    async def pass_on(self, request: web.Request, ask: "_Ask") -> web.StreamResponse:
        """Forward a request, or do to it what is done now."""
        self._under_way[id(request)] = request
        try:
            return await self._pass_on(request, ask)
        except aiohttp.ClientError as error:
            raise ConnectionError from error
        finally:
            del self._under_way[id(request)]

    async def _pass_on(self, request: web.Request, ask: "_Ask") -> web.StreamResponse:
        body = await request.read()
        if self.is_cut:
            raise _aborted(request)
        ask = replace(ask, token="spoiled" if self.spoils_tokens else None)
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds * self.dice.uniform(0.5, 1))
        if self.refusals and self.dice.random() < 0.5:
            status = self.dice.choice(self.refusals)
            return web.Response(status=status, headers={"Retry-After": "1"}, text="not now")
        if self.pages and self.dice.random() < 0.5:
            return _page(request, self.dice)
        if self.expires_watches and request.query.get("watch"):
            return web.Response(text=json.dumps(_GONE) + "\n", content_type="application/json")
        if request.method not in _WHOLE:
            return await ask.stream(request, body)
        if self.duplicates:
            _, answer = await asyncio.gather(ask.whole(request, body), ask.whole(request, body))
        else:
            answer = await ask.whole(request, body)
        if self.is_cut or (self.loses_answers and self.dice.random() < 0.5):
            raise _aborted(request)
        return answer


def _page(request: web.Request, dice: Random) -> web.Response:
    status, text = dice.choice(_PAGES)
    headers = {"Location": "http://127.0.0.1:1/login"} if status in (302, 307) else {}
    if not text.startswith("{"):
        return web.Response(status=status, text=text, content_type="text/html", headers=headers)
    named = re.search(r"/work/([0-9a-f-]{36})/", request.path)
    document = {**json.loads(text), "broker": _ANOTHER, "work_id": named[1] if named else None}
    return web.json_response(document, status=status, content_type="application/problem+json")


@dataclass(frozen=True, slots=True)
class _Ask:
    """Asks the servers in turn, with the token of the request unless another is given."""

    session: aiohttp.ClientSession
    servers: Iterator[str]
    token: str | None = None

    async def whole(self, request: web.Request, body: bytes) -> web.Response:
        async with self._request(request, body) as answer:
            return web.Response(
                status=answer.status,
                headers=_passed_on(answer.headers),
                body=await answer.read(),
            )

    async def stream(self, request: web.Request, body: bytes) -> web.StreamResponse:
        async with self._request(request, body) as answer:
            response = web.StreamResponse(status=answer.status, headers=_passed_on(answer.headers))
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    def _request(
        self, request: web.Request, body: bytes
    ) -> "aiohttp.client._RequestContextManager":
        headers = _passed_on(request.headers)
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return self.session.request(
            request.method,
            next(self.servers) + request.raw_path,
            data=body or None,
            headers=headers,
            allow_redirects=False,
        )


@asynccontextmanager
async def proxied(
    line: Line, servers: Sequence[str], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Lead to the servers by way of a line for the length of the block; yield the URL."""
    connector = aiohttp.TCPConnector(ssl=tls or True, limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, timeout=timeout
    ) as session:
        ask = _Ask(session, cycle(servers))

        async def forward(request: web.Request) -> web.StreamResponse:
            try:
                return await line.pass_on(request, ask)
            except ConnectionError:
                raise _aborted(request) from None

        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


def _aborted(request: web.Request) -> asyncio.CancelledError:
    """Break the connection off; a handler whose connection is gone is cancelled anyway."""
    if request.transport is not None:
        request.transport.abort()
    return asyncio.CancelledError()


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k.lower() not in _PER_CONNECTION}

"""What stands between an agent and its broker, and answers by itself: every way it may do that."""

import asyncio
from typing import Final

from aiohttp import web

from support.hostile_broker import Answer, hang, says

PROBLEM: Final = "application/problem+json"
_LOGIN: Final = b"<!doctype html><title>Sign in</title><form method=post>"


def _page(status: int) -> Answer:
    return says(b"%d page not found\n" % status, status=status, content_type="text/plain")


def _redirect(status: int) -> Answer:
    return says(status=status, headers={"Location": "http://127.0.0.1:1/login?key=secret"})


def _problem(status: int, words: bytes) -> Answer:
    return says(words, status=status, content_type=PROBLEM)


async def close(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


async def cut_off(request: web.Request) -> web.StreamResponse:
    """Answer with the first half of a JSON object, and close the connection."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b'{"id": "0197a000-0000-7000-8000-0000000')
    return await close(request)


async def cut_off_problem(request: web.Request) -> web.StreamResponse:
    """Answer with the first half of a problem, and close the connection."""
    response = web.StreamResponse(status=409, headers={"Content-Type": PROBLEM})
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b'{"code": "claim_lost", "status": 409, "work_')
    return await close(request)


PAGES: Final[dict[str, Answer]] = {
    **{f"a page of {each}": _page(each) for each in (400, 401, 403, 404, 405, 409, 410, 413)},
    **{f"a page of {each}": _page(each) for each in (422, 423, 429, 500, 502, 503, 504)},
    "a 404 without a body": says(status=404),
    "a 409 of JSON": says(b'{"code": "claim_lost", "status": 409}', status=409),
    "a login page": says(_LOGIN, content_type="text/html"),
    "a login page that says it is JSON": says(_LOGIN),
    "nothing, with 200": says(),
    "nothing, with 202": says(status=202),
    "JSON of something else": says(b'{"status": "ok"}'),
    "a list": says(b"[]"),
    "null": says(b"null"),
    **{f"a redirect of {each}": _redirect(each) for each in (301, 302, 303, 307, 308)},
    "not modified": says(status=304),
    "no answer": close,
    "half an answer": cut_off,
    "half a problem": cut_off_problem,
    "an answer that never comes": hang,
    "a problem without a code": _problem(404, b'{"title": "Not Found", "status": 404}'),
    "a problem of another product": _problem(409, b'{"code": "CONFLICT", "status": 409}'),
    "a code that is a number": _problem(409, b'{"code": 409, "status": 409}'),
    "a status that was changed": _problem(404, b'{"code": "claim_lost", "status": 409}'),
    "a code with another status": _problem(410, b'{"code": "work_not_found", "status": 410}'),
    "a refusal with 200": _problem(200, b'{"code": "claim_lost", "status": 200}'),
    "a problem that is no object": _problem(409, b'["claim_lost"]'),
    "a problem that is no JSON": _problem(409, b"<h1>claim_lost</h1>"),
}
"""None of these is an answer of a broker."""

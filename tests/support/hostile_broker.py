"""
A fake broker that answers an agent however a test wants it to.

It is a fake because no honest broker misbehaves on demand, and what an agent makes of one
that does is worth knowing.  Left alone it is honest, as far as an agent can tell: it gives
each claim once, renews, and takes what the real broker's request bodies take and no more.
It keeps nothing but what it was told.
"""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

from aiohttp import web
from pydantic import BaseModel, ValidationError

from brokkr.wire.bodies import (
    PROBLEM_BROKER,
    ClaimSome,
    CompleteWork,
    Heartbeat,
    ReleaseWork,
    ReportProgress,
)
from support.factories import NOON, a_build_template
from support.signals import eventually

Json = dict[str, Any]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Change = Callable[[Json], Any]
"""Makes of an honest answer another one."""

ENDPOINTS: Final = ("self", "heartbeat", "claim", "progress", "complete", "release")
KEY: Final = "the-agents-key"

_Body = TypeVar("_Body", bound=BaseModel)


def a_claim(**fields: Any) -> Json:
    """Return a claim on a build that any agent executes; the fields replace its own."""
    spec = {
        "workType": "build",
        "maxRetries": 1,
        "claimTimeout": 3600,
        "template": a_build_template(),
        **fields.pop("spec", {}),
    }
    return {
        "id": str(uuid4()),
        "claim_id": str(uuid4()),
        "round": 1,
        "work_type": "build",
        "broker": "the-broker",
        "lease_seconds": 3600,
        "resource": {"spec": spec},
        **fields,
    }


@dataclass
class HostileBroker:
    """
    One agent's broker.

    Attributes:
        beats: The heartbeats, the latest last.
        completions: What was completed, by the claim's id.
        released: The claims that were given back.
        complaints: What the real broker would not have understood.
        asked: How often each endpoint was asked.
    """

    url: str = ""
    agent_id: UUID = field(default_factory=uuid4)
    broker_id: str = "the-broker"
    beats: list[Heartbeat] = field(default_factory=list)
    completions: dict[str, CompleteWork] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    progress: list[ReportProgress] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDPOINTS, 0))

    def __post_init__(self) -> None:
        self._offered: list[Json] = []
        self._is_offering = asyncio.Event()
        self._held: dict[str, Json] = {}
        self._given: dict[UUID | None, list[Json]] = {}
        self._incarnation: UUID | None = None
        self._answers: dict[str, Answer] = {}
        self._changes: dict[str, Change] = {}

    def offer(self, *claims: Json) -> None:
        """Give these claims in the next answer, however many were asked for."""
        self._offered += claims
        self._is_offering.set()

    def answer(self, endpoint: str, answer: Answer) -> None:
        """Answer an endpoint in this way from now on."""
        self._answers[endpoint] = answer

    def change(self, endpoint: str, change: Change) -> None:
        """Change the honest answers of an endpoint in this way from now on."""
        self._changes[endpoint] = change

    def be_honest(self) -> None:
        """Answer as an honest broker would from now on."""
        self._answers.clear()
        self._changes.clear()
        self.broker_id = "the-broker"

    async def completed(self, claim: Json, *, within: float = 20) -> CompleteWork:
        """Wait until the agent has completed a claim; return how."""

        async def found() -> CompleteWork | None:
            return self.completions.get(claim["claim_id"])

        return await eventually(found, within=within)

    async def is_asked(self, endpoint: str, *, times: int = 1, within: float = 20) -> None:
        """Wait until an endpoint has been asked so often from now on."""
        before = self.asked[endpoint]

        async def is_so() -> bool:
            return self.asked[endpoint] >= before + times

        await eventually(is_so, within=within)

    async def serve(self, endpoint: str, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.asked[endpoint] += 1
        if endpoint in self._answers:
            await request.read()
            return await self._answers[endpoint](request)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return problem(401, "unauthenticated")
        honest: Mapping[str, Answer] = {
            "self": self._self,
            "heartbeat": self._heartbeat,
            "claim": self._claim,
            "progress": self._progress,
            "complete": self._complete,
            "release": self._release,
        }
        try:
            return await honest[endpoint](request)
        except ValidationError as error:
            self.complaints.append(f"{request.path}: {error}")
            return problem(422, "invalid")

    async def _self(self, request: web.Request) -> web.Response:
        return self._send(
            "self",
            {
                "id": str(self.agent_id),
                "name": "edge",
                "cluster_name": "",
                "labels": {},
                "annotations": {},
                "created_at": NOON.isoformat(),
            },
        )

    async def _heartbeat(self, request: web.Request) -> web.Response:
        beat = await _read(Heartbeat, request)
        self.beats.append(beat)
        listed = [str(each) for each in beat.claims]
        is_new = beat.incarnation != self._incarnation
        self._incarnation = beat.incarnation
        return self._send(
            "heartbeat",
            {
                "broker": self.broker_id,
                "renewed": [a_renewal(self._held[each]) for each in listed if each in self._held],
                "lost": [each for each in listed if each not in self._held],
                "held": list(self._held.values()) if is_new else None,
                "features": [PROBLEM_BROKER],
            },
        )

    async def _claim(self, request: web.Request) -> web.Response:
        asked = await _read(ClaimSome, request)
        if asked.request_id not in self._given:
            self._given = {asked.request_id: await self._take_offered(asked.wait)}
        return self._send("claim", {"claims": self._given[asked.request_id]})

    async def _take_offered(self, wait: float) -> list[Json]:
        try:
            async with asyncio.timeout(wait):
                await self._is_offering.wait()
        except TimeoutError:
            return []
        taken, self._offered = self._offered, []
        self._is_offering.clear()
        for each in taken:
            if isinstance(each, dict) and isinstance(each.get("claim_id"), str):
                self._held[each["claim_id"]] = each
        return taken

    async def _progress(self, request: web.Request) -> web.Response:
        body = await _read(ReportProgress, request)
        if str(body.claim_id) not in self._held:
            return self._lost(request)
        self.progress.append(body)
        return web.Response(status=204)

    async def _complete(self, request: web.Request) -> web.Response:
        body = await _read(CompleteWork, request)
        claim = self._held.pop(str(body.claim_id), None)
        if claim is None:
            return self._lost(request)
        self.completions[claim["claim_id"]] = body
        return self._send("complete", a_work_body(claim, body.ended_as.upper()))

    async def _release(self, request: web.Request) -> web.Response:
        body = await _read(ReleaseWork, request)
        claim = self._held.pop(str(body.claim_id), None)
        if claim is None:
            return self._lost(request)
        self.released.append(claim["claim_id"])
        return self._send("release", a_work_body(claim, "PENDING"))

    def _lost(self, request: web.Request) -> web.Response:
        """Say that a claim is over, as the real broker does: who says it, and of which Work."""
        return problem(409, "claim_lost", work_id=request.match_info["id"], broker=self.broker_id)

    def _send(self, endpoint: str, honest: Json) -> web.Response:
        change = self._changes.get(endpoint)
        return web.json_response(honest if change is None else change(honest))


async def _read(kind: type[_Body], request: web.Request) -> _Body:
    return kind.model_validate_json(await request.read())


def a_renewal(claim: Json, **fields: Any) -> Json:
    """Return what a heartbeat's answer says of a claim that goes on."""
    return {
        "work_id": claim["id"],
        "claim_id": claim["claim_id"],
        "round": claim["round"],
        "lease_seconds": claim["lease_seconds"],
        **fields,
    }


def a_work_body(claim: Json, status: str) -> Json:
    """Return what an honest broker says of a Work."""
    return {
        "id": claim["id"],
        "work_type": str(claim["work_type"]),
        "status": status,
        "created_at": datetime.now(UTC).isoformat(),
        "max_retries": 1,
        "claim_timeout_seconds": 3600,
    }


def problem(status: int, code: str | None = None, **members: Any) -> web.Response:
    """Return a problem document, or what a server says that knows of none."""
    if code is None:
        return web.Response(status=status, text="<h1>no</h1>", content_type="text/html")
    document = {"type": "about:blank", "title": "no", "status": status, "code": code, **members}
    return web.json_response(document, status=status, content_type="application/problem+json")


def says(
    body: bytes = b"",
    *,
    status: int = 200,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Return an answer that is always the same."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status, body=body, content_type=content_type, headers=dict(headers or {})
        )

    return answer


def bomb(*, megabytes: int, content_type: str = "application/json", status: int = 200) -> Answer:
    """Return an answer that is small until it is unpacked."""
    packed = gzip.compress(b" " * (megabytes * 1024 * 1024))
    headers = {"Content-Encoding": "gzip"}
    return says(packed, status=status, content_type=content_type, headers=headers)


def flood(*, megabytes: int, content_type: str = "application/json", status: int = 200) -> Answer:
    """Return an answer of which there is more, for as long as somebody reads it."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": content_type})
        await response.prepare(request)
        await response.write(b'{"claims":"')
        for _ in range(megabytes):
            await response.write(b"x" * 1024 * 1024)
        return response

    return answer


async def hang(_: web.Request) -> web.StreamResponse:
    """Answer never."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def drip(request: web.Request) -> web.StreamResponse:
    """Answer for ever: one byte at a time, none of them the last."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def hostile_broker() -> AsyncIterator[HostileBroker]:
    """Serve one on a free port for the length of the block."""
    broker = HostileBroker()
    app = web.Application(client_max_size=8 * 1024 * 1024)
    for endpoint, method, path in (
        ("self", "GET", "/api/v1/agents/self"),
        ("heartbeat", "POST", "/api/v1/agents/{id}/heartbeat"),
        ("claim", "POST", "/api/v1/agents/{id}/work/claim"),
        ("progress", "POST", "/api/v1/work/{id}/progress"),
        ("complete", "POST", "/api/v1/work/{id}/complete"),
        ("release", "POST", "/api/v1/work/{id}/release"),
    ):
        app.router.add_route(method, path, partial(broker.serve, endpoint))
    async with served(app) as url:
        broker.url = url
        yield broker


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on a free port for the length of the block; yield the URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()

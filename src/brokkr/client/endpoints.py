"""
The broker's REST API, one method for each endpoint; each asks once.

Whatever goes wrong leaves as a :class:`~brokkr.work.errors.BrokkrError`: the same class
that the broker raised, or :class:`~brokkr.work.errors.BrokerUnavailable`.
"""

import asyncio
import json
import math
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from http import HTTPStatus
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar
from uuid import UUID

import aiohttp
from pydantic import BaseModel, ValidationError

from brokkr import __version__
from brokkr.wire import problem
from brokkr.wire.bodies import (
    AgentBody,
    AgentPage,
    BatchAnswer,
    BatchItem,
    ClaimBody,
    ClaimOne,
    Claims,
    ClaimSome,
    CompleteBatch,
    CompleteWork,
    Heartbeat,
    HeartbeatAnswer,
    PendingPage,
    RegisterAgent,
    RegisteredAgent,
    RelabelAgent,
    ReleaseWork,
    ReportProgress,
    RequeueWork,
    SubmitBatch,
    SubmitWork,
    WorkBody,
    WorkPage,
)
from brokkr.wire.events import EventPage, EventReader, WorkEvent
from brokkr.wire.explain import Explanation
from brokkr.wire.tenants import (
    CreatedGenerator,
    CreatedKey,
    CreateGenerator,
    CreateKey,
    GeneratorBody,
    GeneratorPage,
    KeyPage,
    LimitGenerator,
)
from brokkr.work.errors import BrokerUnavailable, LimitReached
from brokkr.work.trace import TraceContext

_Body = TypeVar("_Body", bound=BaseModel)
_Parameter: TypeAlias = str | int | Sequence[str] | None

TIMEOUT_SECONDS = 30
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_PROBLEM_BYTES = 64 * 1024
SILENCE_SECONDS = 45
"""A stream that says nothing for so long is broken: a broker speaks every 15 seconds."""
PATIENCE_SECONDS = 120.0
RECONNECT_SECONDS = 1.0


class BrokerClient:
    """A connection to one broker with one key; close it, or use it as a context."""

    def __init__(self, url: str, key: str) -> None:
        """
        Prepare to talk to a broker; nothing is sent yet.

        Args:
            url: Where the broker is, without ``/api/v1``.
            key: Sent as a bearer token with every request.
        """
        self._base = url.rstrip("/") + "/api/v1"
        self._session = aiohttp.ClientSession(
            headers={
                "Authorization": f"Bearer {key}",
                "User-Agent": f"brokkr/{__version__}",
                "Accept-Encoding": "identity",
            },
            # What is packed is small until it is unpacked; so nothing is.
            auto_decompress=False,
        )

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def submit_work(self, body: SubmitWork, *, trace: TraceContext | None = None) -> WorkBody:
        """``POST /work``, as a part of a trace if there is one."""
        return await self._ask(WorkBody, "POST", "/work", body=body, trace=trace)

    async def submit_some(self, body: SubmitBatch) -> Sequence[BatchItem]:
        """``POST /work/batch``; an answer for each item, in their order."""
        answer = await self._ask(BatchAnswer, "POST", "/work/batch", body=body)
        return answer.items

    async def get_work(self, work_id: UUID) -> WorkBody:
        """``GET /work/{id}``."""
        return await self._ask(WorkBody, "GET", f"/work/{work_id}")

    async def list_work(self, **filters: _Parameter) -> WorkPage:
        """``GET /work``; the filters are the query parameters, a list's one for each item."""
        return await self._ask(WorkPage, "GET", "/work", query=filters)

    async def cancel_work(self, work_id: UUID) -> WorkBody:
        """``DELETE /work/{id}``."""
        return await self._ask(WorkBody, "DELETE", f"/work/{work_id}")

    async def list_events(self, work_id: UUID, *, after: int = 0, limit: int = 100) -> EventPage:
        """``GET /work/{id}/events``."""
        query = {"after": after, "limit": limit}
        return await self._ask(EventPage, "GET", f"/work/{work_id}/events", query=query)

    async def follow_events(
        self,
        work_id: UUID,
        *,
        after: int = 0,
        away: Callable[[BrokerUnavailable | LimitReached], None] | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> AsyncGenerator[WorkEvent]:
        """
        Yield what happened to a Work, and what happens, until it is finished.

        When the connection breaks another is made, and nothing is missed.

        Args:
            after: The number of the last event that is known.
            away: Told once each time that the broker does not serve the stream.
            patience_seconds: How long to go on without a broker.

        Raises:
            BrokerUnavailable: There was no broker for so long.
            LimitReached: As many follow Work there, for as long.
            WorkNotFound: There is no such Work for this key.
        """
        away_since = None
        while True:
            pause = RECONNECT_SECONDS
            try:
                async with aclosing(self._stream_events(work_id, after=after)) as events:
                    async for event in events:
                        away_since = None
                        if event is not None:
                            pause, after = 0, event.number
                            yield event
            except (BrokerUnavailable, LimitReached) as error:
                if away_since is None:
                    away_since = monotonic()
                    if away is not None:
                        away(error)
                if monotonic() - away_since >= patience_seconds:
                    raise
                pause = min(max(pause, retry_after_of(error)), patience_seconds)
            except _Over:
                return
            # Those whose broker was stopped must not all come back at once.
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311

    async def explain_work(self, work_id: UUID, *, agent: str | None = None) -> Explanation:
        """``GET /work/{id}/explain``; ``agent`` is one to look at, by id or name."""
        path = f"/work/{work_id}/explain"
        return await self._ask(Explanation, "GET", path, query={"agent": agent})

    async def release_work(self, work_id: UUID, body: ReleaseWork) -> WorkBody:
        """``POST /work/{id}/release``."""
        return await self._ask(WorkBody, "POST", f"/work/{work_id}/release", body=body)

    async def requeue_work(self, work_id: UUID, body: RequeueWork) -> WorkBody:
        """``POST /work/{id}/requeue``."""
        return await self._ask(WorkBody, "POST", f"/work/{work_id}/requeue", body=body)

    async def list_pending(self, agent_id: UUID, *, limit: int = 20) -> PendingPage:
        """``GET /agents/{id}/work/pending``."""
        path = f"/agents/{agent_id}/work/pending"
        return await self._ask(PendingPage, "GET", path, query={"limit": limit})

    async def claim_work(self, work_id: UUID, body: ClaimOne) -> ClaimBody:
        """``POST /work/{id}/claim``."""
        return await self._ask(ClaimBody, "POST", f"/work/{work_id}/claim", body=body)

    async def claim_some(self, agent_id: UUID, body: ClaimSome) -> Sequence[ClaimBody]:
        """``POST /agents/{id}/work/claim``; waits as long as the body says."""
        path = f"/agents/{agent_id}/work/claim"
        claims = await self._ask(Claims, "POST", path, body=body, wait=body.wait)
        return claims.claims

    async def report_progress(
        self, work_id: UUID, body: ReportProgress, *, trace: TraceContext | None = None
    ) -> None:
        """``POST /work/{id}/progress``."""
        await self._tell("POST", f"/work/{work_id}/progress", body=body, trace=trace)

    async def complete_work(
        self, work_id: UUID, body: CompleteWork, *, trace: TraceContext | None = None
    ) -> WorkBody:
        """``POST /work/{id}/complete``."""
        return await self._ask(
            WorkBody, "POST", f"/work/{work_id}/complete", body=body, trace=trace
        )

    async def complete_some(self, agent_id: UUID, body: CompleteBatch) -> Sequence[BatchItem]:
        """``POST /agents/{id}/work/complete``; an answer for each item, in their order."""
        path = f"/agents/{agent_id}/work/complete"
        answer = await self._ask(BatchAnswer, "POST", path, body=body)
        return answer.items

    async def heartbeat(self, agent_id: UUID, body: Heartbeat) -> HeartbeatAnswer:
        """``POST /agents/{id}/heartbeat``."""
        path = f"/agents/{agent_id}/heartbeat"
        return await self._ask(HeartbeatAnswer, "POST", path, body=body)

    async def register_agent(self, body: RegisterAgent) -> RegisteredAgent:
        """``POST /agents``."""
        return await self._ask(RegisteredAgent, "POST", "/agents", body=body)

    async def list_agents(self, **filters: str | int | None) -> AgentPage:
        """``GET /agents``."""
        return await self._ask(AgentPage, "GET", "/agents", query=filters)

    async def get_agent(self, agent: UUID | str) -> AgentBody:
        """``GET /agents/{id or name}``; ``self`` is the agent whose key is used."""
        return await self._ask(AgentBody, "GET", f"/agents/{agent}")

    async def relabel_agent(self, agent: UUID | str, body: RelabelAgent) -> AgentBody:
        """``PATCH /agents/{id or name}``."""
        return await self._ask(AgentBody, "PATCH", f"/agents/{agent}", body=body)

    async def drain_agent(self, agent: UUID | str) -> AgentBody:
        """``POST /agents/{id or name}/drain``."""
        return await self._ask(AgentBody, "POST", f"/agents/{agent}/drain")

    async def undrain_agent(self, agent: UUID | str) -> AgentBody:
        """``POST /agents/{id or name}/undrain``."""
        return await self._ask(AgentBody, "POST", f"/agents/{agent}/undrain")

    async def delete_agent(self, agent: UUID | str) -> None:
        """``DELETE /agents/{id or name}``."""
        await self._tell("DELETE", f"/agents/{agent}")

    async def rotate_agent_key(self, agent: UUID | str) -> RegisteredAgent:
        """``POST /agents/{id or name}/rotate-key``."""
        return await self._ask(RegisteredAgent, "POST", f"/agents/{agent}/rotate-key")

    async def create_generator(self, body: CreateGenerator) -> CreatedGenerator:
        """``POST /generators``."""
        return await self._ask(CreatedGenerator, "POST", "/generators", body=body)

    async def list_generators(self, **filters: str | int | None) -> GeneratorPage:
        """``GET /generators``."""
        return await self._ask(GeneratorPage, "GET", "/generators", query=filters)

    async def get_generator(self, generator: UUID | str) -> GeneratorBody:
        """``GET /generators/{id or name}``."""
        return await self._ask(GeneratorBody, "GET", f"/generators/{generator}")

    async def limit_generator(self, generator: UUID | str, body: LimitGenerator) -> GeneratorBody:
        """``PATCH /generators/{id or name}``."""
        return await self._ask(GeneratorBody, "PATCH", f"/generators/{generator}", body=body)

    async def delete_generator(self, generator: UUID | str) -> None:
        """``DELETE /generators/{id or name}``."""
        await self._tell("DELETE", f"/generators/{generator}")

    async def rotate_generator_key(self, generator: UUID | str) -> CreatedGenerator:
        """``POST /generators/{id or name}/rotate-key``."""
        return await self._ask(CreatedGenerator, "POST", f"/generators/{generator}/rotate-key")

    async def create_key(self, body: CreateKey) -> CreatedKey:
        """``POST /keys``."""
        return await self._ask(CreatedKey, "POST", "/keys", body=body)

    async def list_keys(self, **filters: str | int | None) -> KeyPage:
        """``GET /keys``."""
        return await self._ask(KeyPage, "GET", "/keys", query=filters)

    async def revoke_key(self, short_id: str) -> None:
        """``DELETE /keys/{short id}``."""
        await self._tell("DELETE", f"/keys/{short_id}")

    async def _stream_events(
        self, work_id: UUID, *, after: int
    ) -> AsyncGenerator[WorkEvent | None]:
        """
        Yield the events of one connection, and None when there is one.

        Raises:
            _Over: There will be no more.
        """
        reader = EventReader()
        try:
            async with self._session.get(
                f"{self._base}/work/{work_id}/events",
                params={"follow": "true"},
                headers={"Last-Event-ID": str(after)},
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=TIMEOUT_SECONDS, sock_read=SILENCE_SECONDS
                ),
                allow_redirects=False,
            ) as response:
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise problem.error_of(response.status, await _document(response))
                if response.status == HTTPStatus.NO_CONTENT:
                    raise _Over
                yield None
                async for chunk in response.content.iter_any():
                    for event in reader.read(chunk):
                        yield event
        except ValidationError as error:
            raise BrokerUnavailable(f"{self._base} does not answer like a broker") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"no answer from {self._base}: {_words(error)}") from error

    async def _ask(
        self,
        answer: type[_Body],
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        query: Mapping[str, _Parameter] | None = None,
        wait: float = 0,
        trace: TraceContext | None = None,
    ) -> _Body:
        content = await self._send(method, path, body=body, query=query, wait=wait, trace=trace)
        try:
            return answer.model_validate_json(content)
        except ValidationError as error:
            raise BrokerUnavailable(f"{self._base} does not answer like a broker") from error

    async def _tell(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        trace: TraceContext | None = None,
    ) -> None:
        await self._send(method, path, body=body, trace=trace)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        query: Mapping[str, _Parameter] | None = None,
        wait: float = 0,
        trace: TraceContext | None = None,
    ) -> bytes:
        content = None if body is None else body.model_dump_json(exclude_unset=True)
        headers = {} if content is None else {"Content-Type": "application/json"}
        if trace is not None:
            headers["traceparent"] = str(trace)
        try:
            async with self._session.request(
                method,
                self._base + path,
                data=content,
                params=_parameters(query or {}),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS + wait),
                allow_redirects=False,
            ) as response:
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise problem.error_of(response.status, await _document(response))
                return await _read(response, most=MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"no answer from {self._base}: {_words(error)}") from error


def retry_after_of(error: BrokerUnavailable | LimitReached) -> float:
    """Return after how many seconds it is worth trying again; 0 if nobody has said so."""
    said = getattr(error, "retry_after", 0)
    return said if isinstance(said, int | float) and 0 < said < math.inf else 0


def _parameters(query: Mapping[str, _Parameter]) -> list[tuple[str, str]]:
    """Render what was given; a parameter of several values stands there several times."""
    return [
        (name, str(each))
        for name, value in query.items()
        if value is not None
        for each in ([value] if isinstance(value, str | int) else value)
    ]


async def _read(response: aiohttp.ClientResponse, *, most: int) -> bytes:
    """Read an answer, but not without end: who asks need not trust who answers."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > most:
            raise BrokerUnavailable(f"an answer of more than {most} bytes is none")
    return bytes(content)


class _Over(Exception):
    """The Work is finished, and all that happened to it was sent."""


async def _document(response: aiohttp.ClientResponse) -> Mapping[str, Any]:
    """Read a problem document; a proxy's error page is not one."""
    if response.content_type == problem.MEDIA_TYPE:
        content = await _read(response, most=MAX_PROBLEM_BYTES)
        with suppress(ValueError, RecursionError):
            document = json.loads(content)
            if isinstance(document, dict):
                return document
    after = response.headers.get("Retry-After", "")
    is_number = after.isdecimal() and len(after) < 10
    return {
        "title": f"{response.status} {response.reason}",
        **({"retry_after": int(after)} if is_number else {}),
    }


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__

"""
The broker's REST API, one method for each endpoint; each asks once.

Whatever goes wrong leaves as a :class:`~brokkr.work.errors.BrokkrError`: the same class
that the broker raised, or :class:`~brokkr.work.errors.BrokerUnavailable`.
See :mod:`brokkr.client.transport`.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from time import monotonic
from types import TracebackType
from typing import Self
from uuid import UUID

from brokkr.client.transport import Parameter, Transport, retry_after_of
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
from brokkr.wire.events import STREAM_MEDIA_TYPE, EventPage, EventReader, WorkEvent
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
        self._http = Transport(url, key)

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
        await self._http.close()

    async def submit_work(self, body: SubmitWork, *, trace: TraceContext | None = None) -> WorkBody:
        """``POST /work``, as a part of a trace if there is one."""
        return await self._http.ask(
            WorkBody, "POST", "/work", body=body, statuses=(200, 201), trace=trace
        )

    async def submit_some(self, body: SubmitBatch) -> Sequence[BatchItem]:
        """``POST /work/batch``; an answer for each item, in their order."""
        answer = await self._http.ask(
            BatchAnswer, "POST", "/work/batch", body=body, fits=_has(len(body.items))
        )
        return answer.items

    async def get_work(self, work_id: UUID) -> WorkBody:
        """``GET /work/{id}``."""
        return await self._http.ask(WorkBody, "GET", f"/work/{work_id}", fits=_is_about(work_id))

    async def list_work(self, **filters: Parameter) -> WorkPage:
        """``GET /work``; the filters are the query parameters, a list's one for each item."""
        return await self._http.ask(WorkPage, "GET", "/work", query=filters)

    async def cancel_work(self, work_id: UUID) -> WorkBody:
        """``DELETE /work/{id}``."""
        return await self._http.ask(
            WorkBody,
            "DELETE",
            f"/work/{work_id}",
            statuses=(200, 202),
            fits=_is_about(work_id),
        )

    async def list_events(self, work_id: UUID, *, after: int = 0, limit: int = 100) -> EventPage:
        """``GET /work/{id}/events``."""
        query = {"after": after, "limit": limit}
        return await self._http.ask(EventPage, "GET", f"/work/{work_id}/events", query=query)

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
        return await self._http.ask(
            Explanation,
            "GET",
            path,
            query={"agent": agent},
            fits=lambda found: _is_about(work_id)(found.work),
        )

    async def release_work(self, work_id: UUID, body: ReleaseWork) -> WorkBody:
        """``POST /work/{id}/release``."""
        path = f"/work/{work_id}/release"
        return await self._http.ask(WorkBody, "POST", path, body=body, fits=_is_about(work_id))

    async def requeue_work(self, work_id: UUID, body: RequeueWork) -> WorkBody:
        """``POST /work/{id}/requeue``."""
        path = f"/work/{work_id}/requeue"
        return await self._http.ask(WorkBody, "POST", path, body=body, fits=_is_about(work_id))

    async def list_pending(self, agent_id: UUID, *, limit: int = 20) -> PendingPage:
        """``GET /agents/{id}/work/pending``."""
        path = f"/agents/{agent_id}/work/pending"
        return await self._http.ask(PendingPage, "GET", path, query={"limit": limit})

    async def claim_work(self, work_id: UUID, body: ClaimOne) -> ClaimBody:
        """``POST /work/{id}/claim``."""
        path = f"/work/{work_id}/claim"
        return await self._http.ask(ClaimBody, "POST", path, body=body, fits=_is_about(work_id))

    async def claim_some(self, agent_id: UUID, body: ClaimSome) -> Sequence[ClaimBody]:
        """``POST /agents/{id}/work/claim``; waits as long as the body says."""
        path = f"/agents/{agent_id}/work/claim"
        claims = await self._http.ask(Claims, "POST", path, body=body, wait=body.wait)
        return claims.claims

    async def report_progress(
        self, work_id: UUID, body: ReportProgress, *, trace: TraceContext | None = None
    ) -> None:
        """``POST /work/{id}/progress``."""
        await self._http.tell("POST", f"/work/{work_id}/progress", body=body, trace=trace)

    async def complete_work(
        self, work_id: UUID, body: CompleteWork, *, trace: TraceContext | None = None
    ) -> WorkBody:
        """``POST /work/{id}/complete``."""
        path = f"/work/{work_id}/complete"
        return await self._http.ask(
            WorkBody, "POST", path, body=body, trace=trace, fits=_is_about(work_id)
        )

    async def complete_some(self, agent_id: UUID, body: CompleteBatch) -> Sequence[BatchItem]:
        """``POST /agents/{id}/work/complete``; an answer for each item, in their order."""
        path = f"/agents/{agent_id}/work/complete"
        answer = await self._http.ask(
            BatchAnswer, "POST", path, body=body, fits=_has(len(body.items))
        )
        return answer.items

    async def heartbeat(self, agent_id: UUID, body: Heartbeat) -> HeartbeatAnswer:
        """``POST /agents/{id}/heartbeat``."""
        path = f"/agents/{agent_id}/heartbeat"
        return await self._http.ask(HeartbeatAnswer, "POST", path, body=body)

    async def register_agent(self, body: RegisterAgent) -> RegisteredAgent:
        """``POST /agents``."""
        return await self._http.ask(RegisteredAgent, "POST", "/agents", body=body, statuses=(201,))

    async def list_agents(self, **filters: str | int | None) -> AgentPage:
        """``GET /agents``."""
        return await self._http.ask(AgentPage, "GET", "/agents", query=filters)

    async def get_agent(self, agent: UUID | str) -> AgentBody:
        """``GET /agents/{id or name}``; ``self`` is the agent whose key is used."""
        return await self._http.ask(AgentBody, "GET", f"/agents/{agent}", fits=_is_agent(agent))

    async def relabel_agent(self, agent: UUID | str, body: RelabelAgent) -> AgentBody:
        """``PATCH /agents/{id or name}``."""
        return await self._http.ask(AgentBody, "PATCH", f"/agents/{agent}", body=body)

    async def drain_agent(self, agent: UUID | str) -> AgentBody:
        """``POST /agents/{id or name}/drain``."""
        return await self._http.ask(AgentBody, "POST", f"/agents/{agent}/drain")

    async def undrain_agent(self, agent: UUID | str) -> AgentBody:
        """``POST /agents/{id or name}/undrain``."""
        return await self._http.ask(AgentBody, "POST", f"/agents/{agent}/undrain")

    async def delete_agent(self, agent: UUID | str) -> None:
        """``DELETE /agents/{id or name}``."""
        await self._http.tell("DELETE", f"/agents/{agent}")

    async def rotate_agent_key(self, agent: UUID | str) -> RegisteredAgent:
        """``POST /agents/{id or name}/rotate-key``."""
        return await self._http.ask(RegisteredAgent, "POST", f"/agents/{agent}/rotate-key")

    async def create_generator(self, body: CreateGenerator) -> CreatedGenerator:
        """``POST /generators``."""
        return await self._http.ask(
            CreatedGenerator, "POST", "/generators", body=body, statuses=(201,)
        )

    async def list_generators(self, **filters: str | int | None) -> GeneratorPage:
        """``GET /generators``."""
        return await self._http.ask(GeneratorPage, "GET", "/generators", query=filters)

    async def get_generator(self, generator: UUID | str) -> GeneratorBody:
        """``GET /generators/{id or name}``."""
        return await self._http.ask(GeneratorBody, "GET", f"/generators/{generator}")

    async def limit_generator(self, generator: UUID | str, body: LimitGenerator) -> GeneratorBody:
        """``PATCH /generators/{id or name}``."""
        return await self._http.ask(GeneratorBody, "PATCH", f"/generators/{generator}", body=body)

    async def delete_generator(self, generator: UUID | str) -> None:
        """``DELETE /generators/{id or name}``."""
        await self._http.tell("DELETE", f"/generators/{generator}")

    async def rotate_generator_key(self, generator: UUID | str) -> CreatedGenerator:
        """``POST /generators/{id or name}/rotate-key``."""
        return await self._http.ask(CreatedGenerator, "POST", f"/generators/{generator}/rotate-key")

    async def create_key(self, body: CreateKey) -> CreatedKey:
        """``POST /keys``."""
        return await self._http.ask(CreatedKey, "POST", "/keys", body=body, statuses=(201,))

    async def list_keys(self, **filters: str | int | None) -> KeyPage:
        """``GET /keys``."""
        return await self._http.ask(KeyPage, "GET", "/keys", query=filters)

    async def revoke_key(self, short_id: str) -> None:
        """``DELETE /keys/{short id}``."""
        await self._http.tell("DELETE", f"/keys/{short_id}")

    async def _stream_events(
        self, work_id: UUID, *, after: int
    ) -> AsyncGenerator[WorkEvent | None]:
        """
        Yield the events of one connection, and None when there is one.

        Raises:
            _Over: There will be no more.
        """
        reader = EventReader()
        async with self._http.stream(
            f"/work/{work_id}/events",
            media_type=STREAM_MEDIA_TYPE,
            query={"follow": "true"},
            last_id=after,
        ) as chunks:
            if chunks is None:
                raise _Over
            yield None
            async for chunk in chunks:
                try:
                    events = list(reader.read(chunk))
                except ValueError as error:
                    raise self._http.no_broker("sent a stream of something else") from error
                for event in events:
                    yield event


class _Over(Exception):
    """The Work is finished, and all that happened to it was sent."""


def _is_about(work_id: UUID) -> Callable[[WorkBody | ClaimBody], bool]:
    return lambda body: str(body.id) == str(work_id).lower()


def _is_agent(ref: UUID | str) -> Callable[[AgentBody], bool]:
    return lambda body: str(ref) in ("self", str(body.id), body.name)


def _has(count: int) -> Callable[[BatchAnswer], bool]:
    return lambda body: len(body.items) == count

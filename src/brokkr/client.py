"""
The broker's REST API, one method for each endpoint.  Used by the agent and the CLI.

Whatever goes wrong leaves as a :class:`~brokkr.work.errors.BrokkrError`: the same class
that the broker raised, or :class:`~brokkr.work.errors.BrokerUnavailable`.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar
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
from brokkr.work.errors import BrokerUnavailable

_Body = TypeVar("_Body", bound=BaseModel)

TIMEOUT_SECONDS = 30


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
            headers={"Authorization": f"Bearer {key}", "User-Agent": f"brokkr/{__version__}"},
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
        await self._session.close()

    async def submit_work(self, body: SubmitWork) -> WorkBody:
        """``POST /work``."""
        return await self._ask(WorkBody, "POST", "/work", body=body)

    async def submit_some(self, body: SubmitBatch) -> Sequence[BatchItem]:
        """``POST /work/batch``; an answer for each item, in their order."""
        answer = await self._ask(BatchAnswer, "POST", "/work/batch", body=body)
        return answer.items

    async def get_work(self, work_id: UUID) -> WorkBody:
        """``GET /work/{id}``."""
        return await self._ask(WorkBody, "GET", f"/work/{work_id}")

    async def list_work(self, **filters: str | int | None) -> WorkPage:
        """``GET /work``; the filters are the query parameters."""
        return await self._ask(WorkPage, "GET", "/work", query=filters)

    async def cancel_work(self, work_id: UUID) -> WorkBody:
        """``DELETE /work/{id}``."""
        return await self._ask(WorkBody, "DELETE", f"/work/{work_id}")

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

    async def report_progress(self, work_id: UUID, body: ReportProgress) -> None:
        """``POST /work/{id}/progress``."""
        await self._tell("POST", f"/work/{work_id}/progress", body=body)

    async def complete_work(self, work_id: UUID, body: CompleteWork) -> WorkBody:
        """``POST /work/{id}/complete``."""
        return await self._ask(WorkBody, "POST", f"/work/{work_id}/complete", body=body)

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

    async def _ask(
        self,
        answer: type[_Body],
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        query: Mapping[str, str | int | None] | None = None,
        wait: float = 0,
    ) -> _Body:
        content = await self._send(method, path, body=body, query=query, wait=wait)
        try:
            return answer.model_validate_json(content)
        except ValidationError as error:
            raise BrokerUnavailable(f"{self._base} does not answer like a broker") from error

    async def _tell(self, method: str, path: str, *, body: BaseModel | None = None) -> None:
        await self._send(method, path, body=body)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        query: Mapping[str, str | int | None] | None = None,
        wait: float = 0,
    ) -> bytes:
        content = None if body is None else body.model_dump_json(exclude_unset=True)
        try:
            async with self._session.request(
                method,
                self._base + path,
                data=content,
                params={k: str(v) for k, v in (query or {}).items() if v is not None},
                headers={} if content is None else {"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS + wait),
                allow_redirects=False,
            ) as response:
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise problem.error_of(response.status, await _document(response))
                return await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"no answer from {self._base}: {_words(error)}") from error


async def _document(response: aiohttp.ClientResponse) -> Mapping[str, Any]:
    """Read a problem document; a proxy's error page is not one."""
    if response.content_type == problem.MEDIA_TYPE:
        document = await response.json(content_type=None)
        if isinstance(document, dict):
            return document
    return {"title": f"{response.status} {response.reason}"}


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__

"""The work queue as a test speaks of it: each step is one transaction of its own."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

from brokkr.broker.db import agents, execution_log, work_queue
from brokkr.broker.db.pool import Pool, transaction
from brokkr.broker.db.work_queue import ClaimedWork, LostClaim
from brokkr.wire.bodies import (
    AgentBody,
    CompleteWork,
    PendingWork,
    RegisterAgent,
    RelabelAgent,
    RenewedLease,
    ReportProgress,
    SubmitWork,
    WorkBody,
)
from support.factories import a_build_template

_numbers = count(1)


class Queue:
    """Steps that agents and users take, and a look at what came of them."""

    def __init__(self, pool: Pool, *, max_lost_claims: int = 3) -> None:
        self.pool = pool
        self.max_lost_claims = max_lost_claims

    async def an_agent(self, name: str | None = None, **labels: str) -> AgentBody:
        """Register an agent; every agent of a test carries ``any: "yes"``."""
        body = RegisterAgent(
            name=name or f"agent-{next(_numbers)}", labels={"any": "yes", **labels}
        )
        async with transaction(self.pool) as db:
            return await agents.register_agent(db, body)

    async def relabel(self, agent: AgentBody, **labels: str | None) -> None:
        async with transaction(self.pool) as db:
            await agents.relabel_agent(db, str(agent.id), RelabelAgent(labels=labels))

    async def delete_agent(self, agent: AgentBody) -> None:
        async with transaction(self.pool) as db:
            await agents.delete_agent(db, str(agent.id))

    async def touch(self, agent: AgentBody, incarnation: UUID) -> bool:
        async with transaction(self.pool) as db:
            return await agents.touch_agent(db, agent.id, incarnation=incarnation)

    async def submit(self, target: Any = None, **fields: Any) -> UUID:
        """Submit a Work, for all agents unless a target says otherwise."""
        target = target or {"match_labels": {"any": "yes"}}
        template = a_build_template()
        body = SubmitWork(work_type="build", template=template, target=target, **fields)
        async with transaction(self.pool) as db:
            return await work_queue.submit_work(db, body, template)

    async def pending(self, agent: AgentBody, limit: int = 100) -> list[PendingWork]:
        async with transaction(self.pool) as db:
            return await work_queue.list_pending_work(
                db, agent_id=agent.id, types=None, limit=limit
            )

    async def claim(
        self, work_id: UUID, by: AgentBody, request_id: UUID | None = None
    ) -> ClaimedWork:
        async with transaction(self.pool) as db:
            return await work_queue.claim_work(db, work_id, agent_id=by.id, request_id=request_id)

    async def claim_some(
        self,
        by: AgentBody,
        limit: int = 1,
        request_id: UUID | None = None,
        types: Sequence[str] | None = None,
    ) -> list[ClaimedWork]:
        async with transaction(self.pool) as db:
            return await work_queue.claim_some_work(
                db, agent_id=by.id, limit=limit, request_id=request_id, types=types
            )

    async def renew(self, *claims: ClaimedWork, by: AgentBody) -> list[RenewedLease]:
        async with transaction(self.pool) as db:
            return await work_queue.renew_claims(
                db, [each.claim_id for each in claims], agent_id=by.id
            )

    async def progress(self, claim: ClaimedWork, by: AgentBody) -> None:
        body = ReportProgress(claim_id=claim.claim_id, phase="Running", attempt=1)
        async with transaction(self.pool) as db:
            await work_queue.report_progress(db, claim.work_id, body, agent_id=by.id)

    async def complete(self, claim: ClaimedWork, by: AgentBody, **report: Any) -> WorkBody:
        body = CompleteWork(
            claim_id=claim.claim_id, **({"success": True, "message": "done"} | report)
        )
        async with transaction(self.pool) as db:
            finished, _ = await work_queue.complete_work(db, claim.work_id, body, agent_id=by.id)
            return finished

    async def cancel(self, work_id: UUID) -> bool:
        async with transaction(self.pool) as db:
            return await work_queue.cancel_work(db, work_id)

    async def lapse(self, *claims: ClaimedWork) -> None:
        """Let the leases of these claims run out."""
        await self.pool.execute(
            "UPDATE work_queue SET lease_expires_at = now() - interval '1 second'"
            " WHERE status = 'CLAIMED' AND claim_id = ANY ($1)",
            [each.claim_id for each in claims],
        )

    async def sweep(self) -> list[LostClaim]:
        async with transaction(self.pool) as db:
            return await work_queue.release_stale_claims(
                db, max_lost_claims=self.max_lost_claims, limit=100
            )

    async def lose(self, claim: ClaimedWork) -> None:
        """Let a claim's lease run out, and have it given back."""
        await self.lapse(claim)
        await self.sweep()

    async def extend(self, longest_pause: timedelta) -> None:
        async with transaction(self.pool) as db:
            await work_queue.extend_leases(db, longest_pause=longest_pause)

    async def look(self, work_id: UUID) -> WorkBody:
        async with transaction(self.pool) as db:
            return await execution_log.get_work(db, work_id)

    async def history(self, work_id: UUID) -> list[str | None]:
        """Return how the claims of a Work ended, in their order."""
        rows = await self.pool.fetch(
            "SELECT ended_as FROM work_claims WHERE work_id = $1 ORDER BY round", work_id
        )
        return [row["ended_as"] for row in rows]

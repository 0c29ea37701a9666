"""The work queue as a test speaks of it: each step is one transaction of its own."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from brokkr.broker.db import agents, claims, execution_log, submissions, work_queue
from brokkr.broker.db.claims import ClaimedWork, Holder
from brokkr.broker.db.pool import Pool, autocommit, transaction
from brokkr.broker.db.submissions import Refused, Submission, Submitted, Submitter
from brokkr.broker.db.work_queue import Completed, GivenBack, HandOffPolicy, LostClaim
from brokkr.wire.bodies import (
    AgentBody,
    Capabilities,
    CompleteOne,
    Heartbeat,
    PendingWork,
    RegisterAgent,
    RelabelAgent,
    ReleaseWork,
    RenewedLease,
    ReportProgress,
    SubmitWork,
    WorkBody,
)
from brokkr.work.errors import ClaimLost, WorkNotFound
from support.factories import a_build_template

_numbers = count(1)


def a_submission(target: Any = None, **fields: Any) -> Submission:
    """Return what is asked for with a Work, for all agents unless a target says otherwise."""
    template = a_build_template()
    body = SubmitWork(
        work_type="build",
        template=template,
        target=target or {"match_labels": {"any": "yes"}},
        **fields,
    )
    return Submission(body=body, template=template)


def a_report(claim: ClaimedWork, **report: Any) -> CompleteOne:
    """Return what is said of a Work at its end: that it succeeded, unless it is given."""
    fields = {"success": True, "message": "done"} | report
    return CompleteOne(work_id=claim.work_id, claim_id=claim.claim_id, **fields)


def is_known(answer: Submitted | Refused, work_id: UUID) -> bool:
    """Say whether a submission was answered with a Work that was there before."""
    return isinstance(answer, Submitted) and (answer.work_id, answer.is_new) == (work_id, False)


def holder(agent: AgentBody) -> Holder:
    return Holder(id=agent.id, name=agent.name)


class Queue:
    """Steps that agents and users take, and a look at what came of them."""

    def __init__(self, pool: Pool, *, max_lost_claims: int = 3) -> None:
        self.pool = pool
        self.policy = HandOffPolicy(base=timedelta())
        self.max_lost_claims = max_lost_claims

    async def an_agent(
        self, name: str | None = None, *, annotations: dict[str, str] | None = None, **labels: str
    ) -> AgentBody:
        """Register an agent; every agent of a test carries ``any: "yes"``."""
        body = RegisterAgent(
            name=name or f"agent-{next(_numbers)}",
            labels={"any": "yes", **labels},
            annotations=annotations or {},
        )
        async with transaction(self.pool) as db:
            return await agents.register_agent(db, body)

    async def relabel(self, agent: AgentBody, **labels: str | None) -> None:
        async with transaction(self.pool) as db:
            await agents.relabel_agent(db, str(agent.id), RelabelAgent(labels=labels))

    async def delete_agent(self, agent: AgentBody) -> GivenBack:
        async with transaction(self.pool) as db:
            given, _ = await agents.delete_agent(db, str(agent.id), actor="admin:test")
        return given

    async def drain(self, agent: AgentBody, *, is_drained: bool = True) -> None:
        async with transaction(self.pool) as db:
            await agents.drain_agent(db, str(agent.id), is_drained=is_drained)

    async def touch(self, agent: AgentBody, incarnation: UUID | None = None) -> bool:
        """Let an agent be heard of."""
        async with transaction(self.pool) as db:
            beat = Heartbeat(incarnation=incarnation or uuid4())
            return (await agents.touch_agent(db, agent.id, beat)).is_first

    async def declare(self, agent: AgentBody, **unavailable: str) -> None:
        """Let an agent say which types it cannot execute now, and why."""
        beat = Heartbeat(
            incarnation=uuid4(), capabilities=Capabilities(types=[], unavailable=unavailable)
        )
        async with transaction(self.pool) as db:
            await agents.touch_agent(db, agent.id, beat)

    async def submit(self, target: Any = None, **fields: Any) -> UUID:
        """Submit a Work, for all agents unless a target says otherwise."""
        [submitted] = await self.submit_all(a_submission(target, **fields))
        assert isinstance(submitted, Submitted), submitted
        return submitted.work_id

    async def submit_all(
        self, *several: Submission, by: Submitter | None = None
    ) -> list[Submitted | Refused]:
        """Submit Works with one request."""
        async with autocommit(self.pool) as db:
            return await submissions.submit_work(
                db, several, by=by or Submitter(actor="admin:test")
            )

    async def pending(self, agent: AgentBody, limit: int = 100) -> list[PendingWork]:
        async with transaction(self.pool) as db:
            return await claims.list_pending_work(db, agent_id=agent.id, types=None, limit=limit)

    async def claim(
        self, work_id: UUID, by: AgentBody, request_id: UUID | None = None
    ) -> ClaimedWork:
        async with transaction(self.pool) as db:
            return await claims.claim_work(db, work_id, by=holder(by), request_id=request_id)

    async def claim_some(
        self,
        by: AgentBody,
        limit: int = 1,
        request_id: UUID | None = None,
        types: Sequence[str] | None = None,
        waited: timedelta = timedelta(0),
    ) -> list[ClaimedWork]:
        async with autocommit(self.pool) as db:
            return await claims.claim_some_work(
                db,
                by=holder(by),
                limit=limit,
                request_id=request_id,
                types=types,
                waited=waited,
            )

    async def renew(self, *held: ClaimedWork, by: AgentBody) -> list[RenewedLease]:
        async with transaction(self.pool) as db:
            return await claims.renew_claims(db, [each.claim_id for each in held], by=holder(by))

    async def progress(self, claim: ClaimedWork, by: AgentBody, **fields: Any) -> None:
        body = ReportProgress(
            claim_id=claim.claim_id, **{"phase": "Running", "attempt": 1} | fields
        )
        async with transaction(self.pool) as db:
            await claims.report_progress(db, claim.work_id, body, by=holder(by))

    async def complete(self, claim: ClaimedWork, by: AgentBody, **report: Any) -> WorkBody:
        [answer] = await self.complete_all(a_report(claim, **report), by=by)
        if isinstance(answer, Completed):
            return answer.work
        raise answer

    async def complete_all(
        self, *reports: CompleteOne, by: AgentBody
    ) -> list[Completed | WorkNotFound | ClaimLost]:
        """Report on several Works with one request."""
        async with autocommit(self.pool) as db:
            return await work_queue.complete_work(db, reports, by=holder(by), policy=self.policy)

    async def hand_on(self, claim: ClaimedWork, by: AgentBody, **report: Any) -> WorkBody:
        """Report a failure that another agent might not have."""
        return await self.complete(claim, by=by, success=False, retryable=True, **report)

    async def cancel(self, work_id: UUID) -> bool:
        async with transaction(self.pool) as db:
            return await work_queue.cancel_work(db, work_id, actor="admin:test")

    async def release(
        self, claim: ClaimedWork, by: AgentBody, reason: str = "", delay_seconds: float = 0
    ) -> GivenBack:
        body = ReleaseWork(claim_id=claim.claim_id, reason=reason, delay_seconds=delay_seconds)
        async with transaction(self.pool) as db:
            return await work_queue.release_work(
                db,
                claim.work_id,
                body,
                actor=holder(by).actor,
                by=holder(by),
                policy=self.policy,
            )

    async def unworkable(
        self, claim: ClaimedWork, by: AgentBody, reason: str = "unreachable"
    ) -> GivenBack:
        """Give a Work back as an agent does that cannot work."""
        async with transaction(self.pool) as db:
            return await work_queue.give_back_unworkable(
                db, {claim.claim_id: reason}, by=holder(by), policy=self.policy
            )

    async def order_release(self, work_id: UUID) -> GivenBack:
        """Release as an operator does."""
        async with transaction(self.pool) as db:
            return await work_queue.release_work(
                db, work_id, ReleaseWork(), actor="admin:test", policy=self.policy
            )

    async def requeue(self, work_id: UUID) -> None:
        async with transaction(self.pool) as db:
            await work_queue.requeue_work(db, work_id, actor="admin:test", reason="")

    async def move_due(self) -> int:
        """Let what is due be claimed, and what is late expire; return how many expired."""
        async with transaction(self.pool) as db:
            await work_queue.enter_lanes(db, limit=100)
            return await work_queue.expire_work(db, limit=100)

    async def later(self, by: timedelta) -> None:
        """Let so much time pass: all that the database remembers is so much longer ago."""
        columns = await self.pool.fetch(
            "SELECT table_name,"
            "  string_agg(format('%1$I = %1$I - $1::interval', column_name), ', ') AS shift"
            "  FROM information_schema.columns JOIN information_schema.tables"
            " USING (table_schema, table_name)"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
            "   AND data_type = 'timestamp with time zone' GROUP BY table_name"
        )
        async with transaction(self.pool) as db:
            for row in columns:
                await db.execute(f"UPDATE {row['table_name']} SET {row['shift']}", by)

    async def lapse(self, *held: ClaimedWork) -> None:
        """Let the leases of these claims run out."""
        await self.pool.execute(
            "UPDATE work_queue SET lease_expires_at = now() - interval '1 second',"
            " lease_check_at = now() - interval '1 second'"
            " WHERE status = 'CLAIMED' AND claim_id = ANY ($1)",
            [each.claim_id for each in held],
        )

    async def sweep(self) -> list[LostClaim]:
        async with transaction(self.pool) as db:
            lost, _ = await work_queue.release_stale_claims(
                db, max_lost_claims=self.max_lost_claims, limit=100
            )
            return lost

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

    async def targets(self, work_id: UUID) -> set[str]:
        """Return the names of the agents that may claim a Work."""
        rows = await self.pool.fetch(
            "SELECT name FROM work_targets JOIN agents ON id = agent_id WHERE work_id = $1", work_id
        )
        return {row["name"] for row in rows}

    async def everything(self) -> dict[str, list[Any]]:
        """Return all that is kept of Works, as one comparable thing."""
        async with transaction(self.pool) as db:
            return {
                table: [
                    row[0]
                    for row in await db.fetch(f"SELECT to_jsonb({table}) FROM {table} ORDER BY 1")
                ]
                for table in ("work_queue", "work_execution_log", "work_claims", "work_events")
            }

    async def somebody_waits(self) -> bool:
        """Say whether a transaction waits for a lock that another one holds."""
        found: bool = await self.pool.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock')"
        )
        return found

    async def history(self, work_id: UUID) -> list[str | None]:
        """Return how the claims of a Work ended, in their order."""
        rows = await self.pool.fetch(
            "SELECT ended_as FROM work_claims WHERE work_id = $1 ORDER BY round", work_id
        )
        return [row["ended_as"] for row in rows]

    async def events(self, work_id: UUID) -> list[str]:
        """Return what happened to a Work, in its order; the numbers have no gaps."""
        rows = await self.pool.fetch(
            "SELECT number, kind FROM work_events WHERE work_id = $1 ORDER BY number", work_id
        )
        assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
        return [row["kind"] for row in rows]

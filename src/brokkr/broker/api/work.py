"""Work, for those who submit it and for those who execute it."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Literal, TypeVar
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import AwareDatetime

from brokkr.broker.api.auth import AnAdmin, AnAgent, AnyCaller, CallingAgent
from brokkr.broker.api.door import check_storable
from brokkr.broker.api.state import Broker, TheBroker
from brokkr.broker.db import execution_log, work_queue
from brokkr.broker.db.execution_log import WorkFilter
from brokkr.broker.db.pool import transaction
from brokkr.broker.db.work_queue import ClaimedWork
from brokkr.wire.bodies import (
    MAX_RESULT_BYTES,
    MAX_WAIT_SECONDS,
    ClaimBody,
    ClaimOne,
    Claims,
    ClaimSome,
    CompleteWork,
    PendingPage,
    PendingWork,
    ReportProgress,
    SubmitWork,
    TargetBody,
    WorkBody,
    WorkPage,
    WorkState,
)
from brokkr.wire.custom_resource import render_claimed
from brokkr.wire.documents import parse_yaml, template_of
from brokkr.work.errors import InvalidWork, MalformedBody, WorkNotFound
from brokkr.work.labels import problem_with_key, problem_with_value
from brokkr.work.model import Claim, Manifest
from brokkr.work.template import check_template

Limit = Annotated[int, Query(ge=1, le=500)]
Found = TypeVar("Found")


async def submit_work(
    broker: TheBroker, _caller: AnAdmin, body: SubmitWork, response: Response
) -> WorkBody:
    """Submit a Work: it waits until an agent that its target selects claims it."""
    template = _template_of(body)
    check_storable(template, "template")
    check_template(body.work_type, template)
    for index, target in enumerate(body.targets):
        field = f"target[{index}]" if isinstance(body.target, list) else "target"
        _check_target(target, field=field)
    async with transaction(broker.pool) as db:
        work_id = await work_queue.submit_work(db, body, template)
        submitted = await execution_log.get_work(db, work_id)
    response.headers["Location"] = f"/api/v1/work/{work_id}"
    return submitted


async def list_work(
    *,
    broker: TheBroker,
    _caller: AnAdmin,
    type: str | None = None,
    status: Annotated[list[WorkState] | None, Query()] = None,
    outcome: Literal["succeeded", "failed", "cancelled", "expired", "quarantined"] | None = None,
    agent_id: UUID | None = None,
    since: AwareDatetime | None = None,
    limit: Limit = 50,
    cursor: UUID | None = None,
) -> WorkPage:
    """List queued and finished Work together, newest first."""
    states = [WorkState(outcome.upper())] if outcome else status
    wanted = WorkFilter(type=type, states=states, agent_id=agent_id, since=since)
    async with transaction(broker.pool) as db:
        items = await execution_log.list_work(db, wanted, before=cursor, limit=limit)
    return WorkPage(items=items, next_cursor=str(items[-1].id) if len(items) == limit else None)


async def get_work(broker: TheBroker, caller: AnyCaller, work_id: UUID) -> WorkBody:
    """Show one Work, wherever it is; an agent sees what it holds or has finished."""
    async with transaction(broker.pool) as db:
        work = await execution_log.get_work(db, work_id)
    if caller.agent_id is not None and caller.agent_id != work.claimed_by:
        raise WorkNotFound(work_id)
    return work


async def cancel_work(
    broker: TheBroker, _caller: AnAdmin, work_id: UUID, response: Response
) -> WorkBody:
    """Cancel a Work: 200 if that ends it, 202 if its agent has to stop it first."""
    async with transaction(broker.pool) as db:
        is_over = await work_queue.cancel_work(db, work_id)
        work = await execution_log.get_work(db, work_id)
    if is_over:
        broker.metrics.finished.labels("cancelled").inc()
    else:
        response.status_code = HTTPStatus.ACCEPTED
    return work


async def list_pending_work(
    *,
    request: Request,
    broker: TheBroker,
    agent: AnAgent,
    ref: str,
    type: Annotated[list[str] | None, Query()] = None,
    limit: Limit = 20,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0,
) -> PendingPage:
    """List what this agent could claim: highest priority first, then oldest."""
    agent.check_is(ref)

    async def look() -> list[PendingWork]:
        async with transaction(broker.pool) as db:
            return await work_queue.list_pending_work(
                db, agent_id=agent.id, types=type, limit=limit
            )

    return PendingPage(
        items=await _wait_for(
            look, broker=broker, agent=agent, types=type, wait=wait, request=request
        )
    )


async def claim_work(broker: TheBroker, agent: AnAgent, work_id: UUID, body: ClaimOne) -> ClaimBody:
    """Claim one Work: of any number of agents, one gets it."""
    async with transaction(broker.pool) as db:
        claimed = await work_queue.claim_work(
            db, work_id, agent_id=agent.id, request_id=body.request_id
        )
    broker.metrics.claims.inc()
    return claim_body(claimed, agent, broker)


async def claim_some_work(
    request: Request, broker: TheBroker, agent: AnAgent, ref: str, body: ClaimSome
) -> Claims:
    """Claim the first few Works for this agent, and wait for some if there is none."""
    agent.check_is(ref)

    async def look() -> list[ClaimedWork]:
        async with transaction(broker.pool) as db:
            return await work_queue.claim_some_work(
                db,
                agent_id=agent.id,
                types=body.types,
                limit=body.max,
                request_id=body.request_id,
            )

    claimed = await _wait_for(
        look, broker=broker, agent=agent, types=body.types, wait=body.wait, request=request
    )
    broker.metrics.claims.inc(len(claimed))
    return Claims(claims=[claim_body(each, agent, broker) for each in claimed])


async def report_progress(
    broker: TheBroker, agent: AnAgent, work_id: UUID, body: ReportProgress
) -> None:
    """Say how a Work is going; this renews its lease."""
    async with transaction(broker.pool) as db:
        await work_queue.report_progress(db, work_id, body, agent_id=agent.id)


async def complete_work(
    broker: TheBroker, agent: AnAgent, work_id: UUID, body: CompleteWork
) -> WorkBody:
    """Report how a Work ended; a repeat gets the first answer again."""
    if len(json.dumps(body.result)) > MAX_RESULT_BYTES:
        raise InvalidWork("result", f"is larger than {MAX_RESULT_BYTES} bytes")
    async with transaction(broker.pool) as db:
        finished, is_new = await work_queue.complete_work(db, work_id, body, agent_id=agent.id)
    if is_new:
        broker.metrics.finished.labels(body.ended_as).inc()
    return finished


def claim_body(claimed: ClaimedWork, agent: CallingAgent, broker: Broker) -> ClaimBody:
    """Render a claim as its holder gets it."""
    claim = Claim(
        work_id=claimed.work_id,
        claim_id=claimed.claim_id,
        round=claimed.round,
        agent_id=agent.id,
        broker=str(broker.id),
    )
    return ClaimBody(
        id=claimed.work_id,
        claim_id=claimed.claim_id,
        round=claimed.round,
        work_type=claimed.work_type,
        broker=str(broker.id),
        lease_seconds=claimed.lease / timedelta(seconds=1),
        cancel_requested=claimed.cancel_requested,
        resource=render_claimed(claimed.spec, claim),
    )


def _template_of(body: SubmitWork) -> Manifest:
    try:
        match body.template:
            case str(text):
                return template_of(parse_yaml(text))
            case list(documents):
                return template_of(documents)
            case document:
                return template_of([document])
    except MalformedBody as error:  # the body itself was well-formed
        raise InvalidWork("template", str(error)) from error


def _check_target(target: TargetBody, *, field: str) -> None:
    """Refuse labels that no agent could have: a target that is misspelt waits for ever."""
    keys = [*target.match_labels, *target.match_annotations]
    keys += [each.key for each in target.match_expressions]
    values = [*target.match_labels.values()]
    values += [value for each in target.match_expressions for value in each.values]
    problems = [*map(problem_with_key, keys), *map(problem_with_value, values)]
    for problem in problems:
        if problem is not None:
            raise InvalidWork(field, problem)


async def _wait_for(
    look: Callable[[], Awaitable[list[Found]]],
    *,
    broker: Broker,
    agent: CallingAgent,
    types: Sequence[str] | None,
    wait: float,
    request: Request,
) -> list[Found]:
    """Look for Work, and again whenever there is some, until the wait is over."""
    if wait == 0:
        return await look()
    loop = asyncio.get_running_loop()
    # Polls that were opened together must not all end together.
    deadline = loop.time() + wait * random.uniform(0.8, 1)  # noqa: S311
    with broker.dispatcher.waiter(agent.id, types=types) as waiter:
        gone = asyncio.create_task(_disconnect(request))
        gone.add_done_callback(lambda _: waiter.leave())
        try:
            while not (found := await look()):
                if not await waiter.is_woken(within=deadline - loop.time()):
                    break
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
    return found


async def _disconnect(request: Request) -> None:
    """Return when the client has closed its connection; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass

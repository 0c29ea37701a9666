"""Claims: what agents ask for, hold, and report on."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import ValidationError

from brokkr.broker.api.auth import CallingAgent, authenticate
from brokkr.broker.api.call import Call
from brokkr.broker.api.problems import item_problem, refused_item
from brokkr.broker.api.state import Broker
from brokkr.broker.api.work import Limit
from brokkr.broker.db import claims, work_queue
from brokkr.broker.db.claims import ClaimedWork
from brokkr.broker.db.pool import autocommit, transaction
from brokkr.broker.db.work_queue import Completed, may_be_handed_on
from brokkr.wire.bodies import (
    MAX_WAIT_SECONDS,
    BatchAnswer,
    BatchItem,
    ClaimBody,
    ClaimOne,
    Claims,
    ClaimSome,
    CompleteBatch,
    CompleteOne,
    CompleteWork,
    PendingPage,
    PendingWork,
    ReportProgress,
    WorkBody,
)
from brokkr.wire.custom_resource import render_claimed
from brokkr.work.errors import BrokkrError, ClaimLost, InvalidInput, WorkNotFound
from brokkr.work.model import Claim
from brokkr.work.trace import TraceContext

Found = TypeVar("Found")


async def list_pending_work(
    *,
    call: Call,
    ref: str,
    type: Annotated[list[str] | None, Query()] = None,
    limit: Limit = 20,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0,
) -> PendingPage:
    """List what this agent could claim: highest priority first, then oldest."""
    agent = call.agent
    agent.check_is(ref)

    async def look() -> list[PendingWork]:
        async with autocommit(call.vital) as db:
            return await claims.list_pending_work(db, agent_id=agent.id, types=type, limit=limit)

    return PendingPage(items=await _wait_for(look, call, types=type, wait=wait))


async def claim_work(call: Call, work_id: UUID, body: ClaimOne) -> ClaimBody:
    """Claim one Work: of any number of agents, one gets it."""
    broker, agent = call.broker, call.agent
    async with transaction(call.vital) as db:
        claimed = await claims.claim_work(db, work_id, by=agent, request_id=body.request_id)
    broker.metrics.count_claims([claimed])
    return claim_body(claimed, agent, broker)


async def claim_some_work(call: Call, ref: str, body: ClaimSome) -> Claims:
    """Claim the first few Works for this agent, and wait for some if there is none."""
    broker, agent = call.broker, call.agent
    agent.check_is(ref)
    clock = asyncio.get_running_loop().time
    began = clock()

    async def look() -> list[ClaimedWork]:
        async with autocommit(call.vital) as db:
            return await claims.claim_some_work(
                db,
                by=agent,
                types=body.types,
                limit=body.max,
                request_id=body.request_id,
                waited=timedelta(seconds=clock() - began),
            )

    claimed = await _wait_for(
        look, call, types=body.types, wait=body.wait, lane_of=lambda each: each.selector_id
    )
    broker.metrics.count_claims(claimed)
    return Claims(claims=[claim_body(each, agent, broker) for each in claimed])


async def report_progress(call: Call, work_id: UUID, body: ReportProgress) -> None:
    """Say how a Work is going; this renews its lease."""
    async with transaction(call.vital) as db:
        await claims.report_progress(db, work_id, body, by=call.agent)


async def complete_work(call: Call, work_id: UUID, body: CompleteWork) -> WorkBody:
    """Report how a Work ended; a repeat gets the first answer again."""
    report = CompleteOne(work_id=work_id, **body.model_dump(exclude_unset=True))
    [answer] = await _complete(call, [report])
    if isinstance(answer, BrokkrError):
        raise answer
    return answer.work


async def complete_some_work(call: Call, ref: str, body: CompleteBatch) -> BatchAnswer:
    """Report how several Works ended; each report is answered by itself."""
    call.agent.check_is(ref)
    read = [_report_of(each, field=f"items[{index}]") for index, each in enumerate(body.items)]
    good = [each for each in read if isinstance(each, CompleteOne)]
    answers = iter(await _complete(call, good))
    results = [each if isinstance(each, InvalidInput) else next(answers) for each in read]
    return BatchAnswer(
        items=[
            BatchItem(status=HTTPStatus.OK, work=each.work)
            if isinstance(each, Completed)
            else refused_item(each, call.broker, about=item)
            for each, item in zip(results, body.items, strict=True)
        ]
    )


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
        resource=render_claimed(claimed.spec, claim, TraceContext.parse(claimed.traceparent)),
    )


def _report_of(item: dict[str, Any], *, field: str) -> CompleteOne | InvalidInput:
    try:
        return CompleteOne.model_validate(item)
    except ValidationError as error:
        return item_problem(error, item, field=field)


async def _complete(
    call: Call, reports: Sequence[CompleteOne]
) -> list[Completed | WorkNotFound | ClaimLost]:
    broker = call.broker
    # A hand-off makes lanes, so it may wait for a lock that others hold.
    connections = call.database if any(map(may_be_handed_on, reports)) else call.vital
    async with autocommit(connections) as db:
        answers = await work_queue.complete_work(
            db, reports, by=call.agent, policy=broker.handoff_policy
        )
    done = [each for each in answers if isinstance(each, Completed)]
    broker.metrics.count_outcomes(each.outcome for each in done if each.outcome)
    broker.metrics.handoffs.inc(sum(each.is_handed_on for each in done))
    broker.dispatcher.announce(lane for each in done for lane in each.lanes)
    return answers


async def _wait_for(
    look: Callable[[], Awaitable[list[Found]]],
    call: Call,
    *,
    types: Sequence[str] | None,
    wait: float,
    lane_of: Callable[[Found], int | None] | None = None,
) -> list[Found]:
    """
    Look for Work, and again whenever there is some, until the wait is over.

    Args:
        lane_of: From which lane something was taken; not given if nothing is taken.
    """
    if wait == 0:
        return await look()
    loop = asyncio.get_running_loop()
    # Polls that were opened together must not all end together.
    deadline = loop.time() + wait * random.uniform(0.8, 1)  # noqa: S311
    with call.broker.dispatcher.waiter(call.agent.id, types=types) as waiter:
        gone = asyncio.create_task(_disconnect(call))
        gone.add_done_callback(lambda _: waiter.leave())
        try:
            while not (found := await look()):
                if not await waiter.is_woken(within=deadline - loop.time()):
                    break
                await authenticate(call)  # the key may have been revoked meanwhile
            if found:
                waiter.heeded(map(lane_of, found) if lane_of else waiter.unheeded)
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
    return found


async def _disconnect(call: Call) -> None:
    """Return when the client has closed its connection; its body has been read."""
    while (await call.receive())["type"] != "http.disconnect":
        pass

"""Work, for those who submit it and look after it."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Header, Query, Response
from pydantic import AwareDatetime, ValidationError

from brokkr.broker.api.auth import AnAdmin, AnyCaller, calling_agent
from brokkr.broker.api.door import check_storable
from brokkr.broker.api.problems import item_problem, refused_item
from brokkr.broker.api.state import Broker, TheBroker
from brokkr.broker.db import execution_log, work_queue
from brokkr.broker.db.execution_log import WorkFilter
from brokkr.broker.db.keys import Caller, Role
from brokkr.broker.db.pool import transaction
from brokkr.broker.db.submissions import Submission, Submitted, Submitter
from brokkr.broker.db.submissions import submit_work as submit_to_queue
from brokkr.wire.bodies import (
    BatchAnswer,
    BatchItem,
    ReleaseWork,
    RequeueWork,
    SubmitBatch,
    SubmitWork,
    TargetBody,
    WorkBody,
    WorkPage,
    WorkState,
)
from brokkr.wire.documents import parse_yaml, template_of
from brokkr.work.errors import (
    BrokkrError,
    IdempotencyKeyReused,
    InvalidInput,
    InvalidWork,
    MalformedBody,
    WorkNotFound,
)
from brokkr.work.labels import check_labels, problem_with_key, problem_with_value
from brokkr.work.model import Manifest
from brokkr.work.template import check_template

Limit = Annotated[int, Query(ge=1, le=500)]


async def submit_work(
    broker: TheBroker,
    caller: AnAdmin,
    body: SubmitWork,
    response: Response,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> WorkBody:
    """Submit a Work: it waits until an agent that its target selects claims it."""
    if idempotency_key is not None:
        if body.idempotency_key not in (None, idempotency_key):
            raise InvalidWork("idempotency_key", "is not that of the header Idempotency-Key")
        body = body.model_copy(update={"idempotency_key": idempotency_key})
    submission = _submission_of(body)
    [item] = await _submit(broker, caller, [submission])
    if isinstance(item, BrokkrError):
        raise item
    work, is_new = item
    response.headers["Location"] = f"/api/v1/work/{work.id}"
    response.status_code = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    return work


async def submit_some_work(broker: TheBroker, caller: AnAdmin, body: SubmitBatch) -> BatchAnswer:
    """Submit several Works; each is answered by itself, and queued in this order."""
    read = [_read(each, field=f"items[{index}]") for index, each in enumerate(body.items)]
    good = [each for each in read if isinstance(each, Submission)]
    answers = iter(await _submit(broker, caller, good))
    results = [each if isinstance(each, InvalidInput) else next(answers) for each in read]
    return BatchAnswer(
        items=[
            refused_item(each)
            if isinstance(each, BrokkrError)
            else BatchItem(status=HTTPStatus.CREATED if each[1] else HTTPStatus.OK, work=each[0])
            for each in results
        ]
    )


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
    broker: TheBroker, caller: AnAdmin, work_id: UUID, response: Response
) -> WorkBody:
    """Cancel a Work: 200 if that ends it, 202 if its agent has to stop it first."""
    async with transaction(broker.pool) as db:
        is_over = await work_queue.cancel_work(db, work_id, actor=caller.actor)
        work = await execution_log.get_work(db, work_id)
    if is_over:
        broker.metrics.finished.labels("cancelled").inc()
    else:
        response.status_code = HTTPStatus.ACCEPTED
    return work


async def release_work(
    broker: TheBroker, caller: AnyCaller, work_id: UUID, body: ReleaseWork
) -> WorkBody:
    """Give a Work back to the queue: its holder by its claim, or an admin."""
    by = None if caller.role is Role.ADMIN else calling_agent(caller)
    if by is not None and body.claim_id is None:
        raise InvalidWork("claim_id", "an agent gives back what it holds: say which claim")
    async with transaction(broker.pool) as db:
        given = await work_queue.release_work(db, work_id, body, actor=caller.actor, by=by)
        work = await execution_log.get_work(db, work_id)
    broker.metrics.count_outcomes(given.outcomes)
    broker.dispatcher.announce(given.lanes)
    return work


async def requeue_work(
    broker: TheBroker, caller: AnAdmin, work_id: UUID, body: RequeueWork
) -> WorkBody:
    """Put a finished Work back into the queue, under its id and with its history."""
    async with transaction(broker.pool) as db:
        lane = await work_queue.requeue_work(db, work_id, actor=caller.actor, reason=body.reason)
        work = await execution_log.get_work(db, work_id)
    broker.dispatcher.announce([lane])
    return work


async def _submit(
    broker: Broker, caller: Caller, submissions: Sequence[Submission]
) -> list[tuple[WorkBody, bool] | IdempotencyKeyReused]:
    """Queue what was checked; say of each what it is now, and whether it is new."""
    by = Submitter(actor=caller.actor)
    async with transaction(broker.pool) as db:
        queued = await submit_to_queue(db, submissions, by=by)
        answers = [
            each
            if isinstance(each, IdempotencyKeyReused)
            else (await execution_log.get_work(db, each.work_id), each.is_new)
            for each in queued
        ]
    broker.dispatcher.announce(
        each.selector_id
        for each in queued
        if isinstance(each, Submitted) and each.selector_id is not None
    )
    return answers


def _read(item: dict[str, Any], *, field: str) -> Submission | InvalidInput:
    try:
        return _submission_of(SubmitWork.model_validate(item))
    except (ValidationError, InvalidInput) as error:
        return item_problem(error, field=field)


def _submission_of(body: SubmitWork) -> Submission:
    """
    Check everything that a submission says.

    Raises:
        InvalidWork: Names the field.
    """
    template = _template_of(body)
    check_storable(template, "template")
    check_template(body.work_type, template)
    check_labels(body.labels, field="labels")
    for index, target in enumerate(body.targets):
        field = f"target[{index}]" if isinstance(body.target, list) else "target"
        _check_target(target, field=field)
    return Submission(body=body, template=template)


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

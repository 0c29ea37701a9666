"""Work, for those who submit it and look after it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Header, Query
from pydantic import ValidationError

from brokkr.broker.api.auth import check_sees
from brokkr.broker.api.call import Call
from brokkr.broker.api.door import check_storable
from brokkr.broker.api.problems import item_problem, refused_item
from brokkr.broker.db import execution_log, generators, work_queue
from brokkr.broker.db.execution_log import WorkFilter
from brokkr.broker.db.keys import Caller, Role
from brokkr.broker.db.lanes import LaneLimits
from brokkr.broker.db.pool import Connection, autocommit, transaction
from brokkr.broker.db.selectors import MAX_TARGET_BYTES, size_of
from brokkr.broker.db.submissions import Refused, Submission, Submitted, Submitter
from brokkr.broker.db.submissions import submit_work as submit_to_queue
from brokkr.wire.bodies import (
    BatchAnswer,
    BatchItem,
    Moment,
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
    GeneratorNotFound,
    InvalidInput,
    InvalidWork,
    LimitReached,
    MalformedBody,
)
from brokkr.work.labels import (
    problem_with_content,
    problem_with_key,
    problem_with_name,
    problem_with_value,
)
from brokkr.work.model import Manifest
from brokkr.work.template import Kinds, check_template

Limit = Annotated[int, Query(ge=1, le=500)]


async def submit_work(
    call: Call,
    body: SubmitWork,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> WorkBody:
    """
    Submit a Work: it waits until an agent that its target selects claims it.

    A limit that is reached, of the generator or of distinct targets, is a 429 that says which.
    """
    if idempotency_key is not None:
        if body.idempotency_key not in (None, idempotency_key):
            raise InvalidWork("idempotency_key", "is not that of the header Idempotency-Key")
        body = body.model_copy(update={"idempotency_key": idempotency_key})
    submission = _submission_of(body, kinds=call.broker.settings.kinds)
    [item] = await _submit(call, [submission])
    if isinstance(item, BrokkrError):
        raise item
    call.location = f"/api/v1/work/{item.work_id}"
    call.status = _status_of(item)
    return item.work


async def submit_some_work(call: Call, body: SubmitBatch) -> BatchAnswer:
    """
    Submit several Works; each is answered by itself, and queued in this order.

    The answers are without the resources: who asks knows what is in them, and they are the
    most of what would be sent.
    """
    read: list[Submission | InvalidInput] = []
    for index, each in enumerate(body.items):
        read.append(_read(each, kinds=call.broker.settings.kinds, field=f"items[{index}]"))
        if isinstance(each.get("template"), str):
            await asyncio.sleep(0)  # to read YAML takes a while, and others wait
    good = [each for each in read if isinstance(each, Submission)]
    answers = iter(await _submit(call, good))
    results = [each if isinstance(each, InvalidInput) else next(answers) for each in read]
    return BatchAnswer(
        items=[
            refused_item(each, call.broker)
            if isinstance(each, BrokkrError)
            else BatchItem(
                status=_status_of(each), work=each.work.model_copy(update={"resource": None})
            )
            for each in results
        ]
    )


def _status_of(submitted: Submitted) -> HTTPStatus:
    return HTTPStatus.CREATED if submitted.is_new else HTTPStatus.OK


async def list_work(
    *,
    call: Call,
    type: str | None = None,
    status: Annotated[list[WorkState] | None, Query()] = None,
    outcome: Literal["succeeded", "failed", "cancelled", "expired", "quarantined"] | None = None,
    agent_id: UUID | None = None,
    generator: Annotated[str | None, Query(max_length=63, description="By id or name.")] = None,
    label: Annotated[
        list[str] | None,
        Query(max_length=64, description="`key=value`; of several, all must hold."),
    ] = None,
    since: Moment | None = None,
    limit: Limit = 50,
    cursor: UUID | None = None,
) -> WorkPage:
    """
    List queued and finished Work together, newest first; a generator's list is its own.

    A caller who asks for many lists at once waits for its turn, and then is answered 429.
    """
    states = [WorkState(outcome.upper())] if outcome else status
    labels = _labels_of(label or [])
    async with call.search() as share, transaction(share) as db:
        wanted = WorkFilter(
            type=type,
            states=states,
            agent_id=agent_id,
            generator_id=await _generator_id(db, call.caller, generator),
            labels=labels,
            since=since,
        )
        items = await execution_log.list_work(db, wanted, before=cursor, limit=limit)
    return WorkPage(items=items, next_cursor=str(items[-1].id) if len(items) == limit else None)


def _labels_of(pairs: Sequence[str]) -> dict[str, str]:
    """
    Read labels that are asked for.

    Raises:
        InvalidInput: One is not ``key=value``, or a key is to have two values.
    """
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        problem = problem_with_key(key) or problem_with_value(value)
        if not equals or problem:
            raise InvalidInput("label", problem or f"{pair!r} is not key=value")
        if labels.setdefault(key, value) != value:
            raise InvalidInput("label", f"no Work has two values of {key!r}")
    return labels


async def _generator_id(db: Connection, caller: Caller, wanted: str | None) -> UUID | None:
    """
    Say whose Work is to be listed; None if anybody's.

    Raises:
        GeneratorNotFound: It does not exist, or a generator asks for another one's.
    """
    if caller.generator_id is not None:
        if wanted not in (None, caller.generator_name, str(caller.generator_id)):
            raise GeneratorNotFound(wanted or "")
        return caller.generator_id
    if wanted is None:
        return None
    with suppress(ValueError):
        return UUID(wanted)  # also one that was deleted: its Work stays
    return (await generators.get_generator(db, wanted)).id


async def get_work(call: Call, work_id: UUID) -> WorkBody:
    """Show one Work, wherever it is; an agent sees what it holds or has finished."""
    async with autocommit(call.database) as db:
        work = await execution_log.get_work(db, work_id)
    check_sees(call.caller, work)
    return work


async def cancel_work(call: Call, work_id: UUID) -> WorkBody:
    """Cancel a Work: 200 if that ends it, 202 if its agent has to stop it first."""
    async with transaction(call.database) as db:
        check_sees(call.caller, await execution_log.get_work(db, work_id))
        is_over = await work_queue.cancel_work(db, work_id, actor=call.caller.actor)
        work = await execution_log.get_work(db, work_id)
    if is_over:
        call.broker.metrics.finished.labels("cancelled").inc()
    else:
        call.status = HTTPStatus.ACCEPTED
    return work


async def release_work(call: Call, work_id: UUID, body: ReleaseWork) -> WorkBody:
    """Give a Work back to the queue: its holder by its claim, or an admin."""
    broker = call.broker
    by = None if call.caller.role is Role.ADMIN else call.agent
    if by is not None and body.claim_id is None:
        raise InvalidWork("claim_id", "an agent gives back what it holds: say which claim")
    async with transaction(call.database) as db:
        given = await work_queue.release_work(
            db,
            work_id,
            body,
            actor=call.caller.actor,
            by=by,
            policy=broker.handoff_policy,
        )
        work = await execution_log.get_work(db, work_id)
    broker.metrics.count_outcomes(given.outcomes)
    broker.dispatcher.announce(given.lanes)
    return work


async def requeue_work(call: Call, work_id: UUID, body: RequeueWork) -> WorkBody:
    """Put a finished Work back into the queue, under its id and with its history."""
    actor = call.caller.actor
    async with transaction(call.database) as db:
        lane = await work_queue.requeue_work(db, work_id, actor=actor, reason=body.reason)
        work = await execution_log.get_work(db, work_id)
    call.broker.dispatcher.announce([lane])
    return work


async def _submit(call: Call, submissions: Sequence[Submission]) -> list[Submitted | Refused]:
    """Queue what was checked, and let it be known."""
    broker = call.broker
    by = Submitter(
        actor=call.caller.actor,
        generator_id=call.caller.generator_id,
        traceparent=None if call.trace is None else str(call.trace),
    )
    async with autocommit(call.database) as db:
        queued = await submit_to_queue(
            db,
            submissions,
            by=by,
            limits=LaneLimits(
                each=broker.settings.max_targets_per_generator, total=broker.settings.max_targets
            ),
            now_ns=broker.clock.time_ns,
        )
    broker.metrics.throttled.inc(sum(isinstance(each, LimitReached) for each in queued))
    broker.dispatcher.announce(
        each.selector_id
        for each in queued
        if isinstance(each, Submitted) and each.selector_id is not None
    )
    return queued


def _read(item: dict[str, Any], *, kinds: Kinds, field: str) -> Submission | InvalidInput:
    try:
        return _submission_of(SubmitWork.model_validate(item), kinds=kinds)
    except (ValidationError, InvalidInput) as error:
        return item_problem(error, item, field=field)


def _submission_of(body: SubmitWork, *, kinds: Kinds) -> Submission:
    """
    Check everything that a submission says.

    Raises:
        InvalidWork: Names the field.
    """
    template = _template_of(body)
    check_template(body.work_type, template, kinds=kinds)
    for key, value in body.labels.items():
        problem = problem_with_key(key) or problem_with_value(value)
        if problem is not None:
            raise InvalidWork(f"labels.{key}", problem)
    for index, target in enumerate(body.targets):
        field = f"target[{index}]" if isinstance(body.target, list) else "target"
        _check_target(target, field=field)
    size = size_of(body.targets)
    if size > MAX_TARGET_BYTES:
        raise InvalidWork(
            "target",
            f"takes {size} bytes, and at most {MAX_TARGET_BYTES} are kept; "
            "select agents by a label instead of naming each",
        )
    return Submission(body=body, template=template)


def _template_of(body: SubmitWork) -> Manifest:
    try:
        match body.template:
            case str(text):  # the rest of the body was looked at as it came in
                template = template_of(parse_yaml(text))
                check_storable(template, "template")
                return template
            case list(documents):
                return template_of(documents)
            case document:
                return template_of([document])
    except MalformedBody as error:  # the body itself was well-formed
        raise InvalidWork("template", str(error)) from error


def _check_target(target: TargetBody, *, field: str) -> None:
    """Refuse what no agent could be called or carry: a target that is misspelt waits for ever."""
    for ref in target.agents:
        problem = None if _is_id(ref) else problem_with_name(ref)
        if problem is not None:
            raise InvalidWork(f"{field}.agents", problem)
    keys = [*target.match_labels, *target.match_annotations]
    keys += [each.key for each in target.match_expressions]
    values = [*target.match_labels.values()]
    values += [value for each in target.match_expressions for value in each.values]
    problems = [
        *map(problem_with_key, keys),
        *map(problem_with_value, values),
        *map(problem_with_content, target.match_annotations.values()),
    ]
    for problem in problems:
        if problem is not None:
            raise InvalidWork(field, problem)


def _is_id(ref: str) -> bool:
    try:
        return str(UUID(ref)) == ref
    except ValueError:
        return False

"""Answers are written by another library than the one that knows their models."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from asyncpg.pgproto import pgproto
from pydantic import BaseModel

from brokkr.broker.api.call import render
from brokkr.wire.bodies import (
    BatchAnswer,
    BatchItem,
    ClaimBody,
    Claims,
    HeartbeatAnswer,
    PendingPage,
    PendingWork,
    Progress,
    RenewedLease,
    WorkBody,
    WorkPage,
    WorkState,
)
from brokkr.wire.explain import Counted, Explanation, Waiting
from brokkr.work.explain import Rule

ID = "0190c2a4-7e1b-7000-8000-00000000abcd"
AN_ID = UUID(ID)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
A_LITTLE_LATER = NOON.replace(microsecond=120)
ANYTHING: dict[str, Any] = {
    "text": "Zürich 🚀\n\x7f\u2028",
    "numbers": [0, -1, 2**63 - 1, 0.1, 1e300, -0.0, 3600.0],
    "others": [None, True, False, [], {}],
}
WORK = WorkBody(
    id=AN_ID,
    work_type="build",
    status=WorkState.CLAIMED,
    created_at=NOON,
    claimed_at=A_LITTLE_LATER,
    claimed_by=AN_ID,
    max_retries=3,
    claim_timeout_seconds=3600,
    lease_seconds=3599.875,
    labels={"team": "a"},
    target=[{"match_labels": {"any": "yes"}}],
    progress=Progress(phase="Running", attempt=1, retries=0, reported_at=A_LITTLE_LATER),
    result=ANYTHING,
    resource=ANYTHING,
)
CLAIM = ClaimBody(
    id=AN_ID,
    claim_id=AN_ID,
    round=1,
    work_type="build",
    broker=ID,
    lease_seconds=30,
    resource=ANYTHING,
)
RENEWED = RenewedLease(
    work_id=AN_ID, claim_id=AN_ID, round=1, lease_seconds=30, cancel_requested=False
)
ANSWERS: list[BaseModel] = [
    WORK,
    WorkPage(items=[WORK], next_cursor=ID),
    BatchAnswer(items=[BatchItem(status=201, work=WORK), BatchItem(status=429, problem=ANYTHING)]),
    Claims(claims=[CLAIM]),
    HeartbeatAnswer(
        broker=ID,
        renewed=[RENEWED],
        lost=[AN_ID],
        held=[CLAIM],
    ),
    Explanation(
        work=WORK,
        summary="nobody may claim it",
        waiting=Waiting(
            ahead=Counted(count=1, is_exact=True), counts={Rule.MAY_CLAIM: 2}, agents=[]
        ),
    ),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda each: type(each).__name__)
def test_an_answer_says_what_its_model_says(answer: BaseModel) -> None:
    assert json.loads(render(answer)) == json.loads(answer.model_dump_json())


def test_the_drivers_own_ids_are_written_like_all_others() -> None:
    row = {"id": pgproto.UUID(ID), "work_type": "build", "priority": 0, "created_at": NOON}

    rendered = render(PendingPage(items=[PendingWork.model_validate(row)]))

    assert json.loads(rendered) == {
        "items": [{**row, "id": ID, "created_at": "2026-03-01T12:00:00Z"}]
    }


def test_what_is_no_answer_is_not_made_one() -> None:
    class Strange(BaseModel):
        value: Any

    with pytest.raises(TypeError):
        render(Strange(value=object()))

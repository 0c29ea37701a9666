import math
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from brokkr.wire.bodies import (
    MAX_MESSAGE,
    MAX_REASON,
    MAX_STEP,
    AgentBody,
    Capabilities,
    Capacity,
    ClaimSome,
    CompleteWork,
    ReleaseWork,
    ReportProgress,
    SubmitWork,
    TargetBody,
    WorkState,
)
from brokkr.work.selectors import MatchExpression, Operator, Target
from support.templates import a_build

SUBMISSION: dict[str, Any] = {
    "work_type": "build",
    "template": a_build(),
    "target": {"match_labels": {"gpu": "true"}},
}


def submit(**changes: Any) -> SubmitWork:
    return SubmitWork.model_validate(SUBMISSION | changes)


def test_what_is_left_out_of_a_submission_has_its_documented_default() -> None:
    work = submit()

    assert (work.max_retries, work.claim_timeout_seconds, work.priority) == (3, 3600, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_retrys": 3},
        {"max_retries": -1},
        {"max_retries": 21},
        {"claim_timeout_seconds": 0},
        {"priority": 101},
        {"work_type": ""},
        {"template": 7},
        {"target": {}},
        {"target": []},
        {"target": [{"match_labels": {"a": "b"}}, {}]},
        {"target": {"match_label": {"a": "b"}}},
        {"target": {"match_expressions": [{"key": "a", "operator": "In"}]}},
        {"target": {"match_expressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
        {"target": {"match_expressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}},
    ],
)
def test_a_submission_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        submit(**changes)


def test_one_target_and_a_list_of_one_are_the_same() -> None:
    target = {"agents": ["edge-7"]}

    assert submit(target=target).targets == submit(target=[target]).targets


def test_a_target_body_means_the_target_that_it_says() -> None:
    body = TargetBody.model_validate(
        {
            "agents": ["edge-7"],
            "match_labels": {"gpu": "true"},
            "match_expressions": [{"key": "zone", "operator": "In", "values": ["eu-1", "eu-2"]}],
            "match_annotations": {"team": "ml"},
        }
    )

    assert body.to_target() == Target(
        agents=frozenset({"edge-7"}),
        match_labels={"gpu": "true"},
        match_expressions=(
            MatchExpression(key="zone", operator=Operator.IN, values=frozenset({"eu-1", "eu-2"})),
        ),
        match_annotations={"team": "ml"},
    )


@pytest.mark.parametrize(
    ("given", "ended_as"),
    [
        ({"success": True}, "succeeded"),
        ({"success": False}, "failed"),
        ({"outcome": "cancelled"}, "cancelled"),
        ({"success": False, "outcome": "cancelled"}, "cancelled"),
        ({"success": True, "outcome": "succeeded"}, "succeeded"),
    ],
)
def test_a_completion_says_how_it_ended_in_either_way(given: dict[str, Any], ended_as: str) -> None:
    completion = CompleteWork.model_validate({"claim_id": str(uuid4())} | given)

    assert completion.ended_as == ended_as


@pytest.mark.parametrize(
    "given",
    [{}, {"success": True, "outcome": "failed"}, {"success": False, "outcome": "succeeded"}],
)
def test_a_completion_that_says_nothing_or_two_things_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CompleteWork.model_validate({"claim_id": str(uuid4())} | given)


@pytest.mark.parametrize("changes", [{"max": 0}, {"max": 101}, {"wait": -1}, {"wait": 61}])
def test_a_claim_request_has_its_limits(changes: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ClaimSome.model_validate(changes)


def test_an_answer_of_a_newer_broker_is_understood() -> None:
    answer = {
        "id": str(uuid4()),
        "name": "edge-7",
        "cluster_name": "",
        "labels": {},
        "annotations": {},
        "created_at": "2026-01-01T00:00:00Z",
        "from_the_future": 1,
    }

    assert AgentBody.model_validate(answer).name == "edge-7"


def test_two_states_are_in_the_queue_and_the_others_in_the_log() -> None:
    assert {state for state in WorkState if not state.is_finished} == {
        WorkState.PENDING,
        WorkState.CLAIMED,
    }


def test_what_is_said_of_a_work_is_kept_without_credentials() -> None:
    said = "cannot clone https://rig:hunter2@git.example/x.git"
    completion = CompleteWork(
        claim_id=uuid4(), success=False, message=said, result={"attempts": [{"message": said}]}
    )
    progress = ReportProgress(claim_id=uuid4(), phase="Running", attempt=1, message=said)

    assert "hunter2" not in completion.model_dump_json() + progress.model_dump_json()
    assert "git.example/x.git" in completion.message


def test_a_message_that_grows_without_its_credentials_is_cut() -> None:
    progress = ReportProgress(
        claim_id=uuid4(), phase="Running", attempt=1, message="://@" * (MAX_MESSAGE // 4)
    )

    assert ReportProgress.model_validate(progress.model_dump()) == progress


@pytest.mark.parametrize(
    "said",
    [
        {"unavailable": {"x" * 50: "y" * 500}},
        {"unavailable": {f"type-{number}": "" for number in range(50)}},
        {"strategies": ["x" * 320] * 200},
        {"from_the_future": 1},
    ],
)
def test_an_agent_may_say_so_much_of_what_it_can_execute(said: dict[str, Any]) -> None:
    capabilities = Capabilities.model_validate({"types": []} | said)

    shown = capabilities.model_dump()
    assert shown | {key: value for key, value in said.items() if key in shown} == shown


@pytest.mark.parametrize(
    "said",
    [
        {"unavailable": {"x" * 51: "why"}},
        {"unavailable": {"build": "y" * 501}},
        {"unavailable": {f"type-{number}": "" for number in range(51)}},
        {"unavailable": ["build"]},
        {"strategies": ["x" * 321]},
        {"strategies": ["x"] * 201},
    ],
)
def test_an_agent_may_not_say_more_of_what_it_can_execute(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Capabilities.model_validate({"types": []} | said)


def test_what_an_agent_of_an_older_version_does_not_say_is_nothing() -> None:
    capabilities = Capabilities.model_validate({"types": ["build"], "version": "0.1"})

    assert (capabilities.unavailable, capabilities.strategies) == ({}, [])


@given(
    reason=st.text(alphabet=":/@a", max_size=MAX_REASON),
    step=st.text(alphabet=":/@a", max_size=MAX_STEP),
)
def test_reasons_and_steps_that_grow_without_their_credentials_are_cut(
    reason: str, step: str
) -> None:
    capabilities = Capabilities(types=[], unavailable={"build": reason})
    progress = ReportProgress(claim_id=uuid4(), phase="Running", attempt=1, step=step)

    assert Capabilities.model_validate(capabilities.model_dump()) == capabilities
    assert ReportProgress.model_validate(progress.model_dump()) == progress


def test_a_reason_and_a_step_are_kept_without_credentials() -> None:
    said = "cannot ask https://rig:hunter2@cluster.example/apis"

    capabilities = Capabilities(types=[], unavailable={"build": said})
    progress = ReportProgress(claim_id=uuid4(), phase="Running", attempt=1, step=said)

    assert "hunter2" not in capabilities.model_dump_json() + progress.model_dump_json()
    assert "cluster.example/apis" in capabilities.unavailable["build"]


def test_a_step_is_a_name_and_no_story() -> None:
    with pytest.raises(ValidationError):
        ReportProgress(claim_id=uuid4(), phase="Running", attempt=1, step="x" * 101)


NO_NUMBERS: list[Any] = [True, False, "1", "1.0", "", " 1", "1e0", None, [], {}, math.nan, math.inf]


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        (SubmitWork, "priority"),
        (SubmitWork, "max_retries"),
        (ClaimSome, "max"),
        (ClaimSome, "wait"),
        (ReleaseWork, "delay_seconds"),
        (Capacity, "free"),
        (ReportProgress, "attempt"),
    ],
)
def test_what_is_no_number_is_not_read_as_one(
    body: type[BaseModel], field: str, value: Any
) -> None:
    with pytest.raises(ValidationError) as refused:
        body.model_validate({field: value})

    assert field in {each["loc"][0] for each in refused.value.errors()}


def test_a_number_is_one_however_it_is_written() -> None:
    for one in (1, 1.0):
        assert ClaimSome.model_validate({"max": one, "wait": one}) == ClaimSome(max=1, wait=1)


@pytest.mark.parametrize("value", ["yes", "true", "on", 1, 0, 1.0, "False"])
def test_only_true_and_false_are_true_and_false(value: Any) -> None:
    with pytest.raises(ValidationError):
        CompleteWork.model_validate({"claim_id": str(uuid4()), "success": value})


@pytest.mark.parametrize("value", [1_900_000_000, 1.9e9, True])
def test_a_number_is_no_time(value: Any) -> None:
    with pytest.raises(ValidationError, match="must be a time such as"):
        SubmitWork.model_validate({"not_before": value})


def test_what_is_wrong_with_a_number_is_said() -> None:
    with pytest.raises(ValidationError, match="must be a number, and is a string: leave out the"):
        ClaimSome.model_validate({"max": "7"})
    with pytest.raises(ValidationError, match="must be a number, and is true or false"):
        ClaimSome.model_validate({"max": True})

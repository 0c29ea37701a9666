"""The statuses have the shape and the fixed words of those recorded from Shipwright."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from brokkr.local.build_runner import status as statuses
from brokkr.local.build_runner.job import Commit, PushedImage, StepFailed

RECORDINGS = Path(__file__).parents[3] / "data" / "buildruns"

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def recorded(case: str) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((RECORDINGS / case / "buildrun.json").read_text())
    return run


def accepted(run: dict[str, Any]) -> dict[str, Any]:
    """Take a recorded BuildRun to where its steps begin."""
    status = run["status"]
    begun = statuses.accept(
        {}, build_spec=status["buildSpec"], executor=status["taskRunName"], now=_at(status, "start")
    )
    return dict(statuses.start(begun, now=NOW))


def _at(status: dict[str, Any], which: str) -> datetime:
    return datetime.fromisoformat(status[f"{which}Time"])


def without_transition(status: Any) -> Any:
    """Drop the one time that Shipwright may write a second after the others."""
    text = re.sub(r'"lastTransitionTime": "[^"]*"', '"lastTransitionTime": ""', json.dumps(status))
    return json.loads(text)


def commit_of(run: dict[str, Any]) -> Commit | None:
    source = run["status"].get("source")
    if source is None:
        return None
    at = datetime.fromisoformat(source["timestamp"])
    return Commit(source["git"]["commitSha"], source["git"]["commitAuthor"], at)


@pytest.mark.parametrize("case", ["success", "success-auth-push", "success-private-git"])
def test_a_success_is_told_as_it_was_recorded(case: str) -> None:
    run = recorded(case)
    commit, output = commit_of(run), run["status"]["output"]
    assert commit is not None

    status = statuses.succeed(
        accepted(run),
        commit=commit,
        image=PushedImage(output["digest"], output["size"]),
        now=_at(run["status"], "completion"),
    )

    assert without_transition(status) == without_transition(run["status"])


@pytest.mark.parametrize(
    "case",
    [
        *("missing-dockerfile", "run-step-fails", "registry-unreachable", "push-unauthorized"),
        *("wrong-revision", "wrong-git-url", "git-auth-required", "git-auth-wrong"),
    ],
)
def test_a_failed_step_is_told_as_it_was_recorded(case: str) -> None:
    run = recorded(case)
    details = run["status"]["failureDetails"]
    failure = StepFailed(
        details["location"]["container"], details.get("reason", ""), details.get("message", "")
    )

    status = statuses.fail(
        accepted(run),
        failure=failure,
        commit=commit_of(run),
        namespace=run["metadata"]["namespace"],
        now=_at(run["status"], "completion"),
    )

    assert without_transition(status) == without_transition(run["status"])


def test_a_timeout_is_told_as_it_was_recorded() -> None:
    run = recorded("timeout")

    status = statuses.time_out(
        accepted(run),
        name="timeout",
        timeout=timedelta(seconds=25),
        now=_at(run["status"], "completion"),
    )

    assert without_transition(status) == without_transition(run["status"])


def test_a_cancel_is_told_as_it_was_recorded() -> None:
    run = recorded("cancel")

    status = statuses.cancel(
        statuses.request_cancel(accepted(run), now=NOW), now=_at(run["status"], "completion")
    )

    assert without_transition(status) == without_transition(run["status"])


def test_a_lost_build_is_told_as_it_was_recorded() -> None:
    run = recorded("taskrun-deleted")

    status = statuses.lose(accepted(run), now=_at(run["status"], "completion"))

    assert without_transition(status) == without_transition(run["status"])


@pytest.mark.parametrize(
    "case",
    ["missing-build", "missing-serviceaccount", "param-missing-value", "missing-push-secret"],
)
def test_a_rejection_is_told_as_it_was_recorded(case: str) -> None:
    run = recorded(case)
    condition = run["status"]["conditions"][0]

    status = statuses.reject(
        {},
        reason=condition["reason"],
        message=condition["message"],
        build_spec=run["status"].get("buildSpec"),
        now=_at(run["status"], "completion"),
    )

    assert without_transition(status) == without_transition(run["status"])


@pytest.mark.parametrize(
    ("timeout", "words"),
    [
        (timedelta(seconds=25), "25s"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(minutes=15), "15m0s"),
        (timedelta(hours=1), "1h0m0s"),
    ],
)
def test_timeouts_are_written_as_go_writes_them(timeout: timedelta, words: str) -> None:
    status = statuses.time_out({}, name="hello", timeout=timeout, now=NOW)

    assert status["conditions"][0]["message"] == f"BuildRun hello failed to finish within {words}"


def test_a_build_run_that_is_taken_up_again_keeps_its_start() -> None:
    first = statuses.accept({}, build_spec={}, executor="a", now=NOW)

    again = statuses.accept(first, build_spec={}, executor="a", now=NOW + timedelta(minutes=1))

    assert again == {**first, "conditions": again["conditions"]}

"""The TaskRuns have the shape and the words of those recorded from Tekton."""

import json
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from brokkr.local.build_runner import task_run as task_runs
from brokkr.local.build_runner.job import Commit, PushedImage, StepFailed
from brokkr.local.build_runner.steps import STEPS
from brokkr.work.model import Manifest

Json = dict[str, Any]

RECORDINGS = Path(__file__).parents[3] / "data" / "buildruns"
ONLY_IN_A_CLUSTER = {"containerID", "imageID", "provenance", "artifacts", "resourceVersion"}
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def recorded(case: str) -> Json:
    runs: list[Json] = json.loads((RECORDINGS / case / "taskruns.json").read_text())
    task_run: Json = comparable(runs[0])
    return task_run


def comparable(value: Any) -> Any:
    """Drop what only a cluster has."""
    if isinstance(value, dict):
        return {k: comparable(inner) for k, inner in value.items() if k not in ONLY_IN_A_CLUSTER}
    return [comparable(each) for each in value] if isinstance(value, list) else value


def without_times(value: Any) -> Any:
    """Forget when, which the second in which a recording was made decides."""
    if isinstance(value, dict):
        return {
            key: "" if key.endswith(("At", "Time")) else without_times(inner)
            for key, inner in value.items()
        }
    return [without_times(each) for each in value] if isinstance(value, list) else value


def as_far_as(case: str) -> Json:
    """Play what happened in a recording until something went wrong."""
    status = recorded(case)["status"]
    played = task_runs.start(
        task_runs.wait({}, now=NOW), pod=status["podName"], steps=STEPS, now=NOW
    )
    for step in takewhile(lambda step: step["terminated"]["exitCode"] == 0, status["steps"]):
        found = find(step["terminated"]["message"], step["container"])
        played = task_runs.end_step(played, step=step["container"], found=found, now=NOW)
    return dict(played)


def find(message: str, step: str) -> Commit | PushedImage | None:
    results = {each["key"].removeprefix("shp-"): each["value"] for each in json.loads(message)}
    match step:
        case "step-source-default":
            at = datetime.fromtimestamp(int(results["source-default-source-timestamp"]), UTC)
            sha, author = (results[f"source-default-commit-{what}"] for what in ("sha", "author"))
            return Commit(sha, author, at)
        case "step-image-processing":
            return PushedImage(results["image-digest"], int(results["image-size"]))
        case _:
            return None


@pytest.mark.parametrize("case", ["success", "success-private-git", "success-tag"])
def test_a_success_is_told_as_it_was_recorded(case: str) -> None:
    status = task_runs.succeed(as_far_as(case), now=NOW)

    assert without_times(status) == without_times(recorded(case)["status"])


@pytest.mark.parametrize(
    "case",
    [
        "push-unauthorized",
        "missing-dockerfile",
        "dockerfile-syntax",
        "run-step-fails",
        "git-auth-required",
        "git-auth-wrong",
        "wrong-git-url",
        "wrong-revision",
    ],
)
def test_a_failure_is_told_as_it_was_recorded(case: str) -> None:
    expected = recorded(case)["status"]
    failed = next(step for step in expected["steps"] if step["terminationReason"] == "Error")
    results = {each["name"]: each["value"] for each in expected.get("results", [])}
    failure = StepFailed(
        failed["container"],
        results.get("shp-error-reason", ""),
        results.get("shp-error-message", ""),
        exit_code=failed["terminated"]["exitCode"],
    )

    status = task_runs.fail(as_far_as(case), failure=failure, now=NOW)

    assert without_times(status) == without_times(expected)


def test_a_cancel_is_told_as_it_was_recorded() -> None:
    expected = recorded("cancel")

    status = task_runs.cancel(as_far_as("cancel"), name=expected["metadata"]["name"], now=NOW)

    assert without_times(status) == without_times(expected["status"])
    assert task_runs.CANCEL_PATCH["spec"].items() <= expected["spec"].items()


def test_a_timeout_is_told_as_it_was_recorded() -> None:
    expected = recorded("timeout")

    status = task_runs.time_out(
        as_far_as("timeout"),
        name=expected["metadata"]["name"],
        timeout=timedelta(seconds=25),
        now=NOW,
    )

    assert without_times(status) == without_times(expected["status"])


def test_what_is_stopped_before_it_had_a_pod_has_no_steps() -> None:
    status = task_runs.cancel(task_runs.wait({}, now=NOW), name="it", now=NOW)

    assert "steps" not in status
    assert status["conditions"][0]["reason"] == "TaskRunCancelled"


def test_a_step_began_when_the_one_before_it_ended() -> None:
    seconds = [NOW + timedelta(seconds=number) for number in range(4)]
    status = task_runs.start(task_runs.wait({}, now=NOW), pod="p", steps=STEPS, now=seconds[0])
    status = task_runs.end_step(status, step=STEPS[0], found=None, now=seconds[1])

    assert status["steps"][1]["running"] == {"startedAt": "2026-03-01T12:00:00Z"}

    status = task_runs.fail(status, failure=StepFailed(STEPS[1]), now=seconds[3])

    times = [(step["startedAt"], step["finishedAt"]) for step in terminated(status)]
    assert [(begin[-3:-1], end[-3:-1]) for begin, end in times] == [
        ("00", "01"),
        ("01", "03"),
        ("03", "03"),
    ]


def terminated(status: Manifest) -> list[Json]:
    return [step["terminated"] for step in status["steps"]]


def test_a_step_ends_once_though_it_is_told_twice() -> None:
    status = task_runs.start(task_runs.wait({}, now=NOW), pod="p", steps=STEPS, now=NOW)
    once = task_runs.end_step(status, step=STEPS[0], found=None, now=NOW)

    later = NOW + timedelta(seconds=1)
    assert task_runs.end_step(once, step=STEPS[0], found=None, now=later) == once


def test_a_start_that_is_recorded_stays() -> None:
    earlier = task_runs.wait({}, now=NOW)

    assert (
        task_runs.wait(earlier, now=NOW + timedelta(hours=1))["startTime"] == "2026-03-01T12:00:00Z"
    )


def test_without_a_revision_the_branch_is_a_result() -> None:
    status = task_runs.start(task_runs.wait({}, now=NOW), pod="p", steps=STEPS, now=NOW)
    commit = Commit("5" * 40, "rig", NOW, "main")

    status = task_runs.succeed(
        task_runs.end_step(status, step=STEPS[0], found=commit, now=NOW), now=NOW
    )

    result = {"name": "shp-source-default-branch-name", "type": "string", "value": "main"}
    assert result in status["results"]


def test_a_task_run_is_rendered_as_it_was_recorded() -> None:
    expected = recorded("success")
    build_run = json.loads((RECORDINGS / "success" / "buildrun.json").read_text())

    rendered = task_runs.render_task_run(
        build_run,
        labels={
            **build_run["metadata"]["labels"],
            "clusterbuildstrategy.shipwright.io/generation": "1",
            "clusterbuildstrategy.shipwright.io/name": "buildah-shipwright-managed-push",
        },
        annotations={},
        service_account="default",
        timeout=timedelta(hours=1),
    )

    metadata, wanted = rendered["metadata"], expected["metadata"]
    # It does not claim to be Tekton's.
    assert metadata["labels"].pop("app.kubernetes.io/managed-by") == "brokkr-local-build-runner"
    assert wanted["labels"].pop("app.kubernetes.io/managed-by") == "tekton-pipelines"
    for part in ("labels", "ownerReferences", "generateName"):
        assert metadata[part] == wanted[part]
    assert rendered["spec"] == expected["spec"]

from datetime import UTC, datetime
from typing import Any

import pytest

from brokkr.local.build_runner import task_run as task_runs
from brokkr.local.build_runner.job import StepFailed
from brokkr.local.build_runner.pod import reflect, render_pod
from brokkr.local.build_runner.steps import STEPS
from brokkr.work.model import Manifest

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUNNING = task_runs.start(task_runs.wait({}, now=NOW), pod="it-pod", steps=STEPS, now=NOW)
A_TASK_RUN: dict[str, Any] = {"metadata": {"name": "it", "uid": "1", "labels": {"a": "b"}}}


def reflected(status: Manifest) -> Manifest:
    return reflect({}, task_run={**A_TASK_RUN, "status": status}, now=NOW)


def test_a_pod_is_found_by_its_task_run_and_goes_with_it() -> None:
    pod = render_pod(A_TASK_RUN, node="here", steps=STEPS)

    assert pod["metadata"]["name"] == "it-pod"
    assert pod["metadata"]["labels"] == {"a": "b", "tekton.dev/taskRun": "it"}
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "1"
    assert [each["name"] for each in pod["spec"]["containers"]] == list(STEPS)


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        (RUNNING, "Running"),
        (task_runs.succeed(RUNNING, now=NOW), "Succeeded"),
        (task_runs.fail(RUNNING, failure=StepFailed(STEPS[0]), now=NOW), "Failed"),
    ],
)
def test_a_pod_is_as_far_as_its_task_run(status: Manifest, phase: str) -> None:
    assert reflected(status)["phase"] == phase


def test_a_container_tells_the_exit_code_of_its_step() -> None:
    failure = StepFailed(STEPS[0], exit_code=128)

    containers = reflected(task_runs.fail(RUNNING, failure=failure, now=NOW))["containerStatuses"]

    assert [each["state"]["terminated"]["exitCode"] for each in containers] == [128, 1, 1]
    assert [each["ready"] for each in containers] == [False] * 3

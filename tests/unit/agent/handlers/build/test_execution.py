import json
from typing import Any

import pytest

from brokkr.agent.handlers.build.execution import Execution, FailedStep, execution_of
from brokkr.work.model import Manifest
from support.recordings import recorded


def a_step(container: str, **state: Any) -> dict[str, Any]:
    return {"container": container, **state}


def a_taskrun(
    *steps: Manifest, status: str = "Unknown", pod: str = "p", name: str = "t"
) -> Manifest:
    conditions = [{"type": "Succeeded", "status": status}]
    return {
        "kind": "TaskRun",
        "metadata": {"name": name},
        "status": {"conditions": conditions, "steps": list(steps), "podName": pod},
    }


def a_pipelinerun(status: str) -> Manifest:
    conditions = [{"type": "Succeeded", "status": status}]
    return {"kind": "PipelineRun", "status": {"conditions": conditions}}


DONE = {"terminated": {"exitCode": 0}}
FAILED = {"terminated": {"exitCode": 1}}
RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
WAITING = {"waiting": {"reason": "PodInitializing"}}


@pytest.mark.parametrize(
    ("states", "step"),
    [
        # All containers of a pod run from the start: each waits for the one before.
        ((RUNNING, RUNNING, RUNNING), "source-default"),
        ((DONE, RUNNING, RUNNING), "build"),
        ((DONE, DONE, RUNNING), "image-processing"),
        ((WAITING, WAITING, WAITING), ""),
        ((DONE, DONE, DONE), ""),
        # A step has failed; those after it only end.
        ((DONE, FAILED, RUNNING), ""),
    ],
)
def test_the_step_that_runs_is_the_first_that_has_not_ended(
    states: tuple[Manifest, ...], step: str
) -> None:
    names = ("step-source-default", "step-build", "step-image-processing")
    steps = [a_step(name, **state) for name, state in zip(names, states, strict=True)]

    assert Execution({}, [a_taskrun(*steps)], []).running_step == step


def test_of_several_task_runs_the_one_that_runs_tells_the_step() -> None:
    done = a_taskrun(a_step("step-source-default", **RUNNING), status="True")
    running = a_taskrun(a_step("step-build", **RUNNING))

    assert Execution({}, [done, running], []).running_step == "build"


def test_a_failed_step_is_that_of_the_build_runs_pod() -> None:
    location = {"container": "step-build", "pod": "p2"}
    run = {"status": {"failureDetails": {"location": location}}}
    steps = [
        a_taskrun(a_step("step-build", terminated={"exitCode": code}), status="False", pod=pod)
        for pod, code in (("p1", 3), ("p2", 4))
    ]

    assert Execution(run, steps, []).failed_step == FailedStep(
        pod="p2", container="step-build", exit_code=4, is_last=True
    )


def test_a_recorded_failure_is_found_without_the_build_run_telling_where() -> None:
    _, run, taskrun = recorded("push-unauthorized")
    silent = {**run, "status": {**run["status"], "failureDetails": {}}}

    assert execution_of(silent, [taskrun]).failed_step == FailedStep(
        pod="push-unauthorized-jrqzd-pod",
        container="step-image-processing",
        exit_code=1,
        ended_as="Error",
        ended_at="2026-11-23T19:45:39Z",
        is_last=True,
    )


@pytest.mark.parametrize("reason", ["Pending", "ExceededNodeResources", "PullImageFailed"])
def test_no_step_runs_while_the_pod_waits(reason: str) -> None:
    taskrun = a_taskrun(a_step("step-source-default", **RUNNING))
    taskrun["status"]["conditions"][0]["reason"] = reason

    assert Execution({}, [taskrun], []).running_step == ""


@pytest.mark.parametrize(
    ("case", "is_cut_off"),
    [
        ("pod-deleted", True),
        ("pod-preempted", True),
        ("namespace-terminating", True),
        ("run-step-fails", False),
        ("wrong-git-url", False),
        ("step-oom", False),
        ("timeout", False),
        ("cancel", False),
    ],
)
def test_steps_that_were_ended_together_are_told_from_those_that_skipped_themselves(
    case: str, is_cut_off: bool
) -> None:
    _build, run, *others = recorded(case)

    assert execution_of(run, others).failed_step.cut_off == is_cut_off


@pytest.mark.parametrize(
    "message",
    ["", "no json", "[]", "[1]", "7", "[" * 10_000, json.dumps([{"key": 1, "value": []}])],
)
def test_a_termination_message_that_makes_no_sense_says_nothing(message: str) -> None:
    terminated = {"exitCode": 1, "message": message}
    taskrun = a_taskrun(a_step("step-build", terminated=terminated), status="False")

    step = Execution({}, [taskrun], []).failed_step

    assert (step.container, step.reason) == ("step-build", "")


def test_an_execution_is_over_when_nothing_of_it_runs() -> None:
    done, running = a_taskrun(status="True"), a_taskrun()

    assert not Execution({}, [], []).is_over
    assert Execution({}, [done], []).is_over
    assert not Execution({}, [done, running], []).is_over
    # The TaskRuns of a PipelineRun come one after the other.
    assert not Execution({}, [done], [a_pipelinerun("Unknown")]).is_over
    assert Execution({}, [done], [a_pipelinerun("False")]).is_over


def test_the_condition_is_that_of_the_executor_that_the_build_run_names() -> None:
    run = {"status": {"executor": {"name": "second"}}}
    first = a_taskrun(status="False", name="first")
    second = a_taskrun(status="True", name="second")

    assert Execution(run, [first, second], []).condition["status"] == "True"
    assert Execution({}, [first, second], []).condition["status"] == "False"
    assert Execution({}, [], []).condition == {}


def test_the_results_of_a_recorded_task_run_are_read() -> None:
    _, run, taskrun = recorded("success")

    results = execution_of(run, [taskrun]).results

    assert results["shp-image-size"] == "1084762"
    assert results["shp-source-default-commit-author"] == "rig"

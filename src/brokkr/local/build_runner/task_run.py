"""
The TaskRun of a build, in the shape that Shipwright makes and Tekton keeps it in (pure).

The functions that make a status take the one so far and return the next one.  What only a
container could have (its id, its image's) is left out, and so is what is empty.
"""

# Note [All steps run from the start]
#
# Tekton starts all containers of a Pod at once, and lets each wait for its turn.  So every
# step that has not ended says that it is running, since the start of the Pod: the one that
# is at work is the first of them.  When a step ends it tells when its turn came.

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from brokkr.agent.kinds import BUILD_RUNS, TASK_RUNS
from brokkr.local.build_runner.job import Commit, PushedImage, StepFailed
from brokkr.local.build_runner.status import go_duration, timestamp
from brokkr.work.model import Manifest

BUILD_RUN_LABEL = "buildrun.shipwright.io/name"

_CANCELLED = "TaskRunCancelled"
_TIMED_OUT = "TaskRunTimeout"

CANCEL_PATCH: Manifest = {"spec": {"status": _CANCELLED}}
"""The merge patch that asks for a TaskRun to be stopped."""


def render_task_run(
    run: Manifest,
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    service_account: str,
    timeout: timedelta | None,
) -> Manifest:
    """Render the TaskRun of a BuildRun; the API server finds a name for it."""
    metadata = run["metadata"]
    return {
        "apiVersion": TASK_RUNS.api_version,
        "kind": TASK_RUNS.kind,
        "metadata": {
            "generateName": f"{metadata['name']}-",
            "labels": {
                "app.kubernetes.io/managed-by": "brokkr-local-build-runner",
                BUILD_RUN_LABEL: metadata["name"],
                "buildrun.shipwright.io/generation": str(metadata["generation"]),
                **labels,
            },
            "annotations": dict(annotations),
            "ownerReferences": [
                {
                    "apiVersion": BUILD_RUNS.api_version,
                    "kind": BUILD_RUNS.kind,
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "serviceAccountName": service_account,
            "timeout": go_duration(timeout or timedelta(0)),
        },
    }


def pod_name(task_run: str) -> str:
    """Return the name of a TaskRun's Pod."""
    return f"{task_run}-pod"


def wait(status: Manifest, *, now: datetime) -> Manifest:
    """Say that there is no room yet; a start that is recorded already stays."""
    message = "the local build runner has as many builds as it runs at once"
    conditions = _condition("Unknown", "Pending", message, now)
    return {"startTime": timestamp(now), **status, "conditions": conditions}


def start(status: Manifest, *, pod: str, steps: Iterable[str], now: datetime) -> Manifest:
    """Say that the steps are running: see Note [All steps run from the start]."""
    message = "Not all Steps in the Task have finished executing"
    return {
        **status,
        "podName": pod,
        "conditions": _condition("Unknown", "Running", message, now),
        "steps": [
            {
                "name": step.removeprefix("step-"),
                "container": step,
                "running": {"startedAt": timestamp(now)},
            }
            for step in steps
        ],
    }


def end_step(
    status: Manifest, *, step: str, found: Commit | PushedImage | None, now: datetime
) -> Manifest:
    """Say that a step has ended well; to say so twice changes nothing."""
    if step not in _unfinished(status):
        return status
    results = {**_results(status), **_results_of(found)}
    ended = _terminated("Completed", 0, _turn(status), now, message=_message(results))
    return _replace_step(status, step, ended, "Completed")


def succeed(status: Manifest, *, now: datetime) -> Manifest:
    """End a TaskRun whose steps have all ended well."""
    return _finish(_publish(status), "True", "Succeeded", "All Steps have completed executing", now)


def fail(status: Manifest, *, failure: StepFailed, now: datetime) -> Manifest:
    """Record which step failed, and that those after it were skipped."""
    results = _results(status)
    if failure.reason:
        results |= {"shp-error-message": failure.message, "shp-error-reason": failure.reason}
    code, turn = failure.exit_code, _turn(status)
    failed = _terminated("Error", code, turn, now, message=_message(results))
    status = _replace_step(status, failure.step, failed, "Error")
    for step in _unfinished(status):
        status = _replace_step(status, step, _terminated("Error", 1, now, now), "Skipped")
    message = f'"{failure.step}" exited with code {code}: Error'
    return _finish(_publish(status), "False", "StepFailed", message, now)


def kill(status: Manifest, *, now: datetime) -> Manifest:
    """
    End a TaskRun whose Pod was taken away, as one does in a cluster.

    All containers end together: the one at work with 255, those that wait for their turn
    with 2, and no word why.  A TaskRun that has ended stays as it is.
    """
    unfinished = _unfinished(status)
    if not unfinished:
        return status
    failed, *waiting = unfinished
    status = _replace_step(status, failed, _terminated("Error", 255, _turn(status), now), "Error")
    for step in waiting:
        began_at = datetime.fromisoformat(_find_step(status, step)["running"]["startedAt"])
        status = _replace_step(status, step, _terminated("Error", 2, began_at, now), "")
    message = f'"{failed}" exited with code 255: Error'
    return _finish(_publish(status), "False", "StepFailed", message, now)


def failed_step(status: Manifest) -> str:
    """Return the first step that ended badly; empty if none has."""
    failed = (each for each in _steps(status) if each.get("terminated", {}).get("exitCode"))
    return str(next(failed, {}).get("container", ""))


def refuse(status: Manifest, *, message: str, now: datetime) -> Manifest:
    """End a TaskRun that the API server does not let have a Pod."""
    return _finish(status, "False", "PodCreationFailed", message, now)


def time_out(status: Manifest, *, name: str, timeout: timedelta, now: datetime) -> Manifest:
    """End a TaskRun that took too long."""
    message = f'TaskRun "{name}" failed to finish within "{go_duration(timeout)}"'
    return _stop(status, _TIMED_OUT, message, now)


def cancel(status: Manifest, *, name: str, now: datetime) -> Manifest:
    """End a TaskRun that was stopped by request."""
    return _stop(status, _CANCELLED, f'TaskRun "{name}" was cancelled. ', now)


def _stop(status: Manifest, reason: str, message: str, now: datetime) -> Manifest:
    """End a TaskRun whose Pod is taken away; its results go with it, as in a cluster."""
    for step in _unfinished(status):
        told = (
            f"Step {step.removeprefix('step-')} terminated as pod {status['podName']} is terminated"
        )
        began_at = datetime.fromisoformat(_find_step(status, step)["running"]["startedAt"])
        ended = _terminated(reason, 1, began_at, now, message=told)
        status = _replace_step(status, step, ended, reason)
    return _finish(status, "False", reason, message, now)


def _terminated(
    reason: str, exit_code: int, started_at: datetime, now: datetime, *, message: str = ""
) -> Manifest:
    told = {"message": message} if message else {}
    return {
        "exitCode": exit_code,
        "reason": reason,
        "startedAt": timestamp(started_at),
        "finishedAt": timestamp(now),
        **told,
    }


def _steps(status: Manifest) -> list[Manifest]:
    steps: list[Manifest] = status.get("steps", [])
    return steps


def _find_step(status: Manifest, container: str) -> Manifest:
    return next(step for step in _steps(status) if step["container"] == container)


def _unfinished(status: Manifest) -> list[str]:
    return [step["container"] for step in _steps(status) if "terminated" not in step]


def _replace_step(status: Manifest, container: str, terminated: Manifest, why: str) -> Manifest:
    def after(step: Manifest) -> Manifest:
        if step["container"] != container:
            return step
        ended = {"terminated": terminated, **({"terminationReason": why} if why else {})}
        return {"name": step["name"], "container": container, **ended}

    return {**status, "steps": [after(step) for step in _steps(status)]}


def _turn(status: Manifest) -> datetime:
    """Tell since when the step at work has been so: since the one before it ended."""
    ends = [step["terminated"]["finishedAt"] for step in _steps(status) if "terminated" in step]
    begin = ends[-1] if ends else _steps(status)[0]["running"]["startedAt"]
    return datetime.fromisoformat(begin)


def _results_of(found: Commit | PushedImage | None) -> dict[str, str]:
    match found:
        case None:
            return {}
        case PushedImage(digest, size_bytes):
            return {"shp-image-digest": digest, "shp-image-size": str(size_bytes)}
        case Commit(sha, author, committed_at, branch):
            results = {
                "commit-author": author,
                "commit-sha": sha,
                "source-timestamp": str(round(committed_at.timestamp())),
            }
            if branch is not None:
                results["branch-name"] = branch
            return {f"shp-source-default-{name}": value for name, value in results.items()}


def _message(results: Mapping[str, str]) -> str:
    """Render what a step leaves as its last words: all results so far, in a list."""
    if not results:
        return ""
    listed = [{"key": key, "value": results[key], "type": 1} for key in sorted(results)]
    return json.dumps(listed, ensure_ascii=False, separators=(",", ":"))


def _results(status: Manifest) -> dict[str, str]:
    """Gather the results that the steps have left, in the order in which they were found."""
    messages = [step.get("terminated", {}).get("message") for step in _steps(status)]
    return {
        result["key"]: result["value"]
        for message in messages
        if message
        for result in json.loads(message)
    }


def _publish(status: Manifest) -> Manifest:
    results = [
        {"name": name, "type": "string", "value": value} for name, value in _results(status).items()
    ]
    return {**status, "results": results} if results else status


def _finish(status: Manifest, value: str, reason: str, message: str, now: datetime) -> Manifest:
    return {
        **status,
        "completionTime": timestamp(now),
        "conditions": _condition(value, reason, message, now),
    }


def _condition(value: str, reason: str, message: str, now: datetime) -> list[Manifest]:
    return [
        {
            "type": "Succeeded",
            "status": value,
            "reason": reason,
            "message": message,
            "lastTransitionTime": timestamp(now),
        }
    ]

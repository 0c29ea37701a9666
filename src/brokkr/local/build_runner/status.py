"""
The status of a BuildRun, in the shape that Shipwright writes (pure).

Each function takes the status so far and returns the next one.  There is one condition,
``Succeeded``; a BuildRun is finished when that is ``True`` or ``False``, and a finished
status is never changed.
"""

from datetime import UTC, datetime, timedelta

from brokkr.local.build_runner.job import Commit, PushedImage, StepFailed
from brokkr.work.model import Manifest

PENDING = "Pending"
CANCELED = "BuildRunCanceled"

_MAX_MESSAGE = 500


def find_reason(run: Manifest) -> str | None:
    """Tell why the BuildRun is in the state it is in; None before the first condition."""
    condition = _find_condition(run)
    return None if condition is None else str(condition["reason"])


def is_finished(run: Manifest) -> bool:
    """Tell whether the BuildRun has ended, well or badly."""
    condition = _find_condition(run)
    return condition is not None and condition["status"] in {"True", "False"}


def is_cancel_requested(run: Manifest) -> bool:
    """Tell whether the user has asked for the BuildRun to be stopped."""
    return bool(run["spec"].get("state") == CANCELED)


def timestamp(at: datetime) -> str:
    """Render a time as Kubernetes does, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def go_duration(duration: timedelta) -> str:
    """Write a duration as Go prints it: 25s, 1m30s, 1h0m0s."""
    minutes, seconds = divmod(round(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def accept(status: Manifest, *, build_spec: Manifest, executor: str, now: datetime) -> Manifest:
    """Name what will run the build; a start that is recorded already stays."""
    return {
        "startTime": timestamp(now),
        **status,
        "buildSpec": build_spec,
        "executor": {"kind": "TaskRun", "name": executor},
        "taskRunName": executor,
        "conditions": _condition("Unknown", PENDING, "Pending", now),
    }


def stall(status: Manifest, *, build_spec: Manifest, now: datetime) -> Manifest:
    """Say nothing of a BuildRun whose TaskRun is refused for ever, as Shipwright does not."""
    del now
    return {**status, "buildSpec": build_spec}


def start(status: Manifest, *, now: datetime) -> Manifest:
    """Say that the steps are running."""
    message = "Not all Steps in the Task have finished executing"
    return {**status, "conditions": _condition("Unknown", "Running", message, now)}


def reject(
    status: Manifest, *, reason: str, message: str, build_spec: Manifest | None, now: datetime
) -> Manifest:
    """End a BuildRun that cannot be run as it is; `build_spec` if the Build was accepted."""
    snapshot = {} if build_spec is None else {"buildSpec": build_spec}
    return _finish({**status, **snapshot}, "False", reason, message, now)


def refuse(status: Manifest, *, reason: str, message: str, now: datetime) -> Manifest:
    """End a BuildRun whose TaskRun has ended without a step, in that one's words."""
    return _finish(status, "False", reason, message, now)


def give_up(surprise: Exception, *, now: datetime) -> Manifest:
    """End a BuildRun that the runner can make nothing of; what its status said is not trusted."""
    return _finish({}, "False", "TaskRunGenerationFailed", words_of(surprise), now)


def words_of(surprise: Exception) -> str:
    """Say that it was the runner's mistake, and where to find more."""
    told = f"{type(surprise).__name__}: {surprise}"[:_MAX_MESSAGE]
    return f"the local build runner failed, and its log says where: {told}"


def succeed(status: Manifest, *, commit: Commit, image: PushedImage, now: datetime) -> Manifest:
    """Record what was built from what."""
    built = {
        **status,
        **_source(commit),
        "output": {"digest": image.digest, "size": image.size_bytes},
    }
    return _finish(built, "True", "Succeeded", "All Steps have completed executing", now)


def fail(
    status: Manifest, *, failure: StepFailed, commit: Commit | None, namespace: str, now: datetime
) -> Manifest:
    """Record which step failed, and why if the step knew a class for it."""
    pod = f"{status['taskRunName']}-pod"
    details: dict[str, object] = {"location": {"container": failure.step, "pod": pod}}
    if failure.reason:
        details |= {"reason": failure.reason, "message": failure.message}
    source = {} if commit is None else _source(commit)
    message = (
        f"buildrun step {failure.step} failed, for detailed information: "
        f"kubectl --namespace {namespace} logs {pod} --container={failure.step}"
    )
    failed = {**status, **source, "output": {}, "failureDetails": details}
    return _finish(failed, "False", "Failed", message, now)


def time_out(status: Manifest, *, name: str, timeout: timedelta, now: datetime) -> Manifest:
    """End a BuildRun that took too long."""
    message = f"BuildRun {name} failed to finish within {go_duration(timeout)}"
    return _finish(status, "False", "BuildRunTimeout", message, now)


def request_cancel(status: Manifest, *, now: datetime) -> Manifest:
    """Say that the build is being stopped, in the words that clients of Shipwright see."""
    message = (
        "The user requested the BuildRun to be canceled.  This BuildRun controller has requested "
        "the TaskRun be canceled.  That request has not been process by Tekton's TaskRun "
        "controller yet."
    )
    return {**status, "conditions": _condition("Unknown", CANCELED, message, now)}


def cancel(status: Manifest, *, now: datetime) -> Manifest:
    """End a BuildRun whose build was stopped by request."""
    message = "The BuildRun and underlying TaskRun were canceled successfully."
    return _finish(status, "False", CANCELED, message, now)


def lose(status: Manifest, *, now: datetime) -> Manifest:
    """End a BuildRun whose build is gone without a trace."""
    message = f"taskRun {status['taskRunName']} doesn't exist"
    return _finish(status, "False", "TaskRunIsMissing", message, now)


def _find_condition(run: Manifest) -> Manifest | None:
    match run.get("status"):
        case {"conditions": [*conditions]}:
            return next((each for each in conditions if _is_condition(each)), None)
    return None


def _is_condition(value: object) -> bool:
    """Say whether this is the condition; anybody may have written the status."""
    match value:
        case {"type": "Succeeded", "status": str(), "reason": str()}:
            return True
    return False


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


def _finish(status: Manifest, value: str, reason: str, message: str, now: datetime) -> Manifest:
    return {
        **status,
        "completionTime": timestamp(now),
        "conditions": _condition(value, reason, message, now),
    }


def _source(commit: Commit) -> Manifest:
    git = {"commitAuthor": commit.author, "commitSha": commit.sha}
    if commit.branch is not None:
        git["branchName"] = commit.branch
    return {"source": {"git": git, "timestamp": timestamp(commit.committed_at)}}

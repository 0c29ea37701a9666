"""What an attempt at a Job has come to.  Pure: the agent reads and writes for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

from brokkr.agent.handlers.protocol import Cancellation, Prerequisite, Related
from brokkr.agent.handlers.verdict import (
    Evidence,
    Failed,
    Incomplete,
    Retry,
    Running,
    Succeeded,
    Verdict,
)
from brokkr.agent.kinds import CONFIG_MAPS, Resource
from brokkr.work.model import Manifest, Work
from brokkr_job_work_type.manifests import MAX_DEADLINE, render

JOBS: Final = Resource("batch", "v1", "Job", "jobs")
PODS: Final = Resource("", "v1", "Pod", "pods")
GRACE: Final = timedelta(minutes=5)
"""For Kubernetes to enforce the Job's own deadline; the agent's comes after it."""

MAX_MESSAGE: Final = 400


@dataclass(frozen=True, slots=True)
class Row:
    """What to do about one reason, which is a class of failures of its own."""

    retry: Retry
    why: str


TABLE: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "PodDisrupted": Row(Retry.ALWAYS, "the pod was evicted, or its node was lost"),
        "DeadlineExceeded": Row(Retry.ONCE, "it took longer than activeDeadlineSeconds"),
        "BackoffLimitExceeded": Row(Retry.ALWAYS, "a container failed"),
        "PodFailurePolicy": Row(Retry.NEVER, "the Job's own podFailurePolicy says so"),
    }
)
UNLISTED: Final = Row(Retry.ONCE, "this reason is not known")


class JobHandler:
    """Jobs of Kubernetes' own."""

    executor: str = "Job"
    kinds: tuple[Resource, ...] = (JOBS, CONFIG_MAPS)
    related: tuple[Related, ...] = (Related(PODS, label="batch.kubernetes.io/job-name"),)
    template_kinds: frozenset[tuple[str, str]] = frozenset(
        {("batch/v1", "Job"), ("v1", "ConfigMap")}
    )
    prerequisites: tuple[Prerequisite, ...] = ()

    def assess(
        self,
        work: Work,
        attempt: int,
        seen: Sequence[Manifest],
        evidence: Evidence,  # noqa: ARG002 - a Job and its pods say enough
    ) -> Verdict:
        """Say what the Job of this attempt has come to."""
        job = next(_of_kind("Job", seen), None)
        if job is None:
            return Incomplete(create=render(work, attempt), message="creating the Job")
        pod = next(filter(_has_failed, _of_kind("Pod", seen)), None)
        match _end_of(job):
            case {"type": "Complete"}:
                return Succeeded(
                    reason="JobCompleted", message="the Job is complete", result=_result(job)
                )
            case {"type": "Failed", **condition}:
                return _failed(job, pod, condition)
            case _:
                return Running(message=_what_it_does(job), limit=_limit(job))

    def cancel(self, seen: Sequence[Manifest]) -> Cancellation | None:
        """Delete the Job, and with it its pods, unless it has ended."""
        job = next(_of_kind("Job", seen), None)
        if job is None or _end_of(job) or "deletionTimestamp" in job["metadata"]:
            return None
        return Cancellation(
            kind="Job",
            name=job["metadata"]["name"],
            resource_version=job["metadata"]["resourceVersion"],
            patch=None,
        )


def _of_kind(kind: str, seen: Sequence[Manifest]) -> Iterator[Manifest]:
    return (each for each in seen if each["kind"] == kind)


def _end_of(job: Manifest) -> Manifest:
    """Return the condition that ends a Job; empty while it runs."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    ends = (each for each in conditions if each.get("type") in ("Complete", "Failed"))
    return next((each for each in ends if each.get("status") == "True"), {})


def _what_it_does(job: Manifest) -> str:
    status = job.get("status") or {}
    if status.get("ready"):
        return "the Job is running"
    if status.get("active"):
        return "the Job's pod is pending"
    return "waiting for Kubernetes to start the Job"


def _limit(job: Manifest) -> timedelta:
    seconds = min(job["spec"]["activeDeadlineSeconds"], MAX_DEADLINE.total_seconds())
    return timedelta(seconds=seconds) + GRACE


def _failed(job: Manifest, pod: Manifest | None, condition: Manifest) -> Failed:
    reason = condition.get("reason") or "Failed"
    said = condition.get("message") or ""
    container = {} if pod is None else _failed_container(pod)
    if reason == "BackoffLimitExceeded" and pod is not None:
        # Why a pod failed says more than that one did.
        if _is_disrupted(pod):
            reason = "PodDisrupted"
        elif container:
            said = _how_it_ended(container)
    row = TABLE.get(reason, UNLISTED)
    return Failed(
        reason=reason,
        message=f"{said[:MAX_MESSAGE]} ({row.why})" if said else row.why,
        retry=row.retry,
        failure_class=reason,
        result=_result(job, container),
    )


def _has_failed(pod: Manifest) -> bool:
    return bool((pod.get("status") or {}).get("phase") == "Failed")


def _is_disrupted(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(
        each.get("type") == "DisruptionTarget" and each.get("status") == "True"
        for each in conditions
    )


def _failed_container(pod: Manifest) -> dict[str, Any]:
    """Return how a container of this pod failed, with its name; empty if none did."""
    status = pod.get("status") or {}
    for each in (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ):
        terminated = (each.get("state") or {}).get("terminated") or {}
        if terminated.get("exitCode"):
            return {"name": each["name"], **terminated}
    return {}


def _how_it_ended(container: Manifest) -> str:
    end = f"container {container['name']} ended with {container['exitCode']}"
    words = (container.get("reason"), container.get("message"))
    return ": ".join([end, *(each.strip() for each in words if each and each != "Error")])


def _result(job: Manifest, container: Manifest = MappingProxyType({})) -> dict[str, Any]:
    found = {
        "job": job["metadata"]["name"],
        "container": container.get("name"),
        "exit_code": container.get("exitCode"),
    }
    return {key: value for key, value in found.items() if value is not None}

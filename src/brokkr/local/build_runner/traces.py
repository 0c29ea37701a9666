"""
What a build leaves in the cluster beside its BuildRun: a TaskRun, and that one's Pod.

The agent, and whoever else looks, finds there what the BuildRun does not say: which step is
at work, exit codes, logs.
"""

# Note [Who is written first]
#
# As in a cluster, what is owned knows first: a TaskRun exists before a BuildRun names it,
# and says how a build has ended before the BuildRun does.  So whoever sees a BuildRun end
# finds the rest in its place.  A build whose runner is killed in between is a lost one all
# the same.

from datetime import timedelta

from brokkr.agent.kinds import PODS, TASK_RUNS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeAlreadyExists, KubeError
from brokkr.local.build_runner import task_run as task_runs
from brokkr.local.build_runner.admission import Admitted
from brokkr.local.build_runner.job import Commit, PushedImage, StepFailed
from brokkr.local.build_runner.pod import reflect, render_pod
from brokkr.local.build_runner.recorder import Change, Key, Recorder, outlast
from brokkr.local.build_runner.status import is_finished
from brokkr.local.build_runner.steps import STEPS
from brokkr.work.labels import problem_with_value
from brokkr.work.model import Manifest


class PodRefused(Exception):
    """The API server does not let a build have a Pod; the message has its words."""


class Traces:
    """
    The TaskRuns and Pods of one runner's builds.

    Args:
        kube: Where they are.
        recorder: Writes their status.
        node: The Node that the Pods are bound to.
        note: The annotations that say what they are.
    """

    def __init__(
        self, kube: KubeClient, recorder: Recorder, *, node: str, note: dict[str, str]
    ) -> None:
        self._kube = kube
        self._recorder = recorder
        self._node = node
        self._note = note

    async def find(self, run: Manifest) -> Manifest | None:
        """Return the TaskRun of this BuildRun, also one that a killed runner has just made."""
        namespace, uid = run["metadata"]["namespace"], run["metadata"]["uid"]
        if problem_with_value(run["metadata"]["name"]) is not None:
            return None  # and no such BuildRun is accepted
        selector = f"{task_runs.BUILD_RUN_LABEL}={run['metadata']['name']}"
        listed, _ = await self._kube.list(TASK_RUNS, namespace, label_selector=selector)
        owned = (each for each in listed if owner_of(each).get("uid") == uid)
        return next(owned, None)

    async def create(self, run: Manifest, admitted: Admitted) -> Manifest:
        """Create a TaskRun that waits."""
        rendered = task_runs.render_task_run(
            run,
            labels={**admitted.build.labels, **admitted.strategy_labels},
            annotations=self._note,
            service_account=admitted.service_account,
            timeout=admitted.timeout,
        )
        return await self._kube.create(TASK_RUNS, run["metadata"]["namespace"], rendered)

    async def wait(self, task_run: Manifest) -> None:
        """Say that the build waits for its turn."""
        await self._record(task_run, task_runs.wait)

    async def start(self, task_run: Manifest) -> None:
        """
        Say that the steps run, and give them a Pod.

        Raises:
            PodRefused: It may not have one; the TaskRun says so already.
        """
        pod = render_pod(task_run, node=self._node, steps=STEPS)
        try:
            await self._create_pod(task_run["metadata"]["namespace"], pod)
        except KubeError as error:
            message = f"failed to create task run pod {pod['metadata']['name']!r}: {error}"
            await self.refuse(task_run, message)
            raise PodRefused(message) from error
        await self._record(task_run, task_runs.start, pod=pod["metadata"]["name"], steps=STEPS)

    async def refuse(self, task_run: Manifest, message: str) -> None:
        """Say that there is no Pod, and why."""
        await self._record(task_run, task_runs.refuse, message=message)

    async def end_step(
        self, task_run: Manifest, step: str, found: Commit | PushedImage | None
    ) -> None:
        """Say that a step has ended well."""
        await self._record(task_run, task_runs.end_step, step=step, found=found)

    async def succeed(self, task_run: Manifest) -> None:
        """Say that all steps have ended well."""
        await self._record(task_run, task_runs.succeed)

    async def fail(self, task_run: Manifest, failure: StepFailed) -> None:
        """Say which step has failed."""
        await self._record(task_run, task_runs.fail, failure=failure)

    async def time_out(self, task_run: Manifest, limit: timedelta | None) -> None:
        """Say that the build took too long, and take the Pod away."""
        name = task_run["metadata"]["name"]
        await self._record(task_run, task_runs.time_out, name=name, timeout=limit)
        await self._delete_pod(task_run)

    async def request_cancel(self, task_run: Manifest) -> None:
        """Write down that the build shall stop."""
        metadata = task_run["metadata"]
        key = Key(TASK_RUNS, metadata["namespace"], metadata["name"])
        await self._kube.merge_patch(*key, task_runs.CANCEL_PATCH)

    async def cancel(self, task_run: Manifest) -> None:
        """Say that the build was stopped by request, and take the Pod away."""
        name = task_run["metadata"]["name"]
        await self._record(task_run, task_runs.cancel, name=name)
        await self._delete_pod(task_run)

    async def has_ended(self, task_run: Manifest) -> bool:
        """Say whether a TaskRun is over or gone, by what the API server has of it now."""
        metadata = task_run["metadata"]
        now = await self._kube.find(TASK_RUNS, metadata["namespace"], metadata["name"])
        return now is None or is_finished(now)

    async def kill(self, task_run: Manifest) -> str:
        """Say that the Pod was taken away; return the step that ended with it, if one did."""
        recorded = await self._record(task_run, task_runs.kill)
        return "" if recorded is None else task_runs.failed_step(recorded["status"])

    async def delete(self, task_run: Manifest) -> None:
        """Delete a TaskRun; its Pod follows."""
        metadata = task_run["metadata"]
        key = Key(TASK_RUNS, metadata["namespace"], metadata["name"])
        await self._kube.delete(*key, uid=metadata["uid"])

    async def _record(self, task_run: Manifest, change: Change, **facts: object) -> Manifest | None:
        """Change the status of a TaskRun, and have its Pod say the same."""
        namespace = task_run["metadata"]["namespace"]
        key = Key(TASK_RUNS, namespace, task_run["metadata"]["name"])
        recorded = await self._recorder.record(key, task_run, change, **facts)
        if recorded is not None and "podName" in recorded["status"]:
            pod = Key(PODS, namespace, recorded["status"]["podName"])
            await self._recorder.record(pod, None, reflect, task_run=recorded)
        return recorded

    async def _create_pod(self, namespace: str, pod: Manifest) -> None:
        """Create it, unless a predecessor has; wait out an outage."""
        try:
            await outlast(lambda: self._kube.create(PODS, namespace, pod))
        except KubeAlreadyExists:
            return

    async def _delete_pod(self, task_run: Manifest) -> None:
        """Delete it, if there is one; wait out an outage."""
        namespace, name = task_run["metadata"]["namespace"], task_run["metadata"]["name"]
        await outlast(lambda: self._kube.delete(PODS, namespace, task_runs.pod_name(name)))


def owner_of(manifest: Manifest) -> Manifest:
    """Return the reference to the controller of an object; an empty one if it has none."""
    owners: list[Manifest] = manifest["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})

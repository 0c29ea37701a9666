"""
Watch Builds and BuildRuns, and see to it that each gets the status it deserves.

Level-triggered: an event only says which object to look at; what is done follows from the
object as it is then.  One loop looks at one object at a time; the builds themselves run
beside it.  The checks are in :mod:`.admission`, the builds in :mod:`.executions`, the words
in :mod:`.status`.
"""

# Note [A lost build is not run again]
#
# A BuildRun runs once.  The processes of a build die with the runner, so a BuildRun that
# says Running and that this process knows nothing of has lost its build: it ends as
# TaskRunIsMissing, as it does in a cluster when somebody deletes the TaskRun.  Running is
# therefore written before the first step begins; a BuildRun that says Pending has done
# nothing yet, and is taken up again, with the TaskRun that it has.  What is left of a lost
# one's TaskRun is deleted first, so that it is as it says.

import asyncio
import fcntl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
import yaml

from brokkr.agent.handlers.build.result import ANNOTATION_WARNINGS
from brokkr.agent.kinds import (
    BUILD_RUNS,
    BUILDS,
    CLUSTER_BUILD_STRATEGIES,
    PODS,
    SECRETS,
    TASK_RUNS,
    Resource,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeError, KubeInvalid
from brokkr.agent.kube.informer import Informer
from brokkr.local.build_runner import status as statuses
from brokkr.local.build_runner.admission import admit, check_build
from brokkr.local.build_runner.executions import Execution, Executions
from brokkr.local.build_runner.job import BuildJob, StepFailed
from brokkr.local.build_runner.kubelet import (
    logs_folder,
    node_name,
    register_node,
    serving_logs,
)
from brokkr.local.build_runner.recorder import RETRY_DELAY, Key, Recorder
from brokkr.local.build_runner.references import NeverStarts, Rejected
from brokkr.local.build_runner.registration import refused_for, secrets_of
from brokkr.local.build_runner.steps import remove
from brokkr.local.build_runner.task_run import pod_name
from brokkr.local.build_runner.traces import Traces, owner_of
from brokkr.work.durations import parse_duration
from brokkr.work.model import Manifest

log = structlog.get_logger(__name__)

STAND_IN_ANNOTATION = "local.brokkr.io/stand-in"
LOG_ANNOTATION = "local.brokkr.io/log"
_STAND_IN = "handled by Brokkr's local build runner, a stand-in for Shipwright"
_NOTE = {STAND_IN_ANNOTATION: _STAND_IN}


class FolderInUse(Exception):
    """Another runner works in this folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"another local build runner works in {folder}")


@dataclass(frozen=True)
class _Checked:
    """The revision of a Build that was checked, and what it refers to."""

    uid: str
    generation: int
    secrets: frozenset[str]


class BuildRunner:
    """
    The local stand-in for Shipwright's controllers.

    Args:
        kube: The API server that holds the Builds.
        folder: Where builds work (`builds/`) and leave their logs (`logs/`).
        identity: The key pair that the API server and kubelets show each other.
        namespace: The only one to look at; None looks at all.
        concurrency: How many builds run at once; more wait as Pending.
    """

    def __init__(
        self,
        kube: KubeClient,
        folder: Path,
        *,
        identity: Path,
        namespace: str | None = None,
        concurrency: int = 2,
    ) -> None:
        self._kube = kube
        self._folder = folder.absolute()
        self._logs = self._folder / "logs"
        self._identity = identity
        self._node = node_name(self._folder)
        self._recorder = Recorder(kube)
        self._traces = Traces(kube, self._recorder, node=self._node, note=_NOTE)
        self._namespace = namespace
        self._concurrency = concurrency
        self._due: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._checked: dict[Key, _Checked] = {}

    async def run(self) -> None:
        """
        Offer the strategy ``buildah`` and work until cancelled; then stop what runs.

        Raises:
            FolderInUse: There is another runner in this folder.
            KubeError: The strategy cannot be offered: no API server, or no such kind.
        """
        async with self._own_folder() as builds, serving_logs(self._logs, self._identity) as port:
            await register_node(self._kube, self._node, port=port, note=_NOTE)
            await self._kube.apply(CLUSTER_BUILD_STRATEGIES, None, _strategy())
            await self._work(builds)

    async def _work(self, builds: Path) -> None:
        async with asyncio.TaskGroup() as tasks:
            executions = Executions(
                self._recorder,
                self._traces,
                builds,
                concurrency=self._concurrency,
                tasks=tasks,
                on_end=self._look_at,
            )
            for resource, on_event in (
                (BUILDS, self._on_event(BUILDS)),
                (BUILD_RUNS, self._on_event(BUILD_RUNS)),
                (SECRETS, self._on_secret),
                (TASK_RUNS, self._on_task_run),
                (PODS, self._on_pod),
            ):
                informer = Informer(
                    self._kube, resource, self._namespace, on_event=on_event, keep=_only_metadata
                )
                tasks.create_task(informer.run())
            log.info("build runner started", folder=str(self._folder), note=_STAND_IN)
            while True:
                key = await self._due.get()
                self._waiting.discard(key)
                await self._reconcile(key, executions)

    @asynccontextmanager
    async def _own_folder(self) -> AsyncIterator[Path]:
        """Keep other runners out, and remove what a predecessor left."""
        builds = self._folder / "builds"
        builds.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderInUse(self._folder) from None
            await remove(*builds.iterdir())
            yield builds

    def _on_event(self, resource: Resource) -> Callable[[str, dict[str, Any]], None]:
        def on_event(_kind: str, manifest: dict[str, Any]) -> None:
            self._look_at(_key(resource, manifest))

        return on_event

    def _on_secret(self, _kind: str, secret: dict[str, Any]) -> None:
        """Check the Builds again that refer to this Secret."""
        namespace, name = secret["metadata"]["namespace"], secret["metadata"]["name"]
        for key, checked in list(self._checked.items()):
            if key.namespace == namespace and name in checked.secrets:
                del self._checked[key]
                self._look_at(key)

    def _on_task_run(self, kind: str, task_run: dict[str, Any]) -> None:
        """Look at the BuildRun whose TaskRun somebody has deleted."""
        owner = owner_of(task_run)
        if kind == "DELETED" and owner.get("kind") == BUILD_RUNS.kind:
            self._look_at(Key(BUILD_RUNS, task_run["metadata"]["namespace"], owner["name"]))

    def _on_pod(self, kind: str, pod: dict[str, Any]) -> None:
        """Look at a Pod that is being deleted, or is gone."""
        if kind == "DELETED" or "deletionTimestamp" in pod["metadata"]:
            self._look_at(_key(PODS, pod))

    def _look_at(self, key: Key) -> None:
        if key not in self._waiting:
            self._waiting.add(key)
            self._due.put_nowait(key)

    def _look_later(self, key: Key, delay: timedelta) -> None:
        asyncio.get_running_loop().call_later(delay.total_seconds(), self._look_at, key)

    async def _reconcile(self, key: Key, executions: Executions) -> None:
        try:
            # Before the object is read: what does not run now has said how it ended.
            execution = executions.find(key)
            manifest = await self._kube.find(*key)
            if key.resource is BUILDS:
                await self._reconcile_build(key, manifest)
            elif key.resource is PODS:
                await self._end_with_pod(key, manifest, executions)
                await self._let_go(manifest)
            else:
                await self._reconcile_run(key, manifest, execution, executions)
        except Exception as error:
            if _may_pass(error):
                log.warning("look failed", object=str(key), error=str(error))
                self._look_later(key, RETRY_DELAY)
                return
            # One object that makes no sense must not stop the others, nor wait for ever itself.
            log.exception("look gave up", object=str(key))
            await self._give_up(key, error, executions)

    async def _give_up(self, key: Key, surprise: Exception, executions: Executions) -> None:
        """End a BuildRun, or refuse a Build, that the runner can make nothing of."""
        if key.resource not in {BUILDS, BUILD_RUNS}:
            return
        try:
            manifest = await self._kube.find(*key)
            if manifest is None or (key.resource is BUILD_RUNS and statuses.is_finished(manifest)):
                return
            if key.resource is BUILD_RUNS:
                await executions.stop(key)
                status = statuses.give_up(surprise, now=datetime.now(UTC))
            else:
                status = refused_for(surprise).status()
            await self._kube.replace_status(
                key.resource, key.namespace, {**manifest, "status": status}
            )
        except KubeError as error:
            log.warning("look failed", object=str(key), error=str(error))
            if _may_pass(error):
                self._look_later(key, RETRY_DELAY)

    async def _end_with_pod(self, key: Key, pod: Manifest | None, executions: Executions) -> None:
        """End the build whose Pod was deleted while it ran: its containers end with the Pod."""
        if pod is not None and "deletionTimestamp" not in pod["metadata"]:
            return
        owner = executions.find_by_pod(key.namespace, key.name)
        execution = None if owner is None else executions.find(owner)
        if owner is None or execution is None or await self._traces.has_ended(execution.task_run):
            return  # one that took too long loses its Pod, and says so itself
        await executions.stop(owner)
        run = await self._kube.find(*owner)
        if run is None or run["metadata"]["uid"] != execution.uid or statuses.is_finished(run):
            return
        step = await self._traces.kill(execution.task_run)
        if not step:  # it had just ended well, and that was not told
            await self._lose(owner, run, execution.task_run)
            return
        failure = StepFailed(step, exit_code=255)
        await self._recorder.record(
            owner, run, statuses.fail, failure=failure, commit=None, namespace=owner.namespace
        )
        log.info("build lost with its pod", build_run=owner.name, step=step)

    async def _let_go(self, pod: Manifest | None) -> None:
        """
        Delete a Pod of the runner's Node for good, as a kubelet does once nothing of it runs.

        The API server writes first that a Pod is being deleted, and then deletes it.  If it
        dies in between, it leaves the rest to the kubelet.
        """
        if pod is None or pod["spec"].get("nodeName") != self._node:
            return
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            name, uid = metadata["name"], metadata["uid"]
            await self._kube.delete(PODS, metadata["namespace"], name, uid=uid, at_once=True)

    async def _reconcile_build(self, key: Key, build: Manifest | None) -> None:
        """Check a Build once per revision of its spec, and when a Secret it names changes."""
        if build is None:
            self._checked.pop(key, None)
            return
        metadata, spec = build["metadata"], build["spec"]
        checked = _Checked(metadata["uid"], metadata["generation"], frozenset(secrets_of(spec)))
        if self._checked.get(key) == checked:
            return
        status = (await check_build(self._kube, build)).status()
        if build.get("status") != status:
            current = await self._recorder.annotate(key, _NOTE)
            await self._kube.replace_status(BUILDS, key.namespace, {**current, "status": status})
            log.info("build checked", build=f"{key.namespace}/{key.name}", reason=status["reason"])
        self._checked[key] = checked

    async def _reconcile_run(
        self,
        key: Key,
        run: Manifest | None,
        execution: Execution | None,
        executions: Executions,
    ) -> None:
        if execution is not None and (run is None or run["metadata"]["uid"] != execution.uid):
            await executions.stop(key)
            execution = None
        if run is None:
            return
        if statuses.is_finished(run):
            await self._retain(key, run)
            return
        task_run = await self._traces.find(run)
        if task_run is None and "taskRunName" in run.get("status", {}):
            await executions.stop(key)
            await self._recorder.record(key, run, statuses.lose)
        elif execution is not None:
            if statuses.is_cancel_requested(run):
                await self._traces.request_cancel(execution.task_run)
                await self._recorder.record(key, run, statuses.request_cancel)
                await executions.stop(key)
                await self._cancel(key, run, execution.task_run)
        elif statuses.find_reason(run) in {None, statuses.PENDING}:
            await self._start(key, run, task_run, executions)
        elif statuses.find_reason(run) == statuses.CANCELED:
            await self._cancel(key, run, task_run)
        else:
            await self._lose(key, run, task_run)

    async def _cancel(self, key: Key, run: Manifest, task_run: Manifest | None) -> None:
        """Say that a build was stopped by request."""
        if task_run is not None:
            await self._traces.cancel(task_run)
        await self._recorder.record(key, run, statuses.cancel)

    async def _lose(self, key: Key, run: Manifest, task_run: Manifest | None) -> None:
        """Make it true that the TaskRun is missing, and say so."""
        if task_run is not None:
            await self._traces.delete(task_run)
        await self._recorder.record(key, run, statuses.lose)

    async def _start(
        self, key: Key, run: Manifest, task_run: Manifest | None, executions: Executions
    ) -> None:
        """Reject a BuildRun, or begin to run it; `task_run` is what a predecessor has left."""
        await self._check_build_of(run)
        try:
            admitted = await admit(self._kube, run)
        except Rejected as rejected:
            build = rejected.build
            if task_run is not None:
                await self._traces.cancel(task_run)
            await self._recorder.annotate(key, _NOTE, build.labels if build else {})
            await self._recorder.record(
                key,
                run,
                statuses.reject,
                reason=rejected.reason,
                message=rejected.message,
                build_spec=build.spec if build else None,
            )
            log.info("build rejected", build_run=key.name, reason=rejected.reason)
            return
        except NeverStarts as never:
            await self._recorder.annotate(key, _NOTE, never.build.labels)
            await self._recorder.record(key, run, statuses.stall, build_spec=never.build.spec)
            log.warning("build never starts", build_run=key.name, cause=never.message)
            return
        task_run = task_run or await self._traces.create(run, admitted)
        await self._traces.wait(task_run)
        executor = task_run["metadata"]["name"]
        logs = logs_folder(self._logs, key.namespace, pod_name(executor))
        note = {**_NOTE, LOG_ANNOTATION: str(logs), **_warnings(admitted.job)}
        await self._recorder.annotate(key, note, admitted.build.labels)
        accepted = await self._recorder.record(
            key, run, statuses.accept, build_spec=admitted.build.spec, executor=executor
        )
        if accepted is not None:
            executions.begin(key, accepted, admitted, task_run, logs=logs)

    async def _check_build_of(self, run: Manifest) -> None:
        """Check the Build of this BuildRun now, if that is still to come."""
        name = run["spec"]["build"].get("name")
        if name:
            key = Key(BUILDS, run["metadata"]["namespace"], name)
            await self._reconcile_build(key, await self._kube.find(BUILDS, key.namespace, name))

    async def _retain(self, key: Key, run: Manifest) -> None:
        """Delete a BuildRun that has been kept for as long as it asked to be."""
        status = run["status"]
        succeeded = status["conditions"][0]["status"] == "True"
        field = "ttlAfterSucceeded" if succeeded else "ttlAfterFailed"
        build = status.get("buildSpec", {}).get("retention") or {}
        ttl = (run["spec"].get("retention") or {}).get(field) or build.get(field)
        if not ttl:
            return
        completed_at = datetime.fromisoformat(status["completionTime"])
        left = completed_at + parse_duration(ttl) - datetime.now(UTC)
        if left > timedelta(0):
            self._look_later(key, left)
        else:
            uid = run["metadata"]["uid"]
            await self._kube.delete(BUILD_RUNS, key.namespace, key.name, uid=uid)


def _may_pass(error: Exception) -> bool:
    """Say whether the next look may go better; what the server calls invalid stays so."""
    return isinstance(error, KubeError) and not isinstance(error, KubeInvalid)


def _warnings(job: BuildJob) -> dict[str, str]:
    """Say where the result is read what this build is without."""
    if not job.unsupported:
        return {}
    lines = (f"the local build runner ignores {field}" for field in job.unsupported)
    return {ANNOTATION_WARNINGS: "\n".join(lines)}


def _strategy() -> Manifest:
    manifest: Manifest = yaml.safe_load(Path(__file__).with_name("local.yaml").read_text())
    return manifest


def _key(resource: Resource, manifest: Manifest) -> Key:
    return Key(resource, manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def _only_metadata(manifest: dict[str, Any]) -> dict[str, Any]:
    """Keep what tells one object from another, and its owners; no Secret's data."""
    kept = ("name", "namespace", "uid", "resourceVersion", "ownerReferences")
    metadata = manifest["metadata"]
    return {"metadata": {field: metadata[field] for field in kept if field in metadata}}

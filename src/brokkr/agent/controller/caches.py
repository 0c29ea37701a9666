"""
What the agent watches: its Work resources, their attempts' objects, what others make of those.

Owns the informers, and what they saw last of objects that are gone.  Everybody reads it;
only its own events change it.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog

from brokkr.agent.controller.pods import PodCache
from brokkr.agent.handlers.protocol import Handler, WatchesPods
from brokkr.agent.kinds import (
    BUILD_RUNS,
    BUILDS,
    CONFIG_MAPS,
    PIPELINE_RUNS,
    TASK_RUNS,
    WORKS,
    Resource,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeKindUnknown
from brokkr.agent.kube.informer import Informer
from brokkr.wire.custom_resource import LABEL_AGENT, LABEL_WORK, work_from_resource
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest, Work
from brokkr.work.names import work_of_attempt

log = structlog.get_logger()


class Caches:
    """
    Work resources by name, and the objects that belong to each.

    Attributes:
        works: This agent's Works by name, without the templates of those that are over;
            another agent's are not seen.
        unfinished: The names of those that are not over.
        unacknowledged: The names of those whose end the broker has not taken.
        departed: Objects as they were when they were deleted, by uid, for as long as
            their Work is there: one that had ended is still the end of its attempt.
        departed_works: Finished Works that were deleted before the broker took their
            result, by name: the result is not lost with them.
        phases: How many Works there are of each phase.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        *,
        agent_id: UUID,
        handlers: Iterable[Handler],
        on_change: Callable[[str], None],
        on_restart: Callable[[Resource], None] = lambda _: None,
    ) -> None:
        """
        Prepare to watch; :meth:`run` starts it.

        Args:
            on_change: Called with the name of the Work that there is news of.
            on_restart: Called when a watch has to be started over.
        """
        self.works: dict[str, Work] = {}
        self.unfinished: set[str] = set()
        self.unacknowledged: set[str] = set()
        self.departed: dict[str, Manifest] = {}
        self.departed_works: dict[str, Work] = {}
        self.phases: Counter[str] = Counter()
        self._on_change = on_change
        self._of_work: dict[str, dict[str, Manifest]] = defaultdict(dict)

        def informer(
            resource: Resource, selector: str, on_event: Callable[[str, dict[str, Any]], None]
        ) -> Informer:
            return Informer(
                kube,
                resource,
                namespace,
                label_selector=selector,
                on_event=on_event,
                keep=partial(_identity, label=selector.partition("=")[0]),
                on_restart=on_restart,
            )

        def on_object(
            label: str, name_of: Callable[[str], str]
        ) -> Callable[[str, dict[str, Any]], None]:
            def on_event(event: str, manifest: dict[str, Any]) -> None:
                self._on_object(event, manifest, name_of(manifest["metadata"]["labels"][label]))

            return on_event

        handlers = list(handlers)
        self._works = informer(WORKS, f"{LABEL_AGENT}={agent_id}", self._on_work)
        self._made = {
            each: informer(each, LABEL_WORK, on_object(LABEL_WORK, str))
            for each in dict.fromkeys(kind for one in handlers for kind in one.kinds)
        }
        self._related = [
            informer(each.resource, each.label, on_object(each.label, work_of_attempt))
            for each in dict.fromkeys(kind for one in handlers for kind in one.related)
        ]
        self._pods = [
            PodCache(
                kube,
                namespace,
                label,
                is_wanted=self.unfinished.__contains__,
                on_change=on_change,
                on_restart=on_restart,
            )
            for label in dict.fromkeys(
                one.pods_label for one in handlers if isinstance(one, WatchesPods)
            )
        ]

    async def run(self) -> None:
        """Watch for ever."""
        async with asyncio.TaskGroup() as tasks:
            for each in (self._works, *self._made.values(), *self._related):
                tasks.create_task(each.run())
            for pods in self._pods:
                tasks.create_task(pods.run(self._works.synced))

    async def until_synced(self) -> None:
        """Wait until all that the cluster serves has been listed once."""
        await self._works.synced.wait()
        for each in self._others:
            await each.settled.wait()

    @property
    def is_synced(self) -> bool:
        """Say whether all that the cluster serves has been listed once."""
        settled = (each.settled.is_set() for each in self._others)
        return self._works.synced.is_set() and all(settled)

    @property
    def _others(self) -> list[Informer]:
        """Return all that is watched beside Work resources."""
        return [*self._made.values(), *self._related, *(each.informer for each in self._pods)]

    def check_synced(self, kinds: Iterable[Resource]) -> None:
        """
        Insist on knowing what there is of these kinds.

        Raises:
            KubeKindUnknown: The cluster does not serve one of them, or not yet again.
        """
        for kind in kinds:
            if not self._made[kind].synced.is_set():
                raise KubeKindUnknown(f"it is not known what there is of {kind}")

    @property
    def unsynced(self) -> list[Resource]:
        """Return the kinds of which it is not known what there is."""
        informers = (self._works, *self._made.values())
        return [each.resource for each in informers if not each.synced.is_set()]

    @property
    def missing_optional(self) -> list[Resource]:
        """Return the kinds that the agent works without, and would rather watch."""
        return [each.informer.resource for each in self._pods if each.is_missing]

    def pods_of(self, attempt: str) -> list[Manifest]:
        """Return the facts of the Pods of an attempt, by its name, gone ones included."""
        return [pod for each in self._pods for pod in each.of_attempt(attempt)]

    def objects_of(self, work_name: str) -> list[Manifest]:
        """Return all that there is of this Work's attempts, what others made included."""
        return list(self._of_work.get(work_name, {}).values())

    def objects_made(self) -> Iterator[tuple[Resource, Manifest]]:
        """Iterate over the identities of all objects that handlers have made."""
        for resource, informer in self._made.items():
            for manifest in list(informer.cache.values()):
                yield resource, manifest

    def count_unreported(self) -> int:
        """Count the finished Works whose result the broker has not taken."""
        return len(self.unacknowledged - self.unfinished) + len(self.departed_works)

    def _on_work(self, event: str, resource: dict[str, Any]) -> None:
        name = resource["metadata"]["name"]
        self.unfinished.discard(name)
        self.unacknowledged.discard(name)
        before = self.works.pop(name, None)
        if before is not None:
            self.phases[before.status.phase.value] -= 1
        if event == "DELETED":
            for uid, manifest in list(self.departed.items()):
                if _work_of(manifest) == name:
                    del self.departed[uid]
            work = before if "spec" not in resource else self._read(resource)
            if work is not None and _is_unreported(work):
                self.departed_works[name] = work
            self._forget_pods(name)
        elif (work := self._read(resource)) is not None:
            self.works[name] = work
            self.phases[work.status.phase.value] += 1
            if work.status.phase.is_terminal:
                self._forget_attempts(name)
                self._forget_pods(name)
            else:
                self.unfinished.add(name)
            if work.acknowledged_at is None:
                self.unacknowledged.add(name)
        self._on_change(name)

    def _read(self, resource: dict[str, Any]) -> Work | None:
        try:
            work = work_from_resource(resource)
        except InvalidWork as error:
            name = resource["metadata"]["name"]
            log.warning("work resource ignored", work=name, error=str(error))
            return None
        # Of a Work that is over nothing will be made again.
        return replace(work, template={}) if work.status.phase.is_terminal else work

    def _on_object(self, event: str, manifest: dict[str, Any], work_name: str) -> None:
        uid = manifest["metadata"]["uid"]
        before = self._of_work[work_name].pop(uid, None)
        # An object that vanished while nobody watched comes without all that it said.
        now = before if "kind" not in manifest else _KEEP.get(manifest["kind"], _all)(manifest)
        if event != "DELETED" and now is not None:
            self._of_work[work_name][uid] = self._as_needed(now, work_name)
        elif now is not None and _work_of(now) == work_name and work_name in self.works:
            self.departed[uid] = now
        if not self._of_work[work_name]:
            del self._of_work[work_name]
        self._on_change(work_name)

    def _forget_pods(self, work_name: str) -> None:
        for each in self._pods:
            each.forget(work_name)

    def _forget_attempts(self, work_name: str) -> None:
        for uid, manifest in self._of_work.get(work_name, {}).items():
            self._of_work[work_name][uid] = self._as_needed(manifest, work_name)

    def _as_needed(self, manifest: Manifest, work_name: str) -> Manifest:
        """Forget all but the name of an object whose Work is over: it will only be deleted."""
        work = self.works.get(work_name)
        if work is None or not work.status.phase.is_terminal:
            return manifest
        metadata = {field: manifest["metadata"][field] for field in ("name", "uid")}
        return {"kind": manifest["kind"], "metadata": metadata}


def _work_of(manifest: Manifest) -> str | None:
    name: str | None = (manifest["metadata"].get("labels") or {}).get(LABEL_WORK)
    return name


def _is_unreported(work: Work) -> bool:
    return work.status.phase.is_terminal and work.acknowledged_at is None


def _identity(manifest: dict[str, Any], *, label: str) -> dict[str, Any]:
    """Keep what tells an object from others, and by this label whose it is."""
    metadata = manifest["metadata"]
    kept = {field: metadata[field] for field in _IDENTITY}
    return {"metadata": {**kept, "labels": {label: metadata["labels"][label]}}}


_IDENTITY: Final = ("name", "uid", "resourceVersion", "creationTimestamp")


# What is remembered of each kind: with thousands of Works, what nobody reads would be most
# of the agent's memory.


def _all(manifest: dict[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}
    return {**manifest, "metadata": metadata}


def _of_build(build: dict[str, Any]) -> dict[str, Any]:
    kept = _all(build)
    return {**kept, "spec": _of_build_spec(kept.get("spec"))}


def _of_build_spec(spec: Any) -> dict[str, Any]:
    """Keep what a verdict depends on."""
    given = spec if isinstance(spec, dict) else {}
    return {key: value for key, value in given.items() if key in ("output", "timeout")}


def _of_build_run(run: dict[str, Any]) -> dict[str, Any]:
    kept = _all(run)
    status = kept.get("status")
    if not isinstance(status, dict) or "buildSpec" not in status:
        return kept
    return {**kept, "status": {**status, "buildSpec": _of_build_spec(status["buildSpec"])}}


def _of_executor(run: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in _all(run).items() if key != "spec"}
    status = kept.get("status")
    if not isinstance(status, dict):
        return kept
    left_out = ("taskSpec", "pipelineSpec", "provenance", "artifacts", "sidecars")
    return {**kept, "status": {k: v for k, v in status.items() if k not in left_out}}


def _without_data(config_map: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in _all(config_map).items() if k not in ("data", "binaryData")}


_KEEP: Final[Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    BUILDS.kind: _of_build,
    BUILD_RUNS.kind: _of_build_run,
    TASK_RUNS.kind: _of_executor,
    PIPELINE_RUNS.kind: _of_executor,
    CONFIG_MAPS.kind: _without_data,
}

"""
What the agent watches: its Work resources, their attempts' objects, what others make of those.

Owns the informers, and what they saw last of objects that are gone.  Everybody reads it;
only its own events change it.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from brokkr.agent.handlers.protocol import Handler
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
from brokkr.wire.custom_resource import (
    ANNOTATION_ACKNOWLEDGED,
    LABEL_AGENT,
    LABEL_WORK,
    status_from_resource,
)
from brokkr.work.model import Manifest, Phase
from brokkr.work.names import work_of_attempt


class Caches:
    """
    Work resources by name, and the objects that belong to each.

    Attributes:
        works: The Work resources of this agent; another agent's are not seen.
        made: By kind, what handlers make: the objects that are labelled as some Work's.
        related: By kind, what others make for attempts.
        departed: Objects as they were when they were deleted, by uid, for as long as
            their Work is there: one that had ended is still the end of its attempt.
        departed_works: Finished Works that were deleted before the broker took their
            result, by name: the result is not lost with them.
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
        self._on_change = on_change
        self._of_work: dict[str, dict[str, Manifest]] = defaultdict(dict)
        self.works = Informer(
            kube,
            WORKS,
            namespace,
            label_selector=f"{LABEL_AGENT}={agent_id}",
            on_event=self._on_work,
            keep=_keep_work,
            on_restart=on_restart,
        )

        def informer(resource: Resource, label: str, name_of: Callable[[str], str]) -> Informer:
            def on_event(event: str, manifest: dict[str, Any]) -> None:
                self._on_object(event, manifest, name_of(manifest["metadata"]["labels"][label]))

            return Informer(
                kube,
                resource,
                namespace,
                label_selector=label,
                on_event=on_event,
                keep=_KEEP.get(resource, _without_managed_fields),
                on_restart=on_restart,
            )

        handlers = list(handlers)
        self.made = {
            each: informer(each, LABEL_WORK, str)
            for each in dict.fromkeys(kind for one in handlers for kind in one.kinds)
        }
        self.related = {
            each: informer(each.resource, each.label, work_of_attempt)
            for each in dict.fromkeys(kind for one in handlers for kind in one.related)
        }
        self.departed: dict[str, Manifest] = {}
        self.departed_works: dict[str, Manifest] = {}

    @property
    def informers(self) -> Iterator[Informer]:
        """Iterate over all that is watched."""
        yield self.works
        yield from self.made.values()
        yield from self.related.values()

    async def run(self) -> None:
        """Watch for ever."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self.informers:
                tasks.create_task(informer.run())

    async def until_synced(self) -> None:
        """Wait until all that the cluster serves has been listed once."""
        await self.works.synced.wait()
        for informer in (*self.made.values(), *self.related.values()):
            await informer.settled.wait()

    def check_synced(self, kinds: Iterable[Resource]) -> None:
        """
        Insist on knowing what there is of these kinds.

        Raises:
            KubeKindUnknown: The cluster does not serve one of them, or not yet again.
        """
        for kind in kinds:
            if not self.made[kind].synced.is_set():
                raise KubeKindUnknown(f"it is not known what there is of {kind}")

    def objects_of(self, work_name: str) -> list[Manifest]:
        """Return all that there is of this Work's attempts, what others made included."""
        return list(self._of_work.get(work_name, {}).values())

    def count_by_phase(self) -> dict[str, int]:
        """Count the Works of each phase."""
        statuses = ((each.get("status") or {}) for each in self.works.cache.values())
        return Counter(str(each.get("phase", Phase.PENDING.value)) for each in statuses)

    def count_unreported(self) -> int:
        """Count the finished Works whose result the broker has not taken."""
        there = sum(_is_unreported(each) for each in self.works.cache.values())
        return there + len(self.departed_works)

    def _on_work(self, event: str, resource: dict[str, Any]) -> None:
        name = resource["metadata"]["name"]
        if event == "DELETED":
            for uid, manifest in list(self.departed.items()):
                if _work_of(manifest) == name:
                    del self.departed[uid]
            if _is_unreported(resource):
                self.departed_works[name] = resource
        self._on_change(name)

    def _on_object(self, event: str, manifest: dict[str, Any], work_name: str) -> None:
        uid = manifest["metadata"]["uid"]
        if event != "DELETED":
            self._of_work[work_name][uid] = manifest
        else:
            self._of_work[work_name].pop(uid, None)
            if not self._of_work[work_name]:
                del self._of_work[work_name]
            if _work_of(manifest) == work_name and work_name in self.works.cache:
                self.departed[uid] = manifest
        self._on_change(work_name)


def _work_of(manifest: Manifest) -> str | None:
    name: str | None = (manifest["metadata"].get("labels") or {}).get(LABEL_WORK)
    return name


def _is_unreported(resource: Manifest) -> bool:
    annotations = resource["metadata"].get("annotations") or {}
    status = status_from_resource(resource.get("status") or {})
    return status.phase.is_terminal and ANNOTATION_ACKNOWLEDGED not in annotations


# What is remembered of each kind: with thousands of Works, what nobody reads would be most
# of the agent's memory.


def _without_managed_fields(manifest: dict[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}
    return {**manifest, "metadata": metadata}


def _keep_work(work: dict[str, Any]) -> dict[str, Any]:
    """Forget the template of a Work that is over: nothing will be made of it again."""
    work = _without_managed_fields(work)
    status = work.get("status") or {}
    if status.get("completionTime") is None or not isinstance(work.get("spec"), dict):
        return work
    return {**work, "spec": {**work["spec"], "template": {}}}


def _keep_build(build: dict[str, Any]) -> dict[str, Any]:
    kept = _without_managed_fields(build)
    return {**kept, "spec": _keep_build_spec(kept.get("spec"))}


def _keep_build_spec(spec: Any) -> dict[str, Any]:
    """Keep what a verdict depends on."""
    given = spec if isinstance(spec, dict) else {}
    return {key: value for key, value in given.items() if key in ("output", "timeout")}


def _keep_build_run(run: dict[str, Any]) -> dict[str, Any]:
    kept = _without_managed_fields(run)
    status = kept.get("status")
    if not isinstance(status, dict) or "buildSpec" not in status:
        return kept
    spec = _keep_build_spec(status["buildSpec"])
    return {**kept, "status": {**status, "buildSpec": spec}}


def _keep_executor(run: dict[str, Any]) -> dict[str, Any]:
    kept = _without_managed_fields(run)
    kept.pop("spec", None)
    status = kept.get("status")
    if not isinstance(status, dict):
        return kept
    left_out = ("taskSpec", "pipelineSpec", "provenance", "artifacts", "sidecars")
    return {**kept, "status": {k: v for k, v in status.items() if k not in left_out}}


def _keep_config_map(config_map: dict[str, Any]) -> dict[str, Any]:
    kept = _without_managed_fields(config_map)
    kept.pop("data", None)
    kept.pop("binaryData", None)
    return kept


_KEEP: Final[Mapping[Resource, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    BUILDS: _keep_build,
    BUILD_RUNS: _keep_build_run,
    TASK_RUNS: _keep_executor,
    PIPELINE_RUNS: _keep_executor,
    CONFIG_MAPS: _keep_config_map,
}

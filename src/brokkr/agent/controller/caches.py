"""
What the agent watches: its Work resources, and the objects of their attempts.

Owns the informers, and what they saw last of objects that are gone.  Everybody reads it;
only its own events change it.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.informer import Informer
from brokkr.agent.kinds import WORKS, Resource
from brokkr.wire.custom_resource import (
    ANNOTATION_ACKNOWLEDGED,
    LABEL_AGENT,
    LABEL_WORK,
    status_from_resource,
)
from brokkr.work.model import Manifest


class Caches:
    """
    Work resources by name, and attempts' objects by kind and name.

    Attributes:
        works: The Work resources of this agent; another agent's are not seen.
        objects: By kind, the objects that are labelled as some Work's.
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
        kinds: Iterable[Resource],
        on_change: Callable[[str], None],
    ) -> None:
        """
        Prepare to watch; :meth:`run` starts it.

        Args:
            on_change: Called with the name of the Work that there is news of.
        """
        self._on_change = on_change
        self.works = Informer(
            kube,
            WORKS,
            namespace,
            label_selector=f"{LABEL_AGENT}={agent_id}",
            on_event=self._on_work,
            keep=_without_managed_fields,
        )
        self.objects = {
            each.kind: Informer(
                kube,
                each,
                namespace,
                label_selector=LABEL_WORK,
                on_event=self._on_object,
                keep=_without_managed_fields,
            )
            for each in kinds
        }
        self.departed: dict[str, Manifest] = {}
        self.departed_works: dict[str, Manifest] = {}

    async def run(self) -> None:
        """Watch for ever."""
        async with asyncio.TaskGroup() as tasks:
            for informer in (self.works, *self.objects.values()):
                tasks.create_task(informer.run())

    async def until_synced(self) -> None:
        """Wait until everything has been listed once."""
        for informer in (self.works, *self.objects.values()):
            await informer.synced.wait()

    def _on_work(self, event: str, resource: dict[str, Any]) -> None:
        name = resource["metadata"]["name"]
        if event == "DELETED":
            for uid, manifest in list(self.departed.items()):
                if _work_of(manifest) == name:
                    del self.departed[uid]
            if _is_unreported(resource):
                self.departed_works[name] = resource
        self._on_change(name)

    def _on_object(self, event: str, manifest: dict[str, Any]) -> None:
        if event == "DELETED" and _work_of(manifest) in self.works.cache:
            self.departed[manifest["metadata"]["uid"]] = manifest
        self._on_change(_work_of(manifest))


def _work_of(manifest: Manifest) -> str:
    name: str = manifest["metadata"]["labels"][LABEL_WORK]
    return name


def _is_unreported(resource: Manifest) -> bool:
    annotations = resource["metadata"].get("annotations") or {}
    status = status_from_resource(resource.get("status") or {})
    return status.phase.is_terminal and ANNOTATION_ACKNOWLEDGED not in annotations


def _without_managed_fields(manifest: dict[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}
    return {**manifest, "metadata": metadata}

"""Write what became of an object: labels and annotations, and the status of a BuildRun."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog

from brokkr.agent.kinds import BUILD_RUNS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeConflict, KubeNotFound, KubeUnavailable
from brokkr.local.build_runner import status as statuses
from brokkr.work.model import Manifest

log = structlog.get_logger(__name__)

RETRY_DELAY = timedelta(seconds=1)


class Key(NamedTuple):
    """Where to find one object."""

    resource: Resource
    namespace: str
    name: str


class Recorder:
    """Writes to one API server."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def record(
        self, key: Key, run: Manifest, change: Callable[..., Manifest], **facts: object
    ) -> Manifest | None:
        """
        Change the status of exactly this BuildRun, unless it has ended; wait out an outage.

        Returns:
            The BuildRun as it is now; None if it is gone or had ended.
        """
        while True:
            try:
                now = await self._kube.find(BUILD_RUNS, key.namespace, key.name)
                if now is None or now["metadata"]["uid"] != run["metadata"]["uid"]:
                    return None
                if statuses.is_finished(now):
                    return None
                status = change(now.get("status", {}), now=datetime.now(UTC), **facts)
                changed = {**now, "status": status}
                recorded = await self._kube.replace_status(BUILD_RUNS, key.namespace, changed)
            except KubeConflict:
                continue
            except KubeNotFound:
                return None
            except KubeUnavailable as error:
                log.warning("status not written", build_run=key.name, error=str(error))
                await asyncio.sleep(RETRY_DELAY.total_seconds())
            else:
                condition = recorded["status"]["conditions"][0]
                log.info("status written", build_run=key.name, reason=condition["reason"])
                return recorded

    async def annotate(
        self, key: Key, annotations: dict[str, str], labels: dict[str, str] | None = None
    ) -> Manifest:
        """Add annotations and labels to an object, and return it."""
        metadata = {"annotations": annotations, "labels": labels or {}}
        patch = {"metadata": metadata}
        return await self._kube.merge_patch(key.resource, key.namespace, key.name, patch)

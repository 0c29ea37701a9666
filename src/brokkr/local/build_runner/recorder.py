"""Write what became of an object: labels, annotations and status."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias, TypeVar

import structlog

from brokkr.agent.kinds import Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import (
    KubeConflict,
    KubeKindUnknown,
    KubeNotFound,
    KubeUnavailable,
)
from brokkr.local.build_runner import status as statuses
from brokkr.work.model import Manifest

log = structlog.get_logger(__name__)

RETRY_DELAY = timedelta(seconds=1)

T = TypeVar("T")

Change: TypeAlias = Callable[..., Manifest]
"""Takes a status, the time as ``now`` and further facts, and returns the next status."""


class Key(NamedTuple):
    """Where to find one object."""

    resource: Resource
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.resource.kind} {self.namespace}/{self.name}"


class Recorder:
    """Writes to one API server."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def record(
        self, key: Key, manifest: Manifest | None, change: Change, **facts: object
    ) -> Manifest | None:
        """
        Change the status of exactly this object, unless it has ended; wait out an outage.

        Args:
            key: Where to find it.
            manifest: Which one it is; None is whichever has its name.
            change: Makes the new status.
            facts: What `change` needs to know.

        Returns:
            The object as it is now; None if it is gone or had ended.
        """

        async def attempt() -> Manifest | None:
            now = await self._kube.find(*key)
            if now is None or statuses.is_finished(now):
                return None
            if manifest is not None and now["metadata"]["uid"] != manifest["metadata"]["uid"]:
                return None
            status = change(now.get("status", {}), now=datetime.now(UTC), **facts)
            changed = {**now, "status": status}
            return await self._kube.replace_status(key.resource, key.namespace, changed)

        while True:
            try:
                recorded = await outlast(attempt)
            except KubeConflict:
                continue
            except KubeNotFound:
                return None
            if recorded is not None:
                log.info("status written", object=str(key), reason=statuses.find_reason(recorded))
            return recorded

    async def annotate(
        self, key: Key, annotations: dict[str, str], labels: dict[str, str] | None = None
    ) -> Manifest:
        """Add annotations and labels to an object, and return it."""
        metadata = {"annotations": annotations, "labels": labels or {}}
        patch = {"metadata": metadata}
        return await self._kube.merge_patch(*key, patch)


async def outlast(attempt: Callable[[], Awaitable[T]]) -> T:
    """
    Do what can be done twice until the API server has been there for it.

    One that has just started knows no kinds but its own for a while.
    """
    while True:
        try:
            return await attempt()
        except (KubeUnavailable, KubeKindUnknown) as error:
            log.warning("the API server is away", error=str(error))
            await asyncio.sleep(RETRY_DELAY.total_seconds())

"""
Delete what is left over in the cluster of Work that nobody needs any more.

Owner references and times to live do that in the ordinary case.  This is for the others:
an object whose owner reference was lost, a Work of a broker that does not exist any more.
"""

# Note [What is never swept]
#
# A finished Work whose result no broker has taken is kept for `unreported_retention`,
# for the result exists nowhere else.  That holds for Works of another broker, too: after a
# restore from a backup, "another" is the one that has asked for it.  Objects are swept only
# if the API server itself says that their Work is gone, never because a cache lacks it.

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from brokkr.agent.claims import HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.kinds import WORKS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeConflict, KubeError
from brokkr.agent.log_fields import about
from brokkr.agent.metrics import Metrics
from brokkr.wire.custom_resource import LABEL_WORK
from brokkr.work.model import Manifest

log = structlog.get_logger()

INTERVAL: Final = timedelta(minutes=5)


class OrphanSweep:
    """Looks for orphans every so often."""

    def __init__(
        self,
        *,
        kube: KubeClient,
        caches: Caches,
        held: HeldClaims,
        namespace: str,
        grace: timedelta,
        unreported_retention: timedelta,
        clock: Callable[[], datetime],
        metrics: Metrics,
    ) -> None:
        """
        Put it together; :meth:`run` starts it.

        Args:
            grace: What is younger is left alone.
            unreported_retention: How long a Work is kept that no broker has heard the end of.
        """
        self._kube = kube
        self._caches = caches
        self._held = held
        self._namespace = namespace
        self._grace = grace
        self._unreported_retention = unreported_retention
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await asyncio.sleep(
                min(INTERVAL, max(self._grace, timedelta(seconds=1))).total_seconds()
            )
            try:
                await self.sweep()
            except KubeError as error:
                log.warning("orphan sweep interrupted", error=str(error))

    async def sweep(self) -> None:
        """Go through all that there is, once."""
        for resource, manifest in self._caches.objects_made():
            metadata = manifest["metadata"]
            age = self._clock() - datetime.fromisoformat(metadata["creationTimestamp"])
            if age > self._grace and await self._is_orphan(manifest):
                await self._delete(resource, metadata["name"], metadata["uid"])
        for name in list(self._caches.unacknowledged):
            work = self._caches.works[name]
            if self._clock() - work.created_at > self._unreported_retention and (
                self._held.broker is not None and self._held.is_from_elsewhere(work)
            ):
                log.warning("work of another broker given up", **about(work))
                await self._delete(WORKS, work.name, work.uid)

    async def _is_orphan(self, manifest: Manifest) -> bool:
        name = manifest["metadata"]["labels"][LABEL_WORK]
        if name in self._caches.works:
            return False
        # Not in the cache may mean: another agent's, of this namespace.
        return await self._kube.find(WORKS, self._namespace, name) is None

    async def _delete(self, resource: Resource, name: str, uid: str) -> None:
        try:
            await self._kube.delete(resource, self._namespace, name, uid=uid)
        except KubeConflict:
            return  # another one of the same name by now
        self._metrics.orphans.inc()
        log.warning("orphan deleted", resource=str(resource), name=name)

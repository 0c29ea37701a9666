"""
Know what there is: a cache of one kind of object, kept by list and watch.

It only says *when* to look.  What it holds may be old, so whoever is about to act reads
the object itself first.
"""

# Note [What keeps a watch honest]
#
# - It lists, then watches from the list's resource version, so there is no gap.
# - Bookmarks move that version on while nothing happens, so that a broken connection is
#   resumed without listing again.
# - When the version is too old all the same (410, as a response or as an ERROR event), it
#   lists again and reports what vanished meanwhile as DELETED: no watch ever will.
# - Any other ERROR event is trouble that passes.  A watch cache that lags behind says "504
#   Too large resource version", for one.
# - A stream that says nothing for longer than bookmarks take is dead, whatever TCP thinks.
# - A round that ends early is followed by a pause, which doubles and is random, so that
#   neither an outage nor a server that ends each stream at once turns into a busy loop.

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog

from brokkr.agent.kinds import Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import (
    KubeError,
    KubeExpired,
    KubeForbidden,
    KubeKindUnknown,
    KubeSilent,
    KubeUnavailable,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """
    How patient an informer is.

    Attributes:
        stream: When the server shall end a watch, up to a fifth earlier at random.
        silence: How long a watch may say nothing before it counts as dead.
        steady: A round at least this long is a good one, however it ended.
        first_pause: After the first bad round, about; it doubles with each one.
    """

    stream: timedelta = timedelta(minutes=5)
    silence: timedelta = timedelta(seconds=90)
    steady: timedelta = timedelta(seconds=10)
    first_pause: timedelta = timedelta(milliseconds=250)
    longest_pause: timedelta = timedelta(seconds=30)


_PATIENCE: Final = Timing()


def _whole(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest


class Informer:
    """
    The objects of one kind in one namespace, as far as is known.

    Args:
        on_event: Called after each change of the cache, with ADDED, MODIFIED or DELETED
            and the object, whole; but of one that vanished while nobody watched, with what
            was kept of it.  It must be quick and must not raise.
        keep: Makes of an object what is worth caching; name, uid and resource version are.
        on_restart: Called with the kind each time a watch broke or must begin with a list.

    Attributes:
        resource: The kind.
        cache: The objects by name; by namespace/name if all namespaces are looked at.
        synced: Set while the cache is what a list and its watch have said: once the first
            list is in, and not while the server does not serve the kind.
        settled: Set once the first list is in, or is known not to be had for now.
    """

    def __init__(
        self,
        kube: KubeClient,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str | None = None,
        on_event: Callable[[str, dict[str, Any]], None],
        keep: Callable[[dict[str, Any]], dict[str, Any]] = _whole,
        on_restart: Callable[[Resource], None] = lambda _: None,
        timing: Timing = _PATIENCE,
    ) -> None:
        self.cache: dict[str, dict[str, Any]] = {}
        self.synced = asyncio.Event()
        self.settled = asyncio.Event()
        self._kube = kube
        self.resource = resource
        self._namespace = namespace
        self._label_selector = label_selector
        self._on_event = on_event
        self._keep = keep
        self._on_restart = on_restart
        self._timing = timing
        self._version: str | None = None
        self._bad_rounds = 0
        self._complaint = ""

    async def run(self) -> None:
        """List and watch for ever; only cancellation ends it."""
        clock = asyncio.get_running_loop().time
        while True:
            started_at = clock()
            retry_after = timedelta()
            try:
                await self._round()
            except KubeExpired:
                self._version = None
                self._on_restart(self.resource)
            except KubeSilent:
                # Where nothing happens, servers may send no bookmarks, either.
                log.debug("watch renewed", resource=str(self.resource))
            except (KubeKindUnknown, KubeForbidden) as error:
                # What there was may be gone with the kind; only a new list can tell.
                self._version = None
                self.synced.clear()
                self.settled.set()
                self._complain(error)
            except KubeError as error:
                if isinstance(error, KubeUnavailable):
                    retry_after = error.retry_after or retry_after
                self._complain(error)
            if clock() - started_at >= self._timing.steady.total_seconds():
                self._bad_rounds = 0
            await asyncio.sleep(max(self._pause(), retry_after.total_seconds()))
            self._bad_rounds += 1

    def _complain(self, error: KubeError) -> None:
        self._on_restart(self.resource)
        # A server that is away, or lacks the kind, says the same for hours.
        is_new = type(error).__name__ != self._complaint
        self._complaint = type(error).__name__
        (log.warning if is_new else log.debug)(
            "watch interrupted", resource=str(self.resource), error=str(error)
        )

    async def _round(self) -> None:
        """Watch until the stream ends, from where the last one ended or from a new list."""
        if self._version is None:
            await self._list()
            self._hear()
        assert self._version is not None
        async for kind, manifest in self._kube.watch(
            self.resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
            length=self._timing.stream * random.uniform(0.8, 1.0),  # noqa: S311  # no secret
            silence=self._timing.silence,
        ):
            self._version = manifest["metadata"]["resourceVersion"]
            self._bad_rounds = 0
            self._hear()
            if kind != "BOOKMARK":
                self._take(kind, manifest)

    def _hear(self) -> None:
        if self._complaint:
            self._complaint = ""
            log.info("watch goes on", resource=str(self.resource))

    async def _list(self) -> None:
        # Page by page: of ten thousand objects, what is kept is a small part of what is read.
        listed: set[str] = set()
        as_of = None
        async for page, version, is_first in self._kube.pages(
            self.resource, self._namespace, label_selector=self._label_selector
        ):
            if is_first:
                listed.clear()
            for new in page:
                listed.add(self._key(new))
                self._compare(new)
            as_of = version
        for name in self.cache.keys() - listed:
            self._take("DELETED", self.cache[name])
        self._version = as_of
        self.synced.set()
        self.settled.set()

    def _compare(self, new: dict[str, Any]) -> None:
        known = self.cache.get(self._key(new))
        if known is not None and known["metadata"]["uid"] != new["metadata"]["uid"]:
            self._take("DELETED", known)
            known = None
        if known is None:
            self._take("ADDED", new)
        elif known["metadata"]["resourceVersion"] != new["metadata"]["resourceVersion"]:
            self._take("MODIFIED", new)

    def _take(self, kind: str, manifest: dict[str, Any]) -> None:
        if kind == "DELETED":
            self.cache.pop(self._key(manifest), None)
        else:
            self.cache[self._key(manifest)] = self._keep(manifest)
        self._on_event(kind, manifest)

    def _key(self, manifest: dict[str, Any]) -> str:
        metadata = manifest["metadata"]
        name: str = metadata["name"]
        is_ambiguous = self.resource.namespaced and self._namespace is None
        return f"{metadata['namespace']}/{name}" if is_ambiguous else name

    def _pause(self) -> float:
        """Return seconds: none after a good round, then longer and longer."""
        if self._bad_rounds == 0:
            return 0.0
        longest = self._timing.longest_pause.total_seconds()
        doubled = self._timing.first_pause.total_seconds() * 2.0 ** min(self._bad_rounds - 1, 30)
        return min(longest, doubled) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret

"""
Does this cluster have what each type of work needs?

Asked at the start and every so often.  What is missing makes a type unavailable: the agent
stays up and goes on with what it holds, claims no more of it, says why in its log, its
metrics and its heartbeat, and takes it up again when the cluster has caught up.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import structlog

from brokkr.agent.handlers.protocol import Handler, Prerequisite
from brokkr.agent.kinds import BUILD_STRATEGIES, CLUSTER_BUILD_STRATEGIES, CRDS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeForbidden, KubeKindUnknown, KubeUnavailable
from brokkr.agent.metrics import Metrics
from brokkr.work.model import Manifest

log = structlog.get_logger()

MAX_STRATEGIES: Final = 200
MAX_SENTENCE: Final = 500
"""What the broker takes of each."""

_RELEASE = re.compile(r"v?(\d{1,6})\.(\d{1,6})")


class Prerequisites:
    """
    What each type of work lacks in this cluster.

    Attributes:
        lacking: By type, why it cannot be executed here now, in a sentence.
        lacking_since: By type, since when something was found to be missing, in seconds of
            a clock that nobody sets.
        strategies: The build strategies that there are, by kind and name.
    """

    def __init__(
        self,
        *,
        kube: KubeClient,
        namespace: str,
        handlers: Mapping[str, Handler],
        objection: str | None,
        interval: timedelta,
        metrics: Metrics,
        on_change: Callable[[], None],
    ) -> None:
        """
        Put it together; :meth:`run` starts it.

        Args:
            objection: What speaks against any work at all here, if anything does.
            interval: Between two looks.
            on_change: Called when a type has become available, or is so no more.
        """
        self._kube = kube
        self._namespace = namespace
        self._handlers = handlers
        self._objection = objection
        self._interval = interval
        self._metrics = metrics
        self._on_change = on_change
        self.lacking: dict[str, str] = {}
        self.lacking_since: dict[str, float] = {}
        self.strategies: list[str] = []

    @property
    def all_types(self) -> list[str]:
        """Return the types that could be executed here if nothing was missing."""
        return sorted(self._handlers)

    @property
    def available(self) -> list[str]:
        """Return the types that can be executed here now."""
        return sorted(set(self._handlers) - set(self.lacking))

    async def run(self) -> None:
        """Look again for ever."""
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            await self.look()

    async def look(self) -> None:
        """
        See what there is; an API server that is away leaves things as they were.

        So does one that has just started: until it has read its rules, it refuses everything.
        """
        try:
            lacking = {
                work_type: sentence[:MAX_SENTENCE]
                for work_type, handler in self._handlers.items()
                if (sentence := self._objection or await self._find_lack(handler)) is not None
            }
            self.strategies = await self._list_strategies()
        except (KubeUnavailable, KubeForbidden) as error:
            log.warning("prerequisites not checked", error=str(error))
            return
        for work_type in self._handlers:
            was, now = self.lacking.get(work_type), lacking.get(work_type)
            self._metrics.type_available.labels(work_type).set(now is None)
            if now is not None and now != was:
                log.warning("work type unavailable", type=work_type, reason=now)
            elif now is None and was is not None:
                log.info("work type available again", type=work_type)
        if lacking != self.lacking:
            moment = time.monotonic()
            self.lacking_since = {
                each: self.lacking_since.get(each, moment)
                for each in lacking
                if not self._objection
            }
            self.lacking = lacking
            self._on_change()

    async def _find_lack(self, handler: Handler) -> str | None:
        for each in handler.prerequisites:
            try:
                problem = problem_with(await self._kube.find(CRDS, None, each.definition), each)
            except KubeForbidden:
                # How new it is nobody can say then, but whether it is there.
                plural, _, group = each.definition.partition(".")
                is_served = await self._kube.serves(group, each.version, plural)
                problem = None if is_served else f"the cluster serves no {each.definition}"
            if problem is not None:
                return f"{problem}: {each.cure}"
        return None

    async def _list_strategies(self) -> list[str]:
        found = []
        for resource, namespace in (
            (CLUSTER_BUILD_STRATEGIES, None),
            (BUILD_STRATEGIES, self._namespace),
        ):
            found += [f"{resource.kind}/{name}" for name in await self._names(resource, namespace)]
        return sorted(found)[:MAX_STRATEGIES]

    async def _names(self, resource: Resource, namespace: str | None) -> list[str]:
        try:
            items, _ = await self._kube.list(resource, namespace)
        except (KubeKindUnknown, KubeForbidden):
            return []
        return [each["metadata"]["name"] for each in items]


def problem_with(definition: Manifest | None, wanted: Prerequisite) -> str | None:
    """Say what is wrong with a definition, or that there is none; None if it will do."""
    if definition is None:
        return f"the cluster has no {wanted.definition}"
    versions = definition["spec"].get("versions") or ()
    served = next((v for v in versions if v["name"] == wanted.version and v.get("served")), None)
    if served is None:
        return f"the cluster's {wanted.definition} does not serve {wanted.version}"
    schema = (served.get("schema") or {}).get("openAPIV3Schema") or {}
    if not _has_field(schema, wanted.field):
        return f"the cluster's {wanted.definition} is too old: it has no {'.'.join(wanted.field)}"
    labels = definition["metadata"].get("labels") or {}
    release = labels.get(wanted.release_label, "")
    if _is_older(release, wanted.oldest_release):
        return f"the cluster's {wanted.definition} is of {release}"
    return None


def _has_field(schema: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    for name in path:
        known = schema.get("properties") or {}
        if name not in known:
            return bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        schema = known[name]
    return True


def _is_older(release: str, oldest: str) -> bool:
    """Compare major and minor; what names no release (``devel``) is not older."""
    given, least = _RELEASE.match(release), _RELEASE.match(oldest)
    if given is None or least is None:
        return False
    return tuple(map(int, given.groups())) < tuple(map(int, least.groups()))

"""
Ask the API server every so often for what work needs, so that trouble is known before Work is.

A Work resource is created for rehearsal only, which goes through authentication, roles, the
namespace, the definition, quotas and the store; works are listed from the store; and the API
server says which verbs the agent's roles allow.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import structlog

from brokkr.agent.access import Access, Obstacle, allows, attributes_of, optional_of
from brokkr.agent.kinds import WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeError
from brokkr.agent.kube.permissions import Rule
from brokkr.work.model import Manifest

log = structlog.get_logger()

_SAMPLE: Final[Manifest] = {
    "apiVersion": WORKS.api_version,
    "kind": WORKS.kind,
    "metadata": {"name": "is-there-access"},
    "spec": {"workType": "none", "maxRetries": 0, "claimTimeout": 1, "template": {}},
}


class AccessProbe:
    """Looks at the access of the agent, and feeds what it finds to :class:`Access`."""

    def __init__(
        self,
        kube: KubeClient,
        access: Access,
        *,
        namespace: str,
        rules: Iterable[Rule],
        interval: float,
    ) -> None:
        """
        Put it together; :meth:`run` starts it.

        Args:
            rules: What an agent is given; of what it could do without, a missing one is a
                warning.
            interval: Between two looks, in seconds.
        """
        self._kube = kube
        self._access = access
        self._namespace = namespace
        self._optional = optional_of(access.needs.values(), rules)
        self._interval = interval
        kube.on_outcome = access.note

    async def run(self) -> None:
        """Look again for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Look once; what the requests come to, the client tells."""
        with suppress(KubeError):
            await self._kube.create(WORKS, self._namespace, _SAMPLE, is_rehearsal=True)
        try:
            await self._kube.is_listed(WORKS, self._namespace)
            await self._review()
        except KubeError as error:
            log.debug("access not reviewed", error=str(error))
        self._access.refresh()

    async def _review(self) -> None:
        rules, is_complete = await self._kube.list_permissions(self._namespace)
        for need in self._access.needs.values():
            is_given = await self._is_given(rules, need.verb, need.resource, "", is_complete)
            self._access.note_permission(need.verb, need.resource, is_given=is_given)
        self._access.warnings = {
            f"{verb} {resource}": f"no role allows it: {rule.why}"
            for rule, verb, resource in self._optional
            for name in rule.names[:1] or ("",)
            if not await self._is_given(rules, verb, resource, name, is_complete)
        }

    async def _is_given(
        self, rules: list[Any], verb: str, resource: str, name: str, is_complete: bool
    ) -> bool:
        if allows(rules, verb, resource, name):
            return True
        if is_complete:
            return False
        # An authorizer that does not list its rules decides case by case.
        wanted = {"verb": verb, **attributes_of(resource), **({"name": name} if name else {})}
        return await self._kube.is_permitted(self._namespace, wanted)


def log_changes(access: Access) -> Callable[[], None]:
    """Return what logs that the access has changed, once for each change."""
    told: dict[str | None, Obstacle] = {}

    def on_change() -> None:
        now: dict[str | None, Obstacle] = {}
        now.update(access.unavailable)
        if access.unable is not None:
            now[None] = access.unable
        for work_type, each in now.items():
            if work_type not in told or told[work_type].reason is not each.reason:
                what = {} if work_type is None else {"type": work_type}
                log.warning("agent unable", reason=each.reason.value, cause=each.cause, **what)
        if told and not now:
            log.info("agent able again")
        told.clear()
        told.update(now)

    return on_change

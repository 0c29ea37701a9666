"""
The Pods of this agent's attempts: what is worth knowing of them, gone ones included.

An optional cache: without the permission to watch Pods it stays empty, and attempts are
judged by what else is known.
"""

# Note [Everybody's Pods]
#
# The label by which Pods are found is that of all builds in the namespace, whoever's they
# are; a namespace may have ten thousand of them.  Of a Pod that is no Work's of this agent
# only its identity stays, as for every kind that is watched.  A Work is known here before
# its attempt is made, and after a restart before Pods are listed, so none is overlooked.

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from brokkr.agent.handlers.pod_facts import facts_of_pod
from brokkr.agent.kinds import PODS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.informer import Informer, Timing
from brokkr.work.model import Manifest
from brokkr.work.names import work_of_attempt

MAX_PODS: Final = 32
"""What is remembered of one Work: the newest so many, more than its attempts can have."""

_PATIENCE: Final = Timing(longest_pause=timedelta(minutes=1))


class PodCache:
    """
    Facts of Pods by the Work that they belong to, in the order in which they came.

    Args:
        label: The label of theirs whose value is the name of the attempt.
        is_wanted: Says by its name whether a Work is this agent's, and not over.
        on_change: Called with the name of the Work when there is news of its Pods.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        label: str,
        *,
        is_wanted: Callable[[str], bool],
        on_change: Callable[[str], None],
        on_restart: Callable[[Resource], None],
    ) -> None:
        self._label = label
        self._is_wanted = is_wanted
        self._on_change = on_change
        self._facts: dict[str, dict[str, Manifest]] = {}
        self.informer = Informer(
            kube,
            PODS,
            namespace,
            label_selector=label,
            on_event=self._on_pod,
            keep=self._identity,
            on_restart=on_restart,
            timing=_PATIENCE,
        )

    @property
    def is_missing(self) -> bool:
        """Say whether Pods cannot be watched, as far as is known."""
        return self.informer.settled.is_set() and not self.informer.synced.is_set()

    async def run(self, works_synced: asyncio.Event) -> None:
        """Watch for ever, from when it is known which Works there are."""
        # See Note [Everybody's Pods].
        await works_synced.wait()
        await self.informer.run()

    def of_attempt(self, name: str) -> list[Manifest]:
        """Return the facts of an attempt's Pods; ``isGone`` is in those that are gone."""
        of_work = self._facts.get(work_of_attempt(name), {})
        return [each for each in of_work.values() if self._attempt_of(each) == name]

    def forget(self, work_name: str) -> None:
        """Forget the Pods of a Work that is over."""
        self._facts.pop(work_name, None)

    def _attempt_of(self, pod: Manifest) -> str:
        name: str = pod["metadata"]["labels"][self._label]
        return name

    def _on_pod(self, event: str, pod: dict[str, Any]) -> None:
        work_name = work_of_attempt(self._attempt_of(pod))
        if not self._is_wanted(work_name):
            return
        of_work = self._facts.setdefault(work_name, {})
        uid = pod["metadata"]["uid"]
        before = of_work.get(uid)
        # One that vanished while nobody watched comes without all that it said.
        facts = dict(before or {}) if "status" not in pod else facts_of_pod(pod, before)
        facts["metadata"] = {
            "name": pod["metadata"]["name"],
            "uid": uid,
            "labels": {self._label: self._attempt_of(pod)},
        }
        if event == "DELETED":
            facts["isGone"] = True
        if facts == before:
            return
        of_work[uid] = {"kind": PODS.kind, **facts}
        while len(of_work) > MAX_PODS:
            del of_work[next(iter(of_work))]
        self._on_change(work_name)

    def _identity(self, pod: dict[str, Any]) -> dict[str, Any]:
        metadata = pod["metadata"]
        kept = {field: metadata[field] for field in ("name", "uid", "resourceVersion")}
        return {"metadata": {**kept, "labels": {self._label: metadata["labels"][self._label]}}}

"""
Plays Shipwright on the real API server: registers Builds and ends BuildRuns as told.

It builds nothing.  The local build runner does, and has tests of its own; here the point
is what the agent makes of what Shipwright says, and when.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from brokkr.agent.kinds import BUILD_RUNS, BUILDS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeConflict, KubeNotFound
from brokkr.agent.kube.informer import Informer

Status = Mapping[str, Any]
Outcome = Callable[[int], Status | None]
"""What becomes of the BuildRun of attempt n; None leaves it running."""

DIGEST = "sha256:" + "ab" * 32


def condition(status: str, reason: str, message: str = "") -> Status:
    """Return a BuildRun's status with its one condition."""
    return {
        "conditions": [
            {
                "type": "Succeeded",
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": "2026-03-01T12:00:00Z",
            }
        ]
    }


def success(attempt: int) -> Status:
    """Let every attempt succeed."""
    return {
        **condition("True", "Succeeded", "All Steps have completed executing"),
        "output": {"digest": DIGEST, "size": 1234},
        "source": {"git": {"commitSha": "5952cc5a", "commitAuthor": "rig"}},
    }


def evicted_at_first(attempt: int) -> Status:
    """Let the first attempt fail in a way that passes, and the others succeed."""
    return (
        condition("False", "PodEvicted", "the node ran full")
        if attempt == 1
        else (success(attempt))
    )


def permanent_failure(attempt: int) -> Status:
    """Let every attempt fail in a way that does not pass."""
    return condition("False", "MissingParameterValues", "parameter x has no value")


def never(attempt: int) -> None:
    """Let every attempt run until it is cancelled."""
    return


class PlayedShipwright:
    """One namespace's Shipwright; run it as a task.

    Attributes:
        seen: Every BuildRun that ever existed, by uid.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        outcome: Outcome = success,
        *,
        registers: bool = True,
        starts: bool = True,
        stops: bool = True,
    ) -> None:
        """
        Prepare to play.

        Args:
            registers: Whether it looks at Builds at all.
            starts: Whether it looks at BuildRuns at all.
            stops: Whether it heeds a cancellation.
        """
        self._registers = registers
        self._starts = starts
        self._stops = stops
        self.kube = kube
        self.namespace = namespace
        self.outcome = outcome
        self.seen: dict[str, Mapping[str, Any]] = {}
        self.builds_seen: dict[str, Mapping[str, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Play for ever."""
        async with asyncio.TaskGroup() as tasks:
            for resource, on_event in ((BUILDS, self._on_build), (BUILD_RUNS, self._on_run)):
                informer = Informer(self.kube, resource, self.namespace, on_event=on_event)
                tasks.create_task(informer.run())

    async def finish(self, name: str, outcome: Outcome = success) -> None:
        """End a BuildRun that runs, and all that come after it, in this way."""
        self.outcome = outcome
        await self.end(name, outcome)

    async def end(self, name: str, outcome: Outcome = success) -> None:
        """End this one BuildRun that runs."""
        while True:
            run = await self.kube.get(BUILD_RUNS, self.namespace, name)
            with suppress(KubeConflict):  # with what was played just before
                await self.kube.replace_status(
                    BUILD_RUNS, self.namespace, {**run, "status": outcome(1)}
                )
                return

    def _on_build(self, event: str, build: dict[str, Any]) -> None:
        self.builds_seen[build["metadata"]["uid"]] = build
        if self._registers and event != "DELETED" and "registered" not in build.get("status", {}):
            registered = {
                "registered": "True",
                "reason": "Succeeded",
                "message": "all validations succeeded",
            }
            self._write(BUILDS, build, registered)

    def _on_run(self, event: str, run: dict[str, Any]) -> None:
        self.seen[run["metadata"]["uid"]] = run
        conditions = run.get("status", {}).get("conditions", [{}])
        if event == "DELETED" or conditions[0].get("status") in ("True", "False"):
            return
        if not self._starts:
            return
        if self._stops and run["spec"].get("state") == "BuildRunCanceled":
            self._write(BUILD_RUNS, run, condition("False", "BuildRunCanceled", "canceled"))
            return
        attempt = int(run["metadata"]["name"].rpartition("-a")[2])
        status = self.outcome(attempt) or condition("Unknown", "Running", "Not all Steps")
        if status["conditions"] != run.get("status", {}).get("conditions"):
            self._write(BUILD_RUNS, run, status)

    def _write(self, resource: Resource, manifest: dict[str, Any], status: Status) -> None:
        task = asyncio.create_task(self._write_status(resource, manifest, status))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write_status(
        self, resource: Resource, manifest: dict[str, Any], status: Status
    ) -> None:
        with suppress(KubeConflict, KubeNotFound):  # then its next event brings it back
            await self.kube.replace_status(
                resource, self.namespace, {**manifest, "status": dict(status)}
            )

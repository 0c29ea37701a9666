"""
A played Shipwright, as a process: ``python -m chaos.build_runner KUBECONFIG NAMESPACE ...``.

It builds nothing, so that many Works can end while this machine is done harm.  How a BuildRun
ends, and after how long, is in the name of its image: see :mod:`chaos.stream`.
"""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brokkr.agent.kinds import BUILD_RUNS, BUILDS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeConflict, KubeError, KubeNotFound
from brokkr.agent.kube.informer import Informer
from chaos.stream import Behaviour, outcome_of

_AGAIN_SECONDS = 0.5
_REGISTERED = {"registered": "True", "reason": "Succeeded", "message": "all validations succeeded"}


class BuildRunner:
    """One namespace's."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._registering: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Play for ever."""
        async with asyncio.TaskGroup() as tasks:
            for resource, handle in ((BUILDS, self._on_build), (BUILD_RUNS, self._on_run)):
                informer = Informer(self._kube, resource, self._namespace, on_event=handle)
                tasks.create_task(informer.run())

    def _on_build(self, event: str, build: dict[str, Any]) -> None:
        if event != "DELETED" and "registered" not in build.get("status", {}):
            task = asyncio.create_task(self._write(BUILDS, build, _REGISTERED))
            self._registering.add(task)
            task.add_done_callback(self._registering.discard)

    def _on_run(self, event: str, run: dict[str, Any]) -> None:
        uid = run["metadata"]["uid"]
        if event == "DELETED" or is_over(run):
            if playing := self._runs.pop(uid, None):
                playing.cancel()
            return
        if is_cancelled(run):
            if playing := self._runs.pop(uid, None):
                playing.cancel()
            self._runs[uid] = asyncio.create_task(self._cancel(run))
        elif uid not in self._runs:
            self._runs[uid] = asyncio.create_task(self._play(run))

    async def _cancel(self, run: Mapping[str, Any]) -> None:
        await self._write(BUILD_RUNS, run, condition("False", "BuildRunCanceled", "cancelled"))

    async def _play(self, run: Mapping[str, Any]) -> None:
        behaviour = await self._behaviour_of(run)
        if behaviour is None:
            return
        running = condition("Unknown", "Running", "Not all Steps in the Task have finished")
        await self._write(BUILD_RUNS, run, running)
        await asyncio.sleep(behaviour.seconds)
        reason = outcome_of(behaviour, int(run["metadata"]["name"].rpartition("-a")[2]))
        if reason is None:
            return
        if reason == "Succeeded":
            digest = {"output": {"digest": "sha256:" + "ab" * 32, "size": 1234}}
            await self._write(BUILD_RUNS, run, {**condition("True", reason, "done"), **digest})
        else:
            await self._write(BUILD_RUNS, run, condition("False", reason, "as it was told"))

    async def _behaviour_of(self, run: Mapping[str, Any]) -> Behaviour | None:
        name = run["spec"]["build"]["name"]
        while True:
            try:
                build = await self._kube.get(BUILDS, self._namespace, name)
            except KubeNotFound:
                return None
            except KubeError:
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return Behaviour.of_image(build["spec"]["output"]["image"])

    async def _write(
        self, resource: Resource, manifest: Mapping[str, Any], status: Mapping[str, Any]
    ) -> None:
        """Write a status, unless the object is over, gone or another one of that name."""
        name = manifest["metadata"]["name"]
        while True:
            try:
                now = await self._kube.get(resource, self._namespace, name)
                if now["metadata"]["uid"] != manifest["metadata"]["uid"] or is_over(now):
                    return
                await self._kube.replace_status(
                    resource, self._namespace, {**now, "status": dict(status)}
                )
            except KubeNotFound:
                return
            except KubeConflict:
                continue
            except KubeError:
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return


def condition(status: str, reason: str, message: str) -> dict[str, Any]:
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


def is_over(manifest: Mapping[str, Any]) -> bool:
    """Say whether a BuildRun has ended; a Build never has."""
    conditions = manifest.get("status", {}).get("conditions") or [{}]
    return conditions[0].get("status") in ("True", "False")


def is_cancelled(run: Mapping[str, Any]) -> bool:
    """Say whether a BuildRun was told to stop."""
    return bool(run["spec"].get("state") == "BuildRunCanceled")


async def _main(kubeconfig: Path, namespaces: list[str]) -> None:
    async with KubeClient(KubeConfig.load(kubeconfig)) as kube, asyncio.TaskGroup() as tasks:
        for each in namespaces:
            tasks.create_task(BuildRunner(kube, each).run())


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2:]))

"""
A played Shipwright, with the times at which it saw and said things.

It builds nothing: it registers Builds at once, says of each BuildRun that it runs, and ends
it when told.  Times are seconds since 1970, of the clock that the database has too.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from brokkr.agent.kinds import BUILD_RUNS, BUILDS, WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.informer import Informer
from brokkr.wire.custom_resource import LABEL_WORK
from brokkr.work.model import Manifest

FINISHED_BEFORE = "bench/finished-before"
"""A label on what is only there: it is nobody's to play with."""
REGISTERED = {
    "registered": "True",
    "reason": "Succeeded",
    "message": "all validations succeeded",
}
_AT_ONCE = 10
"""So many requests are under way at most, as of a controller with so many reconciles."""
_RUNNING = "the build is running"
"""What the agent writes into a Work once it has seen that."""


class PlayedShipwright:
    """
    One namespace's.

    Attributes:
        created_at: By Work, when its BuildRun was seen.
        ended_at: By Work, when its BuildRun's end began to be written.
        registering: How many seconds it took from seeing a Build to its status being written.
    """

    def __init__(self, kube: KubeClient, namespace: str, tasks: asyncio.TaskGroup) -> None:
        self.created_at: dict[str, float] = {}
        self.ended_at: dict[str, float] = {}
        self.registering: list[float] = []
        self._kube = kube
        self._namespace = namespace
        self._tasks = tasks
        self._runs: dict[str, asyncio.Task[Manifest]] = {}
        self._may_end: asyncio.Event | None = None
        self._noticed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def until_noticed(self, work: str) -> None:
        """Wait until the agent has written down that the BuildRun of a Work runs."""
        await self._noticed[work].wait()

    async def end(self, work: str) -> None:
        """Let the BuildRun of a Work succeed."""
        # Its agent may have heard that it runs before we have heard that this is written.
        run = await self._runs.pop(work)
        self.ended_at[work] = time.time()
        await self._write_status(run, succeeded(run["status"]["buildSpec"]))

    def end_when_noticed(self, may_end: asyncio.Event) -> None:
        """Let every BuildRun end by itself, but none before that is permitted."""
        self._may_end = may_end

    def on_build(self, event: str, build: dict[str, Any]) -> None:
        """Register it."""
        if event == "ADDED":
            self._tasks.create_task(self._register(build, time.time()))

    def on_run(self, event: str, run: dict[str, Any]) -> None:
        """Note when it was there, and begin it."""
        if event == "ADDED":
            work = run["metadata"]["labels"][LABEL_WORK]
            self.created_at[work] = time.time()
            self._runs[work] = self._tasks.create_task(self._begin(run))

    def on_work(self, event: str, work: dict[str, Any]) -> None:
        """Hear what the agent makes of it."""
        if event == "MODIFIED" and _RUNNING in (work.get("status") or {}).get("message", ""):
            name = work["metadata"]["name"]
            is_news = not self._noticed[name].is_set()
            self._noticed[name].set()
            if self._may_end is not None and is_news:
                self._tasks.create_task(self._end_after(self._may_end, name))

    async def _end_after(self, may_end: asyncio.Event, work: str) -> None:
        await may_end.wait()
        await self.end(work)

    async def _register(self, build: Manifest, seen_at: float) -> None:
        async with self._places:
            await self._kube.replace_status(
                BUILDS, self._namespace, {**build, "status": REGISTERED}
            )
        self.registering.append(time.time() - seen_at)

    async def _begin(self, run: Manifest) -> Manifest:
        async with self._places:
            build = await self._kube.get(BUILDS, self._namespace, run["spec"]["build"]["name"])
        status = {"buildSpec": build["spec"], **_condition("Unknown", "Running", "Not all Steps")}
        return await self._write_status(run, status)

    async def _write_status(self, run: Manifest, status: Manifest) -> Manifest:
        async with self._places:
            return await self._kube.replace_status(
                BUILD_RUNS, self._namespace, {**run, "status": status}
            )


@asynccontextmanager
async def played_shipwright(kube: KubeClient, namespace: str) -> AsyncIterator[PlayedShipwright]:
    """Play for the length of the block; what goes wrong ends the block."""
    async with asyncio.TaskGroup() as tasks:
        played = PlayedShipwright(kube, namespace, tasks)
        informers = [
            Informer(kube, kind, namespace, label_selector=f"!{FINISHED_BEFORE}", on_event=handle)
            for kind, handle in (
                (BUILDS, played.on_build),
                (BUILD_RUNS, played.on_run),
                (WORKS, played.on_work),
            )
        ]
        watching = [tasks.create_task(each.run()) for each in informers]
        for each in informers:
            await each.synced.wait()
        yield played
        for task in watching:
            task.cancel()


def succeeded(build_spec: Manifest) -> Manifest:
    """Return the status of a BuildRun that has succeeded, as far as the agent reads it."""
    return {
        "buildSpec": build_spec,
        "output": {"digest": "sha256:" + "ab" * 32, "size": 12345678},
        "source": {"git": {"commitSha": "5952cc5a", "commitAuthor": "bench"}},
        **_condition("True", "Succeeded", "All Steps have completed executing"),
    }


def _condition(status: str, reason: str, message: str) -> dict[str, Any]:
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

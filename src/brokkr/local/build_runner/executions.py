"""The builds that are running, each an asyncio task: begin, find, stop."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from brokkr.agent.kube.errors import KubeError
from brokkr.local.build_runner import status as statuses
from brokkr.local.build_runner.admission import Admitted
from brokkr.local.build_runner.job import Commit, PushedImage, StepFailed
from brokkr.local.build_runner.recorder import Key, Recorder
from brokkr.local.build_runner.steps import run_steps
from brokkr.local.build_runner.task_run import pod_name
from brokkr.local.build_runner.traces import PodRefused, Traces
from brokkr.work.model import Manifest

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Execution:
    """One running build, or one that waits for its turn; `uid` is its BuildRun's."""

    uid: str
    task_run: Manifest
    task: asyncio.Task[None]


class Executions:
    """
    What runs at the moment.

    Args:
        recorder: Is told how each build begins and ends.
        traces: Are told of each step, too.
        folder: Where each build has a folder of its own.
        concurrency: How many builds run at once.
        tasks: What waits for them, and stops them at the end.
        on_end: Told that a build is over, however it ended.
    """

    def __init__(
        self,
        recorder: Recorder,
        traces: Traces,
        folder: Path,
        *,
        concurrency: int,
        tasks: asyncio.TaskGroup,
        on_end: Callable[[Key], None],
    ) -> None:
        self._recorder = recorder
        self._traces = traces
        self._folder = folder
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks = tasks
        self._on_end = on_end
        self._running: dict[Key, Execution] = {}

    def find(self, key: Key) -> Execution | None:
        """Return what runs for this BuildRun, or for a former one of its name."""
        return self._running.get(key)

    def find_by_pod(self, namespace: str, name: str) -> Key | None:
        """Return whose build runs in this Pod, if any does."""
        for key, execution in self._running.items():
            task_run = execution.task_run["metadata"]["name"]
            if (key.namespace, pod_name(task_run)) == (namespace, name):
                return key
        return None

    def begin(
        self, key: Key, run: Manifest, admitted: Admitted, task_run: Manifest, *, logs: Path
    ) -> None:
        """Run a build as soon as there is room."""
        task = self._tasks.create_task(self._execute(key, run, admitted, task_run, logs))
        self._running[key] = Execution(run["metadata"]["uid"], task_run, task)

    async def stop(self, key: Key) -> None:
        """Stop a build, if it runs; when this returns, none of its processes is left."""
        execution = self._running.pop(key, None)
        if execution is not None:
            execution.task.cancel()
            await asyncio.wait([execution.task])

    async def _execute(
        self, key: Key, run: Manifest, admitted: Admitted, task_run: Manifest, logs: Path
    ) -> None:
        """Run one build to its end and record that."""
        try:
            await self._run_to_its_end(key, run, admitted, task_run, logs)
        except KubeError:
            log.exception("build lost", build_run=key.name)
        except Exception as surprise:
            # One build that goes wrong in a way of its own is one failed build.
            log.exception("build gave up", build_run=key.name)
            await self._give_up(key, run, task_run, surprise)
        finally:
            self._running.pop(key, None)
            self._on_end(key)

    async def _give_up(
        self, key: Key, run: Manifest, task_run: Manifest, surprise: Exception
    ) -> None:
        """End a build as one whose Pod could not be made, which is retried once."""
        message = statuses.words_of(surprise)
        try:
            await self._traces.refuse(task_run, message)
            await self._recorder.record(
                key, run, statuses.refuse, reason="PodCreationFailed", message=message
            )
        except Exception:  # then it ends as one that was lost
            log.exception("build lost", build_run=key.name)

    async def _run_to_its_end(
        self, key: Key, run: Manifest, admitted: Admitted, task_run: Manifest, logs: Path
    ) -> None:
        commit: Commit | None = None

        async def on_step(step: str, found: Commit | PushedImage | None) -> None:
            nonlocal commit
            if isinstance(found, Commit):
                commit = found
            await self._traces.end_step(task_run, step, found)

        deadline = None
        if admitted.timeout is not None:
            started_at = datetime.fromisoformat(run["status"]["startTime"])
            left = started_at + admitted.timeout - datetime.now(UTC)
            deadline = max(0.0, left.total_seconds())
        try:
            async with asyncio.timeout(deadline), self._slots:
                await self._traces.start(task_run)
                await self._recorder.record(key, run, statuses.start)
                image = await run_steps(
                    admitted.job,
                    folder=self._folder / run["metadata"]["uid"],
                    logs=logs,
                    on_step=on_step,
                )
        except PodRefused as refused:
            await self._recorder.record(
                key, run, statuses.refuse, reason="PodCreationFailed", message=str(refused)
            )
        except TimeoutError:
            await self._traces.time_out(task_run, admitted.timeout)
            await self._recorder.record(
                key, run, statuses.time_out, name=key.name, timeout=admitted.timeout
            )
        except StepFailed as failure:
            await self._traces.fail(task_run, failure)
            await self._recorder.record(
                key, run, statuses.fail, failure=failure, commit=commit, namespace=key.namespace
            )
        else:
            await self._traces.succeed(task_run)
            await self._recorder.record(key, run, statuses.succeed, commit=commit, image=image)

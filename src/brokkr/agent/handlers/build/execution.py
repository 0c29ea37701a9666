"""
What Tekton's objects say about a BuildRun: a TaskRun, or a PipelineRun with TaskRuns.

They are looked at for what the BuildRun does not tell: which step runs, how a step
ended, and what a build came to whose BuildRun is stuck.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from brokkr.agent.handlers.build.reading import condition_of, has_ended, part_of, parts_of, text_of
from brokkr.work.model import Manifest

STEP_PREFIX: Final = "step-"
MAX_TERMINATION_MESSAGE: Final = 16 * 1024
"""More than Kubernetes keeps of a container's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedStep:
    """How one container ended; the reason and the message are those that it wrote itself."""

    pod: str
    container: str
    exit_code: int | None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """The objects of Tekton's that belong to one BuildRun, and what that says of them."""

    run: Manifest
    taskruns: Sequence[Manifest]
    pipelineruns: Sequence[Manifest]

    @property
    def is_over(self) -> bool:
        """Say whether there is an execution and nothing of it runs any more."""
        # After a restart Shipwright may have made a second one, so all count.
        mains = self.pipelineruns or self.taskruns
        return bool(mains) and all(has_ended(each) for each in mains)

    @property
    def condition(self) -> Manifest:
        """Return the ``Succeeded`` condition of the one that the BuildRun names, or the first."""
        mains = self.pipelineruns or self.taskruns
        named = text_of(self.run, "status", "executor", "name")
        chosen = [each for each in mains if text_of(each, "metadata", "name") == named] or mains
        return condition_of(chosen[0]) if chosen else {}

    @property
    def running_step(self) -> str:
        """Return the step that runs now, without its prefix; empty if that is not known."""
        for each in self.taskruns:
            if has_ended(each):
                continue
            # All containers start at once and wait for their turn: the first that has not
            # ended has it.
            steps = (s for s in parts_of(each, "status", "steps") if not s.get("terminated"))
            current = next(steps, {})
            if part_of(current, "running"):
                return text_of(current, "container").removeprefix(STEP_PREFIX)[:63]
        return ""

    @property
    def failed_taskrun(self) -> Manifest:
        """Return the TaskRun that failed, that of the BuildRun's pod first; else empty."""
        failed = [each for each in self.taskruns if condition_of(each).get("status") == "False"]
        pod = text_of(self.run, "status", "failureDetails", "location", "pod")
        named = [each for each in failed if pod and text_of(each, "status", "podName") == pod]
        return next(iter(named or failed), {})

    @property
    def failed_step(self) -> FailedStep:
        """Return where it failed, from the BuildRun and, where that is silent, the TaskRun."""
        location = part_of(self.run, "status", "failureDetails", "location")
        container, pod = text_of(location, "container"), text_of(location, "pod")
        failed = self.failed_taskrun
        pod = pod or text_of(failed, "status", "podName")
        # The others were ended because one of them failed, which is the first.
        for step in parts_of(failed, "status", "steps"):
            exit_code = part_of(step, "terminated").get("exitCode")
            name = text_of(step, "container")
            if isinstance(exit_code, int) and exit_code != 0 and container in ("", name):
                own = _results_in(text_of(step, "terminated", "message"))
                return FailedStep(
                    pod=pod,
                    container=name,
                    exit_code=exit_code,
                    reason=own.get("shp-error-reason", ""),
                    message=own.get("shp-error-message", ""),
                )
        return FailedStep(pod=pod, container=container, exit_code=None)

    @property
    def results(self) -> Mapping[str, str]:
        """Return what the TaskRuns have as results, by name."""
        return {
            text_of(result, "name"): text_of(result, "value")
            for each in self.taskruns
            for result in parts_of(each, "status", "results")
        }


def execution_of(run: Manifest, seen: Sequence[Manifest]) -> Execution:
    """Pick Tekton's objects from all that was seen."""
    return Execution(
        run,
        [each for each in seen if each.get("kind") == "TaskRun"],
        [each for each in seen if each.get("kind") == "PipelineRun"],
    )


def _results_in(message: str) -> dict[str, str]:
    """Read what a step has left in its termination message."""
    if len(message) > MAX_TERMINATION_MESSAGE:
        return {}
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return {text_of(each, "key"): text_of(each, "value") for each in parts_of({"": found}, "")}

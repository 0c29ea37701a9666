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
    """
    How one container ended.

    Attributes:
        reason: What it wrote itself as the reason; the same for the message.
        ended_as: The reason that the container's runtime gives.
        ended_at: When, as Kubernetes writes times; empty if that is not known.
        is_last: Whether no step comes after it.
        cut_off: Whether steps after it were ended too, and did not get to skip themselves:
            then their Pod was ended, and not one step in it.
    """

    pod: str
    container: str
    exit_code: int | None
    reason: str = ""
    message: str = ""
    ended_as: str = ""
    ended_at: str = ""
    is_last: bool = False
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class Execution:
    """The objects of Tekton's that belong to one BuildRun, and what that says of them."""

    run: Manifest
    taskruns: Sequence[Manifest]
    pipelineruns: Sequence[Manifest]
    pods: Sequence[Manifest] = ()

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
            # Before that no step has its turn, whatever its container says.
            if text_of(condition_of(each), "reason") not in ("", "Running"):
                continue
            steps = parts_of(each, "status", "steps")
            if any(part_of(s, "terminated").get("exitCode") for s in steps):
                continue  # the others only end
            # All containers start at once and wait for their turn: the first that has not
            # ended has it.
            current = next((s for s in steps if not s.get("terminated")), {})
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
        steps = parts_of(failed, "status", "steps")
        for place, step in enumerate(steps, start=1):
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
                    ended_as=text_of(step, "terminated", "reason"),
                    ended_at=text_of(step, "terminated", "finishedAt"),
                    is_last=place == len(steps),
                    cut_off=any(map(_is_cut_off, steps[place:])),
                )
        return FailedStep(pod=pod, container=container, exit_code=None)

    @property
    def waits_for(self) -> str:
        """Return what a step's container says that it waits for; empty if none says so."""
        told = (
            text_of(step, "waiting", "message")
            for each in self.taskruns
            for step in parts_of(each, "status", "steps")
        )
        return next(filter(None, told), "")

    @property
    def unscheduled(self) -> str:
        """Return why no node takes a Pod of it; empty if one has, or that is not known."""
        told = (
            text_of(condition, "message")
            for pod in self.pods
            for condition in parts_of(pod, "status", "conditions")
            if (condition.get("type"), condition.get("status")) == ("PodScheduled", "False")
        )
        return next(filter(None, told), "")

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
        [each for each in seen if each.get("kind") == "Pod"],
    )


def _is_cut_off(step: Manifest) -> bool:
    """Say whether a step was ended before its turn, and not by itself."""
    # A step whose turn does not come says "Skipped"; one that is stopped by request or for
    # the time that it took, that.  Since Tekton 0.54.
    return bool(part_of(step, "terminated").get("exitCode")) and not text_of(
        step, "terminationReason"
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

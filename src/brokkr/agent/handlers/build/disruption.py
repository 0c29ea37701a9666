"""
Was it the build that failed, or was its Pod taken away?

Before a step is blamed, the Pod is looked at: its ``DisruptionTarget`` condition, its
reason, whether it was deleted, and how its containers ended.

Sources: Kubernetes' documentation of Pod disruption conditions and of node-pressure
eviction; recordings of Pods that were deleted, preempted, and lost with their node.
"""

# Note [Which came first]
#
# A user's program may fail at about the time at which its Pod is taken away, and whoever
# can have Pods evicted must not get free rebuilds.  So what a container did by itself
# counts before what was done to its Pod:
#
# - It was killed for its memory (OOMKilled): the user's.
# - The steps after it have skipped themselves, as Tekton's entrypoints do within a second
#   when a step fails: the Pod was still whole then, so the user's.  In a Pod that is taken
#   away all containers end together, and none skips itself.
# - No step comes after it, and it ended before the disruption began: the user's.  Times have
#   whole seconds, so the same second does not say which came first.
# - Else the Pod was taken away: infrastructure.
#
# What is known of the Pod may lag behind the TaskRun.  Only if the steps ended as those of
# a lost Pod do, and nothing explains it yet, the Pod itself is read.  If it was seen alive
# and is gone now, somebody has deleted it.  If it was never seen, its containers alone
# speak: that is believed once for each Work, and after that it counts as a failed step.

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from brokkr.agent.handlers.build.execution import Execution, FailedStep
from brokkr.agent.handlers.build.failure_table import (
    CONTAINER_UNKNOWN,
    INTERRUPTED,
    POD_DELETED,
    SOME_STEP,
    TIMEOUTS,
    UNSCHEDULABLE,
)
from brokkr.agent.handlers.build.reading import condition_of, part_of, parts_of, text_of
from brokkr.agent.handlers.build.signs import NAME, Signs
from brokkr.agent.handlers.pod_facts import facts_of_pod
from brokkr.agent.handlers.verdict import Evidence, ObjectLookup, Unclear
from brokkr.agent.kinds import PODS, TASK_RUNS
from brokkr.work.model import Manifest

UNSEEN: Final = "its pod was gone before the agent could see what became of it"

_LOST_BY_ITS_NODE: Final = frozenset({"Unknown", CONTAINER_UNKNOWN})
"""What runtimes and kubelets give as a container's reason if they do not know how it ended."""
_KILLED: Final = frozenset({137, 143, 255})
"""SIGKILL, SIGTERM, and what builders make of it."""
_BY_ITS_NODE: Final = frozenset(
    {
        *("Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Preempting"),
        *("NodeAffinity", "OutOfcpu", "OutOfmemory", "OutOfephemeral-storage", "OutOfpods"),
        "UnexpectedAdmissionError",
    }
)
"""Reasons that a kubelet gives a Pod that it ends or does not take."""


def with_end(execution: Execution, evidence: Evidence) -> Execution | Unclear:
    """
    Add how the TaskRun ended, if its BuildRun has failed and it is not seen to have ended.

    Two watches tell of the two, and the one of the TaskRun may be late.
    """
    executor = part_of(execution.run, "status", "executor")
    name = text_of(executor, "name")
    if (
        text_of(condition_of(execution.run), "reason") not in SOME_STEP
        or execution.failed_taskrun
        or executor.get("kind") != TASK_RUNS.kind
        or not NAME.fullmatch(name)
    ):
        return execution
    lookup = ObjectLookup(TASK_RUNS, name)
    if lookup not in evidence:
        return Unclear(look_at=(lookup,))
    live = evidence[lookup]
    return replace(execution, taskruns=[live]) if isinstance(live, Mapping) else execution


def with_disruption(
    signs: Signs, execution: Execution, evidence: Evidence, *, was_interrupted: bool
) -> Signs | Unclear:
    """
    Blame the disruption of a Pod, if that is what ended the build; else return the signs.

    Args:
        was_interrupted: Whether an earlier attempt was thought to be interrupted without
            anybody having seen how.
    """
    if signs.reason in TIMEOUTS:
        return _unscheduled(signs, execution)
    if signs.reason not in SOME_STEP:
        return signs
    step = execution.failed_step
    if step.ended_as in _LOST_BY_ITS_NODE:
        said = f"{step.container} ended with code {step.exit_code}: {step.ended_as}"
        return replace(signs, reason=CONTAINER_UNKNOWN, message=said)

    pod = _pod_of(signs, execution)
    found = None if pod is None else _disruption(signs, step, pod)
    if found is not None or not _looks_taken_away(step):
        return found or signs
    # See Note [Which came first].
    if not NAME.fullmatch(signs.pod):
        return signs
    lookup = ObjectLookup(PODS, signs.pod)
    if lookup not in evidence:
        return Unclear(look_at=(lookup,))
    live = evidence[lookup]
    if isinstance(live, Mapping):
        return _disruption(signs, step, facts_of_pod(live, pod)) or signs
    if pod is not None:
        return _deleted(signs)
    if step.cut_off and not was_interrupted:
        said = f"{step.container} and the steps after it were ended together"
        return replace(signs, reason=INTERRUPTED, message=f"{said}; {UNSEEN}")
    return replace(signs, note=UNSEEN)


def _pod_of(signs: Signs, execution: Execution) -> Manifest | None:
    named = (each for each in execution.pods if text_of(each, "metadata", "name") == signs.pod)
    return next(named, None)


def _looks_taken_away(step: FailedStep) -> bool:
    return step.cut_off or (step.is_last and step.exit_code in _KILLED)


def _disruption(signs: Signs, step: FailedStep, pod: Manifest) -> Signs | None:
    """Return the signs of what was done to a Pod, if that came first."""
    target = next(
        (
            each
            for each in parts_of(pod, "status", "conditions")
            if each.get("type") == "DisruptionTarget" and each.get("status") == "True"
        ),
        {},
    )
    times = [text_of(target, "lastTransitionTime"), text_of(pod, "deletionRequestedAt")]
    began = min(filter(None, map(_time, times)), default=None)
    reason, message = text_of(pod, "status", "reason"), text_of(pod, "status", "message")
    if reason not in _BY_ITS_NODE:
        reason, message = text_of(target, "reason"), text_of(target, "message")
    if not reason and began is None:
        return None
    if _ended_by_itself(step, began):
        return None
    if not reason:
        return _deleted(signs)
    return replace(signs, reason=reason, message=message)


def _ended_by_itself(step: FailedStep, began: datetime | None) -> bool:
    """See Note [Which came first]."""
    if not step.is_last and step.exit_code is not None:
        return not step.cut_off
    ended = _time(step.ended_at)
    return ended is not None and began is not None and ended < began


def _deleted(signs: Signs) -> Signs:
    return replace(signs, reason=POD_DELETED, message=f"{signs.pod} was deleted while it built")


def _unscheduled(signs: Signs, execution: Execution) -> Signs:
    """Blame the cluster for a timeout if no node has ever taken a Pod of the build."""
    waiting = [
        next(
            (
                each
                for each in parts_of(pod, "status", "conditions")
                if each.get("type") == "PodScheduled" and each.get("status") == "False"
            ),
            {},
        )
        for pod in execution.pods
    ]
    if not waiting or not all(waiting):
        return signs
    said = text_of(waiting[0], "message")
    return replace(signs, reason=UNSCHEDULABLE, message=f"{signs.message}: {said}")


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None

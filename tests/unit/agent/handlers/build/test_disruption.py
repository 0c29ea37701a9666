from typing import Any

import pytest

from brokkr.agent.handlers.build.disruption import UNSEEN, with_disruption, with_end
from brokkr.agent.handlers.build.execution import Execution
from brokkr.agent.handlers.build.failures import judge_now
from brokkr.agent.handlers.build.signs import Signs, signs_of_run
from brokkr.agent.handlers.pod_facts import facts_of_pod
from brokkr.agent.handlers.verdict import Evidence, Failed, Lookup, ObjectLookup, Retry, Unclear
from brokkr.agent.kinds import PODS, TASK_RUNS
from brokkr.work.fault import Fault
from brokkr.work.model import Manifest

POD = "hello-pod"
LIVE: Lookup = ObjectLookup(PODS, POD)
BEGAN = "2026-03-01T12:00:10Z"
BEFORE = "2026-03-01T12:00:09Z"
AFTER = "2026-03-01T12:00:11Z"

SKIPPED = {"terminated": {"exitCode": 1, "reason": "Error"}, "terminationReason": "Skipped"}
KILLED = {"terminated": {"exitCode": 2, "reason": "Error"}}


def a_failed_run() -> dict[str, Any]:
    location = {"pod": POD, "container": "step-build"}
    return {
        "status": {
            "conditions": [{"type": "Succeeded", "status": "False", "reason": "Failed"}],
            "failureDetails": {"location": location},
        }
    }


def a_taskrun(
    *after: Manifest, exit_code: int = 255, ended_at: str = BEGAN, ended_as: str = "Error"
) -> Manifest:
    """A TaskRun whose build step failed, and the steps after it."""
    failed = {"exitCode": exit_code, "reason": ended_as, "finishedAt": ended_at}
    return {
        "kind": "TaskRun",
        "status": {
            "podName": POD,
            "conditions": [{"type": "Succeeded", "status": "False", "reason": "StepFailed"}],
            "steps": [
                {"container": "step-build", "terminated": failed},
                *({"container": f"step-{n}", **each} for n, each in enumerate(after)),
            ],
        },
    }


def a_pod(
    *, target: str = "", reason: str = "", message: str = "", deleted_at: str = ""
) -> Manifest:
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": target,
        "lastTransitionTime": BEGAN,
    }
    deletion = {"deletionTimestamp": deleted_at} if deleted_at else {}
    return facts_of_pod(
        {
            "metadata": {"name": POD, **deletion},
            "status": {
                "reason": reason,
                "message": message,
                "conditions": [condition] if target else [],
            },
        }
    )


def look(
    taskrun: Manifest, *pods: Manifest, evidence: Evidence | None = None, again: bool = False
) -> Signs | Unclear:
    execution = Execution(a_failed_run(), [taskrun], [], pods)
    return with_disruption(
        signs_of_run(execution, None), execution, evidence or {}, was_interrupted=again
    )


def verdict(taskrun: Manifest, *pods: Manifest, **more: Any) -> Failed:
    found = look(taskrun, *pods, **more)
    assert isinstance(found, Signs)
    return judge_now(found, {})


@pytest.mark.parametrize(
    ("target", "name", "fault"),
    [
        ("PreemptionByScheduler", "PodPreempted", Fault.CLUSTER),
        ("DeletionByTaintManager", "NodeLost", Fault.NODE),
        ("DeletionByPodGC", "NodeLost", Fault.NODE),
        ("EvictionByEvictionAPI", "NodeDrained", Fault.NODE),
        ("TerminationByKubelet", "PodEvicted", Fault.NODE),
    ],
)
def test_what_a_pods_disruption_says_is_believed(target: str, name: str, fault: Fault) -> None:
    failed = verdict(a_taskrun(KILLED), a_pod(target=target))

    assert (failed.failure_class, failed.reason, failed.fault) == (name, target, fault)
    assert failed.retry is Retry.ALWAYS


@pytest.mark.parametrize(
    ("reason", "message", "name"),
    [
        ("Evicted", "The node was low on resource: memory.", "PodEvicted"),
        (
            "Evicted",
            'Container x exceeded its local ephemeral storage limit "1"',
            "StorageExceeded",
        ),
        ("Terminated", "Pod was terminated in response to imminent node shutdown.", "NodeLost"),
        ("NodeLost", "", "NodeLost"),
        ("OutOfcpu", "Node didn't have enough resource: cpu", "PodRejected"),
    ],
)
def test_what_a_kubelet_gives_as_the_pods_reason_is_believed(
    reason: str, message: str, name: str
) -> None:
    assert verdict(a_taskrun(KILLED), a_pod(reason=reason, message=message)).failure_class == name


@pytest.mark.parametrize("ended_as", ["Unknown", "ContainerStatusUnknown"])
def test_a_container_of_which_its_own_node_knows_nothing_was_lost_with_the_node(
    ended_as: str,
) -> None:
    failed = verdict(a_taskrun(ended_as=ended_as))

    assert (failed.failure_class, failed.fault) == ("NodeLost", Fault.NODE)


def test_a_pod_that_was_deleted_is_no_failure_of_its_step() -> None:
    failed = verdict(a_taskrun(KILLED), a_pod(deleted_at=BEGAN))

    assert (failed.failure_class, failed.fault) == ("PodDeleted", Fault.CLUSTER)


@pytest.mark.parametrize("pod", [a_pod(target="EvictionByEvictionAPI"), a_pod(deleted_at=BEGAN)])
def test_a_container_that_ended_before_its_pod_was_taken_away_has_failed_by_itself(
    pod: Manifest,
) -> None:
    for by_itself in (
        a_taskrun(ended_at=BEFORE, exit_code=1),
        # In the same second: but the steps after it had the time to skip themselves.
        a_taskrun(SKIPPED, exit_code=1),
    ):
        assert verdict(by_itself, pod).failure_class == "StepFailed"
    for taken_away in (a_taskrun(KILLED), a_taskrun(KILLED, ended_at=AFTER), a_taskrun()):
        assert verdict(taken_away, pod).fault.is_infrastructure


def test_a_container_that_was_killed_for_its_memory_is_the_users_whatever_happened_to_its_pod() -> (
    None
):
    failed = verdict(a_taskrun(KILLED, ended_as="OOMKilled", exit_code=137), a_pod(target="x"))

    assert (failed.failure_class, failed.fault) == ("OutOfMemory", Fault.USER)


def test_a_step_that_fails_as_steps_do_is_judged_without_a_look_at_its_pod() -> None:
    assert isinstance(look(a_taskrun(SKIPPED, exit_code=1)), Signs)
    assert isinstance(look(a_taskrun(exit_code=1)), Signs)


@pytest.mark.parametrize("taskrun", [a_taskrun(KILLED), a_taskrun(exit_code=137)])
def test_steps_that_end_as_those_of_a_lost_pod_have_their_pod_looked_at(taskrun: Manifest) -> None:
    assert look(taskrun) == Unclear(look_at=(LIVE,))
    assert look(taskrun, a_pod()) == Unclear(look_at=(LIVE,))

    # It is there, and was not touched.
    alive: Evidence = {LIVE: {"metadata": {"name": POD}, "status": {"phase": "Failed"}}}
    assert verdict(taskrun, evidence=alive).failure_class == "StepFailed"
    # It was there, and is gone: who watched it knows more than the TaskRun.
    gone: Evidence = {LIVE: None}
    assert verdict(taskrun, a_pod(), evidence=gone).failure_class == "PodDeleted"
    # It is on its way: the watch has not told yet.
    going: Evidence = {LIVE: {"metadata": {"name": POD, "deletionTimestamp": BEGAN}}}
    assert verdict(taskrun, evidence=going).failure_class == "PodDeleted"


def test_a_pod_that_nobody_saw_is_believed_to_be_lost_once_and_only_by_its_steps() -> None:
    gone: Evidence = {LIVE: None}

    first = verdict(a_taskrun(KILLED), evidence=gone)
    again = verdict(a_taskrun(KILLED), evidence=gone, again=True)
    by_the_code_alone = verdict(a_taskrun(exit_code=137), evidence=gone)

    assert (first.failure_class, first.fault) == ("Interrupted", Fault.NODE)
    for failed in (again, by_the_code_alone):
        assert failed.failure_class == "StepFailed"
        assert not failed.fault.is_infrastructure
        assert UNSEEN in failed.message


def test_a_task_run_that_is_not_seen_to_have_ended_is_read_before_its_step_is_blamed() -> None:
    run = a_failed_run()
    run["status"]["executor"] = {"kind": "TaskRun", "name": "t"}
    lookup = ObjectLookup(TASK_RUNS, "t")
    late = Execution(run, [{"kind": "TaskRun", "status": {}}], [])
    ended = a_taskrun(KILLED)

    assert with_end(late, {}) == Unclear(look_at=(lookup,))
    assert with_end(late, {lookup: None}) is late
    found = with_end(late, {lookup: ended})
    assert isinstance(found, Execution)
    assert found.failed_step.cut_off
    in_time = Execution(run, [ended], [])
    assert with_end(in_time, {}) is in_time


def test_a_timeout_without_a_node_is_the_clusters() -> None:
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "message": "0/3 nodes are available: persistentvolumeclaim is not bound",
    }
    pod = facts_of_pod({"metadata": {"name": POD}, "status": {"conditions": [unschedulable]}})
    run = a_failed_run()
    run["status"]["conditions"][0]["reason"] = "BuildRunTimeout"

    for pods, name in (((pod,), "Unschedulable"), ((a_pod(),), "Timeout"), ((), "Timeout")):
        execution = Execution(run, [], [], pods)
        found = with_disruption(signs_of_run(execution, None), execution, {}, was_interrupted=False)
        assert isinstance(found, Signs)
        assert judge_now(found, {}).failure_class == name


@pytest.mark.parametrize("time", ["", "yesterday", "2026-03-01T12:00:10", 7, None])
def test_times_that_are_none_say_nothing(time: Any) -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": time}
    pod = {
        "kind": "Pod",
        "metadata": {"name": POD},
        "deletionRequestedAt": time,
        "status": {"conditions": [condition]},
    }

    assert isinstance(look(a_taskrun(KILLED, ended_at=time), pod), Unclear)


def test_no_name_but_that_of_a_pod_is_looked_for() -> None:
    run = a_failed_run()
    run["status"]["failureDetails"]["location"]["pod"] = "../secrets/x"
    execution = Execution(run, [a_taskrun(KILLED)], [])

    found = with_disruption(signs_of_run(execution, None), execution, {}, was_interrupted=False)

    assert isinstance(found, Signs)

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokkr.agent.handlers.build.handler import BuildHandler
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.build.reading import condition_of
from brokkr.agent.handlers.build.result import MAX_VULNERABILITIES
from brokkr.agent.handlers.pod_facts import facts_of_pod
from brokkr.agent.handlers.protocol import Cancellation
from brokkr.agent.handlers.verdict import (
    Cancelled,
    Failed,
    Incomplete,
    Lookup,
    Retry,
    Running,
    Succeeded,
    Unclear,
    Verdict,
)
from brokkr.work.fault import Fault
from brokkr.work.model import Manifest
from support.factories import a_work
from support.recordings import CASES, has_watch, logs_of, recorded, settle, watched
from support.templates import a_build, a_build_run, a_config_map, a_list

COMPLETED = ("BuildCompleted", None, None)
UNENDED = ("Running", None, None)

# What each recorded build came to, and why a retry may or may not help.
EXPECTED: Mapping[str, tuple[str, str | None, Retry | None]] = {
    "success": COMPLETED,
    "success-auth-push": COMPLETED,
    "success-buildargs": COMPLETED,
    "success-private-git": COMPLETED,
    "success-run": COMPLETED,
    "success-strategy-push": COMPLETED,
    "success-subdir": COMPLETED,
    "success-tag": COMPLETED,
    "generated-serviceaccount": COMPLETED,
    # Nobody asked Brokkr for it, and whoever did meant it.
    "cancel": ("BuildRunCanceled", "CancelledElsewhere", Retry.NEVER),
    # It counts from when the pod was asked for: a full cluster is enough.
    "timeout": ("BuildRunTimeout", "Timeout", Retry.ALWAYS),
    "taskrun-deleted": ("TaskRunIsMissing", "ExecutorDeleted", Retry.ALWAYS),
    "step-oom": ("StepOutOfMemory", "OutOfMemory", Retry.NEVER),
    # The cause stands in the step's log alone.
    "dockerfile-syntax": ("Failed", "DockerfileInvalid", Retry.NEVER),
    "run-step-fails": ("Failed", "RunFailed", Retry.ONCE),
    "run-fails-with-long-output": ("Failed", "RunFailed", Retry.ONCE),
    "push-unauthorized": ("Failed", "PushRefused", Retry.NEVER),
    "registry-host-unknown": ("Failed", "RegistryUnknown", Retry.ONCE),
    "registry-unreachable": ("Failed", "PushTransport", Retry.ALWAYS),
    # A strategy's own word, which this project cannot know.
    "step-error-result": ("MyReason", "Unlisted", Retry.ONCE),
    # The source, the credentials or the file are not there, and will not be.
    "git-auth-required": ("GitRemoteRepositoryPrivate", "GitCredentials", Retry.NEVER),
    "git-auth-wrong": ("GitAuthInvalidUserOrPass", "GitCredentials", Retry.NEVER),
    "missing-dockerfile": ("DockerfileNotFound", "InputRefused", Retry.NEVER),
    "missing-dockerfile-strategy-push": ("DockerfileNotFound", "InputRefused", Retry.NEVER),
    "ssh-repository-missing": ("GitAuthInvalidKey", "GitNotFound", Retry.NEVER),
    "wrong-git-url": ("GitError", "GitNotFound", Retry.NEVER),
    "wrong-revision": ("GitRevisionNotFound", "GitNotFound", Retry.NEVER),
    "wrong-revision-sha": ("GitError", "GitNotFound", Retry.NEVER),
    # What the Build names is not there, and a look at the cluster finds nothing.
    "missing-build": ("BuildNotFound", "MissingReference", Retry.NEVER),
    "missing-clone-secret": ("SpecSourceSecretRefNotFound", "MissingReference", Retry.NEVER),
    "missing-push-secret": ("SpecOutputSecretRefNotFound", "MissingReference", Retry.NEVER),
    "push-secret-deleted-later": ("SpecOutputSecretRefNotFound", "MissingReference", Retry.NEVER),
    "missing-serviceaccount": ("ServiceAccountNotFound", "MissingReference", Retry.NEVER),
    "unknown-buildstrategy": ("BuildStrategyNotFound", "MissingReference", Retry.NEVER),
    "unknown-clusterbuildstrategy": (
        "ClusterBuildStrategyNotFound",
        "MissingReference",
        Retry.NEVER,
    ),
    # Shipwright refuses the content: the same is refused again.
    "env-invalid": ("SpecEnvNameCanNotBeBlank", "SpecRefused", Retry.NEVER),
    "param-missing-value": ("MissingParameterValues", "SpecRefused", Retry.NEVER),
    "param-restricted": ("RestrictedParametersInUse", "SpecRefused", Retry.NEVER),
    "param-undefined": ("UndefinedParameter", "SpecRefused", Retry.NEVER),
    "param-wrong-type": ("WrongParameterValueType", "SpecRefused", Retry.NEVER),
    "volume-undefined": ("UndefinedVolume", "SpecRefused", Retry.NEVER),
    # The build is innocent: its pod, its node or its namespace was taken away.
    "node-power-cut": ("ContainerStatusUnknown", "NodeLost", Retry.ALWAYS),
    "pod-preempted": ("PreemptionByScheduler", "PodPreempted", Retry.ALWAYS),
    "namespace-terminating": ("PodDeleted", "PodDeleted", Retry.ALWAYS),
    # Nobody saw its pod; but its containers ended as those of a lost one do.
    "pod-deleted": ("Interrupted", "Interrupted", Retry.ONCE),
    # The cluster is not set up for it.
    "quota-needs-requests": ("PodCreationFailed", "QuotaRefused", Retry.NEVER),
    "config-map-missing-in-env": ("CreateContainerConfigError", "MissingReference", Retry.NEVER),
    # They have not ended, and will not by themselves.
    "quota-no-room": UNENDED,
    "empty-array-parameter": UNENDED,
    "executor-switched-midway": UNENDED,
}

FAULTS: Mapping[str, Fault] = {
    "cancel": Fault.UNCLEAR,
    "timeout": Fault.UNCLEAR,
    "step-error-result": Fault.UNCLEAR,
    "taskrun-deleted": Fault.CLUSTER,
    "pod-preempted": Fault.CLUSTER,
    "namespace-terminating": Fault.CLUSTER,
    "quota-needs-requests": Fault.CLUSTER,
    "node-power-cut": Fault.NODE,
    "pod-deleted": Fault.NODE,
    "dockerfile-syntax": Fault.DOCKERFILE,
    "run-step-fails": Fault.DOCKERFILE,
    "run-fails-with-long-output": Fault.DOCKERFILE,
    "push-unauthorized": Fault.REGISTRY,
    "registry-host-unknown": Fault.REGISTRY,
    "registry-unreachable": Fault.REGISTRY,
    "git-auth-required": Fault.SOURCE,
    "git-auth-wrong": Fault.SOURCE,
    "ssh-repository-missing": Fault.SOURCE,
    "wrong-git-url": Fault.SOURCE,
    "wrong-revision": Fault.SOURCE,
    "wrong-revision-sha": Fault.SOURCE,
}
"""Whose each recorded failure is; of all others the user's."""

# Without Tekton's objects and without logs a push may have failed for what passes.
BY_THE_BUILD_RUN_ALONE: Mapping[str, tuple[str, str, Retry]] = {
    "push-unauthorized": ("Failed", "PushUnclear", Retry.ALWAYS),
    "registry-host-unknown": ("Failed", "PushUnclear", Retry.ALWAYS),
    "registry-unreachable": ("Failed", "PushUnclear", Retry.ALWAYS),
    # What a builder said last is all that there is of a Dockerfile's mistake.
    "dockerfile-syntax": ("Failed", "StepFailed", Retry.ONCE),
    "run-step-fails": ("Failed", "StepFailed", Retry.ONCE),
    "run-fails-with-long-output": ("Failed", "StepFailed", Retry.ONCE),
    "ssh-repository-missing": ("GitAuthInvalidKey", "SourceUnclear", Retry.ONCE),
    # And without TaskRun and Pod a loss looks like a failed step.
    "node-power-cut": ("Failed", "StepFailed", Retry.ONCE),
    "pod-preempted": ("Failed", "StepFailed", Retry.ONCE),
    "pod-deleted": ("Failed", "StepFailed", Retry.ONCE),
    "namespace-terminating": ("Failed", "StepFailed", Retry.ONCE),
}

# What the cause is, in the words of the step that failed.
DECIDING_LINES = {
    "push-unauthorized": "unexpected status code 401 Unauthorized",
    "registry-host-unknown": "no such host",
    "registry-unreachable": "connect: connection refused",
    "dockerfile-syntax": 'Unknown instruction: "COPPY"',
    "run-step-fails": "exit status 1",
    "run-fails-with-long-output": "exit status 101",
    "ssh-repository-missing": "'nosuch.git' does not appear to be a git repository",
    "config-map-missing-in-env": 'configmap "build-settings" not found',
    "quota-needs-requests": "must specify requests.cpu",
    "pod-preempted": "preempting to accommodate a higher priority pod",
}

HANDLER = BuildHandler(BuildDefaults())


def registered(status: str | None, **more: str) -> Manifest:
    return a_build() | ({} if status is None else {"status": {"registered": status, **more}})


def a_run(
    status: str | None = None, reason: str = "", message: str = "", **more: Any
) -> dict[str, Any]:
    """A BuildRun of an attempt, as read from the cluster."""
    condition = {"type": "Succeeded", "status": status, "reason": reason, "message": message}
    return a_build_run() | {
        "metadata": {"name": "work-1-r1-a1", "resourceVersion": "42"},
        "status": {"conditions": [] if status is None else [condition], **more},
    }


def a_taskrun(status: str, reason: str = "", *, steps: Any = ()) -> dict[str, Any]:
    """A TaskRun as Tekton keeps it."""
    condition = {"type": "Succeeded", "status": status, "reason": reason}
    return {
        "kind": "TaskRun",
        "metadata": {"name": "t"},
        "status": {"conditions": [condition], "steps": list(steps)},
    }


def assess(*seen: Manifest, **work: Any) -> Verdict:
    """Assess with nothing to be found anywhere."""
    return settle(lambda evidence: HANDLER.assess(a_work(**work), 1, seen, evidence), {})


def message_of(verdict: Verdict) -> str:
    assert not isinstance(verdict, Unclear)
    return verdict.message


def what_it_came_to(verdict: Verdict) -> tuple[str, str | None, Retry | None]:
    if isinstance(verdict, Cancelled):
        verdict = verdict.unasked
    if isinstance(verdict, Succeeded):
        return verdict.reason, None, None
    if isinstance(verdict, Running):
        return UNENDED
    assert isinstance(verdict, Failed)
    return verdict.reason, verdict.failure_class, verdict.retry


def assess_recording(case: str) -> Verdict:
    """Assess with all that the cluster showed."""
    seen = recorded(case)
    return settle(lambda evidence: HANDLER.assess(a_work(), 1, seen, evidence), logs_of(case))


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_build_comes_to_what_can_be_justified(case: str) -> None:
    assert what_it_came_to(assess_recording(case)) == EXPECTED[case]


@pytest.mark.parametrize("case", CASES)
def test_without_tekton_and_logs_a_recorded_build_is_judged_by_the_build_run(case: str) -> None:
    verdict = assess(*recorded(case, with_execution=False))

    assert what_it_came_to(verdict) == BY_THE_BUILD_RUN_ALONE.get(case, EXPECTED[case])


@pytest.mark.parametrize("case", [each for each in CASES if EXPECTED[each][1] is not None])
def test_every_recorded_failure_is_laid_at_the_right_door(case: str) -> None:
    verdict = assess_recording(case)
    failed = verdict.unasked if isinstance(verdict, Cancelled) else verdict

    assert isinstance(failed, Failed)
    assert failed.fault is FAULTS.get(case, Fault.USER)


@pytest.mark.parametrize("case", [each for each in CASES if has_watch(each)])
def test_nothing_on_the_way_of_a_recorded_build_is_taken_for_its_end(case: str) -> None:
    build = recorded(case, with_execution=False)[0]
    events = watched(case)

    for _, run in events:
        verdict = assess(build, run)
        is_ended = condition_of(run).get("status") in ("True", "False")
        assert isinstance(verdict, Running) != is_ended


def test_every_expectation_has_its_recording() -> None:
    assert sorted(EXPECTED) == CASES


@pytest.mark.parametrize("case", DECIDING_LINES)
def test_where_a_log_decided_its_line_is_what_users_see(case: str) -> None:
    verdict = assess_recording(case)

    assert isinstance(verdict, Failed)
    assert DECIDING_LINES[case] in verdict.message
    assert "kubectl" not in verdict.message


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_build_is_judged_the_same_without_its_build(case: str) -> None:
    *_, run = recorded(case, with_execution=False)

    alone = assess(run)

    both = assess(*recorded(case, with_execution=False))
    assert what_it_came_to(alone) == what_it_came_to(both)


def test_a_refused_build_is_judged_the_same_before_and_after_its_run() -> None:
    build, run = recorded("missing-clone-secret", with_execution=False)

    before, after = assess(build), assess(build, run)

    assert isinstance(before, Failed)
    assert isinstance(after, Failed)
    assert (before.reason, before.retry, before.message) == (
        after.reason,
        after.retry,
        after.message,
    )
    assert "no-such-secret" in before.message


def test_the_result_of_a_recorded_success_is_complete() -> None:
    verdict = assess(*recorded("success"))

    digest = "sha256:409754d2a278ef08cda05489c5893aca2dc013280c4b66a64d19a846b3dc3829"
    assert isinstance(verdict, Succeeded)
    assert verdict.message == f"Image built successfully: {digest}"
    assert verdict.result == {
        "build_run": "success",
        "executor": {"kind": "TaskRun", "name": "success-cf4xh"},
        "git": {
            "commit_sha": "5952cc5a25073cd7d4d87607e8c3d5a3a91ac398",
            "commit_author": "rig",
        },
        "image": "registry.rig.local:5000/fx/success:latest",
        "digest": digest,
        "image_ref": f"registry.rig.local:5000/fx/success@{digest}",
        "size": 1084762,
    }


def test_the_result_of_a_recorded_failure_says_where_it_failed() -> None:
    verdict = assess(*recorded("missing-dockerfile"))

    assert isinstance(verdict, Failed)
    assert verdict.message.startswith("The Dockerfile 'Dockerfile.nope' does not exist.")
    assert verdict.result["step"]["container"] == "step-build"
    assert "digest" not in verdict.result


def test_with_nothing_there_config_maps_come_before_the_build() -> None:
    template = a_list(a_build(), a_config_map(), a_build_run())

    verdict = assess(template=template)

    assert isinstance(verdict, Incomplete)
    assert [each["kind"] for each in verdict.create] == ["ConfigMap", "Build"]


@pytest.mark.parametrize("status", [None, "Unknown"])
def test_no_build_run_is_made_before_shipwright_has_judged_the_build(status: str | None) -> None:
    verdict = assess(registered(status))

    assert verdict == Running(
        message="waiting for Shipwright to validate the Build",
        limit=timedelta(minutes=10),
        is_begun=False,
    )


def test_a_registered_build_gets_its_build_run() -> None:
    verdict = assess(registered("True"))

    assert isinstance(verdict, Incomplete)
    assert [each["kind"] for each in verdict.create] == ["BuildRun"]


def test_all_that_an_attempt_is_made_of_is_of_the_handlers_kinds() -> None:
    template = a_list(a_build(), a_config_map(), a_build_run())

    for verdict in (assess(template=template), assess(registered("True"), template=template)):
        assert isinstance(verdict, Incomplete)
        made = {(each["apiVersion"], each["kind"]) for each in verdict.create}
        assert made <= {(each.api_version, each.kind) for each in HANDLER.kinds}


def test_tekton_must_be_new_enough_and_so_must_shipwright() -> None:
    needs = {each.definition: each for each in HANDLER.prerequisites}

    assert needs.keys() == {
        "builds.shipwright.io",
        "buildruns.shipwright.io",
        "buildstrategies.shipwright.io",
        "clusterbuildstrategies.shipwright.io",
        "taskruns.tekton.dev",
    }
    assert needs["buildruns.shipwright.io"].field == ("status", "executor")
    assert needs["taskruns.tekton.dev"].oldest_release == "v0.59.0"
    assert all(each.cure.startswith("install ") for each in needs.values())


def test_a_build_that_is_refused_without_a_reason_is_still_a_failure() -> None:
    verdict = assess(registered("False"))

    assert isinstance(verdict, Failed)
    assert verdict.reason == "BuildRegistrationFailed"
    assert verdict.result == {"image": "registry.example/hello:latest"}


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ((None, "", ""), "waiting for Shipwright to start the build"),
        (("Unknown", "Pending", "…"), "the build's pod is pending"),
        (("Unknown", "Running", "…"), "the build is running"),
        (("Unknown", "BuildRunCanceled", "…"), "the build is being cancelled"),
        (("Unknown", "Novel", "never seen before"), "Novel: never seen before"),
    ],
)
def test_a_run_that_has_not_ended_says_what_it_is_doing(
    condition: tuple[str | None, str, str], words: str
) -> None:
    assert message_of(assess(registered("True"), a_run(*condition))) == words


@pytest.mark.parametrize(
    ("case", "words", "is_begun"),
    [
        ("quota-no-room", "exceeded quota: team, requested: pods=1, used: pods=0", False),
        ("empty-array-parameter", "the empty list of the parameter build-args", False),
        ("executor-switched-midway", "Shipwright has not taken note of it yet", True),
    ],
)
def test_what_a_recorded_build_waits_for_is_said_and_it_does_not_wait_for_ever(
    case: str, words: str, is_begun: bool
) -> None:
    verdict = assess_recording(case)

    assert isinstance(verdict, Running)
    assert words in verdict.message
    assert verdict.is_begun == is_begun
    assert verdict.limit is not None
    assert is_begun or verdict.limit <= timedelta(minutes=10)


def test_a_build_that_only_tekton_has_ended_is_a_success_once_it_is_stopped() -> None:
    build, run, *others = recorded("executor-switched-midway")
    stopped = {**run, "spec": {**run["spec"], "state": "BuildRunCanceled"}}

    verdict = assess(build, stopped, *others)

    assert isinstance(verdict, Running)
    assert isinstance(verdict.if_stuck, Succeeded)
    assert verdict.if_stuck.result["digest"].startswith("sha256:c15008f4")


def test_a_pod_without_a_node_says_why_whatever_the_build_run_says() -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "message": "unbound volume claim"}
    pod = facts_of_pod({"metadata": {"name": "p"}, "status": {"conditions": [scheduled]}})

    for reason in ("Pending", "Running"):
        said = message_of(assess(a_run("Unknown", reason, "…"), pod))
        assert said == "the build's pod has no node yet: unbound volume claim"


def test_a_run_names_the_step_that_runs() -> None:
    steps = [
        {"container": "step-source-default", "terminated": {"exitCode": 0}},
        {"container": "step-build", "running": {}},
        {"container": "step-image-processing", "running": {}},
    ]
    steps[1]["running"] = steps[2]["running"] = {"startedAt": "2026-01-01T00:00:00Z"}

    verdict = assess(a_run("Unknown", "Running"), a_taskrun("Unknown", "Running", steps=steps))

    assert isinstance(verdict, Running)
    assert verdict.step == "build"


@pytest.mark.parametrize(
    ("of_run", "of_build", "limit"),
    [
        ({}, {}, timedelta(minutes=16)),
        ({}, {"timeout": "30m"}, timedelta(minutes=31)),
        ({"timeout": "2h"}, {"timeout": "30m"}, timedelta(hours=2, minutes=1)),
        ({"timeout": "soon"}, {"timeout": "0s"}, timedelta(minutes=16)),
    ],
)
def test_an_attempt_may_take_as_long_as_its_timeout_says_and_some_grace(
    of_run: Manifest, of_build: Manifest, limit: timedelta
) -> None:
    run, build = a_run("Unknown", "Running"), registered("True")
    run["spec"] |= of_run
    build = {**build, "spec": {**build["spec"], **of_build}}

    verdict = assess(build, run)

    assert isinstance(verdict, Running)
    assert verdict.limit == limit


def test_the_limit_counts_before_the_build_is_validated() -> None:
    template = a_list(a_build(), a_build_run(spec={"timeout": "5m"}))

    verdict = assess(registered(None), template=template)

    assert isinstance(verdict, Running)
    assert verdict.limit == timedelta(minutes=6)


def test_a_completion_time_alone_ends_nothing() -> None:
    run = a_run("Unknown", "Running", completionTime="2026-01-01T00:00:00Z")

    assert isinstance(assess(run), Running)


@pytest.mark.parametrize(
    "build", [(), (registered(None),), (registered("False", reason="UndefinedVolume"),)]
)
def test_a_run_that_has_ended_wins_over_whatever_became_of_its_build(
    build: tuple[Manifest, ...],
) -> None:
    assert isinstance(assess(*build, a_run("True", "Succeeded")), Succeeded)


def test_a_run_goes_on_though_its_build_is_gone() -> None:
    assert isinstance(assess(a_run("Unknown", "Running")), Running)


@pytest.mark.parametrize("reason", ["BuildRunCanceled", "Cancelled", "TaskRunCancelled"])
@pytest.mark.parametrize("cancel_reason", ["", "by ann"])
def test_a_cancelled_run_says_also_what_it_is_if_nobody_asked_for_it(
    reason: str, cancel_reason: str
) -> None:
    verdict = assess(a_run("False", reason, "stopped"), cancel_reason=cancel_reason)

    assert isinstance(verdict, Cancelled)
    assert verdict.message == "stopped"
    assert what_it_came_to(verdict) == (reason, "CancelledElsewhere", Retry.NEVER)
    assert "somebody else" in verdict.unasked.message


def test_a_cancel_that_comes_too_late_changes_nothing() -> None:
    succeeded = assess(a_run("True", "Succeeded"), cancel_reason="by ann")
    failed = assess(a_run("False", "PodEvicted"), cancel_reason="by ann")

    assert isinstance(succeeded, Succeeded)
    assert isinstance(failed, Failed)
    assert failed.reason == "PodEvicted"


def test_a_cancel_waits_for_shipwright_to_have_stopped_the_run() -> None:
    verdict = assess(a_run("Unknown", "BuildRunCanceled"), cancel_reason="by ann")

    assert isinstance(verdict, Running)


def test_cancelling_patches_a_run_that_has_not_ended() -> None:
    assert HANDLER.cancel([registered("True"), a_run("Unknown", "Running")]) == Cancellation(
        kind="BuildRun",
        name="work-1-r1-a1",
        resource_version="42",
        patch={"spec": {"state": "BuildRunCanceled"}},
    )


def test_a_pipeline_run_that_goes_on_keeps_a_cancelled_run_from_being_over() -> None:
    run = a_run("False", "BuildRunCanceled", "marked canceled")
    goes_on, done = (
        a_taskrun(*condition) | {"kind": "PipelineRun"}
        for condition in (("Unknown", "Running"), ("False", "Cancelled"))
    )

    waiting = assess(run, goes_on)

    assert isinstance(waiting, Running)
    assert waiting.message == "waiting for the PipelineRun to stop"
    assert isinstance(assess(run, done), Cancelled)


def a_stuck_run(**status: Any) -> dict[str, Any]:
    """A BuildRun that was told to stop, and of which nothing was heard since."""
    run = a_run("Unknown", "Running", **status)
    run["spec"]["state"] = "BuildRunCanceled"
    return run


def if_stuck(*seen: Manifest) -> Succeeded | Failed | Cancelled | None:
    verdict = assess(*seen)
    assert isinstance(verdict, Running)
    return verdict.if_stuck


def test_a_stuck_run_whose_task_run_succeeded_has_built_its_image() -> None:
    _, run, taskrun = recorded("success")
    stuck = a_stuck_run(buildSpec=run["status"]["buildSpec"])

    verdict = if_stuck(stuck, taskrun)

    digest = "sha256:409754d2a278ef08cda05489c5893aca2dc013280c4b66a64d19a846b3dc3829"
    assert isinstance(verdict, Succeeded)
    assert verdict.result == {
        "build_run": "work-1-r1-a1",
        "git": {
            "commit_sha": "5952cc5a25073cd7d4d87607e8c3d5a3a91ac398",
            "commit_author": "rig",
        },
        "image": "registry.rig.local:5000/fx/success:latest",
        "digest": digest,
        "image_ref": f"registry.rig.local:5000/fx/success@{digest}",
        "size": 1084762,
    }


@pytest.mark.parametrize(
    ("case", "came_to"),
    [
        ("cancel", ("TaskRunCancelled", "CancelledElsewhere", Retry.NEVER)),
        ("timeout", ("TaskRunTimeout", "Timeout", Retry.ALWAYS)),
        ("step-oom", ("StepOOM", "OutOfMemory", Retry.NEVER)),
        ("push-unauthorized", ("StepFailed", "PushUnclear", Retry.ALWAYS)),
        ("run-step-fails", ("StepFailed", "StepFailed", Retry.ONCE)),
    ],
)
def test_a_stuck_run_has_come_to_what_its_task_run_says(
    case: str, came_to: tuple[str, str, Retry]
) -> None:
    *_, taskrun = recorded(case)

    verdict = if_stuck(a_stuck_run(), taskrun)

    assert verdict is not None
    assert isinstance(verdict, Cancelled) is (case == "cancel")
    assert what_it_came_to(verdict) == came_to


def test_nobody_knows_what_becomes_of_a_run_that_goes_on_or_was_not_told_to_stop() -> None:
    *_, taskrun = recorded("success")

    assert if_stuck(a_stuck_run()) is None
    assert if_stuck(a_stuck_run(), a_taskrun("Unknown", "Running")) is None
    assert if_stuck(a_run("Unknown", "Running"), taskrun) is None


@pytest.mark.parametrize(
    "seen",
    [
        (),
        (registered("True"),),
        (a_run("True", "Succeeded"),),
        (a_run("False", "Failed"),),
        (a_run("Unknown", "Running") | {"spec": {"state": "BuildRunCanceled"}},),
    ],
)
def test_what_has_not_begun_has_ended_or_is_stopping_is_not_cancelled(
    seen: tuple[Manifest, ...],
) -> None:
    assert HANDLER.cancel(seen) is None


def test_stricter_rules_do_not_stop_what_is_running() -> None:
    verdict = assess(a_run("Unknown", "Running"), template={"kind": "Nonsense"})

    assert isinstance(verdict, Running)


def test_a_strategy_that_tells_no_digest_still_succeeds() -> None:
    verdict = assess(a_run("True", "Succeeded", buildSpec={"output": {"image": "r/hello:1"}}))

    assert isinstance(verdict, Succeeded)
    assert "r/hello:1" in verdict.message
    assert "image_ref" not in verdict.result


def test_findings_are_kept_and_bounded_and_the_image_is_not_offered() -> None:
    findings = [{"id": f"CVE-{n}", "severity": "high"} for n in range(1000)]
    output = {"digest": "sha256:1", "vulnerabilities": findings}
    run = a_run(
        "False",
        "VulnerabilitiesFound",
        buildSpec={"output": {"image": "r/hello:1"}},
        output=output,
    )

    verdict = assess(run)

    assert isinstance(verdict, Failed)
    assert verdict.retry is Retry.NEVER
    assert verdict.result["vulnerabilities"] == findings[:MAX_VULNERABILITIES]
    assert "image_ref" not in verdict.result


FAIL_ON_FINDING = {"vulnerabilityScan": {"enabled": True, "failOnFinding": True}}
FINDINGS = [{"id": "CVE-1", "severity": "high"}]


@pytest.mark.parametrize(
    ("of_run", "of_build", "found", "succeeds"),
    [
        ({}, FAIL_ON_FINDING, FINDINGS, False),
        (FAIL_ON_FINDING, {}, FINDINGS, False),
        ({}, FAIL_ON_FINDING, [], True),
        ({}, {"vulnerabilityScan": {"enabled": True}}, FINDINGS, True),
        ({"vulnerabilityScan": {"enabled": True}}, FAIL_ON_FINDING, FINDINGS, True),
    ],
)
def test_findings_fail_a_build_that_asks_for_it_whoever_pushed_the_image(
    of_run: Manifest, of_build: Manifest, found: list[Manifest], succeeds: bool
) -> None:
    run = a_run(
        "True",
        "Succeeded",
        buildSpec={"output": {"image": "r/hello:1", **of_build}},
        output={"digest": "sha256:1", "vulnerabilities": found},
    )
    run["spec"]["output"] = of_run

    verdict = assess(run)

    assert isinstance(verdict, Succeeded) is succeeds
    assert isinstance(verdict, Succeeded | Failed)
    assert verdict.result.get("vulnerabilities", []) == found
    assert ("image_ref" in verdict.result) is succeeds
    if isinstance(verdict, Failed):
        assert what_it_came_to(verdict)[1:] == ("VulnerabilitiesFound", Retry.NEVER)
        assert "CVE-1 (high)" in verdict.message


def test_what_a_cluster_says_at_length_is_cut() -> None:
    git = {"commitSha": "c" * 100_000}

    failed = assess(a_run("False", "Failed", "x" * 100_000))
    succeeded = assess(a_run("True", "Succeeded", source={"git": git}))

    assert len(message_of(failed)) < 1024
    assert isinstance(succeeded, Succeeded)
    assert len(str(succeeded.result)) < 4096


def test_the_verdict_is_of_the_attempt_that_was_asked_for() -> None:
    verdict = HANDLER.assess(replace(a_work(), name="work-x-r2"), 7, [], {})

    assert isinstance(verdict, Incomplete)
    assert verdict.create[-1]["metadata"]["name"] == "work-x-r2-a7"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
REASONS = [
    *sorted({reason for reason, *_ in EXPECTED.values()}),
    *("Failed", "PipelineRunFailed", "BuildRegistrationFailed", "VolumeDoesNotExist"),
    *("GitError", "GitAuthInvalidKey", "CreateContainerConfigError"),
]
A_REASON = st.sampled_from(REASONS) | ANYTHING
A_NAME = st.sampled_from(["p", "step-image-processing", "step-source-default"]) | ANYTHING
A_MESSAGE = st.sampled_from(['configmaps "c" not found', "reason: BuildNotFound"]) | ANYTHING


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with some of these fields, or something else altogether."""
    return st.fixed_dictionaries({}, optional=fields) | ANYTHING


CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("Succeeded") | ANYTHING},
        optional={
            "status": st.sampled_from(["True", "False", "Unknown"]) | ANYTHING,
            "reason": A_REASON,
            "message": A_MESSAGE,
        },
    )
    | ANYTHING,
    max_size=2,
)
A_STATUS = some(
    conditions=CONDITIONS | ANYTHING,
    registered=st.sampled_from(["True", "False"]) | ANYTHING,
    reason=A_REASON,
    message=A_MESSAGE,
    buildSpec=some(output=some(image=ANYTHING), strategy=some(name=A_NAME), timeout=ANYTHING),
    executor=some(name=A_NAME, kind=ANYTHING),
    failureDetails=some(
        reason=A_REASON, message=A_MESSAGE, location=some(pod=A_NAME, container=A_NAME)
    ),
    output=some(digest=ANYTHING, size=ANYTHING, vulnerabilities=ANYTHING),
    podName=A_NAME,
    results=st.lists(some(name=st.just("shp-image-size"), value=ANYTHING), max_size=2),
    steps=st.lists(
        some(container=A_NAME, terminated=some(exitCode=st.sampled_from([1, 22]) | ANYTHING)),
        max_size=2,
    ),
)


@settings(deadline=None)
@given(
    of_build=st.none() | A_STATUS,
    of_run=st.none() | A_STATUS,
    of_taskrun=st.none() | A_STATUS,
    of_pipelinerun=st.none() | A_STATUS,
    is_stopping=st.booleans(),
    found=ANYTHING,
)
def test_whatever_a_status_says_there_is_a_verdict_after_few_looks(
    *,
    of_build: Any,
    of_run: Any,
    of_taskrun: Any,
    of_pipelinerun: Any,
    is_stopping: bool,
    found: Any,
) -> None:
    run = {"spec": {"state": "BuildRunCanceled"}} if is_stopping else {}
    seen = [
        {**thing, "status": status}
        for thing, status in (
            (a_build(), of_build),
            (a_run() | run, of_run),
            (a_taskrun(""), of_taskrun),
            (a_taskrun("") | {"kind": "PipelineRun"}, of_pipelinerun),
        )
        if status is not None
    ]

    class Everything(dict[Lookup, Any]):
        def get(self, key: Lookup, default: Any = None) -> Any:
            return found

    verdict = settle(
        lambda evidence: HANDLER.assess(a_work(), 1, seen, evidence), Everything(), rounds=3
    )

    assert not isinstance(verdict, Unclear)
    HANDLER.cancel(seen)

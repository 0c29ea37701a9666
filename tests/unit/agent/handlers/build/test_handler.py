import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brokkr.agent.handlers.build.handler import MAX_VULNERABILITIES, BuildHandler
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.protocol import Cancellation
from brokkr.agent.handlers.verdict import (
    Cancelled,
    Failed,
    Incomplete,
    Retry,
    Running,
    Succeeded,
    Verdict,
)
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest
from support.factories import a_work
from support.templates import a_build, a_build_run, a_config_map, a_list

RECORDINGS = Path(__file__).parents[4] / "data" / "buildruns"

COMPLETED = ("BuildCompleted", None)

# What each recorded build came to, and why a retry may or may not help.
EXPECTED: Mapping[str, tuple[str, Retry | None]] = {
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
    "cancel": ("BuildRunCanceled", Retry.NEVER),
    # It counts from when the pod was asked for: a full cluster is enough.
    "timeout": ("BuildRunTimeout", Retry.ALWAYS),
    "taskrun-deleted": ("TaskRunIsMissing", Retry.ALWAYS),
    "step-oom": ("StepOutOfMemory", Retry.NEVER),
    # The cause stands in the step's log alone.  A push mostly fails for what passes; a
    # build for anything from a typing mistake to a base image that cannot be had.
    "dockerfile-syntax": ("Failed", Retry.ONCE),
    "run-step-fails": ("Failed", Retry.ONCE),
    "push-unauthorized": ("Failed", Retry.ALWAYS),
    "registry-host-unknown": ("Failed", Retry.ALWAYS),
    "registry-unreachable": ("Failed", Retry.ALWAYS),
    # A strategy's own word, which this project cannot know.
    "step-error-result": ("MyReason", Retry.ONCE),
    # The source, the credentials or the file are not there, and will not be.
    "git-auth-required": ("GitRemoteRepositoryPrivate", Retry.NEVER),
    "git-auth-wrong": ("GitAuthInvalidUserOrPass", Retry.NEVER),
    "missing-dockerfile": ("DockerfileNotFound", Retry.NEVER),
    "missing-dockerfile-strategy-push": ("DockerfileNotFound", Retry.NEVER),
    "wrong-git-url": ("GitError", Retry.NEVER),
    "wrong-revision": ("GitRevisionNotFound", Retry.NEVER),
    "wrong-revision-sha": ("GitError", Retry.NEVER),
    # The next attempt brings a Build of its own.
    "missing-build": ("BuildNotFound", Retry.ONCE),
    # Shipwright refuses the content: the same is refused again.
    "env-invalid": ("SpecEnvNameCanNotBeBlank", Retry.NEVER),
    "missing-clone-secret": ("SpecSourceSecretRefNotFound", Retry.NEVER),
    "missing-push-secret": ("SpecOutputSecretRefNotFound", Retry.NEVER),
    "push-secret-deleted-later": ("SpecOutputSecretRefNotFound", Retry.NEVER),
    "missing-serviceaccount": ("ServiceAccountNotFound", Retry.NEVER),
    "param-missing-value": ("MissingParameterValues", Retry.NEVER),
    "param-restricted": ("RestrictedParametersInUse", Retry.NEVER),
    "param-undefined": ("UndefinedParameter", Retry.NEVER),
    "param-wrong-type": ("WrongParameterValueType", Retry.NEVER),
    "unknown-buildstrategy": ("BuildStrategyNotFound", Retry.NEVER),
    "unknown-clusterbuildstrategy": ("ClusterBuildStrategyNotFound", Retry.NEVER),
    "volume-undefined": ("UndefinedVolume", Retry.NEVER),
}

HANDLER = BuildHandler(BuildDefaults())


def recorded(case: str) -> list[Manifest]:
    files = (RECORDINGS / case / f"{kind}.json" for kind in ("build", "buildrun"))
    return [json.loads(file.read_text()) for file in files if file.exists()]


def registered(status: str | None, **more: str) -> Manifest:
    return a_build() | ({} if status is None else {"status": {"registered": status, **more}})


def a_run(
    status: str | None = None, reason: str = "", message: str = "", **more: Any
) -> dict[str, Any]:
    """A BuildRun of an attempt, as read from the cluster."""
    condition = {"type": "Succeeded", "status": status, "reason": reason, "message": message}
    return a_build_run() | {
        "metadata": {"name": "work-1-r1-a1"},
        "status": {"conditions": [] if status is None else [condition], **more},
    }


def assess(*seen: Manifest, **work: Any) -> Verdict:
    return HANDLER.assess(a_work(**work), 1, seen)


def message_of(verdict: Verdict) -> str:
    return verdict.message


@pytest.mark.parametrize("case", sorted(each.name for each in RECORDINGS.iterdir()))
def test_every_recorded_build_comes_to_what_can_be_justified(case: str) -> None:
    reason, retry = EXPECTED[case]

    verdict = assess(*recorded(case))

    if retry is None:
        assert isinstance(verdict, Succeeded)
    else:
        assert isinstance(verdict, Failed)
        assert verdict.retry is retry
    assert verdict.reason == reason


def test_every_expectation_has_its_recording() -> None:
    assert set(EXPECTED) == {each.name for each in RECORDINGS.iterdir()}


@pytest.mark.parametrize("case", sorted(c for c in EXPECTED if (RECORDINGS / c).is_dir()))
def test_a_recorded_build_is_judged_the_same_without_its_build(case: str) -> None:
    *_, run = recorded(case)

    alone, both = assess(run), assess(*recorded(case))

    assert type(alone) is type(both)
    assert getattr(alone, "reason", "") == getattr(both, "reason", "")
    assert getattr(alone, "retry", None) == getattr(both, "retry", None)


def test_a_refused_build_is_judged_the_same_before_and_after_its_run() -> None:
    build, run = recorded("missing-clone-secret")

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

    assert verdict == Running(message="waiting for Shipwright to validate the Build")


def test_a_registered_build_gets_its_build_run() -> None:
    verdict = assess(registered("True"))

    assert isinstance(verdict, Incomplete)
    assert [each["kind"] for each in verdict.create] == ["BuildRun"]


def test_a_build_that_is_refused_without_a_reason_is_still_a_failure() -> None:
    verdict = assess(registered("False"))

    assert isinstance(verdict, Failed)
    assert verdict.reason == "BuildRegistrationFailed"


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
    assert assess(registered("True"), a_run(*condition)) == Running(message=words)


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
def test_a_cancelled_run_is_cancelled_if_that_was_asked_for_and_else_failed(reason: str) -> None:
    run = a_run("False", reason, "stopped")

    assert assess(run, cancel_reason="by ann") == Cancelled(message="stopped")
    verdict = assess(run)
    assert isinstance(verdict, Failed)
    assert (verdict.reason, verdict.retry) == (reason, Retry.NEVER)
    assert "somebody else" in verdict.message


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
        kind="BuildRun", name="work-1-r1-a1", patch={"spec": {"state": "BuildRunCanceled"}}
    )


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


@pytest.mark.parametrize(
    "template",
    [
        a_list(a_build(), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}),
        a_list(a_build(), {"apiVersion": "v1", "kind": "ServiceAccount"}),
        a_build(metadata={"namespace": "kube-system"}),
        a_build(metadata={"labels": "all"}),
    ],
)
def test_a_template_that_the_broker_should_have_refused_is_refused_here(
    template: Manifest,
) -> None:
    with pytest.raises(InvalidWork):
        assess(template=template)


def test_stricter_rules_do_not_stop_what_is_running() -> None:
    verdict = assess(a_run("Unknown", "Running"), template={"kind": "Nonsense"})

    assert isinstance(verdict, Running)


def test_the_build_runs_output_wins_over_the_builds() -> None:
    run = a_run("True", "Succeeded", output={"digest": "sha256:1"})
    run["spec"]["output"] = {"image": "r:5000/other:2"}

    verdict = assess(run)

    assert isinstance(verdict, Succeeded)
    assert verdict.result["image"] == "r:5000/other:2"
    assert verdict.result["image_ref"] == "r:5000/other@sha256:1"


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("hello", "hello@sha256:1"),
        ("hello:1", "hello@sha256:1"),
        ("localhost:5000/hello", "localhost:5000/hello@sha256:1"),
        ("localhost:5000/a/hello:1", "localhost:5000/a/hello@sha256:1"),
        ("r/hello:1@sha256:0", "r/hello@sha256:1"),
    ],
)
def test_an_image_reference_has_the_digest_in_the_place_of_the_tag(
    image: str, reference: str
) -> None:
    verdict = assess(
        a_run(
            "True",
            "Succeeded",
            buildSpec={"output": {"image": image}},
            output={"digest": "sha256:1"},
        )
    )

    assert isinstance(verdict, Succeeded)
    assert verdict.result["image_ref"] == reference


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


def test_what_a_cluster_says_at_length_is_cut() -> None:
    git = {"commitSha": "c" * 100_000}

    failed = assess(a_run("False", "Failed", "x" * 100_000))
    succeeded = assess(a_run("True", "Succeeded", source={"git": git}))

    assert len(message_of(failed)) < 1024
    assert isinstance(succeeded, Succeeded)
    assert len(str(succeeded.result)) < 4096


def test_the_verdict_is_of_the_attempt_that_was_asked_for() -> None:
    verdict = HANDLER.assess(replace(a_work(), name="work-x-r2"), 7, [])

    assert isinstance(verdict, Incomplete)
    assert verdict.create[-1]["metadata"]["name"] == "work-x-r2-a7"

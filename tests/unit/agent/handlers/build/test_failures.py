import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.agent.handlers.build.failures import (
    TABLE,
    UNLISTED,
    Row,
    classify_build,
    classify_run,
    row_for,
)
from brokkr.agent.handlers.verdict import Retry
from brokkr.work.model import Manifest


def a_failed_run(reason: str, message: str = "", /, **details: str) -> Manifest:
    condition = {"type": "Succeeded", "status": "False", "reason": reason, "message": message}
    return {"status": {"conditions": [condition], "failureDetails": details}}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.reasons[0])
def test_every_row_of_the_table_can_be_reached(row: Row) -> None:
    earlier = TABLE[: TABLE.index(row)]

    hidden = {r for each in earlier if each.saying is None for r in each.reasons}

    assert not hidden & set(row.reasons)


def test_every_reason_ends_in_a_row_that_asks_for_no_message() -> None:
    reasons = {reason for row in TABLE for reason in row.reasons}

    assert {reason for reason in reasons if row_for(reason, "") is UNLISTED} == set()


def test_a_reason_that_is_not_listed_is_retried_once() -> None:
    assert classify_run(a_failed_run("InvalidOutputMetadata"), None).retry is Retry.ONCE


@pytest.mark.parametrize(
    ("message", "retry"),
    [
        ("fatal: unable to access 'https://g/': Could not resolve host: g", Retry.ALWAYS),
        ("fatal: unable to access: The requested URL returned error: 503", Retry.ALWAYS),
        ("fatal: unable to access: The requested URL returned error: 429", Retry.ALWAYS),
        ("fatal: unable to access: The requested URL returned error: 403", Retry.NEVER),
        ("fatal: early EOF", Retry.ALWAYS),
        ("fatal: remote error: upload-pack: not our ref 0123", Retry.NEVER),
        ("error: pathspec 'abc' did not match any file(s) known to git", Retry.NEVER),
        ("fatal: repository 'https://g/TLS.git/' not found (exit code 128)", Retry.NEVER),
        ("Unsupported type of credentials (exit code 110)", Retry.NEVER),
        ("fatal: something new", Retry.ONCE),
        ("", Retry.ONCE),
    ],
)
def test_git_errors_are_told_apart_by_what_git_said(message: str, retry: Retry) -> None:
    run = a_failed_run("Failed", "see the log", reason="GitError", message=message)

    assert classify_run(run, None).retry is retry


@pytest.mark.parametrize(
    ("reason", "message", "retry"),
    [
        ("Failed", "buildrun failed, pod fx/hello-pod not found", Retry.ALWAYS),
        ("TaskRunImagePullFailed", 'failed to pull: "manifest unknown"', Retry.NEVER),
        ("TaskRunImagePullFailed", "dial tcp: connection refused", Retry.ALWAYS),
        ("PodCreationFailed", "pods is forbidden: exceeded LimitRange", Retry.NEVER),
        ("PodCreationFailed", "webhook: context deadline exceeded", Retry.ALWAYS),
        ("PodCreationFailed", "request timed out", Retry.ALWAYS),
        ("PodCreationFailed", "who knows", Retry.ONCE),
        ("VolumeDoesNotExist", 'configmaps "settings" not found', Retry.ONCE),
        ("VolumeDoesNotExist", 'secrets "push" not found', Retry.NEVER),
    ],
)
def test_reasons_of_several_causes_are_told_apart_by_the_message(
    reason: str, message: str, retry: Retry
) -> None:
    assert classify_run(a_failed_run(reason, message), None).retry is retry


def test_the_reason_in_a_refusals_message_wins_over_a_build_validated_since() -> None:
    run = a_failed_run(
        "BuildRegistrationFailed",
        "the Build is not registered correctly, build: b, registered status: False, "
        "reason: RemoteRepositoryUnreachable",
    )
    build = {"status": {"registered": "True", "reason": "Succeeded", "message": "all well"}}

    failed = classify_run(run, build)

    assert (failed.reason, failed.retry) == ("RemoteRepositoryUnreachable", Retry.ALWAYS)
    assert "all well" not in failed.message


def test_a_refusal_without_an_inner_reason_takes_the_builds() -> None:
    run = a_failed_run("BuildRegistrationFailed", "refused")
    build = {"status": {"registered": "False", "reason": "UndefinedVolume", "message": "no v"}}

    assert classify_run(run, build).reason == classify_build(build).reason == "UndefinedVolume"
    assert classify_run(run, None).reason == "BuildRegistrationFailed"


@given(reason=st.text(), message=st.text())
def test_whatever_a_step_writes_as_its_reason_the_verdicts_reason_is_a_word(
    reason: str, message: str
) -> None:
    run = a_failed_run("Failed", "see the log", reason=reason, message=message)

    failed = classify_run(run, None)

    assert failed.reason.isalnum()
    assert failed.reason.isascii()
    assert failed.reason[0].isalpha()

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.agent.handlers.build.execution import Execution
from brokkr.agent.handlers.build.failure_table import (
    IMAGE_STEP,
    SOURCE_STEP,
    TABLE,
    UNLISTED,
    UPLOAD_STEP,
    Row,
)
from brokkr.agent.handlers.build.failures import MAX_MESSAGE, judge, judge_now
from brokkr.agent.handlers.build.signs import Signs, signs_of_build, signs_of_run
from brokkr.agent.handlers.verdict import (
    Failed,
    LogLookup,
    Lookup,
    ObjectLookup,
    Retry,
    Unclear,
)
from brokkr.agent.kinds import (
    BUILD_STRATEGIES,
    BUILDS,
    CLUSTER_BUILD_STRATEGIES,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
)
from brokkr.work.fault import Fault
from brokkr.work.model import Manifest

POD = "hello-pod"


def a_failed_run(reason: str, message: str = "", /, **details: Any) -> dict[str, Any]:
    condition = {"type": "Succeeded", "status": "False", "reason": reason, "message": message}
    return {"status": {"conditions": [condition], "failureDetails": details}}


def a_failed_step(container: str, reason: str = "Failed", **details: Any) -> dict[str, Any]:
    location = {"container": container, "pod": POD}
    return a_failed_run(reason, "see the log", location=location, **details)


def a_failed_taskrun(
    reason: str = "StepFailed",
    message: str = "",
    *,
    container: str = "",
    exit_code: int = 1,
    termination_message: str = "",
) -> Manifest:
    condition = {"type": "Succeeded", "status": "False", "reason": reason, "message": message}
    terminated = {"exitCode": exit_code, "message": termination_message}
    return {
        "kind": "TaskRun",
        "status": {
            "conditions": [condition],
            "podName": POD,
            "steps": [{"container": container, "terminated": terminated}] if container else [],
        },
    }


def signs(run: Manifest, *taskruns: Manifest, build: Manifest | None = None) -> Signs:
    return signs_of_run(Execution(run, taskruns, []), build)


def classify(run: Manifest, *taskruns: Manifest, log: str | None = None) -> Failed:
    """Judge with all the evidence that there is."""
    known = signs(run, *taskruns)
    return judge_now(known, {} if known.log is None else {known.log: log})


def as_judged(failed: Failed) -> tuple[str, Retry]:
    return failed.failure_class, failed.retry


# -- the table


def is_default(row: Row) -> bool:
    return (row.container, row.exit_code, row.saying, row.log, row.ending, row.is_there) == (
        *("", None, None, None, None),
        False,
    )


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.name}-{row.reasons[0]}")
def test_every_row_of_the_table_can_be_reached(row: Row) -> None:
    hidden = {r for each in TABLE[: TABLE.index(row)] if is_default(each) for r in each.reasons}

    assert not hidden & set(row.reasons)


def test_every_reason_has_a_row_that_asks_for_nothing_else() -> None:
    reasons = {reason for row in TABLE for reason in row.reasons}
    settled = {reason for row in TABLE if is_default(row) for reason in row.reasons}

    assert reasons - settled == set()


def test_a_class_is_judged_in_one_way_whichever_row_holds() -> None:
    for name in {row.name for row in TABLE}:
        rows = [row for row in TABLE if row.name == name]
        assert len({(row.retry, row.fault, row.why) for row in rows}) == 1, name


def test_a_class_has_a_camel_case_name() -> None:
    for row in (*TABLE, UNLISTED):
        assert row.name.isalpha()
        assert row.name[0].isupper()


def test_a_reason_that_is_not_listed_is_retried_once() -> None:
    assert as_judged(classify(a_failed_run("InvalidOutputMetadata"))) == ("Unlisted", Retry.ONCE)


# -- reasons with one cause


@pytest.mark.parametrize(
    ("reason", "name", "retry"),
    [
        ("BuildRunTimeout", "Timeout", Retry.ALWAYS),
        ("PodEvicted", "PodEvicted", Retry.ALWAYS),
        ("TaskRunIsMissing", "ExecutorDeleted", Retry.ALWAYS),
        ("StepOutOfMemory", "OutOfMemory", Retry.NEVER),
        ("SidecarOOM", "OutOfMemory", Retry.NEVER),
        ("InitContainerOOM", "OutOfMemory", Retry.NEVER),
        ("VulnerabilitiesFound", "VulnerabilitiesFound", Retry.NEVER),
        ("PodAdmissionFailed", "PodRefused", Retry.NEVER),
        ("TaskRunValidationFailed", "RunRefused", Retry.NEVER),
        ("PipelineInvalidGraph", "RunRefused", Retry.NEVER),
        ("TaskRunResultLargerThanAllowedLimit", "ResultTooLarge", Retry.NEVER),
        ("TaskRunStopSidecarFailed", "ClusterTrouble", Retry.ALWAYS),
        ("CouldntGetTask", "ClusterTrouble", Retry.ALWAYS),
        ("CouldntCreateWorkspacePVC", "NoStorage", Retry.ONCE),
        ("NodePlatformNotFound", "NoSuchNode", Retry.ALWAYS),
        ("ExecutorNotPipelineRun", "SpecRefused", Retry.NEVER),
        ("TaskRunGenerationFailed", "SpecRefused", Retry.NEVER),
        ("SetOwnerReferenceFailed", "SpecRefused", Retry.NEVER),
        ("UnknownStrategyKind", "SpecRefused", Retry.NEVER),
    ],
)
def test_a_reason_with_one_cause_decides_alone(reason: str, name: str, retry: Retry) -> None:
    verdict = judge(signs(a_failed_run(reason, "said")), {})

    assert isinstance(verdict, Failed)
    assert as_judged(verdict) == (name, retry)


@pytest.mark.parametrize(
    ("reason", "message", "name"),
    [
        ("Failed", "buildrun failed, pod fx/hello-pod not found", "PodLost"),
        ("PipelineRunFailed", "buildrun failed, pod fx/hello-pod not found", "PodLost"),
        ("TaskRunImagePullFailed", 'failed to pull: "manifest unknown"', "ImageRefused"),
        ("TaskRunImagePullFailed", "InvalidImageName: couldn't parse", "ImageRefused"),
        ("TaskRunImagePullFailed", "dial tcp: connection refused", "ImagePull"),
        ("PodCreationFailed", "pods is forbidden: exceeded LimitRange", "PodRefused"),
        ("PodCreationFailed", "webhook: context deadline exceeded", "ClusterTrouble"),
        ("PodCreationFailed", "request timed out", "ClusterTrouble"),
        ("PodCreationFailed", "who knows", "PodNotCreated"),
        (
            "PodCreationFailed",
            (
                "forbidden: unable to create new content in namespace x because it is being "
                "terminated"
            ),
            "NamespaceTerminating",
        ),
        ("PodCreationFailed", "is forbidden: exceeded quota: team", "QuotaExceeded"),
        (
            "PodCreationFailed",
            "is forbidden: failed quota: team: must specify limits.cpu",
            "QuotaRefused",
        ),
        ("VolumeDoesNotExist", 'secrets "push" not found', "MissingReference"),
        ("CreateContainerConfigError", 'secret "push" not found', "MissingReference"),
    ],
)
def test_reasons_of_several_causes_are_told_apart_by_the_message(
    reason: str, message: str, name: str
) -> None:
    verdict = judge(signs(a_failed_run(reason, message)), {})

    assert isinstance(verdict, Failed)
    assert verdict.failure_class == name
    assert message in verdict.message


# -- git


@pytest.mark.parametrize(
    ("message", "name", "retry"),
    [
        ("unable to access 'https://g/': Could not resolve host: g", "GitHostUnknown", Retry.ONCE),
        ("Could not resolve host: Temporary failure in name", "GitTransport", Retry.ALWAYS),
        ("The requested URL returned error: 503", "GitTransport", Retry.ALWAYS),
        ("The requested URL returned error: 429", "GitTransport", Retry.ALWAYS),
        ("fatal: early EOF", "GitTransport", Retry.ALWAYS),
        ("OpenSSL: SSL_connect: TLS handshake", "GitTransport", Retry.ALWAYS),
        ("The requested URL returned error: 403", "GitNotFound", Retry.NEVER),
        ("fatal: remote error: upload-pack: not our ref 0123", "GitNotFound", Retry.NEVER),
        ("error: pathspec 'abc' did not match any file(s)", "GitNotFound", Retry.NEVER),
        ("fatal: repository 'https://g/TLS.git/' not found", "GitNotFound", Retry.NEVER),
        ("SSL certificate problem: self-signed certificate", "GitCertificate", Retry.NEVER),
    ],
)
def test_git_errors_are_told_apart_by_what_git_said_and_need_no_log(
    message: str, name: str, retry: Retry
) -> None:
    run = a_failed_step(SOURCE_STEP, reason="Failed")
    run["status"]["failureDetails"] |= {"reason": "GitError", "message": message}

    verdict = judge(signs(run), {})

    assert isinstance(verdict, Failed)
    assert (verdict.reason, *as_judged(verdict)) == ("GitError", name, retry)


def a_git_failure(reason: str, message: str = "") -> dict[str, Any]:
    run = a_failed_step(SOURCE_STEP)
    run["status"]["failureDetails"] |= {"reason": reason, "message": message}
    return run


@pytest.mark.parametrize("message", ["", "fatal: something new"])
def test_a_git_error_that_says_nothing_is_looked_up_in_the_log(message: str) -> None:
    run = a_git_failure("GitError", message)

    assert judge(signs(run), {}) == Unclear(look_at=(LogLookup(POD, SOURCE_STEP),))
    assert as_judged(classify(run)) == ("SourceUnclear", Retry.ONCE)
    assert classify(run, log="fatal: fetch-pack: early EOF").failure_class == "GitTransport"
    assert classify(run, log="fatal: nothing known").failure_class == "SourceUnclear"


def test_the_exit_code_of_the_git_step_tells_of_credentials_where_it_says_nothing() -> None:
    taskrun = a_failed_taskrun(container=SOURCE_STEP, exit_code=110)

    assert as_judged(classify(a_git_failure("GitError"), taskrun)) == (
        "GitCredentials",
        Retry.NEVER,
    )


@pytest.mark.parametrize(
    ("log", "judged"),
    [
        ("ssh: connect to host g port 22: Connection timed out", ("GitTransport", Retry.ALWAYS)),
        ("ssh: Could not resolve hostname g: Name or", ("GitHostUnknown", Retry.ONCE)),
        (
            "ssh: Could not resolve hostname g: Temporary failure in name resolution",
            ("GitTransport", Retry.ALWAYS),
        ),
        ("fatal: 'x.git' does not appear to be a git repository", ("GitNotFound", Retry.NEVER)),
        ("ERROR: Repository not found.", ("GitNotFound", Retry.NEVER)),
        ("git@g: Permission denied (publickey).", ("GitCredentials", Retry.NEVER)),
        ("Host key verification failed.", ("GitCredentials", Retry.NEVER)),
        ("OpenSSH_10.0p2, OpenSSL 3.5.9\nneither", ("SourceUnclear", Retry.ONCE)),
        (None, ("SourceUnclear", Retry.ONCE)),
    ],
)
def test_a_bad_key_and_a_dead_network_are_told_apart_by_the_log(
    log: str | None, judged: tuple[str, Retry]
) -> None:
    assert as_judged(classify(a_git_failure("GitAuthInvalidKey", "same text"), log=log)) == judged


@pytest.mark.parametrize(
    "reason",
    [
        *("GitAuthInvalidUserOrPass", "GitRemoteRepositoryPrivate", "GitSSHAuthUnexpected"),
        *("GitSSHAuthExpected", "GitBasicAuthIncomplete", "AuthUnexpectedHTTP"),
    ],
)
def test_wrong_git_credentials_are_permanent_and_the_logs_line_is_shown(reason: str) -> None:
    run = a_git_failure(reason, "the secret does not fit")

    assert judge(signs(run), {}) == Unclear(look_at=(LogLookup(POD, SOURCE_STEP),))
    for log, said in ((None, ""), ("a\nbasic auth is not sent over http", "basic auth is not")):
        failed = classify(run, log=log)
        assert as_judged(failed) == ("GitCredentials", Retry.NEVER)
        assert said in failed.message
        assert "the secret does not fit" in failed.message


def test_a_bad_key_is_told_in_git_words_first_and_then_in_shipwrights() -> None:
    said = "The key is invalid. Please make sure that the repository exists."

    failed = classify(
        a_git_failure("GitAuthInvalidKey", said),
        log="fatal: 'x.git' does not appear to be a git repository\nand the repository exists.",
    )

    assert failed.message.index("does not appear") < failed.message.index("The key is invalid")


def test_where_the_log_says_nothing_known_shipwrights_own_words_are_kept() -> None:
    failed = classify(
        a_git_failure("GitAuthInvalidKey", "The key is invalid."), log="and the repository exists."
    )

    assert failed.message.startswith("The key is invalid.")


# -- steps that give no reason


@pytest.mark.parametrize("reason", ["Failed", "StepFailed", "PipelineRunFailed"])
@pytest.mark.parametrize(
    ("container", "log", "judged"),
    [
        (IMAGE_STEP, "UNAUTHORIZED: authentication required", ("PushRefused", Retry.NEVER)),
        (IMAGE_STEP, "failed to parse image name: x", ("PushRefused", Retry.NEVER)),
        (IMAGE_STEP, "the http protocol is not allowed", ("PushRefused", Retry.NEVER)),
        (IMAGE_STEP, "dial tcp 1.2.3.4:5000: connection refused", ("PushTransport", Retry.ALWAYS)),
        (IMAGE_STEP, "failed to run trivy: no database", ("PushTransport", Retry.ALWAYS)),
        (IMAGE_STEP, "Failed to load the image: it is no tar", ("PushFailed", Retry.ONCE)),
        (IMAGE_STEP, None, ("PushUnclear", Retry.ALWAYS)),
        (IMAGE_STEP, "", ("PushUnclear", Retry.ALWAYS)),
        (SOURCE_STEP, "UNAUTHORIZED: authentication required", ("SourceRefused", Retry.NEVER)),
        (SOURCE_STEP, "dial tcp: i/o timeout", ("SourceTransport", Retry.ALWAYS)),
        (SOURCE_STEP, "fatal: Remote branch x not found in", ("GitNotFound", Retry.NEVER)),
        (SOURCE_STEP, "fatal: early EOF", ("GitTransport", Retry.ALWAYS)),
        (SOURCE_STEP, None, ("SourceUnclear", Retry.ONCE)),
        (UPLOAD_STEP, "timeout waiting for condition", ("UploadMissing", Retry.ALWAYS)),
        (UPLOAD_STEP, None, ("UploadMissing", Retry.ALWAYS)),
        (
            IMAGE_STEP,
            "dial tcp: lookup r on 1.2.3.4: no such host",
            ("RegistryUnknown", Retry.ONCE),
        ),
        (
            IMAGE_STEP,
            "dial tcp: lookup r on 1.2.3.4: server misbehaving",
            ("PushTransport", Retry.ALWAYS),
        ),
        (SOURCE_STEP, "lookup r on 1.2.3.4:53: no such host", ("RegistryUnknown", Retry.ONCE)),
        (
            "step-build",
            "Error: initializing source docker://r/x: lookup r on 1.2.3.4:53: no such host",
            ("RegistryUnknown", Retry.ONCE),
        ),
        ("step-build", "pulling x: unauthorized", ("RegistryRefused", Retry.NEVER)),
        ("step-build", "pushing image: dial tcp: refused", ("RegistryTransport", Retry.ALWAYS)),
        ("step-build", "main.c:1: error", ("StepFailed", Retry.ONCE)),
        ("step-build", None, ("StepFailed", Retry.ONCE)),
    ],
)
def test_a_step_without_a_reason_is_judged_by_its_log(
    reason: str, container: str, log: str | None, judged: tuple[str, Retry]
) -> None:
    failed = classify(a_failed_step(container, reason), log=log)

    assert as_judged(failed) == judged
    if log:
        assert failed.message.startswith(f"{container}: {log.splitlines()[-1]} (")


FORGED = """\
pushing manifest to registry: unauthorized: authentication required
pulling image: dial tcp: lookup registry on 10.0.0.1:53: no such host
pushing blob: connection refused
Error: dockerfile parse error: unknown instruction"""
"""What a program of a RUN may print."""


@pytest.mark.parametrize(
    ("ending", "judged"),
    [
        (
            'Error: building at STEP "RUN push.sh unauthorized registry": exit status 1',
            ("RunFailed", Retry.ONCE),
        ),
        (
            'error building at STEP "RUN x": error while running runtime: exit status 1',
            ("RunFailed", Retry.ONCE),
        ),
        (
            (
                'error: failed to solve: process "/bin/sh -c echo push denied" did not complete '
                "successfully: exit code: 1"
            ),
            ("RunFailed", Retry.ONCE),
        ),
        (
            (
                "error building image: error building stage: failed to execute command: waiting "
                "for process to exit: exit status 1"
            ),
            ("RunFailed", Retry.ONCE),
        ),
        ("Killed", ("StepFailed", Retry.ONCE)),
        ("something else", ("StepFailed", Retry.ONCE)),
    ],
)
def test_what_a_users_program_prints_never_decides_between_registry_and_run(
    ending: str, judged: tuple[str, Retry]
) -> None:
    assert as_judged(classify(a_failed_step("step-build"), log=f"{FORGED}\n{ending}")) == judged


@given(printed=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300))
def test_whatever_a_run_prints_its_failure_is_the_runs(printed: str) -> None:
    log = f'{printed}\nError: building at STEP "RUN {printed[:40]!r}": exit status 1'

    assert classify(a_failed_step("step-build"), log=log).failure_class == "RunFailed"


@pytest.mark.parametrize(
    "ending",
    [
        (
            'Error: building at STEP "COPPY ": Build error: Unknown instruction: "COPPY" '
            '&imagebuilder.Step{Env:[]string{"PATH=/bin"}, Command:"coppy"}'
        ),
        "error: failed to solve: dockerfile parse error on line 3: unknown instruction: COPPY",
        (
            "error building image: parsing dockerfile: dockerfile parse error line 3: unknown "
            "instruction: COPPY"
        ),
        'Error: Syntax error - can\'t find = in "x". Must be of the form: name=value',
        (
            'Error: building at STEP "COPY nope /x": checking on sources under "/w": copier: stat: '
            '"/nope": no such file or directory'
        ),
        (
            'error: failed to solve: failed to compute cache key: failed to calculate: "/n": '
            "not found"
        ),
    ],
)
def test_a_dockerfile_that_the_builder_refuses_is_not_built_again(ending: str) -> None:
    failed = classify(a_failed_step("step-build"), log=f"STEP 1/2: FROM scratch\n{ending}")

    assert as_judged(failed) == ("DockerfileInvalid", Retry.NEVER)
    assert failed.fault is Fault.DOCKERFILE
    assert "imagebuilder.Step{" not in failed.message


def test_a_repository_that_shipwright_does_not_find_is_not_asked_for_again() -> None:
    for message, judged in (
        ("repository not found", ("RepositoryMissing", Retry.NEVER)),
        ("authentication required", ("RepositoryMissing", Retry.NEVER)),
        ("dial tcp: i/o timeout", ("RepositoryUnreachable", Retry.ALWAYS)),
    ):
        build = {
            "status": {
                "registered": "False",
                "reason": "RemoteRepositoryUnreachable",
                "message": message,
            }
        }
        assert as_judged(judge_now(signs_of_build(build), {})) == judged


@pytest.mark.parametrize(
    ("message", "name", "retry"),
    [
        ("The node was low on resource: memory.", "PodEvicted", Retry.ALWAYS),
        (
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
            "StorageExceeded",
            Retry.NEVER,
        ),
        ('Usage of EmptyDir volume "w" exceeds the limit "1Gi". ', "StorageExceeded", Retry.NEVER),
        (
            'Container step-build exceeded its local ephemeral storage limit "1Gi". ',
            "StorageExceeded",
            Retry.NEVER,
        ),
    ],
)
def test_an_eviction_for_the_pods_own_limits_is_the_users(
    message: str, name: str, retry: Retry
) -> None:
    failed = classify(a_failed_run("PodEvicted", message))

    assert as_judged(failed) == (name, retry)
    assert failed.fault.is_infrastructure == (name == "PodEvicted")


def test_a_step_that_was_killed_for_its_memory_is_told_so_whatever_its_run_says() -> None:
    taskrun = a_failed_taskrun("Failed", container="step-build", exit_code=137)
    taskrun["status"]["steps"][0]["terminated"]["reason"] = "OOMKilled"

    assert as_judged(classify(a_failed_step("step-build"), taskrun)) == (
        "OutOfMemory",
        Retry.NEVER,
    )


def test_vulnerabilities_are_known_by_the_exit_code_whatever_the_reason_says() -> None:
    taskrun = a_failed_taskrun(container=IMAGE_STEP, exit_code=22)

    verdict = judge(signs(a_failed_step(IMAGE_STEP), taskrun), {})

    assert isinstance(verdict, Failed)
    assert as_judged(verdict) == ("VulnerabilitiesFound", Retry.NEVER)


def test_an_exit_code_of_another_step_is_no_sign_of_vulnerabilities() -> None:
    taskrun = a_failed_taskrun(container="step-build", exit_code=22)

    assert as_judged(classify(a_failed_step("step-build"), taskrun)) == ("StepFailed", Retry.ONCE)


@pytest.mark.parametrize(
    ("below", "message", "name"),
    [
        ("TaskRunImagePullFailed", "ErrImagePull: manifest unknown", "ImageRefused"),
        ("TaskRunImagePullFailed", "ErrImagePull: dial tcp", "ImagePull"),
        ("CreateContainerConfigError", 'secret "s" not found', "MissingReference"),
        ("StepOOM", "OOMKilled", "OutOfMemory"),
        ("InitContainerOOM", "OOMKilled", "OutOfMemory"),
        ("TaskRunTimeout", "in time", "Timeout"),
    ],
)
def test_why_a_pipeline_run_failed_is_asked_of_its_task_run(
    below: str, message: str, name: str
) -> None:
    run = a_failed_run("PipelineRunFailed", "buildrun failed, pod fx/hello-pod not found")

    failed = classify(run, a_failed_taskrun(below, message))

    assert (failed.reason, failed.failure_class) == (below, name)
    assert message in failed.message


def test_a_reason_that_a_pipeline_run_does_not_pass_on_is_read_where_the_step_left_it() -> None:
    left = (
        '[{"key":"shp-error-reason","value":"DockerfileNotFound"},'
        '{"key":"shp-error-message","value":"no Dockerfile.x"}]'
    )
    taskrun = a_failed_taskrun(container="step-build", termination_message=left)

    failed = classify(a_failed_step("step-build", "PipelineRunFailed"), taskrun)

    assert (failed.reason, *as_judged(failed)) == (
        *("DockerfileNotFound", "InputRefused"),
        Retry.NEVER,
    )
    assert "no Dockerfile.x" in failed.message


# -- what is said to be missing


MISSING: Mapping[str, tuple[Manifest, Lookup]] = {
    "build": (
        a_failed_run("BuildNotFound", "not found") | {"spec": {"build": {"name": "b"}}},
        ObjectLookup(BUILDS, "b"),
    ),
    "service account": (
        a_failed_run("ServiceAccountNotFound", "x") | {"spec": {"serviceAccount": "sa"}},
        ObjectLookup(SERVICE_ACCOUNTS, "sa"),
    ),
    "config map": (
        a_failed_run("VolumeDoesNotExist", 'configmaps "settings" not found'),
        ObjectLookup(CONFIG_MAPS, "settings"),
    ),
    "config map of a container": (
        a_failed_run("CreateContainerConfigError", 'configmap "settings" not found'),
        ObjectLookup(CONFIG_MAPS, "settings"),
    ),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_there_after_all_is_retried_twice_and_what_is_not_is_permanent(case: str) -> None:
    run, lookup = MISSING[case]

    assert judge(signs(run), {}) == Unclear(look_at=(lookup,))
    assert as_judged(judge_now(signs(run), {lookup: {"kind": "X"}})) == ("CacheRace", Retry.TWICE)
    assert as_judged(judge_now(signs(run), {lookup: None})) == ("MissingReference", Retry.NEVER)


@pytest.mark.parametrize("reason", ["BuildStrategyNotFound", "ClusterBuildStrategyNotFound"])
def test_a_strategy_is_looked_for_whether_the_build_or_the_run_misses_it(reason: str) -> None:
    resource = BUILD_STRATEGIES if reason == "BuildStrategyNotFound" else CLUSTER_BUILD_STRATEGIES
    spec = {"strategy": {"name": "buildah"}}
    build = {"spec": spec, "status": {"registered": "False", "reason": reason, "message": "no"}}
    run = a_failed_run(reason, "no")
    run["status"]["buildSpec"] = spec
    refused = a_failed_run("BuildRegistrationFailed", f"registered status: False, reason: {reason}")

    for known in (signs_of_build(build), signs(run), signs(refused, build=build)):
        assert judge(known, {}) == Unclear(look_at=(ObjectLookup(resource, "buildah"),))


@pytest.mark.parametrize("name", ["../../../secrets/x", "a b", "", "x" * 254, "A", ".generate"])
def test_a_name_that_is_none_is_not_looked_for(name: str) -> None:
    run = a_failed_run("ServiceAccountNotFound", "x") | {"spec": {"serviceAccount": name}}
    step = a_failed_run("Failed", "x", location={"container": name, "pod": name})

    assert isinstance(judge(signs(run), {}), Failed)
    assert isinstance(judge(signs(step), {}), Failed)


@pytest.mark.parametrize(
    "reason",
    ["SpecSourceSecretRefNotFound", "SpecOutputSecretRefNotFound", "MultipleSecretRefNotFound"],
)
def test_a_missing_secret_is_permanent_and_named_and_never_looked_at(reason: str) -> None:
    spec = {"source": {"git": {"cloneSecret": "clone"}}, "output": {"pushSecret": "push"}}
    run = a_failed_run("BuildRegistrationFailed", f"registered status: False, reason: {reason}")

    verdict = judge(signs(run, build={"spec": spec}), {})

    assert isinstance(verdict, Failed)
    assert as_judged(verdict) == ("MissingReference", Retry.NEVER)
    assert "clone" in verdict.message
    assert "push" in verdict.message


# -- refusals


def test_the_reason_in_a_refusals_message_wins_over_a_build_validated_since() -> None:
    run = a_failed_run(
        "BuildRegistrationFailed",
        "the Build is not registered correctly, build: b, registered status: False, "
        "reason: RemoteRepositoryUnreachable",
    )
    build = {"status": {"registered": "True", "reason": "Succeeded", "message": "all well"}}

    failed = judge_now(signs(run, build=build), {})

    assert (failed.reason, failed.retry) == ("RemoteRepositoryUnreachable", Retry.ALWAYS)
    assert "all well" not in failed.message


def test_a_refusal_without_an_inner_reason_takes_the_builds() -> None:
    run = a_failed_run("BuildRegistrationFailed", "refused")
    build = {"status": {"registered": "False", "reason": "UndefinedVolume", "message": "no v"}}

    assert signs(run, build=build).reason == signs_of_build(build).reason == "UndefinedVolume"
    assert as_judged(classify(run)) == ("SpecRefused", Retry.NEVER)


# -- what others write


@given(reason=st.text(), message=st.text())
def test_whatever_a_step_writes_as_its_reason_the_verdicts_reason_is_a_word(
    reason: str, message: str
) -> None:
    run = a_failed_step("step-build")
    run["status"]["failureDetails"] |= {"reason": reason, "message": message}

    for failed in (classify(run), classify(a_failed_run(reason, message))):
        assert failed.reason.isalnum()
        assert failed.reason.isascii()
        assert failed.reason[0].isalpha()


def test_what_is_said_at_length_is_cut() -> None:
    log = "pushing image: unauthorized " + "x" * 100_000

    for failed in (
        classify(a_failed_step("step-build"), log=log),
        classify(a_failed_run("Novel", "x" * 100_000)),
    ):
        assert len(failed.message) < MAX_MESSAGE + 200

"""
How real builds fail, and what becomes of them: retried or not, named or not.

All are submitted at once, to an agent that has room for them.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from brokkr.agent.kinds import CLUSTER_BUILD_STRATEGIES
from brokkr.local.build_runner.feasible import BUILDER_ANNOTATION
from brokkr.local.credentials import Credentials
from brokkr.local.process import free_port
from brokkr.wire.bodies import WorkBody, WorkState
from support.local import Local, build_args, value

pytestmark = [pytest.mark.build, pytest.mark.kube, pytest.mark.postgres]

RETRIES: Final = 2
NOBODY: Final = "0" * 39 + "1"
WRONG: Final = Credentials("brokkr", "wrong")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """
    One way to fail.

    Attributes:
        build: Makes the template.
        attempts: 1 if it is permanent, 2 if it is worth one retry, else all there are.
        says: In the message.
        is_built: Whether there is a BuildRun: a Build that is refused gets none.
    """

    build: Callable[[Local], Mapping[str, Any]]
    failure_class: str
    reason: str
    says: str = ""
    attempts: int = 1
    is_built: bool = True


def with_run(build: Mapping[str, Any], **spec: Any) -> Mapping[str, Any]:
    """Add a pattern of the BuildRun to a Build."""
    run = {"apiVersion": "shipwright.io/v1beta1", "kind": "BuildRun", "spec": spec}
    return {"apiVersion": "v1", "kind": "List", "items": [build, run]}


def nowhere() -> str:
    """Return an address that refuses connections."""
    return f"127.0.0.1:{free_port()}"


FAILURES: Final = {
    # -- the source
    "no such repository": Failure(
        build=lambda local: local.a_build(git={"url": f"{local.system.git_url}/nothing.git"}),
        failure_class="GitNotFound",
        reason="GitError",
        says="nothing.git",
    ),
    "no such branch": Failure(
        build=lambda local: local.a_build(git={"revision": "no-such-branch"}),
        failure_class="GitNotFound",
        reason="GitRevisionNotFound",
    ),
    "no such commit": Failure(
        build=lambda local: local.a_build(git={"revision": NOBODY}),
        failure_class="GitNotFound",
        reason="GitError",
        says=NOBODY,
    ),
    "wrong git password": Failure(
        build=lambda local: local.a_build(git={"cloneSecret": "wrong-git"}),
        failure_class="GitCredentials",
        reason="GitAuthInvalidUserOrPass",
    ),
    "no git password": Failure(
        build=lambda local: local.a_build(git={"cloneSecret": None}),
        failure_class="GitCredentials",
        reason="GitRemoteRepositoryPrivate",
    ),
    "git server away": Failure(
        build=lambda local: local.a_build(
            git={"url": f"http://{nowhere()}/sample.git", "cloneSecret": None}
        ),
        failure_class="GitTransport",
        reason="GitError",
        says="Failed to connect",
        attempts=RETRIES + 1,
    ),
    # -- the build
    "no such Dockerfile": Failure(
        build=lambda local: local.a_build(values=[value("dockerfile", "nowhere")]),
        failure_class="InputRefused",
        reason="DockerfileNotFound",
        says="nowhere",
    ),
    "no such context": Failure(
        build=lambda local: local.a_build(context_dir="nowhere"),
        failure_class="InputRefused",
        reason="ContextDirNotFound",
        says="nowhere",
    ),
    "Dockerfile of nonsense": Failure(
        build=lambda local: local.a_build(values=[value("dockerfile", "Dockerfile.broken")]),
        failure_class="DockerfileInvalid",
        reason="Failed",
        says="NONSENSE",
        attempts=1,
    ),
    "RUN that fails": Failure(
        build=lambda local: local.a_build(values=[value("dockerfile", "Dockerfile.fails")]),
        failure_class="RunFailed",
        reason="Failed",
        says="step-build",
        attempts=2,
    ),
    # -- the push
    "wrong registry password": Failure(
        build=lambda local: local.a_build(output={"pushSecret": "wrong-registry"}),
        failure_class="PushRefused",
        reason="Failed",
        says="step-image-processing",
    ),
    "no registry password": Failure(
        build=lambda local: local.a_build(output={"pushSecret": None}),
        failure_class="PushRefused",
        reason="Failed",
        says="step-image-processing",
    ),
    "password for another registry": Failure(
        build=lambda local: local.a_build(output={"image": f"{nowhere()}/x"}),
        failure_class="PushRefused",
        reason="Failed",
        says="failed to find registry credentials",
    ),
    "registry away": Failure(
        build=lambda local: local.a_build(output={"image": f"{nowhere()}/x", "pushSecret": None}),
        failure_class="PushTransport",
        reason="Failed",
        says="retries exhausted after 3 attempts",
        attempts=RETRIES + 1,
    ),
    # -- what the Build names
    "no such clone secret": Failure(
        build=lambda local: local.a_build(git={"cloneSecret": "no-such-secret"}),
        failure_class="MissingReference",
        reason="SpecSourceSecretRefNotFound",
        says="no-such-secret",
        is_built=False,
    ),
    "no such push secret": Failure(
        build=lambda local: local.a_build(output={"pushSecret": "no-such-secret"}),
        failure_class="MissingReference",
        reason="SpecOutputSecretRefNotFound",
        says="no-such-secret",
        is_built=False,
    ),
    "no such strategy": Failure(
        build=lambda local: local.a_build(
            strategy={"kind": "ClusterBuildStrategy", "name": "no-such-strategy"}
        ),
        failure_class="MissingReference",
        reason="ClusterBuildStrategyNotFound",
        says="no-such-strategy",
        is_built=False,
    ),
    "no such service account": Failure(
        build=lambda local: with_run(local.a_build(), serviceAccount="no-such-account"),
        failure_class="MissingReference",
        reason="ServiceAccountNotFound",
        says="no-such-account",
    ),
    "no such ConfigMap": Failure(
        build=lambda local: local.a_build(
            values=[{"name": "dockerfile", "configMapValue": {"name": "no-such-map", "key": "x"}}]
        ),
        failure_class="MissingReference",
        reason="CreateContainerConfigError",
        says="no-such-map",
    ),
    # -- parameters and environment
    "undefined parameter": Failure(
        build=lambda local: local.a_build(values=[value("colour", "red")]),
        failure_class="SpecRefused",
        reason="UndefinedParameter",
        says="colour",
        is_built=False,
    ),
    "undefined parameter of the BuildRun": Failure(
        build=lambda local: with_run(local.a_build(), paramValues=[value("colour", "red")]),
        failure_class="SpecRefused",
        reason="UndefinedParameter",
        says="colour",
    ),
    "missing parameter": Failure(
        build=lambda local: local.a_build(
            strategy={"kind": "ClusterBuildStrategy", "name": "demanding"}
        ),
        failure_class="SpecRefused",
        reason="MissingParameterValues",
        says="colour",
    ),
    "parameter of the wrong type": Failure(
        build=lambda local: local.a_build(values=[value("build-args", "A=B")]),
        failure_class="SpecRefused",
        reason="WrongParameterValueType",
        says="build-args",
        is_built=False,
    ),
    "forbidden variable": Failure(
        build=lambda local: local.a_build(env=[value("LD_PRELOAD", "evil.so")]),
        failure_class="SpecRefused",
        reason="SpecEnvNameForbidden",
        says="LD_PRELOAD",
        is_built=False,
    ),
}


@pytest.fixture(scope="module")
async def submitted(local: Local) -> AsyncIterator[Mapping[str, WorkBody]]:
    """All of them; at the end nothing runs any more."""
    await local.a_secret(
        "wrong-git", "kubernetes.io/basic-auth", username=WRONG.user, password=WRONG.password
    )
    await local.a_secret(
        "wrong-registry",
        "kubernetes.io/dockerconfigjson",
        **{".dockerconfigjson": WRONG.docker_config(local.system.registry)},
    )
    await _a_demanding_strategy(local)
    works = {
        name: await local.submit(failure.build(local), max_retries=RETRIES)
        for name, failure in FAILURES.items()
    }
    yield works
    for work in works.values():
        await local.end_of(work)


async def _a_demanding_strategy(local: Local) -> None:
    strategy = {
        "apiVersion": CLUSTER_BUILD_STRATEGIES.api_version,
        "kind": CLUSTER_BUILD_STRATEGIES.kind,
        "metadata": {"name": "demanding", "annotations": {BUILDER_ANNOTATION: "buildah"}},
        "spec": {
            "steps": [],
            "parameters": [{"name": "colour", "description": "Needed.", "type": "string"}],
        },
    }
    await local.kube.apply(CLUSTER_BUILD_STRATEGIES, None, strategy)


@pytest.mark.parametrize("name", FAILURES)
async def test_a_build_that_fails_says_why_and_is_retried_if_that_may_help(
    local: Local, submitted: Mapping[str, WorkBody], name: str
) -> None:
    failure = FAILURES[name]
    work = await local.end_of(submitted[name])

    assert work.status is WorkState.FAILED
    assert work.result is not None
    assert work.result_message is not None
    attempts = work.result["attempts"]
    assert [(each["class"], each["reason"]) for each in attempts] == [
        (failure.failure_class, failure.reason)
    ] * failure.attempts, work.result_message
    assert work.retries_attempted == failure.attempts - 1
    assert failure.says in work.result_message
    build_runs = [each["metadata"]["name"] for each in await local.build_runs_of(work)]
    assert build_runs == ([each["name"] for each in attempts] if failure.is_built else [])


async def test_a_build_that_takes_too_long_is_stopped_and_tried_again(local: Local) -> None:
    values = [value("dockerfile", "Dockerfile.sleeps"), build_args("SECONDS=3600")]
    work = await local.run(local.a_build(values=values, timeout="3s"), max_retries=1)

    assert work.status is WorkState.FAILED
    assert work.result is not None
    assert [(each["class"], each["reason"]) for each in work.result["attempts"]] == [
        ("Timeout", "BuildRunTimeout")
    ] * 2
    assert work.retries_attempted == 1
    assert len(await local.build_runs_of(work)) == 2
    assert not await local.is_asleep()

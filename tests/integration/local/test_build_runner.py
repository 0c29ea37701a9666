"""
The stand-in's own contract: real git, buildah, registry and API server.

Where Shipwright was recorded doing the same, its status is what ours is compared with.
"""

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from brokkr.agent.handlers.build.execution import Execution
from brokkr.agent.handlers.build.phrases import REGISTRY_REFUSAL
from brokkr.agent.handlers.build.result import result_of
from brokkr.agent.kinds import (
    BUILD_RUNS,
    BUILDS,
    CLUSTER_BUILD_STRATEGIES,
    NAMESPACES,
    PODS,
    SECRETS,
    TASK_RUNS,
    Resource,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeError, KubeInvalid, KubeKindUnknown, KubeUnavailable
from brokkr.local.build_runner.kubelet import node_name
from brokkr.local.build_runner.pod import render_pod
from brokkr.local.build_runner.recorder import outlast
from brokkr.local.build_runner.runner import BuildRunner, FolderInUse
from brokkr.local.build_runner.status import is_finished
from brokkr.local.build_runner.steps import STEPS
from brokkr.local.build_runner.task_run import render_task_run
from brokkr.local.control_plane import ControlPlane
from brokkr.local.control_plane import control_plane as run_control_plane
from brokkr.local.credentials import Credentials
from brokkr.local.git_server import GitServer
from brokkr.local.process import free_port
from brokkr.local.registry import Registry
from support.factories import a_work
from support.kube import project_crds
from support.signals import eventually

pytestmark = pytest.mark.build

RECORDINGS = Path(__file__).parents[2] / "data" / "buildruns"
RIGHT = Credentials("user", "pass word")
WRONG = Credentials("user", "guess")

Json = dict[str, Any]


@dataclass(frozen=True)
class Lab:
    """One test's namespace, and the servers its builds use."""

    kube: KubeClient
    namespace: str
    git: GitServer
    images: Registry
    identity: Path

    def runner(self, folder: Path, **options: Any) -> BuildRunner:
        """Make a runner for this namespace, unless told otherwise."""
        options = {"namespace": self.namespace, **options}
        return BuildRunner(self.kube, folder, identity=self.identity, **options)

    def spec(self, **fields: Any) -> Json:
        """Make the spec of a Build that succeeds, but for the given fields."""
        good: Json = {
            "source": {
                "type": "Git",
                "git": {"url": f"{self.git.url}/sample.git", "revision": "main"},
            },
            "strategy": {"kind": "ClusterBuildStrategy", "name": "buildah"},
            "output": {"image": f"{self.images.host}/{self.namespace}:latest", "insecure": True},
        }
        return _merged(good, fields)

    async def create(self, resource: Resource, name: str, **content: Any) -> Json:
        """Create an object."""
        manifest = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name},
            **content,
        }
        return await self.kube.create(resource, self.namespace, manifest)

    async def build(self, spec: Json, **run: Any) -> list[Json]:
        """Create a Build and a BuildRun, and follow the latter to its end."""
        await self.create(BUILDS, "it", spec=spec)
        return await self.run(**run)

    async def run(self, name: str = "it", **fields: Any) -> list[Json]:
        """Create a BuildRun and return all that was seen of it, the end last."""
        async with self.following(BUILD_RUNS, name) as events:
            await self.create(BUILD_RUNS, name, spec={"build": {"name": "it"}, **fields})
            return [run async for run in until(events, lambda run: condition(run)[0] in ENDS)]

    @asynccontextmanager
    async def following(
        self, resource: Resource, name: str
    ) -> AsyncIterator[AsyncIterator[tuple[str, Json]]]:
        """Watch one object from now on."""
        _, version = await self.kube.list(resource, self.namespace)
        watch = self.kube.watch(resource, self.namespace, resource_version=version)

        async def events() -> AsyncGenerator[tuple[str, Json], None]:
            async for kind, manifest in watch:
                if manifest["metadata"].get("name") == name:
                    yield kind, manifest

        async with aclosing(watch), aclosing(events()) as chosen:
            yield chosen

    @asynccontextmanager
    async def registering(self, spec: Json) -> AsyncIterator[AsyncIterator[Json]]:
        """Create a Build and follow its status."""
        async with self.following(BUILDS, "it") as events:
            await self.create(BUILDS, "it", spec=spec)
            yield (build["status"] async for _, build in events if "status" in build)

    async def add_secret(self, name: str, kind: str, data: Mapping[str, str]) -> None:
        """Create a Secret."""
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        await self.create(SECRETS, name, type=kind, data=encoded)

    async def add_git_secret(self, credentials: Credentials) -> None:
        """Create the Secret ``git``."""
        await self.add_secret("git", "kubernetes.io/basic-auth", _git_data(credentials))

    async def add_push_secret(self, host: str, credentials: Credentials) -> None:
        """Create the Secret ``push``."""
        auth = base64.b64encode(":".join(credentials).encode()).decode()
        data = {".dockerconfigjson": json.dumps({"auths": {host: {"auth": auth}}})}
        await self.add_secret("push", "kubernetes.io/dockerconfigjson", data)


ENDS = {"True", "False"}
SMALLEST: Json = {"strategy": {"name": "buildah"}, "output": {"image": "registry.example/it"}}


def _git_data(credentials: Credentials) -> dict[str, str]:
    return {"username": credentials.user, "password": credentials.password}


def _merged(one: Json, other: Mapping[str, Any]) -> Json:
    """Merge as a JSON merge patch does: None takes a field away."""
    merged = dict(one)
    for key, value in other.items():
        if isinstance(value, Mapping):
            merged[key] = _merged(merged.get(key) or {}, value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


async def until(events: AsyncIterator[tuple[str, Json]], is_end: Any) -> AsyncIterator[Json]:
    async for _, manifest in events:
        yield manifest
        if is_end(manifest):
            return


def condition(run: Json) -> tuple[str, str]:
    """Return status and reason of the one condition."""
    conditions = run.get("status", {}).get("conditions")
    return (conditions[0]["status"], conditions[0]["reason"]) if conditions else ("-", "-")


def conditions(seen: list[Json]) -> list[tuple[str, str]]:
    """List what a watcher saw happen, without repetitions."""
    told = [condition(run) for run in seen]
    return [one for number, one in enumerate(told) if number == 0 or told[number - 1] != one]


def recorded(case: str) -> Json:
    run: Json = json.loads((RECORDINGS / case / "buildrun.json").read_text())
    return run


def shape(value: Any) -> Any:
    """Keep the keys and forget the values; the Build's own spec is whatever it is."""
    if isinstance(value, Mapping):
        return {key: shape(inner) for key, inner in sorted(value.items()) if key != "buildSpec"}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value).__name__


async def output_of(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return output.decode()


async def inspect(image: str) -> Json:
    told = await output_of("skopeo", "inspect", "--tls-verify=false", f"docker://{image}")
    inspected: Json = json.loads(told)
    return inspected


def processes_naming(text: str) -> list[str]:
    """List the command lines on this machine that mention something."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if text in command:
            found.append(command)
    return found


async def until_running(text: str) -> None:
    while not processes_naming(text):  # noqa: ASYNC110  # the kernel sets no events
        await asyncio.sleep(0.02)


async def until_gone(text: str) -> None:
    while processes_naming(text):  # noqa: ASYNC110  # the kernel sets no events
        await asyncio.sleep(0.02)


def leftovers(folder: Path) -> list[Path]:
    return list((folder / "builds").iterdir())


def log_of(run: Json) -> str:
    """Return what all steps have said."""
    folder = Path(run["metadata"]["annotations"]["local.brokkr.io/log"])
    return "".join((folder / f"{step}.log").read_text() for step in STEPS)


@pytest.fixture
def bench(
    kube: KubeClient,
    control_plane: ControlPlane,
    namespace: str,
    git: GitServer,
    images: Registry,
) -> Lab:
    """Everything but a build runner."""
    return Lab(kube, namespace, git, images, control_plane.kubelet_identity)


@pytest.fixture
def lab(bench: Lab, runner: BuildRunner) -> Lab:
    """Everything, with a build runner."""
    return bench


# What comes out of a build.


async def test_a_build_succeeds_in_the_shape_and_order_that_was_recorded(lab: Lab) -> None:
    seen = await lab.build(lab.spec())

    run, expected = seen[-1], recorded("success")
    assert conditions(seen) == [
        ("-", "-"),
        ("Unknown", "Pending"),
        ("Unknown", "Running"),
        ("True", "Succeeded"),
    ]
    assert shape(run["status"]) == shape(expected["status"])
    assert run["status"]["buildSpec"] == lab.spec()
    assert run["metadata"]["labels"] == {
        "build.shipwright.io/name": "it",
        "build.shipwright.io/generation": "1",
    }


async def test_the_reported_digest_and_size_are_those_of_the_image_in_the_registry(
    lab: Lab,
) -> None:
    run = (await lab.build(lab.spec()))[-1]

    image = run["status"]["buildSpec"]["output"]["image"]
    output = run["status"]["output"]
    assert (await inspect(image))["Digest"] == output["digest"]
    manifest = json.loads(
        await output_of("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{image}")
    )
    sizes = [part["size"] for part in (manifest["config"], *manifest["layers"])]
    assert output["size"] == sum(sizes)


async def test_the_log_is_where_the_annotation_says_and_says_what_it_is(lab: Lab) -> None:
    run = (await lab.build(lab.spec()))[-1]

    assert "a stand-in for Shipwright" in run["metadata"]["annotations"]["local.brokkr.io/stand-in"]
    assert "a stand-in for Shipwright" in log_of(run)
    assert "STEP 1/" in log_of(run)


async def test_without_a_revision_the_branch_is_told(lab: Lab) -> None:
    run = (await lab.build(lab.spec(source={"git": {"revision": None}})))[-1]

    assert condition(run) == ("True", "Succeeded")
    assert run["status"]["source"]["git"]["branchName"] == "main"


@pytest.mark.parametrize("length", [40, 8])
async def test_a_commit_can_be_named_in_full_or_in_short(
    lab: Lab, repositories: Path, length: int
) -> None:
    sha = (await output_of("git", "-C", str(repositories / "sample.git"), "rev-parse", "main"))[:40]

    run = (await lab.build(lab.spec(source={"git": {"revision": sha[:length]}})))[-1]

    assert run["status"]["source"]["git"]["commitSha"] == sha


async def test_parameters_and_context_reach_the_build(lab: Lab) -> None:
    await lab.add_secret("words", "Opaque", {"greeting": "hello"})
    reference = {"name": "words", "key": "greeting", "format": "GREETING=${SECRET_VALUE} you"}
    values = [{"name": "build-args", "values": [{"secretValue": reference}]}]
    run = (await lab.build(lab.spec(paramValues=values, output={"labels": {"more": "1"}})))[-1]

    labels = (await inspect(run["status"]["buildSpec"]["output"]["image"]))["Labels"]

    wanted = {"greeting": "hello you", "from": "root", "more": "1"}
    assert {key: labels[key] for key in wanted} == wanted


async def test_a_context_folder_has_its_own_dockerfile(lab: Lab) -> None:
    run = (await lab.build(lab.spec(source={"contextDir": "sub"})))[-1]

    image = run["status"]["buildSpec"]["output"]["image"]
    assert (await inspect(image))["Labels"]["from"] == "sub"


async def test_the_build_run_overrides_the_build(lab: Lab) -> None:
    other = f"{lab.images.host}/{lab.namespace}-other:latest"
    run = (
        await lab.build(
            lab.spec(paramValues=[{"name": "dockerfile", "value": "Dockerfile.fails"}]),
            paramValues=[{"name": "dockerfile", "value": "Dockerfile"}],
            output={"image": other},
        )
    )[-1]

    assert condition(run) == ("True", "Succeeded")
    assert (await inspect(other))["Digest"] == run["status"]["output"]["digest"]


async def test_an_embedded_build_runs(lab: Lab) -> None:
    run = (await lab.run(build={"spec": lab.spec()}))[-1]

    assert condition(run) == ("True", "Succeeded")
    assert "labels" not in run["metadata"]


# Failing steps.

FAILURES: Mapping[str, Mapping[str, Any]] = {
    "wrong-revision": {"source": {"git": {"revision": "no-such-branch"}}},
    "wrong-revision-sha": {"source": {"git": {"revision": "0123456789" * 4}}},
    "wrong-git-url": {"source": {"git": {"url": "{git}/nope.git"}}},
    "git-auth-required": {"source": {"git": {"url": "{private_git}/sample.git"}}},
    "git-auth-wrong": {
        "source": {"git": {"url": "{private_git}/sample.git", "cloneSecret": "git"}}
    },
    "missing-dockerfile": {"paramValues": [{"name": "dockerfile", "value": "Dockerfile.nope"}]},
    "dockerfile-syntax": {"paramValues": [{"name": "dockerfile", "value": "Dockerfile.broken"}]},
    "run-step-fails": {"paramValues": [{"name": "dockerfile", "value": "Dockerfile.fails"}]},
    "registry-unreachable": {"output": {"image": "127.0.0.1:1/x:latest"}},
    "push-unauthorized": {"output": {"image": "{private_images}/x:latest"}},
}


@pytest.mark.parametrize("case", FAILURES)
async def test_a_failing_step_is_told_as_it_was_recorded(
    lab: Lab, private_git: GitServer, private_images: Registry, case: str
) -> None:
    await lab.add_git_secret(WRONG)
    places = {
        "{git}": lab.git.url,
        "{private_git}": private_git.url,
        "{private_images}": private_images.host,
    }
    fields = json.dumps(FAILURES[case])
    for placeholder, place in places.items():
        fields = fields.replace(placeholder, place)

    run = (await lab.build(lab.spec(**json.loads(fields))))[-1]

    expected = recorded(case)["status"]
    assert condition(run) == ("False", "Failed")
    assert shape(run["status"]) == shape(expected)
    details, words = run["status"]["failureDetails"], expected["failureDetails"]
    assert details["location"]["container"] == words["location"]["container"]
    assert details.get("reason") == words.get("reason")
    if details.get("reason") != "GitError":  # whose message quotes the address
        assert details.get("message") == words.get("message")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"source": {"contextDir": "nowhere"}}, "ContextDirNotFound"),
        ({"source": {"contextDir": "../.."}}, "ContextDirNotFound"),
        (
            {"paramValues": [{"name": "dockerfile", "value": "../../../../etc/hostname"}]},
            "DockerfileNotFound",
        ),
        (
            {"paramValues": [{"name": "dockerfile", "value": "Dockerfile.outside"}]},
            "DockerfileNotFound",
        ),
        ({"source": {"git": {"url": "/etc"}}}, "GitError"),
    ],
)
async def test_a_build_cannot_reach_this_machines_files(
    lab: Lab, fields: Json, reason: str
) -> None:
    run = (await lab.build(lab.spec(**fields)))[-1]

    assert run["status"]["failureDetails"]["reason"] == reason


async def test_a_build_that_takes_too_long_ends_as_it_was_recorded(lab: Lab) -> None:
    sleeps = lab.spec(paramValues=[{"name": "dockerfile", "value": "Dockerfile.sleeps"}])
    run = (await lab.build(sleeps, timeout="2s"))[-1]

    assert shape(run["status"]) == shape(recorded("timeout")["status"])
    assert run["status"]["conditions"][0]["message"] == ("BuildRun it failed to finish within 2s")
    await until_gone(run["metadata"]["uid"])


# Private sources and registries.


async def test_the_right_secrets_open_private_git_and_a_private_registry(
    lab: Lab, private_git: GitServer, private_images: Registry
) -> None:
    await lab.add_git_secret(RIGHT)
    await lab.add_push_secret(private_images.host, RIGHT)
    spec = lab.spec(
        source={"git": {"url": f"{private_git.url}/sample.git", "cloneSecret": "git"}},
        output={"image": f"{private_images.host}/private:latest", "pushSecret": "push"},
    )

    run = (await lab.build(spec))[-1]

    assert condition(run) == ("True", "Succeeded")
    assert RIGHT.password not in log_of(run)


@pytest.mark.parametrize("credentials", [WRONG, None])
async def test_the_wrong_secret_does_not_open_a_private_registry(
    lab: Lab, private_images: Registry, credentials: Credentials | None
) -> None:
    host = private_images.host if credentials else "elsewhere.example"
    await lab.add_push_secret(host, credentials or RIGHT)
    spec = lab.spec(output={"image": f"{private_images.host}/x:latest", "pushSecret": "push"})

    run = (await lab.build(spec))[-1]

    assert shape(run["status"]) == shape(recorded("push-unauthorized")["status"])
    told = (RECORDINGS / "push-unauthorized" / "logs.txt").read_text()
    assert all(REGISTRY_REFUSAL.find_in(text) for text in (told, log_of(run)))


async def test_a_build_heals_when_its_missing_secret_appears(lab: Lab) -> None:
    spec = lab.spec(source={"git": {"cloneSecret": "git"}})
    async with lab.registering(spec) as statuses:
        assert (await anext(statuses))["reason"] == "SpecSourceSecretRefNotFound"

        await lab.add_git_secret(RIGHT)

        assert (await anext(statuses))["registered"] == "True"


async def test_a_secret_that_goes_away_is_noticed(lab: Lab) -> None:
    await lab.add_git_secret(RIGHT)
    async with lab.registering(lab.spec(source={"git": {"cloneSecret": "git"}})) as statuses:
        assert (await anext(statuses))["registered"] == "True"

        await lab.kube.delete(SECRETS, lab.namespace, "git")

        assert (await anext(statuses))["registered"] == "False"

    run = (await lab.run())[-1]
    assert condition(run) == ("False", "BuildRegistrationFailed")


# Rejections.

REJECTIONS: Mapping[str, Mapping[str, Any]] = {
    "missing-clone-secret": {"source": {"git": {"cloneSecret": "no-such-secret"}}},
    "missing-push-secret": {"output": {"pushSecret": "no-such-secret"}},
    "unknown-clusterbuildstrategy": {"strategy": {"name": "no-such-strategy"}},
    "unknown-buildstrategy": {"strategy": {"kind": "BuildStrategy", "name": "no-such-strategy"}},
    "param-undefined": {"paramValues": [{"name": "no-such-param", "value": "x"}]},
    "param-restricted": {"paramValues": [{"name": "shp-source-root", "value": "x"}]},
    "param-wrong-type": {"paramValues": [{"name": "build-args", "value": "A=B"}]},
    "env-invalid": {"env": [{"name": "", "value": "x"}]},
    "volume-undefined": {"volumes": [{"name": "no-such-volume", "emptyDir": {}}]},
}


@pytest.mark.parametrize("case", REJECTIONS)
async def test_a_bad_build_is_refused_as_it_was_recorded(lab: Lab, case: str) -> None:
    seen = await lab.build(lab.spec(**REJECTIONS[case]))

    build = await lab.kube.get(BUILDS, lab.namespace, "it")
    expected = json.loads((RECORDINGS / case / "build.json").read_text())["status"]
    words = expected["message"].replace("namespace fx", f"namespace {lab.namespace}")
    assert build["status"] == {**expected, "message": words}
    assert conditions(seen)[-1] == ("False", "BuildRegistrationFailed")
    assert shape(seen[-1]["status"]) == shape(recorded(case)["status"])
    assert seen[-1]["status"]["conditions"][0]["message"].endswith(f"reason: {expected['reason']}")


async def test_a_build_run_of_no_build_is_refused_as_it_was_recorded(lab: Lab) -> None:
    run = (await lab.run(build={"name": "no-such-build"}))[-1]

    expected = recorded("missing-build")["status"]
    assert shape(run["status"]) == shape(expected)
    assert run["status"]["conditions"][0]["message"] == expected["conditions"][0]["message"]


async def test_a_service_account_that_is_not_there_is_told_as_it_was_recorded(lab: Lab) -> None:
    run = (await lab.build(lab.spec(), serviceAccount="no-such-sa"))[-1]

    expected = recorded("missing-serviceaccount")
    assert shape(run["status"]) == shape(expected["status"])
    assert (
        run["status"]["conditions"][0]["message"]
        == (expected["status"]["conditions"][0]["message"])
    )
    assert run["metadata"]["labels"].keys() == expected["metadata"]["labels"].keys()


async def test_a_missing_parameter_is_told_as_it_was_recorded(lab: Lab) -> None:
    await lab.kube.apply(
        CLUSTER_BUILD_STRATEGIES,
        None,
        {
            "apiVersion": CLUSTER_BUILD_STRATEGIES.api_version,
            "kind": CLUSTER_BUILD_STRATEGIES.kind,
            "metadata": {"name": "needs-param"},
            "spec": {"parameters": [{"name": "must", "type": "string"}]},
        },
    )

    run = (await lab.build(lab.spec(strategy={"name": "needs-param"})))[-1]

    expected = recorded("param-missing-value")["status"]
    assert shape(run["status"]) == shape(expected)
    assert run["status"]["conditions"][0]["message"] == expected["conditions"][0]["message"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"build": {}}, "BuildRunNoRefOrSpec"),
        ({"build": {"name": "it", "spec": SMALLEST}}, "BuildRunAmbiguousBuild"),
        ({"build": {"spec": SMALLEST}, "timeout": "5m"}, "BuildRunBuildFieldOverrideForbidden"),
        ({"env": [{"name": "LD_PRELOAD", "value": "x"}]}, "SpecEnvNameForbidden"),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            "CreateContainerConfigError",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            "TaskRunGenerationFailed",
        ),
    ],
)
async def test_a_build_run_that_makes_no_sense_is_refused(
    lab: Lab, fields: Json, reason: str
) -> None:
    run = (await lab.build(lab.spec(), **fields))[-1]

    assert condition(run) == ("False", reason)
    assert "executor" not in run["status"]


async def test_what_the_stand_in_cannot_do_it_says(lab: Lab) -> None:
    spec = lab.spec(source={"type": "OCI", "git": None, "ociArtifact": {"image": "h/x"}})
    run = (await lab.build(spec))[-1]

    assert condition(run) == ("False", "TaskRunGenerationFailed")


async def test_a_build_run_that_tekton_refuses_for_ever_says_nothing_and_can_be_cancelled(
    lab: Lab,
) -> None:
    """As it was recorded, but for the field that Shipwright's types leave out."""
    spec = lab.spec(paramValues=[{"name": "build-args", "values": []}])
    await lab.create(BUILDS, "it", spec=spec)
    async with lab.following(BUILD_RUNS, "it") as events:
        await lab.create(BUILD_RUNS, "it", spec={"build": {"name": "it"}})
        stalled = [run async for run in until(events, lambda run: "status" in run)][-1]
        assert stalled["status"] == {"buildSpec": spec}

        state = {"spec": {"state": "BuildRunCanceled"}}
        await lab.kube.merge_patch(BUILD_RUNS, lab.namespace, "it", state)
        end = [run async for run in until(events, lambda run: condition(run)[0] in ENDS)][-1]

    assert condition(end) == ("False", "BuildRunCanceled")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"output": {"platforms": [{"os": "linux", "arch": "amd64"}]}},
            "ExecutorNotPipelineRun",
        ),
        ({"source": None}, "TaskRunGenerationFailed"),
        ({"source": {"git": None}}, "TaskRunGenerationFailed"),
        (
            {"output": {"vulnerabilityScan": {"enabled": True, "failOnFinding": True}}},
            "TaskRunGenerationFailed",
        ),
    ],
)
async def test_no_other_image_is_made_than_the_one_that_was_asked_for(
    lab: Lab, fields: Json, reason: str
) -> None:
    run = (await lab.build(lab.spec(**fields)))[-1]

    assert condition(run) == ("False", reason)


async def test_what_a_build_is_without_is_said_in_its_result(lab: Lab) -> None:
    spec = lab.spec(nodeSelector={"disk": "ssd"}, output={"vulnerabilityScan": {"enabled": True}})
    run = (await lab.build(spec, schedulerName="other"))[-1]

    assert condition(run) == ("True", "Succeeded")
    result = result_of(a_work(), Execution(run, (), ()), None, is_usable=True)
    assert result["warnings"] == [
        "the local build runner ignores nodeSelector",
        "the local build runner ignores schedulerName",
        "the local build runner ignores output.vulnerabilityScan",
    ]


async def test_the_image_is_as_old_as_it_was_asked_to_be(lab: Lab) -> None:
    run = (await lab.build(lab.spec(output={"timestamp": "1000000000"})))[-1]

    assert condition(run) == ("True", "Succeeded")
    image = run["status"]["buildSpec"]["output"]["image"]
    assert (await inspect(image))["Created"].startswith("2001-09-09T01:46:40")


async def test_paths_that_begin_with_a_slash_begin_at_the_sources(lab: Lab) -> None:
    spec = lab.spec(
        source={"contextDir": "/"}, paramValues=[{"name": "dockerfile", "value": "/Dockerfile"}]
    )

    assert condition((await lab.build(spec))[-1]) == ("True", "Succeeded")


async def test_variables_may_be_empty_missing_or_refer_to_others(lab: Lab) -> None:
    missing = {"name": "nowhere", "key": "k", "optional": True}
    env = [
        {"name": "EMPTY", "value": ""},
        {"name": "NONE"},
        {"name": "MISSING", "valueFrom": {"secretKeyRef": missing}},
        {"name": "TAG", "value": "v1"},
        {"name": "GREETING", "value": "hello $(TAG) $$(TAG) $(OTHER)"},
    ]
    spec = lab.spec(
        env=env, paramValues=[{"name": "build-args", "values": [{"value": "GREETING"}]}]
    )
    run = (await lab.build(spec))[-1]

    assert condition(run) == ("True", "Succeeded")
    image = run["status"]["buildSpec"]["output"]["image"]
    assert (await inspect(image))["Labels"]["greeting"] == "hello v1 $(TAG) $(OTHER)"


async def odd_repository(folder: Path, name: str, **environment: str) -> None:
    """Add a commit to a copy of the sample, by whoever the environment says."""
    bare, clone = folder / f"{name}.git", folder / f"{name}-clone"
    await output_of("git", "clone", "--quiet", "--bare", str(folder / "sample.git"), str(bare))
    await output_of("git", "clone", "--quiet", str(bare), str(clone))
    (clone / ".gitattributes").write_text("*.bin filter=lfs\n" if name == "large" else "")
    (clone / "more.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    known = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a", "GIT_COMMITTER_EMAIL": "c"}
    settings = {**known, "GIT_COMMITTER_NAME": "c", **environment}
    variables = [f"{key}={value}" for key, value in settings.items()]
    at = ("git", "-C", str(clone))
    await output_of("env", *variables, *at, "add", "--all")
    await output_of("env", *variables, *at, "commit", "--quiet", "--message", name)
    await output_of(*at, "push", "--quiet", "origin", "HEAD")
    await output_of("git", "-C", str(bare), "update-server-info")


async def test_a_commit_by_an_odd_name_at_an_odd_time_is_built(
    lab: Lab, repositories: Path
) -> None:
    odd = "A\u2028B\x1cC\x85D"
    await odd_repository(
        repositories, "odd", GIT_AUTHOR_NAME=odd, GIT_COMMITTER_DATE="@4000000000000 +0000"
    )
    url = f"{lab.git.url}/odd.git"
    run = (await lab.build(lab.spec(source={"git": {"url": url, "revision": None}})))[-1]

    assert condition(run) == ("True", "Succeeded")
    assert run["status"]["source"]["git"]["commitAuthor"] == odd


async def test_files_in_git_lfs_are_refused_rather_than_built_as_pointers(
    lab: Lab, repositories: Path
) -> None:
    await odd_repository(repositories, "large")
    url = f"{lab.git.url}/large.git"
    run = (await lab.build(lab.spec(source={"git": {"url": url, "revision": None}})))[-1]

    assert condition(run) == ("False", "Failed")
    assert (
        "git-lfs, and 1 files are in Git LFS, such as more.bin"
        in (run["status"]["failureDetails"]["message"])
    )


# The traces that Tekton would leave.

ONLY_IN_A_CLUSTER = {"containerID", "imageID", "provenance", "artifacts"}


async def task_run_of(lab: Lab, run: Json) -> Json:
    return await lab.kube.get(TASK_RUNS, lab.namespace, run["status"]["taskRunName"])


def recorded_task_run(case: str) -> Json:
    runs: list[Json] = json.loads((RECORDINGS / case / "taskruns.json").read_text())
    task_run: Json = without(runs[0], ONLY_IN_A_CLUSTER)
    return task_run


def without(value: Any, keys: set[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: without(inner, keys) for key, inner in value.items() if key not in keys}
    return [without(each, keys) for each in value] if isinstance(value, list) else value


def told(task_run: Json) -> Any:
    """What somebody who looks for the cause of a failure goes by."""
    status = task_run["status"]
    return (
        condition(task_run),
        [each["name"] for each in status.get("results", ())],
        [
            (
                each["name"],
                each["container"],
                each["terminated"]["exitCode"],
                each["terminated"]["reason"],
                each["terminationReason"],
            )
            for each in status["steps"]
        ],
    )


TRACES: Mapping[str, Mapping[str, Any]] = {
    "success": {},
    "push-unauthorized": FAILURES["push-unauthorized"],
    "missing-dockerfile": FAILURES["missing-dockerfile"],
    "dockerfile-syntax": FAILURES["dockerfile-syntax"],
    "wrong-revision": FAILURES["wrong-revision"],
}


@pytest.mark.parametrize("case", TRACES)
async def test_a_task_run_is_left_as_it_was_recorded(
    lab: Lab, private_images: Registry, case: str
) -> None:
    fields = json.dumps(TRACES[case]).replace("{private_images}", private_images.host)

    run = (await lab.build(lab.spec(**json.loads(fields))))[-1]

    found, expected = await task_run_of(lab, run), recorded_task_run(case)
    assert shape(found["status"]) == shape(expected["status"])
    assert told(found) == told(expected)
    assert found["metadata"]["labels"].keys() - {
        "clusterbuildstrategy.shipwright.io/name"
    } == expected["metadata"]["labels"].keys() - {"clusterbuildstrategy.shipwright.io/name"}
    owner = found["metadata"]["ownerReferences"][0]
    assert (owner["uid"], owner["controller"]) == (run["metadata"]["uid"], True)
    assert found["spec"] == expected["spec"]


async def test_a_cancel_is_left_as_it_was_recorded_and_takes_the_pod_along(lab: Lab) -> None:
    await lab.create(BUILDS, "it", spec=sleeping(lab))
    following = asyncio.create_task(lab.run())
    await until_running("sleep 3600")

    await cancel(lab)

    found, expected = await task_run_of(lab, (await following)[-1]), recorded_task_run("cancel")
    assert shape(found["status"]) == shape(expected["status"])
    assert told(found) == told(expected)
    assert found["spec"] == expected["spec"]
    assert await lab.kube.find(PODS, lab.namespace, found["status"]["podName"]) is None


async def test_a_timeout_is_left_as_it_was_recorded(lab: Lab) -> None:
    run = (await lab.build(sleeping(lab), timeout="4s"))[-1]

    found, expected = await task_run_of(lab, run), recorded_task_run("timeout")
    assert shape(found["status"]) == shape(expected["status"])
    assert told(found) == told(expected)
    assert found["spec"]["timeout"] == "4s"


async def test_the_step_at_work_is_the_first_that_has_not_ended(lab: Lab) -> None:
    await lab.create(BUILDS, "it", spec=sleeping(lab))
    await lab.create(BUILD_RUNS, "it", spec={"build": {"name": "it"}})
    await until_running("sleep 3600")

    run = await lab.kube.get(BUILD_RUNS, lab.namespace, "it")
    found = await task_run_of(lab, run)
    pod = await lab.kube.get(PODS, lab.namespace, found["status"]["podName"])

    assert condition(found) == ("Unknown", "Running")
    running = [each["name"] for each in found["status"]["steps"] if "running" in each]
    assert running == ["build", "image-processing"]
    assert pod["status"]["phase"] == "Running"
    await cancel(lab)
    await until_gone(run["metadata"]["uid"])


async def test_a_build_whose_task_run_is_deleted_ends_as_it_was_recorded(lab: Lab) -> None:
    await lab.create(BUILDS, "it", spec=sleeping(lab))
    following = asyncio.create_task(lab.run())
    await until_running("sleep 3600")
    run = await lab.kube.get(BUILD_RUNS, lab.namespace, "it")

    await lab.kube.delete(TASK_RUNS, lab.namespace, run["status"]["taskRunName"])

    end, expected = (await following)[-1], recorded("taskrun-deleted")["status"]
    assert condition(end) == ("False", "TaskRunIsMissing")
    assert shape(end["status"]) == shape(expected)
    assert processes_naming(end["metadata"]["uid"]) == []


async def test_a_build_whose_pod_is_deleted_ends_as_it_was_recorded(lab: Lab) -> None:
    await lab.create(BUILDS, "it", spec=sleeping(lab))
    following = asyncio.create_task(lab.run())
    await until_running("sleep 3600")
    run = await lab.kube.get(BUILD_RUNS, lab.namespace, "it")
    task_run = await task_run_of(lab, run)

    await lab.kube.delete(PODS, lab.namespace, task_run["status"]["podName"])

    end = (await following)[-1]
    ended, expected = await task_run_of(lab, end), recorded_task_run("pod-deleted")
    assert condition(end) == ("False", "Failed")
    assert end["status"]["failureDetails"]["location"]["container"] == "step-build"
    assert how_it_ended(ended) == how_it_ended(expected)
    assert processes_naming(end["metadata"]["uid"]) == []


def how_it_ended(task_run: Json) -> list[tuple[str, int, str | None]]:
    return [
        (each["container"], each["terminated"]["exitCode"], each.get("terminationReason"))
        for each in task_run["status"]["steps"]
    ]


async def test_a_task_run_that_a_killed_runner_has_just_made_is_used(
    bench: Lab, tmp_path: Path
) -> None:
    await bench.create(BUILDS, "it", spec=bench.spec())
    run = await bench.create(BUILD_RUNS, "it", spec={"build": {"name": "it"}})
    made = render_task_run(run, labels={}, annotations={}, service_account="x", timeout=None)
    left = await bench.kube.create(TASK_RUNS, bench.namespace, made)

    async with (
        bench.following(BUILD_RUNS, "it") as events,
        working(bench.runner(tmp_path)),
    ):
        seen = [one async for one in until(events, lambda one: condition(one)[0] in ENDS)]

    assert condition(seen[-1]) == ("True", "Succeeded")
    assert seen[-1]["status"]["taskRunName"] == left["metadata"]["name"]
    assert condition(await task_run_of(bench, seen[-1])) == ("True", "Succeeded")


async def test_a_build_that_may_not_have_a_pod_ends(lab: Lab) -> None:
    limits = {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}
    await lab.create(Resource("", "v1", "LimitRange", "limitranges"), "limits", spec=limits)

    run = (await lab.build(lab.spec()))[-1]

    assert condition(run) == ("False", "PodCreationFailed")
    assert "maximum cpu usage" in run["status"]["conditions"][0]["message"]
    assert condition(await task_run_of(lab, run)) == ("False", "PodCreationFailed")


async def test_a_pod_that_is_left_half_deleted_goes_and_nobody_elses(
    bench: Lab, tmp_path: Path
) -> None:
    """As by an API server that died between its two writes; then a kubelet has the rest to do."""
    metadata = {"name": "it", "uid": "a-uid", "labels": {}}
    # Listed, and so looked at, in the order of their names: when ours is gone, theirs was left.
    for name, node in (("another", "another-node"), ("ours", node_name(tmp_path))):
        pod = render_pod({"metadata": {**metadata, "name": name}}, node=node, steps=["build"])
        del pod["metadata"]["ownerReferences"]
        pod["spec"]["terminationGracePeriodSeconds"] = 3600
        await bench.kube.create(PODS, bench.namespace, pod)
        await bench.kube.delete(PODS, bench.namespace, f"{name}-pod")
        assert await bench.kube.find(PODS, bench.namespace, f"{name}-pod") is not None

    async def is_gone() -> bool:
        return await bench.kube.find(PODS, bench.namespace, "ours-pod") is None

    async with working(bench.runner(tmp_path)):
        await eventually(is_gone)
    assert await bench.kube.find(PODS, bench.namespace, "another-pod") is not None
    await bench.kube.delete(PODS, bench.namespace, "another-pod", at_once=True)


async def test_an_api_server_that_knows_no_kinds_yet_is_waited_for() -> None:
    answers: list[KubeError | str] = [
        KubeKindUnknown("404 page not found"),
        KubeUnavailable("starting"),
        "done",
    ]

    async def attempt() -> str:
        answer = answers.pop(0)
        if isinstance(answer, KubeError):
            raise answer
        return answer

    assert await outlast(attempt) == "done"


async def test_what_a_build_leaves_goes_with_its_build_run(lab: Lab) -> None:
    run = (await lab.build(lab.spec()))[-1]
    pod = (await task_run_of(lab, run))["status"]["podName"]

    await lab.kube.delete(BUILD_RUNS, lab.namespace, "it")

    async def is_gone() -> bool:
        return await lab.kube.find(PODS, lab.namespace, pod) is None

    await eventually(is_gone)


# Logs.


async def logs(lab: Lab, plane: ControlPlane, pod: str, container: str, **query: str) -> str:
    """Ask for them as the agent and kubectl do."""
    config = KubeConfig.load(plane.kubeconfig)
    url = f"{config.server}{PODS.path(lab.namespace, pod, 'log')}"
    headers = {"Authorization": f"Bearer {await config.credentials.token()}"}
    params = {"container": container, **query}
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, params=params, headers=headers, ssl=config.tls or True) as answer,
    ):
        answer.raise_for_status()
        return await answer.text()


async def test_the_api_server_serves_the_log_of_each_step(
    lab: Lab, control_plane: ControlPlane
) -> None:
    fails = {"paramValues": [{"name": "dockerfile", "value": "Dockerfile.nope"}]}
    run = (await lab.build(lab.spec(**fails)))[-1]
    pod = (await task_run_of(lab, run))["status"]["podName"]

    source, build, push = [await logs(lab, control_plane, pod, step) for step in STEPS]

    assert f"Fetching {lab.git.url}/sample.git main" in source
    assert "The Dockerfile 'Dockerfile.nope' does not exist." in build
    assert push == "Skipping step because a previous step failed\n"
    last = await logs(lab, control_plane, pod, "step-build", tailLines="1", limitBytes="14")
    assert last == "The Dockerfile"
    assert (await lab.kube.get(PODS, lab.namespace, pod))["status"]["phase"] == "Failed"


async def test_the_log_of_a_running_step_can_be_read(lab: Lab, control_plane: ControlPlane) -> None:
    await lab.create(BUILDS, "it", spec=sleeping(lab))
    await lab.create(BUILD_RUNS, "it", spec={"build": {"name": "it"}})
    await until_running("sleep 3600")
    run = await lab.kube.get(BUILD_RUNS, lab.namespace, "it")
    pod = (await task_run_of(lab, run))["status"]["podName"]

    assert "STEP 1/" in await logs(lab, control_plane, pod, "step-build")

    await cancel(lab)
    await until_gone(run["metadata"]["uid"])


async def test_logs_outlive_their_runner(
    bench: Lab, control_plane: ControlPlane, tmp_path: Path
) -> None:
    async with working(bench.runner(tmp_path)):
        run = (await bench.build(bench.spec()))[-1]
    pod = (await task_run_of(bench, run))["status"]["podName"]

    async with working(bench.runner(tmp_path)):
        await bench.run("after", build={"name": "gone"})  # so the second one is at work

        assert "STEP 1/" in await logs(bench, control_plane, pod, "step-build")


# Cancelling, losing and keeping.


def sleeping(lab: Lab) -> Json:
    return lab.spec(paramValues=[{"name": "dockerfile", "value": "Dockerfile.sleeps"}])


async def cancel(lab: Lab, name: str = "it") -> None:
    patch = {"spec": {"state": "BuildRunCanceled"}}
    await lab.kube.merge_patch(BUILD_RUNS, lab.namespace, name, patch)


async def test_a_running_build_is_cancelled_as_it_was_recorded(lab: Lab) -> None:
    await lab.create(BUILDS, "it", spec=sleeping(lab))
    following = asyncio.create_task(lab.run())
    await until_running("sleep 3600")

    await cancel(lab)

    seen = await following
    uid = seen[-1]["metadata"]["uid"]
    assert conditions(seen)[-3:] == [
        ("Unknown", "Running"),
        ("Unknown", "BuildRunCanceled"),
        ("False", "BuildRunCanceled"),
    ]
    expected = recorded("cancel")["status"]
    assert shape(seen[-1]["status"]) == shape(expected)
    assert seen[-1]["status"]["conditions"][0]["message"] == expected["conditions"][0]["message"]
    assert processes_naming(uid) == []


async def test_a_build_run_that_was_cancelled_beforehand_never_starts(lab: Lab) -> None:
    run = (await lab.build(lab.spec(), state="BuildRunCanceled"))[-1]

    assert condition(run) == ("False", "BuildRunCanceled")
    assert run["status"]["conditions"][0]["message"] == "the BuildRun is marked canceled."
    assert "executor" not in run["status"]


async def test_a_finished_build_run_is_never_touched_again(lab: Lab) -> None:
    finished = (await lab.build(lab.spec()))[-1]

    await cancel(lab)
    await lab.run("after")  # looked at in turn, so the cancel has been, too

    now = await lab.kube.get(BUILD_RUNS, lab.namespace, "it")
    assert now["status"] == finished["status"]


async def test_a_build_ends_with_its_build_run(lab: Lab) -> None:
    await lab.create(BUILDS, "it", spec=sleeping(lab))
    run = await lab.create(BUILD_RUNS, "it", spec={"build": {"name": "it"}})
    await until_running(run["metadata"]["uid"])

    await lab.kube.delete(BUILD_RUNS, lab.namespace, "it")

    await until_gone(run["metadata"]["uid"])


async def test_only_so_many_builds_run_at_once(lab: Lab) -> None:
    await lab.create(BUILDS, "it", spec=sleeping(lab))
    names = ["one", "two", "three"]
    for name in names:
        await lab.create(BUILD_RUNS, name, spec={"build": {"name": "it"}})

    async def count_running() -> int:
        runs, _ = await lab.kube.list(BUILD_RUNS, lab.namespace)
        return [condition(run) for run in runs].count(("Unknown", "Running"))

    while await count_running() < 2:
        pass
    waiting = await until_pending(lab, *names)
    assert await count_running() == 2

    for name in set(names) - {waiting["metadata"]["name"]}:
        await cancel(lab, name)
    await until_running(waiting["metadata"]["uid"])


async def test_a_build_run_is_deleted_when_its_time_is_over(lab: Lab) -> None:
    async with lab.following(BUILD_RUNS, "it") as events:
        await lab.build(lab.spec(retention={"ttlAfterSucceeded": "1s"}))

        assert [kind async for kind, _ in until_deleted(events)][-1] == "DELETED"


async def until_deleted(
    events: AsyncIterator[tuple[str, Json]],
) -> AsyncIterator[tuple[str, Json]]:
    async for kind, manifest in events:
        yield kind, manifest
        if kind == "DELETED":
            return


# The runner as a process.


@asynccontextmanager
async def runner_process(
    plane: ControlPlane, folder: Path, namespace: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brokkr.local.build_runner"),
        *("--kubeconfig", plane.kubeconfig, "--folder", folder, "--namespace", namespace),
        *("--identity", plane.kubelet_identity),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_runner_takes_its_builds_along_and_the_next_one_says_so(
    bench: Lab, control_plane: ControlPlane, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "runner"
    await bench.create(BUILDS, "it", spec=sleeping(bench))
    async with bench.following(BUILD_RUNS, "it") as events:
        run = await bench.create(BUILD_RUNS, "it", spec={"build": {"name": "it"}})
        work = str(folder / "builds" / run["metadata"]["uid"])
        async with runner_process(control_plane, folder, bench.namespace) as first:
            await until_running(f"--root {work}")
            first.send_signal(number)
            await first.wait()
        await until_gone(work)

        async with runner_process(control_plane, folder, bench.namespace):
            seen = [one async for one in until(events, lambda one: condition(one)[0] in ENDS)]

    assert conditions(seen)[-2:] == [("Unknown", "Running"), ("False", "TaskRunIsMissing")]
    assert shape(seen[-1]["status"]) == shape(recorded("taskrun-deleted")["status"])
    task_runs, _ = await bench.kube.list(TASK_RUNS, bench.namespace)
    assert task_runs == []
    assert leftovers(folder) == []


async def test_a_runner_that_finds_no_api_server_says_so_and_ends(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    nowhere = tmp_path / "kubeconfig"
    config = control_plane.kubeconfig.read_text()
    nowhere.write_text(config.replace(control_plane.url, f"https://127.0.0.1:{free_port()}"))
    runner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brokkr.local.build_runner", "--kubeconfig", nowhere),
        *("--folder", tmp_path / "runner", "--identity", control_plane.kubelet_identity),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await runner.communicate()

    assert runner.returncode == 1
    assert said.startswith(b"error: https://127.0.0.1:")


async def test_a_build_that_had_not_begun_is_taken_up_by_the_next_runner(
    bench: Lab, tmp_path: Path
) -> None:
    await bench.create(BUILDS, "it", spec=sleeping(bench))
    for name in ("busy", "it"):
        await bench.create(BUILD_RUNS, name, spec={"build": {"name": "it"}})
    async with working(bench.runner(tmp_path, concurrency=1)):
        await until_running("sleep 3600")
        waiting = await until_pending(bench, "it", "busy")
    await bench.kube.delete(BUILDS, bench.namespace, "it")
    await bench.create(BUILDS, "it", spec=bench.spec())

    async with (
        bench.following(BUILD_RUNS, waiting["metadata"]["name"]) as events,
        working(bench.runner(tmp_path)),
    ):
        seen = [one async for one in until(events, lambda one: condition(one)[0] in ENDS)]

    assert condition(seen[-1]) == ("True", "Succeeded")
    assert seen[-1]["status"]["executor"] == waiting["status"]["executor"]


async def until_created(lab: Lab) -> None:
    while await lab.kube.find(BUILD_RUNS, lab.namespace, "it") is None:
        pass


async def until_pending(lab: Lab, *names: str) -> Json:
    while True:
        for name in names:
            run = await lab.kube.get(BUILD_RUNS, lab.namespace, name)
            if condition(run)[1] == "Pending":
                return run


@asynccontextmanager
async def working(runner: BuildRunner) -> AsyncIterator[None]:
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_folder_has_one_runner(bench: Lab, tmp_path: Path) -> None:
    async with working(bench.runner(tmp_path)):
        await bench.build(bench.spec(env=[{"name": ""}]))  # ended, so the first one is at work
        with pytest.raises(FolderInUse):
            await bench.runner(tmp_path).run()


async def test_one_runner_serves_all_namespaces(bench: Lab, tmp_path: Path) -> None:
    """In a cluster of its own: it would work off what other tests have left behind."""
    async with (
        run_control_plane(tmp_path / "plane", print, crds=project_crds()) as plane,
        KubeClient(KubeConfig.load(plane.kubeconfig)) as kube,
    ):
        labs = []
        for name in ("one", "two", "three"):
            manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await kube.create(NAMESPACES, None, manifest)
            labs.append(replace(bench, kube=kube, namespace=name, identity=plane.kubelet_identity))
        following = [asyncio.create_task(one.run(build={"name": "gone"})) for one in labs]
        # All must be there before the runner is, for it to find them in one list.
        await asyncio.gather(*map(until_created, labs))

        async with working(labs[0].runner(tmp_path / "runner", namespace=None)):
            ends = [(await one)[-1] for one in following]

    assert [condition(end) for end in ends] == [("False", "BuildNotFound")] * 3


async def test_a_build_that_makes_no_sense_does_not_stop_the_others(lab: Lab) -> None:
    await lab.create(BUILDS, "odd", spec=lab.spec(source={"git": None}, timeout="1d"))

    run = (await lab.build(lab.spec()))[-1]

    assert condition(run) == ("True", "Succeeded")


# What the runner makes nothing of.

ODD: list[Any] = [None, "", "\x7f\u202e", 0, -1, 2**40, True, [], [[]], {}, {"": ""}, "x" * 20_000]


def altered(value: Any, dice: Random) -> Any:
    """Put something odd in one place of a manifest."""
    if not isinstance(value, dict | list) or not value or dice.random() < 0.15:
        return dice.choice(ODD)
    if isinstance(value, list):
        place = dice.randrange(len(value))
        return [*value[:place], altered(value[place], dice), *value[place + 1 :]]
    key = dice.choice(sorted(value))
    return {**value, key: altered(value[key], dice)}


async def ended(lab: Lab, name: str) -> tuple[str, str]:
    async def has_ended() -> tuple[str, str] | None:
        run = await lab.kube.find(BUILD_RUNS, lab.namespace, name)
        assert run is not None
        return condition(run) if is_finished(run) else None

    return await eventually(has_ended, within=60)


async def test_each_build_that_makes_no_sense_is_one_failed_build(lab: Lab) -> None:
    dice = Random(13)
    full = lab.spec(
        paramValues=[{"name": "build-args", "values": [{"value": "GREETING=x"}]}],
        env=[{"name": "A", "value": "b"}],
        output={"labels": {"a": "b"}, "pushSecret": "none"},
        source={"contextDir": ".", "git": {"cloneSecret": "none"}},
        timeout="60s",
        retention={"ttlAfterFailed": "1h"},
    )
    names = []
    for number in range(80):
        name = f"odd-{number}"
        spec, run = full, {"build": {"name": name}, "env": [], "retention": {}}
        if number % 3:
            spec = altered(altered(full, dice), dice)
        else:
            run = altered({**run, "paramValues": full["paramValues"], "timeout": "1s"}, dice)
        try:
            await lab.create(BUILDS, name, spec=spec)
            await lab.create(BUILD_RUNS, name, spec=run)
        except KubeInvalid:
            continue  # the API server would not have it: that is a reason, too
        names.append(name)

    assert len(names) > 5
    assert {(await ended(lab, name))[0] for name in names} == {"False"}
    assert condition((await lab.build(lab.spec()))[-1]) == ("True", "Succeeded")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("brokkr.local.build_runner.runner.admit", "TaskRunGenerationFailed"),
        ("brokkr.local.build_runner.runner.check_build", "TaskRunGenerationFailed"),
        ("brokkr.local.build_runner.executions.run_steps", "PodCreationFailed"),
    ],
)
async def test_a_mistake_of_the_runner_fails_one_build_with_its_words(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, place: str, reason: str
) -> None:
    def surprise(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("nobody had thought of it")

    with monkeypatch.context() as patch:
        patch.setattr(place, surprise)
        run = (await lab.build(lab.spec()))[-1]

    assert condition(run) == ("False", reason)
    message = run["status"]["conditions"][0]["message"]
    assert "ZeroDivisionError: nobody had thought of it" in message
    await lab.create(BUILDS, "next", spec=lab.spec())
    after = await lab.run("next", build={"name": "next"})
    assert condition(after[-1]) == ("True", "Succeeded")


async def test_a_status_that_somebody_has_made_up_is_one_failed_build(
    bench: Lab, tmp_path: Path
) -> None:
    made_up: list[Any] = [
        {"conditions": "all is well"},
        {"conditions": [{"type": "Succeeded"}, 7]},
        {"conditions": [{"type": "Succeeded", "status": "Unknown", "reason": "Running"}]},
        {"taskRunName": 7},
        {"startTime": "yesterday", "taskRunName": None},
    ]
    await bench.create(BUILDS, "it", spec=bench.spec())
    names = []
    for number, status in enumerate(made_up):
        run = await bench.create(BUILD_RUNS, f"odd-{number}", spec={"build": {"name": "it"}})
        try:
            await bench.kube.replace_status(BUILD_RUNS, bench.namespace, {**run, "status": status})
        except KubeInvalid:
            continue
        names.append(f"odd-{number}")
    running = asyncio.create_task(bench.runner(tmp_path / "runner").run())
    try:
        ends = [await ended(bench, name) for name in names]
    finally:
        running.cancel()
        await asyncio.wait([running])

    assert {status for status, _ in ends} <= {"True", "False"}
    assert running.cancelled() or running.exception() is None

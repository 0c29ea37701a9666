"""
Real builds: from a private git repository to a private registry, with nothing played.

Broker, agent, API server, registry and build runner are processes of their own, as
``brokkr local up --private`` starts them.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from brokkr.agent.kinds import BUILD_RUNS, SECRETS, WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeForbidden
from brokkr.client import BrokerClient
from brokkr.local.binaries import ensure_programs
from brokkr.local.credentials import Credentials
from brokkr.local.up import (
    CLONE_SECRET,
    NAMESPACE,
    PUSH_SECRET,
    LocalSystem,
    Ports,
    local_system,
)
from brokkr.wire.bodies import SubmitWork, TargetBody, WorkBody, WorkState
from brokkr.work.names import attempt_name, work_name
from support.signals import eventually

pytestmark = [pytest.mark.build, pytest.mark.kube, pytest.mark.postgres]

EXAMPLE = Path(__file__).parents[2] / "examples" / "hello-image"
CREDENTIALS = Credentials("brokkr", "local-only")


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalSystem]:
    slow = tmp_path_factory.mktemp("sources") / "slow"
    slow.mkdir()
    (slow / "Dockerfile").write_text(
        "FROM scratch\n"
        "COPY busybox /bin/busybox\n"
        'RUN ["/bin/busybox", "sleep", "3"]\n'
        'CMD ["/bin/busybox", "true"]\n'
    )
    async with local_system(
        tmp_path_factory.mktemp("local"),
        say=print,
        ports=Ports(broker=0, registry=0, git=0),
        sources=[EXAMPLE, slow],
        credentials=CREDENTIALS,
    ) as running:
        yield running


@pytest.fixture
async def client(system: LocalSystem) -> AsyncIterator[BrokerClient]:
    async with BrokerClient(system.broker_url, system.admin_key) as client:
        yield client


@pytest.fixture
async def cluster(system: LocalSystem) -> AsyncIterator[KubeClient]:
    async with KubeClient(KubeConfig.load(system.kubeconfig)) as kube:
        yield kube


def a_build(
    system: LocalSystem,
    image: str,
    *,
    repository: str = "hello-image",
    revision: str = "main",
    clone_secret: str = CLONE_SECRET,
    push_secret: str = PUSH_SECRET,
    **more: Any,
) -> dict[str, Any]:
    git = {
        "url": f"{system.git_url}/{repository}.git",
        "revision": revision,
        "cloneSecret": clone_secret,
    }
    return {
        "apiVersion": "shipwright.io/v1beta1",
        "kind": "Build",
        "metadata": {"name": image},
        "spec": {
            "source": {"type": "Git", "git": git},
            "strategy": {"kind": "ClusterBuildStrategy", "name": "buildah"},
            "output": {
                "image": f"{system.registry}/{image}:latest",
                "insecure": True,
                "pushSecret": push_secret,
            },
            **more,
        },
    }


async def run(client: BrokerClient, template: dict[str, Any], *, max_retries: int = 0) -> WorkBody:
    return await end_of(client, await submit(client, template, max_retries=max_retries))


async def submit(
    client: BrokerClient, template: dict[str, Any], *, max_retries: int = 0
) -> WorkBody:
    return await client.submit_work(
        SubmitWork(
            work_type="build",
            template=template,
            target=TargetBody(match_labels={"env": "local"}),
            max_retries=max_retries,
        )
    )


async def end_of(client: BrokerClient, work: WorkBody) -> WorkBody:
    async def is_finished() -> WorkBody | None:
        found = await client.get_work(work.id)
        return found if found.status.is_finished else None

    return await eventually(is_finished, within=90)


async def inspect(image: str) -> dict[str, Any]:
    """Read an image back from the registry with a tool that is not ours."""
    programs = await ensure_programs(["skopeo"], print)
    process = await asyncio.create_subprocess_exec(
        *(str(programs["skopeo"]), "inspect", "--tls-verify=false"),
        *("--creds", f"{CREDENTIALS.user}:{CREDENTIALS.password}", f"docker://{image}"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    inspected: dict[str, Any] = json.loads(output)
    return inspected


async def a_secret(cluster: KubeClient, name: str, kind: str, **data: str) -> str:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": kind,
        "stringData": data,
    }
    await cluster.apply(SECRETS, NAMESPACE, secret)
    return name


async def test_an_image_is_built_from_private_git_and_pushed_to_a_private_registry(
    system: LocalSystem, client: BrokerClient, cluster: KubeClient
) -> None:
    work = await run(client, a_build(system, "hello"))
    assert work.status is WorkState.SUCCEEDED, work.result_message
    assert work.result is not None

    name = work_name(work.id, round=1)
    resource = await cluster.get(WORKS, NAMESPACE, name)
    build_run = await cluster.get(BUILD_RUNS, NAMESPACE, attempt_name(name, 1))
    digests = {
        work.result["digest"],
        resource["status"]["result"]["digest"],
        build_run["status"]["output"]["digest"],
        (await inspect(f"{system.registry}/hello:latest"))["Digest"],
    }
    assert len(digests) == 1
    assert work.result["git"]["commit_sha"]
    assert work.result["size"] > 0


async def test_the_agent_has_built_that_without_being_allowed_to_read_a_secret(
    system: LocalSystem, client: BrokerClient
) -> None:
    (agent,) = [each for each in system.servers if each.name == "agent"]
    variables = Path(f"/proc/{agent.pid}/environ").read_text().split("\0")
    (kubeconfig,) = [
        each.partition("=")[2]
        for each in variables
        if each.startswith("BROKKR__AGENT__KUBECONFIG=")
    ]

    async with KubeClient(KubeConfig.load(Path(kubeconfig))) as as_agent:
        assert (await as_agent.list(WORKS, NAMESPACE))[0] is not None
        with pytest.raises(KubeForbidden, match="cannot get resource"):
            await as_agent.get(SECRETS, NAMESPACE, CLONE_SECRET)


async def test_a_revision_that_does_not_exist_is_a_permanent_failure(
    system: LocalSystem, client: BrokerClient
) -> None:
    work = await run(client, a_build(system, "nope", revision="no-such-branch"), max_retries=3)

    assert work.status is WorkState.FAILED
    assert work.retries_attempted == 0
    assert work.result_message is not None
    assert "GitRevisionNotFound" in work.result_message


async def test_an_attempt_that_is_deleted_midway_is_retried_and_succeeds(
    system: LocalSystem, client: BrokerClient, cluster: KubeClient
) -> None:
    submitted = await submit(client, a_build(system, "slow", repository="slow"), max_retries=1)
    first = attempt_name(work_name(submitted.id, round=1), 1)

    async def is_recorded_as_running() -> bool:
        found = await cluster.find(WORKS, NAMESPACE, work_name(submitted.id, round=1))
        attempts = (found or {}).get("status", {}).get("attempts", [])
        return bool(attempts and attempts[0].get("uid"))

    await eventually(is_recorded_as_running, within=60)
    await cluster.delete(BUILD_RUNS, NAMESPACE, first)
    work = await end_of(client, submitted)

    assert work.status is WorkState.SUCCEEDED, work.result_message
    assert work.result is not None
    assert [each["reason"] for each in work.result["attempts"]] == [
        "AttemptMissing",
        "BuildCompleted",
    ]


async def test_a_wrong_git_password_is_a_permanent_failure_that_says_so(
    system: LocalSystem, client: BrokerClient, cluster: KubeClient
) -> None:
    secret = await a_secret(
        cluster, "wrong-git", "kubernetes.io/basic-auth", username="brokkr", password="wrong"
    )
    work = await run(client, a_build(system, "x1", clone_secret=secret), max_retries=3)

    assert work.status is WorkState.FAILED
    assert work.retries_attempted == 0
    assert work.result_message is not None
    assert "GitAuthInvalidUserOrPass" in work.result_message


async def test_a_wrong_registry_password_fails_at_the_push(
    system: LocalSystem, client: BrokerClient, cluster: KubeClient
) -> None:
    secret = await a_secret(
        cluster,
        "wrong-registry",
        "kubernetes.io/dockerconfigjson",
        **{".dockerconfigjson": Credentials("brokkr", "wrong").docker_config(system.registry)},
    )
    work = await run(client, a_build(system, "x2", push_secret=secret))

    assert work.status is WorkState.FAILED
    assert work.result is not None
    assert work.result["step"]["container"] == "step-image-processing"


@pytest.mark.parametrize("which", ["clone_secret", "push_secret"])
async def test_a_missing_secret_is_a_permanent_failure_that_names_it(
    system: LocalSystem, client: BrokerClient, which: str
) -> None:
    template = a_build(system, "x3", **{which: "no-such-secret"})
    work = await run(client, template, max_retries=3)

    assert work.status is WorkState.FAILED
    assert work.retries_attempted == 0
    assert work.result_message is not None
    assert "no-such-secret" in work.result_message

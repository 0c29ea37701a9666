"""
The suite for any cluster, in one that local mode starts: it passes, and leaves nothing.

It runs as `make test-cluster` runs it: as a process of its own, told all by its environment.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from brokkr.agent.kinds import (
    BUILDS,
    CLUSTER_BUILD_STRATEGIES,
    CLUSTER_ROLES,
    CRDS,
    NAMESPACES,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.local.build_runner.definitions import definitions
from brokkr.local.control_plane import ControlPlane
from brokkr.local.control_plane import control_plane as run_control_plane
from brokkr.local.up import CLONE_SECRET, NAMESPACE, PUSH_SECRET, STRATEGY
from support.any_cluster import INSECURE, VARIABLES
from support.cluster import everything
from support.local import Local
from support.signals import eventually

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def the_suite(
    variables: Mapping[str, str], folder: Path, *, background: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """
    Run the suite with nothing of this machine's own variables for it.

    Args:
        background: With SIGINT ignored, as by a shell that a script tells to start it with `&`.
    """
    inherited = {k: v for k, v in os.environ.items() if k not in {*VARIABLES, INSECURE}}
    process = await asyncio.create_subprocess_exec(
        # Whoever runs the tests in the background passes that on.
        *("env", "--ignore-signal=INT" if background else "--default-signal=INT"),
        *(sys.executable, "-m", "pytest", "-m", "cluster"),
        *("tests/cluster", "-q", "-p", "no:cacheprovider", "--basetemp", str(folder / "suite")),
        cwd=ROOT,
        env={**inherited, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def variables_for(kubeconfig: Path, *, registry: str, git_url: str) -> dict[str, str]:
    return {
        "KUBECONFIG": str(kubeconfig),
        "BROKKR_TEST_REGISTRY": registry,
        "BROKKR_TEST_PUSH_SECRET": f"{NAMESPACE}/{PUSH_SECRET}",
        INSECURE: "true",
        "BROKKR_TEST_GIT_URL": f"{git_url}/sample.git",
        "BROKKR_TEST_CLONE_SECRET": f"{NAMESPACE}/{CLONE_SECRET}",
        "BROKKR_TEST_STRATEGY": STRATEGY,
    }


@pytest.mark.build
@pytest.mark.kube
@pytest.mark.postgres
@pytest.mark.timeout(300)
async def test_it_passes_in_local_mode(local: Local, tmp_path: Path) -> None:
    variables = variables_for(
        local.system.kubeconfig, registry=local.system.registry, git_url=local.system.git_url
    )
    before = await versions_of_what_agents_share(local.kube)
    async with the_suite(variables, tmp_path) as process:
        output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
    assert "8 passed" in output.decode()
    left = [each for each in await everything(local.kube) if "brokkr-test-" in f"{each}"]
    assert left == []
    assert await versions_of_what_agents_share(local.kube) == before


async def versions_of_what_agents_share(kube: KubeClient) -> list[str]:
    """Read the versions, which each write changes, of what the agents of a cluster share."""
    return [
        (await kube.get(resource, None, name))["metadata"]["resourceVersion"]
        for resource, name in ((CRDS, "works.brokkr.io"), (CLUSTER_ROLES, "brokkr-agent"))
    ]


@pytest.mark.kube
@pytest.mark.postgres
@pytest.mark.parametrize(
    ("number", "background"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGHUP, False)],
)
async def test_ended_midway_it_removes_all_that_it_made_and_no_more(
    number: signal.Signals, background: bool, tmp_path: Path
) -> None:
    """In a cluster that knows no Work, and where nobody runs a build."""
    async with (
        run_control_plane(tmp_path / "kubernetes", print, crds=definitions()) as plane,
        KubeClient(KubeConfig.load(plane.kubeconfig)) as kube,
    ):
        await prepare(kube)
        before = await everything(kube)
        nowhere = "127.0.0.1:1"
        variables = variables_for(plane.kubeconfig, registry=nowhere, git_url=f"http://{nowhere}")
        async with the_suite(variables, tmp_path, background=background) as process:

            async def has_begun() -> bool:
                assert process.returncode is None
                return bool((await kube.list(BUILDS, None))[0])

            await eventually(has_begun, within=60)
            process.send_signal(number)
            await asyncio.wait_for(process.communicate(), timeout=60)

        assert process.returncode == 2  # pytest's word for interrupted
        assert await everything(kube) == before


async def prepare(kube: KubeClient) -> None:
    """Make the two Secrets and the strategy that the suite is told of."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await kube.create(NAMESPACES, None, space)
    for name in (CLONE_SECRET, PUSH_SECRET):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        await kube.create(SECRETS, NAMESPACE, {**secret, "stringData": {"a": "b"}})
    strategy = {
        "apiVersion": CLUSTER_BUILD_STRATEGIES.api_version,
        "kind": CLUSTER_BUILD_STRATEGIES.kind,
        "metadata": {"name": STRATEGY},
        "spec": {"steps": []},
    }
    await kube.create(CLUSTER_BUILD_STRATEGIES, None, strategy)

    async def accounts_are_there() -> bool:
        """Say whether the cluster has made all that it makes of its own accord."""
        spaces, _ = await kube.list(NAMESPACES, None)
        accounts, _ = await kube.list(SERVICE_ACCOUNTS, None)
        return {each["metadata"]["name"] for each in spaces} == {
            each["metadata"]["namespace"]
            for each in accounts
            if each["metadata"]["name"] == "default"
        }

    await eventually(accounts_are_there)


async def test_what_it_is_not_told_it_asks_for_in_one_message(tmp_path: Path) -> None:
    told = {"KUBECONFIG": "/nowhere", "BROKKR_TEST_STRATEGY": "buildah"}
    async with the_suite(told, tmp_path) as process:
        output, _ = await process.communicate()

    assert process.returncode == 2
    assert "Traceback" not in output.decode()
    said = {line.split()[0] for line in output.decode().splitlines() if line.startswith("  ")}
    assert said == set(VARIABLES) - set(told)


@pytest.mark.kube
async def test_what_is_not_in_the_cluster_is_said_before_anything_is_made(
    control_plane: ControlPlane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    empty = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "empty"}}
    await kube.create(SECRETS, namespace, empty)
    variables = {
        **variables_for(control_plane.kubeconfig, registry="a", git_url="a"),
        "BROKKR_TEST_PUSH_SECRET": f"{namespace}/nowhere",
        "BROKKR_TEST_CLONE_SECRET": f"{namespace}/empty",
        "BROKKR_TEST_STRATEGY": "nowhere",
    }
    async with the_suite(variables, tmp_path) as process:
        output, _ = await process.communicate()

    assert process.returncode == 2
    assert "Traceback" not in output.decode()
    assert [line for line in output.decode().splitlines() if line.startswith("  ")] == [
        f"  BROKKR_TEST_PUSH_SECRET   there is no Secret nowhere in the namespace {namespace}",
        f"  BROKKR_TEST_CLONE_SECRET  the Secret empty in the namespace {namespace} is empty",
        "  BROKKR_TEST_STRATEGY      there is no ClusterBuildStrategy nowhere",
    ]
    spaces, _ = await kube.list(NAMESPACES, None)
    assert not [each for each in spaces if each["metadata"]["name"].startswith("brokkr-test-")]

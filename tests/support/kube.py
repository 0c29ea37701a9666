"""
A real API server for tests: one control plane per session, one namespace per test.

Agents come to it with a token of the ServiceAccount that their chart makes, and have the roles
that it gives it.

Namespaces are left behind: the control plane goes with the session, and taking one down
would keep the controller manager busy during the tests that follow.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from itertools import count
from pathlib import Path

import pytest
import yaml

from brokkr.agent.kinds import NAMESPACES
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.local.agent_account import agent_kubeconfig as run_agent_kubeconfig
from brokkr.local.build_runner.definitions import definitions
from brokkr.local.control_plane import ControlPlane
from brokkr.local.control_plane import control_plane as run_control_plane
from brokkr.work.model import Manifest
from support.charts import agent_permissions

_numbers = count(1)


def project_crds() -> list[Manifest]:
    """Read the Work resource's definition and local mode's small Shipwright."""
    work = (files("brokkr.agent.kube") / "crd.yaml").read_text()
    return [yaml.safe_load(work), *definitions()]


@pytest.fixture(scope="session")
async def control_plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlPlane]:
    """The session's API server, which knows the project's kinds."""
    folder = tmp_path_factory.mktemp("control-plane")
    async with run_control_plane(folder, print, crds=project_crds()) as plane:
        yield plane


@pytest.fixture
async def kube(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    """The administrator's client."""
    async with KubeClient(KubeConfig.load(control_plane.kubeconfig)) as client:
        yield client


@pytest.fixture
async def namespace(kube: KubeClient) -> str:
    """The name of a namespace that is this test's alone."""
    name = f"test-{next(_numbers)}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await kube.create(NAMESPACES, None, manifest)
    return name


@pytest.fixture
async def agent_kubeconfig(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> AsyncIterator[Path]:
    """A kubeconfig with the agent's permissions in this test's namespace, and no others."""
    async with account_of_the_chart(control_plane, tmp_path, namespace) as kubeconfig:
        yield kubeconfig


def agent_namespace(namespace: str) -> str:
    """Where the account is: no two tests share one, and with it what it may do."""
    return f"{namespace}-agent"


@asynccontextmanager
async def account_of_the_chart(
    plane: ControlPlane, folder: Path, namespace: str
) -> AsyncIterator[Path]:
    """
    Give an agent the account that its chart makes, and a kubeconfig with a token of it.

    Args:
        namespace: Where Work is run; it exists.
    """
    home = agent_namespace(namespace)
    async with run_agent_kubeconfig(
        plane.kubeconfig,
        folder / "agent-account",
        say=print,
        namespace=namespace,
        agent_namespace=home,
        permissions=agent_permissions(namespace=namespace, agent_namespace=home),
    ) as kubeconfig:
        yield kubeconfig


@pytest.fixture
async def agent_kube(agent_kubeconfig: Path) -> AsyncIterator[KubeClient]:
    """The agent's client."""
    async with KubeClient(KubeConfig.load(agent_kubeconfig)) as client:
        yield client

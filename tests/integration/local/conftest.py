"""A git server and registries with what the builds of these tests need; all of it real."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brokkr.agent.kube.client import KubeClient
from brokkr.local.binaries import program_path
from brokkr.local.build_runner.runner import BuildRunner
from brokkr.local.control_plane import ControlPlane
from brokkr.local.credentials import Credentials
from brokkr.local.git_server import GitServer, git_server, publish
from brokkr.local.registry import Registry, registry

CREDENTIALS = Credentials("user", "pass word")

_BASE = "FROM scratch\nCOPY busybox /bin/busybox\n"
_FILES = {
    "Dockerfile": _BASE + 'ARG GREETING=none\nLABEL greeting="$GREETING" from=root\n',
    "Dockerfile.fails": _BASE + 'RUN ["/bin/busybox", "false"]\n',
    "Dockerfile.sleeps": _BASE + 'RUN ["/bin/busybox", "sleep", "3600"]\n',
    "Dockerfile.broken": "NONSENSE\n",
    "sub/Dockerfile": "FROM scratch\nCOPY Dockerfile /\nLABEL from=sub\n",
}


@pytest.fixture(scope="session")
async def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the repository ``sample``."""
    files, bare = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("repositories")
    for name, content in _FILES.items():
        (files / name).parent.mkdir(exist_ok=True)
        (files / name).write_text(content)
    # Links out of the repository, such as a hostile one may have.
    (files / "Dockerfile.outside").symlink_to("/etc/hostname")
    await publish(files, bare, "sample", more={"busybox": program_path("busybox")})
    return bare


@pytest.fixture(scope="session")
async def git(repositories: Path) -> AsyncIterator[GitServer]:
    """Everybody may read."""
    async with git_server(repositories) as server:
        yield server


@pytest.fixture(scope="session")
async def private_git(repositories: Path) -> AsyncIterator[GitServer]:
    """The same repositories, for CREDENTIALS."""
    async with git_server(repositories, credentials=CREDENTIALS) as server:
        yield server


@pytest.fixture(scope="session")
async def images(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    """Everybody may push."""
    async with registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
async def private_images(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    """For CREDENTIALS."""
    folder = tmp_path_factory.mktemp("private-registry")
    async with registry(folder, credentials=CREDENTIALS) as server:
        yield server


@pytest.fixture
async def runner(
    kube: KubeClient, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> AsyncIterator[BuildRunner]:
    """A build runner for this test's namespace."""
    identity = control_plane.kubelet_identity
    one = BuildRunner(kube, tmp_path / "runner", identity=identity, namespace=namespace)
    running = asyncio.create_task(one.run())
    yield one
    running.cancel()
    await asyncio.wait([running])

"""
The whole system on one machine, for the length of a block.

Every part is a process of its own, as it would be elsewhere; only the git server, which
serves the sources of the builds, runs in this one.  Data is not kept: the folder is emptied
at the end, and at the beginning too, for a run may have been killed.
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from brokkr.agent.kinds import (
    CLUSTER_BUILD_STRATEGIES,
    CRDS,
    NAMESPACES,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeAlreadyExists
from brokkr.client import BrokerClient
from brokkr.local.agent_account import agent_kubeconfig
from brokkr.local.binaries import ensure_programs
from brokkr.local.build_runner.definitions import definitions
from brokkr.local.control_plane import control_plane
from brokkr.local.credentials import Credentials
from brokkr.local.folder import sole_use_of
from brokkr.local.git_server import git_server, publish
from brokkr.local.process import Server, ServerFailed, free_port, running
from brokkr.local.registry import registry
from brokkr.wire.bodies import RegisterAgent

PROGRAMS: Final = ("buildah", "busybox", "docker-registry", "git", "skopeo")
"""What runs here beside Kubernetes and what the project brings itself."""

NAMESPACE: Final = "brokkr-agent"
AGENT: Final = "local"
STRATEGY: Final = "buildah"
SERVICE_ACCOUNT: Final = "builder-sa"
CLONE_SECRET: Final = "git-credentials"  # noqa: S105 - a name
PUSH_SECRET: Final = "registry-credentials"  # noqa: S105 - a name

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the servers listen if nobody else does; otherwise on a free port."""

    broker: int = 3000
    registry: int = 5000
    git: int = 3080


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSystem:
    """A running system, and what one needs to use it.

    Attributes:
        kubeconfig: The administrator's; the agent has one with less in it.
        registry: What image names begin with: ``127.0.0.1:5000``.
        git_url: Where the published folders are: ``{git_url}/{name}.git``.
    """

    folder: Path
    broker_url: str
    admin_key: str
    kubeconfig: Path
    registry: str
    git_url: str
    servers: Sequence[Server]

    async def until_one_ends(self) -> ServerFailed:
        """Wait until one of the processes ends, which none of them should."""
        waiting = {asyncio.create_task(each.wait()): each for each in self.servers}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        server = waiting[done.pop()]
        return ServerFailed(server.name, "ended", server.log)


@asynccontextmanager
async def local_system(
    folder: Path,
    *,
    say: Say,
    kubeconfig: Path | None = None,
    ports: Ports | None = None,
    sources: Sequence[Path] = (),
    credentials: Credentials | None = None,
) -> AsyncIterator[LocalSystem]:
    """
    Run everything.

    Args:
        folder: For data, logs and keys; emptied before and after.
        say: Told, in whole lines, what takes long and what is different than asked for.
        kubeconfig: The administrator's, of a cluster with a Shipwright of its own; without it,
            an API server and the build runner, which stands in for Shipwright, are started here.
        sources: Folders to be published as git repositories of their names.
        credentials: Asked for by git server and registry; None lets everybody in.

    Raises:
        AlreadyRunning: The folder is in use.
        FolderNotOurs: The folder holds something that is not to be deleted.
        ProgramsMissing: A program is not here and cannot be had.
        ServerFailed: A part does not start.
    """
    ports = ports or Ports()
    with sole_use_of(folder):
        (folder / "git").mkdir()
        programs = await ensure_programs(PROGRAMS, say)
        async with AsyncExitStack() as stack:
            start = _Starter(folder, stack, say)
            for source in sources:
                await publish(
                    source,
                    folder / "git",
                    source.name,
                    more={"busybox": programs["busybox"]},
                )
            # Side by side, for none of these needs another.
            async with asyncio.TaskGroup() as tasks:
                cluster = tasks.create_task(start.cluster(kubeconfig))
                broker = tasks.create_task(start.broker(start.port("broker", ports.broker)))
                images = tasks.create_task(
                    stack.enter_async_context(
                        registry(
                            folder / "registry",
                            port=start.port("registry", ports.registry),
                            credentials=credentials,
                        )
                    )
                )
                git = tasks.create_task(
                    stack.enter_async_context(
                        git_server(
                            folder / "git",
                            port=start.port("git server", ports.git),
                            credentials=credentials,
                        )
                    )
                )
            registry_host = images.result().host
            if credentials is not None:
                await _store(cluster.result(), credentials, registry_host)
            broker_url, admin_key = broker.result()
            await start.agent(broker_url, admin_key, cluster.result())
            yield LocalSystem(
                folder=folder,
                broker_url=broker_url,
                admin_key=admin_key,
                kubeconfig=cluster.result(),
                registry=registry_host,
                git_url=git.result().url,
                servers=start.servers,
            )


class _Starter:
    """Starts the parts that are processes of Brokkr's own."""

    def __init__(self, folder: Path, stack: AsyncExitStack, say: Say) -> None:
        self._folder = folder
        self._stack = stack
        self._say = say
        self.servers: list[Server] = []

    def port(self, name: str, wanted: int) -> int:
        """Return the wanted port, or a free one if it is 0 or somebody listens there."""
        if wanted == 0:
            return free_port()
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", wanted))
            except OSError:
                port = free_port()
                self._say(f"port {wanted} is taken: the {name} listens on {port}")
                return port
        return wanted

    async def cluster(self, kubeconfig: Path | None) -> Path:
        """Make a cluster ready for the agent, and start it if none is given."""
        if kubeconfig is not None:
            async with KubeClient(KubeConfig.load(kubeconfig)) as kube:
                await kube.apply(CRDS, None, _work_crd())
                await _prepare_namespace(kube)
            return kubeconfig
        plane = await self._stack.enter_async_context(
            control_plane(
                self._folder / "kubernetes",
                self._say,
                crds=[_work_crd(), *definitions()],
            )
        )
        async with KubeClient(KubeConfig.load(plane.kubeconfig)) as kube:
            await _prepare_namespace(kube)

            async def has_a_strategy() -> bool:
                return await kube.find(CLUSTER_BUILD_STRATEGIES, None, STRATEGY) is not None

            folder = str(self._folder / "build-runner")
            await self._start(
                "build-runner",
                [
                    *("-m", "brokkr.local.build_runner"),
                    *("--kubeconfig", str(plane.kubeconfig), "--folder", folder),
                    *("--identity", str(plane.kubelet_identity)),
                ],
                {},
                is_ready=has_a_strategy,
            )
        return plane.kubeconfig

    async def broker(self, port: int) -> tuple[str, str]:
        """Start the broker on its embedded database; return its URL and an admin key."""
        url = f"http://127.0.0.1:{port}"
        settings = {
            "BROKKR__BROKER__HOST": "127.0.0.1",
            "BROKKR__BROKER__PORT": str(port),
            "BROKKR__BROKER__DATA_DIR": str(self._folder / "broker"),
        }
        await self._start(
            "broker", ["-m", "brokkr", "broker", "serve"], settings, is_ready=_is_ready(url)
        )
        return url, await _admin_key(settings)

    async def agent(self, broker_url: str, admin_key: str, kubeconfig: Path) -> None:
        """Register an agent for this machine, and start it with its own permissions."""
        own = await self._stack.enter_async_context(
            agent_kubeconfig(
                kubeconfig, self._folder / "agent-account", say=self._say, namespace=NAMESPACE
            )
        )
        async with BrokerClient(broker_url, admin_key) as client:
            registered = await client.register_agent(
                RegisterAgent(name=AGENT, cluster_name=AGENT, labels={"env": "local"})
            )

            async def has_come() -> bool:
                return (await client.get_agent(AGENT)).last_seen_at is not None

            await self._start(
                "agent",
                ["-m", "brokkr", "agent", "run"],
                {
                    "BROKKR__AGENT__BROKER_URL": broker_url,
                    "BROKKR__AGENT__KEY": registered.key,
                    "BROKKR__AGENT__KUBECONFIG": str(own),
                    "BROKKR__AGENT__WORK_CRD__NAMESPACE": NAMESPACE,
                    # Nobody wants to wait minutes for a retry on his own machine.
                    "BROKKR__AGENT__WORK_CRD__RETRY_BASE_DELAY_SECONDS": "5",
                },
                is_ready=has_come,
            )

    async def _start(
        self,
        name: str,
        arguments: Sequence[str],
        settings: Mapping[str, str],
        *,
        is_ready: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        server = await self._stack.enter_async_context(
            running(
                name,
                [sys.executable, *arguments],
                log=self._folder / f"{name}.log",
                env={**_clean_environment(), **settings},
                cwd=self._folder,
                is_ready=is_ready,
                within=timedelta(seconds=60),
            )
        )
        self.servers.append(server)


def _clean_environment() -> dict[str, str]:
    """Leave out settings that are meant for other brokers and agents."""
    return {key: value for key, value in os.environ.items() if not key.startswith("BROKKR_")}


def _is_ready(url: str) -> Callable[[], Awaitable[bool]]:
    async def is_ready() -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    return is_ready


async def _admin_key(settings: Mapping[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brokkr", "broker", "create-admin-key"),
        env={**_clean_environment(), **settings},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"brokkr broker create-admin-key ended with {process.returncode}")
    return output.decode().strip().splitlines()[-1]


async def _prepare_namespace(kube: KubeClient) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await kube.apply(NAMESPACES, None, namespace)
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": SERVICE_ACCOUNT},
    }
    try:
        await kube.create(SERVICE_ACCOUNTS, NAMESPACE, account)
    except KubeAlreadyExists:
        return


async def _store(kubeconfig: Path, credentials: Credentials, registry_host: str) -> None:
    """Put the credentials where Builds can name them."""
    login = {"username": credentials.user, "password": credentials.password}
    docker = credentials.docker_config(registry_host)
    async with KubeClient(KubeConfig.load(kubeconfig)) as kube:
        for name, kind, data in (
            (CLONE_SECRET, "kubernetes.io/basic-auth", login),
            (PUSH_SECRET, "kubernetes.io/dockerconfigjson", {".dockerconfigjson": docker}),
        ):
            secret = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name},
                "type": kind,
                "stringData": data,
            }
            await kube.apply(SECRETS, NAMESPACE, secret)


def _work_crd() -> dict[str, Any]:
    crd: dict[str, Any] = yaml.safe_load(
        files("brokkr.agent.kube").joinpath("crd.yaml").read_text()
    )
    return crd

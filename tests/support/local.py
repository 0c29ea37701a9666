"""
The whole of local mode, once for a run of the tests: the fixture ``local``.

Beside the agent that local mode brings there is a second one in a namespace of its own,
which does not wait long before it retries.  Tests use it unless told otherwise.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from brokkr.agent.kinds import (
    BUILD_RUNS,
    NAMESPACES,
    SECRETS,
    SERVICE_ACCOUNTS,
    WORKS,
    Resource,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.client import BrokerClient
from brokkr.local.agent_account import agent_kubeconfig
from brokkr.local.binaries import ensure_programs
from brokkr.local.credentials import Credentials
from brokkr.local.process import Server
from brokkr.local.up import (
    CLONE_SECRET,
    NAMESPACE,
    PUSH_SECRET,
    SERVICE_ACCOUNT,
    LocalSystem,
    Ports,
    local_system,
)
from brokkr.wire.bodies import RegisterAgent, SubmitWork, TargetBody, WorkBody
from brokkr.wire.custom_resource import LABEL_WORK_ID
from brokkr.work.model import Manifest
from brokkr.work.names import work_name
from support.signals import eventually
from support.system import an_agent

CREDENTIALS: Final = Credentials("brokkr", "local-only")
EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "hello-image"

LOCAL: Final = TargetBody(match_labels={"env": "local"})
QUICK: Final = TargetBody(match_labels={"env": "quick"})
QUICK_NAMESPACE: Final = "quick"
_NAMESPACES: Final = {"local": NAMESPACE, "quick": QUICK_NAMESPACE}

# The repository ``sample``.  There is a busybox beside these.
_BASE: Final = "FROM scratch\nCOPY busybox /bin/busybox\n"
_SAMPLE: Final = {
    "Dockerfile": _BASE + 'ARG GREETING=none\nLABEL greeting="$GREETING"\n',
    "Dockerfile.broken": "FROM scratch\nNONSENSE\n",
    "Dockerfile.fails": _BASE + 'RUN ["/bin/busybox", "false"]\n',
    "Dockerfile.sleeps": _BASE + 'ARG SECONDS=3600\nRUN ["/bin/busybox", "sh", "-c", '
    '"exec /bin/busybox sleep $SECONDS"]\n',
}


@dataclass(frozen=True)
class Local:
    """
    Local mode, and what tests do with it.

    Attributes:
        kube: The administrator's.
    """

    system: LocalSystem
    broker: BrokerClient
    kube: KubeClient

    def server(self, name: str) -> Server:
        """Return one of local mode's processes."""
        (found,) = [each for each in self.system.servers if each.name == name]
        return found

    def image(self, name: str) -> str:
        """Name an image in local mode's registry."""
        return f"{self.system.registry}/{name}:latest"

    def a_build(
        self,
        image: str = "sample",
        *,
        git: Manifest | None = None,
        output: Manifest | None = None,
        values: Sequence[Manifest] = (),
        context_dir: str = ".",
        **more: Any,
    ) -> dict[str, Any]:
        """
        Make a Build that succeeds, but for what is given.

        Args:
            git: Fields of ``source.git`` to add; a None leaves one out.
            output: The same for ``output``.
            values: The ``paramValues``.
            more: Further fields of its spec.
        """
        repository = {
            "url": f"{self.system.git_url}/sample.git",
            "revision": "main",
            "cloneSecret": CLONE_SECRET,
        }
        target = {"image": self.image(image), "insecure": True, "pushSecret": PUSH_SECRET}
        return {
            "apiVersion": "shipwright.io/v1beta1",
            "kind": "Build",
            "metadata": {"name": image},
            "spec": {
                "source": {
                    "type": "Git",
                    "contextDir": context_dir,
                    "git": _without_none({**repository, **(git or {})}),
                },
                "strategy": {"kind": "ClusterBuildStrategy", "name": "buildah"},
                "paramValues": list(values),
                "output": _without_none({**target, **(output or {})}),
                **more,
            },
        }

    async def submit(
        self, template: Manifest, *, max_retries: int = 0, target: TargetBody = QUICK
    ) -> WorkBody:
        """Submit a build."""
        return await self.broker.submit_work(
            SubmitWork(
                work_type="build",
                template=dict(template),
                target=target,
                max_retries=max_retries,
            )
        )

    async def end_of(self, work: WorkBody) -> WorkBody:
        """Wait until a Work is in the execution log."""

        async def is_finished() -> WorkBody | None:
            found = await self.broker.get_work(work.id)
            return found if found.status.is_finished else None

        return await eventually(is_finished, within=90)

    async def run(
        self, template: Manifest, *, max_retries: int = 0, target: TargetBody = QUICK
    ) -> WorkBody:
        """Submit a build, and wait for its end."""
        return await self.end_of(
            await self.submit(template, max_retries=max_retries, target=target)
        )

    async def find_resource(self, work: WorkBody, *, agent: str = "quick") -> Manifest | None:
        """Return the Work resource of a Work's first round."""
        return await self.kube.find(WORKS, _NAMESPACES[agent], work_name(work.id, round=1))

    async def attempts_of(self, work: WorkBody, *, agent: str = "quick") -> list[Manifest]:
        """Return the attempts that the Work resource tells of."""
        resource = await self.find_resource(work, agent=agent) or {}
        attempts: list[Manifest] = resource.get("status", {}).get("attempts", [])
        return attempts

    async def build_runs_of(self, work: WorkBody) -> list[Manifest]:
        """Return all BuildRuns there are for a Work, in whichever namespace."""
        selector = f"{LABEL_WORK_ID}={work.id}"
        found, _ = await self.kube.list(BUILD_RUNS, None, label_selector=selector)
        return sorted(found, key=lambda each: str(each["metadata"]["name"]))

    def processes_of_builds(self) -> list[str]:
        """Return the command lines of all that the build runner has started and that lives."""
        return _descendants(self.server("build-runner").pid)

    async def is_asleep(self) -> bool:
        """Say whether a build of ``Dockerfile.sleeps`` has come to its RUN."""
        return any(each.startswith("/bin/busybox sleep ") for each in self.processes_of_builds())

    async def a_secret(self, name: str, kind: str, **data: str) -> str:
        """Make a Secret for the quick agent's builds, and return its name."""
        secret = {"metadata": {"name": name}, "type": kind, "stringData": data}
        await _apply(self.kube, SECRETS, QUICK_NAMESPACE, secret)
        return name


@asynccontextmanager
async def local_mode(folder: Path) -> AsyncIterator[Local]:
    """Run local mode with credentials, as it is."""
    async with (
        local_system(
            folder / "local",
            say=print,
            ports=Ports(broker=0, registry=0, git=0),
            sources=[EXAMPLE, write_sample(folder / "sample")],
            credentials=CREDENTIALS,
        ) as system,
        BrokerClient(system.broker_url, system.admin_key) as broker,
        KubeClient(KubeConfig.load(system.kubeconfig)) as kube,
    ):
        yield Local(system, broker, kube)


@pytest.fixture(scope="session")
async def local(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Local]:
    """Local mode with a second agent, which is quick to retry."""
    folder = tmp_path_factory.mktemp("local-mode")
    async with local_mode(folder) as mode, _a_quick_agent(mode, folder):
        yield mode


@asynccontextmanager
async def _a_quick_agent(mode: Local, folder: Path) -> AsyncIterator[None]:
    await _prepare(mode.kube, mode.system.registry)
    registered = await mode.broker.register_agent(
        RegisterAgent(name="quick", cluster_name="local", labels={"env": "quick"})
    )
    async with (
        agent_kubeconfig(
            mode.system.kubeconfig,
            folder / "account",
            say=print,
            namespace=QUICK_NAMESPACE,
            agent_namespace="quick-agent",
        ) as kubeconfig,
        an_agent(
            folder,
            broker_url=mode.system.broker_url,
            key=registered.key,
            kubeconfig=kubeconfig,
            namespace=QUICK_NAMESPACE,
            settings={"AGENT__WORK_QUEUE__MAX_CONCURRENT": "20"},
        ),
    ):
        yield


def value(name: str, given: str) -> Manifest:
    """Make a parameter's value."""
    return {"name": name, "value": given}


def build_args(*given: str) -> Manifest:
    """Make the value of the parameter ``build-args``."""
    return {"name": "build-args", "values": [{"value": each} for each in given]}


async def inspect(image: str, *options: str) -> dict[str, Any]:
    """Read an image back from the registry with a tool that is not ours."""
    programs = await ensure_programs(["skopeo"], print)
    process = await asyncio.create_subprocess_exec(
        *(str(programs["skopeo"]), "inspect", "--tls-verify=false", *options),
        *("--creds", f"{CREDENTIALS.user}:{CREDENTIALS.password}", f"docker://{image}"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    inspected: dict[str, Any] = json.loads(output)
    return inspected


def write_sample(folder: Path) -> Path:
    """Write what the repository ``sample`` has, but for the busybox, into a new folder."""
    folder.mkdir()
    for name, content in _SAMPLE.items():
        (folder / name).write_text(content)
    return folder


async def _prepare(kube: KubeClient, registry: str) -> None:
    """Make a namespace like the one that local mode makes for its own agent."""
    await _apply(kube, NAMESPACES, None, {"metadata": {"name": QUICK_NAMESPACE}})
    account = {"metadata": {"name": SERVICE_ACCOUNT}}
    await _apply(kube, SERVICE_ACCOUNTS, QUICK_NAMESPACE, account)
    login = {"username": CREDENTIALS.user, "password": CREDENTIALS.password}
    docker = {".dockerconfigjson": CREDENTIALS.docker_config(registry)}
    for name, kind, data in (
        (CLONE_SECRET, "kubernetes.io/basic-auth", login),
        (PUSH_SECRET, "kubernetes.io/dockerconfigjson", docker),
    ):
        secret = {"metadata": {"name": name}, "type": kind, "stringData": data}
        await _apply(kube, SECRETS, QUICK_NAMESPACE, secret)


async def _apply(
    kube: KubeClient, resource: Resource, namespace: str | None, content: Manifest
) -> None:
    kind = {"apiVersion": resource.api_version, "kind": resource.kind}
    await kube.apply(resource, namespace, {**kind, **content})


def _without_none(fields: Manifest) -> dict[str, Any]:
    return {key: each for key, each in fields.items() if each is not None}


def _descendants(pid: int) -> list[str]:
    """Return the command lines of a process's children, and of theirs; zombies do not live."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *_ = (process / "stat").read_text().rpartition(")")[2].split()
            command = (process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        parents[int(process.name)] = int(parent)
        if state != "Z":
            commands[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")

    def is_below(child: int) -> bool:
        while child in parents:
            child = parents[child]
            if child == pid:
                return True
        return False

    return [command for child, command in commands.items() if is_below(child)]

"""
A stand in any cluster that has a Shipwright: the fixture ``stand``, once for a run.

Broker and agents are processes of this machine.  What they need in the cluster is made here
under names that nobody else has, and is gone when the run ends, however it ends.  Where
cluster, registry and repository are, the environment says: see `VARIABLES`.
"""

import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

import pytest
import yaml

from brokkr.agent.kinds import (
    BUILD_RUNS,
    BUILDS,
    CLUSTER_BUILD_STRATEGIES,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CRDS,
    NAMESPACES,
    SECRETS,
    SERVICE_ACCOUNTS,
    WORKS,
    Resource,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeError
from brokkr.agent.kube.permissions import render_permissions
from brokkr.broker.db.keys import create_admin_key
from brokkr.client import BrokerClient
from brokkr.local.agent_account import agent_kubeconfig
from brokkr.local.process import Server, free_port
from brokkr.wire.bodies import RegisterAgent, SubmitWork, TargetBody, WorkBody
from brokkr.wire.custom_resource import LABEL_WORK_ID
from brokkr.work.model import Manifest
from support.postgres import fresh_database
from support.signals import eventually
from support.system import a_broker, an_agent, kill

VARIABLES: Final = {
    "KUBECONFIG": "the kubeconfig of an administrator of the cluster, one file",
    "BROKKR_TEST_REGISTRY": "where images go: registry.example.com/team",
    "BROKKR_TEST_PUSH_SECRET": "a Secret in the cluster that may push there: namespace/name",
    "BROKKR_TEST_GIT_URL": "the private repository that `make cluster-sample` makes",
    "BROKKR_TEST_CLONE_SECRET": "a Secret in the cluster that may read it: namespace/name",
    "BROKKR_TEST_STRATEGY": "a ClusterBuildStrategy, such as buildah-rootless",
}
"""What has to be said, and what each of it means."""

INSECURE: Final = "BROKKR_TEST_REGISTRY_INSECURE"
"""Optional: ``true`` if the registry speaks plain HTTP."""

AGENTS: Final = ("blue", "green")
BUILD_WITHIN: Final = 600
"""Seconds that a build may take; nodes may have images to fetch."""
_GONE_WITHIN: Final = 300
_WORK_DEFINITION: Final = "works.brokkr.io"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to build, and what with.

    Attributes:
        registry: What image names begin with.
        push_secret: As namespace and name, as is `clone_secret`.
        insecure: Whether the registry speaks plain HTTP.
    """

    kubeconfig: Path
    registry: str
    push_secret: tuple[str, str]
    git_url: str
    clone_secret: tuple[str, str]
    strategy: str
    insecure: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """
        Read `VARIABLES`.

        Raises:
            ValueError: Some are missing, or have no such form; the message says all that it takes.
        """
        missing = [name for name in VARIABLES if not environment.get(name)]
        if missing:
            lines = [f"  {name:<26}{VARIABLES[name]}" for name in missing]
            raise ValueError("\n".join(["the suite needs to be told, by environment:", *lines]))
        return cls(
            kubeconfig=Path(environment["KUBECONFIG"]).resolve(),
            registry=environment["BROKKR_TEST_REGISTRY"].rstrip("/"),
            push_secret=_namespaced(environment, "BROKKR_TEST_PUSH_SECRET"),
            git_url=environment["BROKKR_TEST_GIT_URL"],
            clone_secret=_namespaced(environment, "BROKKR_TEST_CLONE_SECRET"),
            strategy=environment["BROKKR_TEST_STRATEGY"],
            insecure=environment.get(INSECURE) == "true",
        )


def _namespaced(environment: Mapping[str, str], variable: str) -> tuple[str, str]:
    namespace, slash, name = environment[variable].partition("/")
    if not (namespace and slash and name):
        raise ValueError(f"{variable} is to be {VARIABLES[variable]}")
    return namespace, name


@dataclass
class Agent:
    """An agent of the run, which may be killed and started again."""

    folder: Path
    broker_url: str
    key: str
    kubeconfig: Path
    namespace: str
    stack: AsyncExitStack
    server: Server | None = None

    async def start(self) -> None:
        """Start the process; it is stopped when the run ends."""
        self.server = await self.stack.enter_async_context(
            an_agent(
                self.folder,
                broker_url=self.broker_url,
                key=self.key,
                kubeconfig=self.kubeconfig,
                namespace=self.namespace,
            )
        )

    async def kill(self) -> None:
        """End the process as a crash would."""
        assert self.server is not None
        kill(self.server)
        await self.server.wait()


@dataclass(frozen=True, kw_only=True)
class Stand:
    """The run's broker and agents, and what tests do with them.

    Attributes:
        run: The run's own word; all that is made in the cluster has it in its name.
        kube: The administrator's.
    """

    run: str
    place: Place
    broker: BrokerClient
    kube: KubeClient
    agents: Mapping[str, Agent]

    def a_build(
        self,
        name: str,
        *,
        git: Manifest | None = None,
        output: Manifest | None = None,
        dockerfile: str = "Dockerfile",
        build_args: Sequence[str] = (),
    ) -> dict[str, Any]:
        """
        Make a Build that succeeds, but for what is given.

        Args:
            git: Fields of ``source.git`` to add; a None leaves one out.
            output: The same for ``output``.
        """
        source = {
            "url": self.place.git_url,
            "revision": "main",
            "cloneSecret": self.place.clone_secret[1],
        }
        target = {
            "image": f"{self.place.registry}/brokkr-test:{self.run}-{name}",
            "insecure": self.place.insecure,
            "pushSecret": self.place.push_secret[1],
        }
        return {
            "apiVersion": BUILDS.api_version,
            "kind": BUILDS.kind,
            "metadata": {"name": name},
            "spec": {
                "source": {"type": "Git", "git": _without_none({**source, **(git or {})})},
                "strategy": {"kind": "ClusterBuildStrategy", "name": self.place.strategy},
                "paramValues": [
                    {"name": "dockerfile", "value": dockerfile},
                    *_array("build-args", build_args),
                ],
                "output": _without_none({**target, **(output or {})}),
            },
        }

    async def submit(
        self, template: Manifest, *, colour: str = "blue", max_retries: int = 0
    ) -> WorkBody:
        """Submit a build for the agent that has this colour."""
        return await self.broker.submit_work(
            SubmitWork(
                work_type="build",
                template=dict(template),
                target=TargetBody(match_labels={"colour": colour}),
                max_retries=max_retries,
            )
        )

    async def end_of(self, work: WorkBody) -> WorkBody:
        """Wait until a Work is in the execution log."""

        async def is_finished() -> WorkBody | None:
            found = await self.broker.get_work(work.id)
            return found if found.status.is_finished else None

        return await eventually(is_finished, within=BUILD_WITHIN)

    async def run_to_its_end(
        self, template: Manifest, *, colour: str = "blue", max_retries: int = 0
    ) -> WorkBody:
        """Submit a build, and wait for its end."""
        return await self.end_of(
            await self.submit(template, colour=colour, max_retries=max_retries)
        )

    async def build_runs_of(self, work: WorkBody) -> list[Manifest]:
        """Return all BuildRuns there are for a Work, in whichever namespace."""
        found, _ = await self.kube.list(
            BUILD_RUNS, None, label_selector=f"{LABEL_WORK_ID}={work.id}"
        )
        return sorted(found, key=lambda each: str(each["metadata"]["name"]))

    async def running(self, work: WorkBody) -> Manifest:
        """Wait until Shipwright runs an attempt and the agent has noted so; return the BuildRun."""

        async def runs() -> Manifest | None:
            works, _ = await self.kube.list(
                WORKS, None, label_selector=f"{LABEL_WORK_ID}={work.id}"
            )
            noted = {
                attempt.get("uid")
                for each in works
                for attempt in each.get("status", {}).get("attempts", [])
            }
            for each in await self.build_runs_of(work):
                if each["metadata"]["uid"] in noted and reason_of(each) == "Running":
                    return each
            return None

        return await eventually(runs, within=BUILD_WITHIN)


def _array(name: str, values: Sequence[str]) -> list[Manifest]:
    """Make a parameter's value; none for an empty array, which Tekton refuses."""
    return [{"name": name, "values": [{"value": each} for each in values]}] if values else []


def reason_of(build_run: Manifest) -> str | None:
    """Return the reason of a BuildRun's condition."""
    conditions = build_run.get("status", {}).get("conditions") or [{}]
    reason: str | None = conditions[0].get("reason")
    return reason


@pytest.fixture(scope="session")
async def place() -> Place:
    """Where the environment says that builds are run; without it the run ends here."""
    try:
        place = Place.from_environment(os.environ)
        async with KubeClient(KubeConfig.load(place.kubeconfig)) as kube:
            wrong = await _what_is_not_there(kube, place)
    except (ValueError, KubeError) as error:
        pytest.exit(str(error), returncode=2)
    if wrong:
        lines = ["the suite was told of what is not there:", *wrong, "Nothing has been made."]
        pytest.exit("\n".join(lines), returncode=2)
    return place


async def _what_is_not_there(kube: KubeClient, place: Place) -> list[str]:
    """Compare the variables with the cluster; return a line for each that is wrong."""
    wrong = {}
    for variable, (namespace, name) in (
        ("BROKKR_TEST_PUSH_SECRET", place.push_secret),
        ("BROKKR_TEST_CLONE_SECRET", place.clone_secret),
    ):
        found = await kube.find(SECRETS, namespace, name)
        if found is None:
            wrong[variable] = f"there is no Secret {name} in the namespace {namespace}"
        elif not found.get("data"):
            wrong[variable] = f"the Secret {name} in the namespace {namespace} is empty"
    if await kube.find(CLUSTER_BUILD_STRATEGIES, None, place.strategy) is None:
        wrong["BROKKR_TEST_STRATEGY"] = f"there is no ClusterBuildStrategy {place.strategy}"
    return [f"  {variable:<26}{what}" for variable, what in wrong.items()]


@pytest.fixture(scope="session")
async def stand(
    place: Place, postgres_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    """A broker and two agents for a cluster, each agent with a namespace of its own."""
    folder = tmp_path_factory.mktemp("stand")
    run = f"brokkr-test-{secrets.token_hex(4)}"
    with _told_to_end():
        async with (
            fresh_database(postgres_server) as database_url,
            a_broker(folder, database_url, port=free_port()) as (broker_url, _),
            BrokerClient(broker_url, await create_admin_key(database_url)) as broker,
            KubeClient(KubeConfig.load(place.kubeconfig)) as kube,
            _gone_in_the_end(kube, run),
            AsyncExitStack() as stack,
        ):
            await _define_work(kube, run)
            agents = {}
            for name in AGENTS:
                (folder / name).mkdir()
                namespace = f"{run}-{name}"
                await _prepare_namespace(kube, place, namespace)
                registered = await broker.register_agent(
                    RegisterAgent(name=name, cluster_name=run, labels={"colour": name})
                )
                kubeconfig = await stack.enter_async_context(
                    agent_kubeconfig(
                        place.kubeconfig,
                        folder / name / "account",
                        say=print,
                        namespace=namespace,
                        agent_namespace=namespace,
                        permissions=_permissions(namespace),
                    )
                )
                agents[name] = Agent(
                    folder / name, broker_url, registered.key, kubeconfig, namespace, stack
                )
                await agents[name].start()
            yield Stand(run=run, place=place, broker=broker, kube=kube, agents=agents)


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Clean up also after SIGTERM and SIGHUP, of which pytest knows nothing."""
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup does
        numbers.append(signal.SIGHUP)
    before = {each: signal.signal(each, _interrupt) for each in numbers}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    """Do what SIGINT does, or would do: a script's background jobs have it ignored."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)


@asynccontextmanager
async def _gone_in_the_end(kube: KubeClient, run: str) -> AsyncIterator[None]:
    """Remove what has the run's word in its name, and the Work's definition if it is the run's."""
    try:
        yield
    finally:
        for resource in (NAMESPACES, CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES):
            for name in await _names(kube, resource, run):
                await kube.delete(resource, None, name)

        async def namespaces_are_gone() -> bool:
            return not await _names(kube, NAMESPACES, run)

        await eventually(namespaces_are_gone, within=_GONE_WITHIN)
        definition = await kube.find(CRDS, None, _WORK_DEFINITION)
        if definition and definition["metadata"].get("labels", {}).get("made-by") == run:
            await kube.delete(CRDS, None, _WORK_DEFINITION)


async def _names(kube: KubeClient, resource: Resource, run: str) -> list[str]:
    found, _ = await kube.list(resource, None)
    return [name for each in found if run in (name := str(each["metadata"]["name"]))]


async def _define_work(kube: KubeClient, run: str) -> None:
    """Make the Work's definition if the cluster has none; one that is there stays as it is."""
    if await kube.find(CRDS, None, _WORK_DEFINITION):
        return
    definition = yaml.safe_load((files("brokkr.agent.kube") / "crd.yaml").read_text())
    definition["metadata"]["labels"] = {"made-by": run}
    await kube.create(CRDS, None, definition)

    async def is_served() -> bool:
        return await kube.serves(WORKS.group, WORKS.version, WORKS.plural)

    await eventually(is_served)


async def _prepare_namespace(kube: KubeClient, place: Place, name: str) -> None:
    """Make a namespace as builds want it, with copies of the two Secrets."""
    await kube.create(
        NAMESPACES,
        None,
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            # For what buildah has to do, if the cluster restricts pods.
            "metadata": {
                "name": name,
                "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
            },
        },
    )
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "builder-sa"},
        "automountServiceAccountToken": False,
    }
    await kube.create(SERVICE_ACCOUNTS, name, account)
    for namespace, secret in {place.clone_secret, place.push_secret}:
        original = await kube.get(SECRETS, namespace, secret)
        copy = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": secret},
            "type": original["type"],
            "data": original["data"],
        }
        await kube.create(SECRETS, name, copy)


def _permissions(namespace: str) -> list[Manifest]:
    """Render what an agent may do, with a ClusterRole that is not that of an agent in use."""
    own = f"brokkr-agent:{namespace}"
    rendered: list[Manifest] = []
    for each in render_permissions(namespace=namespace, agent_namespace=namespace):
        if each["kind"] == "ClusterRole":
            rendered.append({**each, "metadata": {"name": own}})
        elif each["kind"] == "ClusterRoleBinding":
            rendered.append({**each, "roleRef": {**each["roleRef"], "name": own}})
        else:
            rendered.append(each)
    return rendered


def _without_none(fields: Manifest) -> dict[str, Any]:
    return {key: each for key, each in fields.items() if each is not None}

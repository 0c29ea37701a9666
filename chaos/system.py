"""The whole system: one PostgreSQL, two brokers, two clusters, four agents, the build runners."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

import asyncpg
import yaml

from brokkr.agent.kinds import (
    CLUSTER_BUILD_STRATEGIES,
    NAMESPACES,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeUnavailable
from brokkr.broker.db.embedded import embedded_postgres
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.db.migrate import migrate
from brokkr.client import BrokerClient
from brokkr.local.agent_account import agent_kubeconfig
from brokkr.local.build_runner.definitions import definitions
from brokkr.local.control_plane import ControlPlane, control_plane
from brokkr.local.process import free_port
from brokkr.wire.bodies import RegisterAgent
from brokkr.wire.tenants import CreateGenerator
from brokkr.work.errors import BrokerUnavailable
from chaos.line import Line, proxied
from chaos.stream import Workshop
from chaos.supervised import Supervised
from chaos.workshop import CannotBuild, open_workshop

BROKERS: Final = 2
CLUSTERS: Final = 2
REAL_RUNNER: Final = "real-build-runner"
ORPHAN_GRACE_SECONDS: Final = 10
_DISK_MEGABYTES: Final = 600
_ROLE: Final = "brokkr-agent"
_ROOT: Final = Path(__file__).parents[1]
_FAKETIME: Final = "usr/lib/*/faketime/libfaketimeMT.so.1"


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where an agent works, and whether what it builds is real."""

    cluster: int
    namespace: str
    is_real: bool = False


AGENTS: Final = (
    Seat(cluster=0, namespace="chaos-shared"),
    Seat(cluster=0, namespace="chaos-shared"),
    Seat(cluster=1, namespace="chaos-own"),
    Seat(cluster=1, namespace="chaos-builds", is_real=True),
)


def namespaces(cluster: int, *, real: bool) -> list[str]:
    """Return the namespaces of a cluster in which builds are real, or played."""
    found = [each for each in AGENTS if (each.cluster, each.is_real) == (cluster, real)]
    return list(dict.fromkeys(each.namespace for each in found))


class System:
    """
    Everything that runs, and what harm can be done to it.

    Attributes:
        processes: By name, those that are started again when they end.
        workshop: What real builds need, if this machine can build.
        broker_lines: From each agent to the brokers; the same to the API server.
        unavailable: What this machine does not allow, with the reason.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.processes: dict[str, Supervised] = {}
        self.broker_lines = [Line(Random(f"{name} b{n}")) for n in range(len(AGENTS))]
        self.api_lines = [Line(Random(f"{name} a{n}")) for n in range(len(AGENTS))]
        self.unavailable: dict[str, str] = {}
        self.database_url = ""
        self.broker_urls: list[str] = []
        self.generator_keys: list[str] = []
        self.workshop: Workshop | None = None
        self.kubeconfigs = [self._kubernetes(n) / "kubeconfig" for n in range(CLUSTERS)]
        self._running: list[asyncio.Task[None]] = []

    # -- harm ------------------------------------------------------------------------------

    def postmaster(self) -> int:
        """Return the process id of PostgreSQL."""
        return int((self._data / "postgres" / "postmaster.pid").read_text().split()[0])

    async def backends(self) -> list[int]:
        """Return the process ids of PostgreSQL that serve the brokers."""
        connection = await asyncpg.connect(self.database_url, timeout=5)
        try:
            rows = await connection.fetch(
                "SELECT pid FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
        finally:
            await connection.close()
        return [row["pid"] for row in rows]

    def builds_under_way(self) -> list[Path]:
        """Return the folders of the real builds."""
        folder = self.folder / REAL_RUNNER / "builds"
        return list(folder.iterdir()) if folder.exists() else []

    def fill_disk(self) -> None:
        """Leave no room to the database."""
        with (
            suppress(OSError),
            (self._data / "ballast").open("wb", buffering=0) as ballast,
        ):
            while True:
                ballast.write(bytes(1024 * 1024))

    def free_disk(self) -> None:
        """Give it back."""
        (self._data / "ballast").unlink(missing_ok=True)

    def step_clock(self, agent: int, seconds: int) -> None:
        """Let an agent's clock be wrong by so much."""
        self._clock(agent).write_text(f"{seconds:+d}\n")

    @asynccontextmanager
    async def without_permissions(self, agent: int) -> AsyncIterator[None]:
        """Take an agent its role, and give it back; others of the namespace share it."""
        seat = AGENTS[agent]
        async with KubeClient(KubeConfig.load(self.kubeconfigs[seat.cluster])) as kube:
            taken = await _insist(lambda: kube.find(ROLE_BINDINGS, seat.namespace, _ROLE))
            await _insist(lambda: kube.delete(ROLE_BINDINGS, seat.namespace, _ROLE))
            try:
                yield
            finally:
                if taken is not None:  # if not, who has taken it gives it back
                    given = taken | {"metadata": {"name": _ROLE, "namespace": seat.namespace}}
                    await _insist(lambda: kube.apply(ROLE_BINDINGS, seat.namespace, given))

    # -- start -----------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all of it for the length of the block."""
        async with AsyncExitStack() as stack:
            await self._start_database(stack)
            async with asyncio.TaskGroup() as tasks:
                planes = [
                    tasks.create_task(self._start_control_plane(stack, n)) for n in range(CLUSTERS)
                ]
                tasks.create_task(self._open_workshop(stack))
            await self._start_brokers()
            stack.push_async_callback(self._stop)
            for n, plane in enumerate(planes):
                await self._start_build_runners(n, plane.result())
            await self._start_agents(stack)
            yield

    def _kubernetes(self, cluster: int) -> Path:
        return self.folder / f"kubernetes-{cluster}"

    @property
    def _data(self) -> Path:
        return self.folder / "database"

    async def _start_database(self, stack: AsyncExitStack) -> None:
        self._data.mkdir()
        size = f"size={_DISK_MEGABYTES}m,mode=0711"
        mount = await _run("mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self._data))
        if mount:
            self.unavailable["tmpfs"] = f"no tmpfs can be mounted: {mount}"
        else:
            stack.push_async_callback(_run, "umount", "--lazy", str(self._data))
        server = await stack.enter_async_context(embedded_postgres(self._data))
        self.database_url = server.replace("/postgres?", "/chaos?")
        connection = await asyncpg.connect(server)
        for statement in (
            # The journal must fit on the small disk.
            "ALTER SYSTEM SET max_wal_size = '96MB'",
            "ALTER SYSTEM SET min_wal_size = '32MB'",
            "SELECT pg_reload_conf()",
            "CREATE DATABASE chaos",
        ):
            await connection.execute(statement)
        await connection.close()
        await migrate(self.database_url)

    async def _open_workshop(self, stack: AsyncExitStack) -> None:
        try:
            self.workshop = await open_workshop(stack, self.folder / "workshop")
        except CannotBuild as error:
            self.unavailable["buildah"] = str(error)

    async def _start_control_plane(self, stack: AsyncExitStack, cluster: int) -> ControlPlane:
        work = (files("brokkr.agent.kube") / "crd.yaml").read_text()
        crds = [yaml.safe_load(work), *definitions()]
        folder = self._kubernetes(cluster)
        plane = await stack.enter_async_context(control_plane(folder, print, crds=crds))
        stack.push_async_callback(self._stop)
        for name, sign in (("etcd", b"--data-dir=etcd"), ("kube-apiserver", b"--cert-dir=pki")):
            self._adopt(f"{name}-{cluster}", folder, sign)
        return plane

    def _adopt(self, name: str, folder: Path, sign: bytes) -> None:
        """Kill a part of the control plane once it is up, and run it under supervision."""
        pid, command = next(
            (pid, line)
            for pid, line in command_lines().items()
            if sign in line.split(b"\0") and Path(f"/proc/{pid}/cwd").readlink() == folder.resolve()
        )
        os.kill(pid, 9)

        def clear() -> None:
            if name.startswith("etcd"):
                for socket in ("etcd:1", "peer:1"):
                    (folder / socket).unlink(missing_ok=True)

        self._run(
            Supervised(
                name,
                [each.decode() for each in command.split(b"\0") if each],
                folder=self.folder,
                cwd=folder,
                before=clear,
            )
        )

    async def _start_brokers(self) -> None:
        for n in range(BROKERS):
            port = free_port()
            self.broker_urls.append(f"http://127.0.0.1:{port}")
            self._run(
                Supervised(
                    f"broker-{n}",
                    [sys.executable, "-m", "brokkr", "broker", "serve"],
                    folder=self.folder,
                    cwd=self.folder,
                    env=_environment(
                        BROKER__PORT=str(port),
                        BROKER__LOG_FORMAT="json",
                        BROKER__STALE_CLAIM_INTERVAL_SECONDS="1",
                        BROKER__HANDOFF_BASE_DELAY_SECONDS="1",
                        BROKER__HANDOFF_MAX_DELAY_SECONDS="10",
                        DATABASE__URL=self.database_url,
                    ),
                )
            )

    async def _start_build_runners(self, cluster: int, plane: ControlPlane) -> None:
        played, real = (namespaces(cluster, real=each) for each in (False, True))
        async with KubeClient(KubeConfig.load(plane.kubeconfig)) as kube:
            async with asyncio.timeout(60):
                while not await kube.is_ready():
                    await asyncio.sleep(0.1)
            for each in (*played, *real):
                await kube.apply(NAMESPACES, None, _named("v1", "Namespace", each))
                account = _named("v1", "ServiceAccount", "builder-sa")
                await kube.apply(SERVICE_ACCOUNTS, each, account)
            strategy = {
                **_named("shipwright.io/v1beta1", "ClusterBuildStrategy", "buildah"),
                "spec": {"steps": []},
            }
            await kube.apply(CLUSTER_BUILD_STRATEGIES, None, strategy)
        self._run(
            Supervised(
                f"build-runner-{cluster}",
                [sys.executable, "-m", "chaos.build_runner", plane.kubeconfig, *played],
                folder=self.folder,
                cwd=_ROOT,
            )
        )
        if self.workshop is not None:
            for namespace in real:
                self._run(self._real_runner(plane, namespace))

    def _real_runner(self, plane: ControlPlane, namespace: str) -> Supervised:
        return Supervised(
            REAL_RUNNER,
            [
                *(sys.executable, "-m", "brokkr.local.build_runner", "--namespace", namespace),
                *("--kubeconfig", plane.kubeconfig, "--identity", plane.kubelet_identity),
                *("--folder", self.folder / REAL_RUNNER),
            ],
            folder=self.folder,
            cwd=self.folder,
        )

    async def _start_agents(self, stack: AsyncExitStack) -> None:
        accounts = {
            seat.namespace: await stack.enter_async_context(
                agent_kubeconfig(
                    self.kubeconfigs[seat.cluster],
                    self.folder / f"account-{seat.namespace}",
                    say=print,
                    namespace=seat.namespace,
                    agent_namespace=seat.namespace,
                )
            )
            for seat in {each.namespace: each for each in AGENTS}.values()
        }
        preload = self._faketime()
        keys = await self._register(await create_admin_key(self.database_url))
        for n, (seat, key) in enumerate(zip(AGENTS, keys, strict=True)):
            # Two agents have a broker of their own, the others' requests go to both.
            brokers = self.broker_urls if n >= BROKERS else [self.broker_urls[n]]
            broker = await stack.enter_async_context(proxied(self.broker_lines[n], brokers))
            account = KubeConfig.load(accounts[seat.namespace])
            api = await stack.enter_async_context(
                proxied(self.api_lines[n], [account.server], tls=account.tls)
            )
            document = yaml.safe_load(accounts[seat.namespace].read_text())
            document["clusters"][0]["cluster"] = {"server": api}
            kubeconfig = self.folder / f"agent-{n}.kubeconfig"
            kubeconfig.write_text(yaml.safe_dump(document))
            self.step_clock(n, 0)
            self._run(
                Supervised(
                    f"agent-{n}",
                    [sys.executable, "-m", "brokkr", "agent", "run"],
                    folder=self.folder,
                    cwd=self.folder,
                    env=_environment(
                        AGENT__BROKER_URL=broker,
                        AGENT__KEY=key,
                        AGENT__KUBECONFIG=str(kubeconfig),
                        AGENT__LOG_FORMAT="json",
                        AGENT__WORK_QUEUE__POLL_INTERVAL_SECONDS="2",
                        AGENT__WORK_QUEUE__MAX_CONCURRENT="8",
                        AGENT__WORK_CRD__NAMESPACE=seat.namespace,
                        AGENT__WORK_CRD__RECONCILE_INTERVAL_SECONDS="2",
                        AGENT__WORK_CRD__RETRY_BASE_DELAY_SECONDS="0.5",
                        AGENT__WORK_CRD__UNABLE_GRACE="8s",
                        AGENT__WORK_CRD__ORPHAN_GRACE=f"{ORPHAN_GRACE_SECONDS}s",
                        AGENT__WORK_CRD__BUILD__BUILD_RETENTION_SUCCEEDED="12s",
                        AGENT__WORK_CRD__BUILD__BUILD_RETENTION_FAILED="12s",
                    )
                    | self._faked(n, preload),
                )
            )

    async def _register(self, admin_key: str) -> list[str]:
        """Make agents and generators known; return the agents' keys."""
        async with BrokerClient(self.broker_urls[0], admin_key) as client:
            async with asyncio.timeout(60):
                while not await _answers(client):
                    await asyncio.sleep(0.1)
            for n in range(2):
                made = await client.create_generator(CreateGenerator(name=f"generator-{n}"))
                self.generator_keys.append(made.key)
            keys = []
            for n, seat in enumerate(AGENTS):
                agent = RegisterAgent(
                    name=f"agent-{n}",
                    cluster_name=f"cluster-{seat.cluster}",
                    labels={"builds": "real"} if seat.is_real else {"chaos": "yes"},
                )
                keys.append((await client.register_agent(agent)).key)
            return keys

    def _faketime(self) -> Path | None:
        roots = [Path("/"), *map(Path, filter(None, [os.environ.get("FAKETIME_ROOT")]))]
        found = next(chain.from_iterable(root.glob(_FAKETIME) for root in roots), None)
        if found is None:
            self.unavailable["libfaketime"] = "not installed: apt-get install libfaketime"
        return found

    def _faked(self, agent: int, preload: Path | None) -> dict[str, str]:
        if preload is None:
            return {}
        return {
            "LD_PRELOAD": str(preload),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock(agent)),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def _clock(self, agent: int) -> Path:
        return self.folder / f"agent-{agent}.clock"

    def _run(self, process: Supervised) -> None:
        self.processes[process.name] = process
        self._running.append(asyncio.create_task(process.run()))

    async def _stop(self) -> None:
        for each in self._running:
            each.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def _named(version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}


def _environment(**settings: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("BROKKR_")}
    return {**inherited, **{f"BROKKR__{k}": v for k, v in settings.items()}}


def command_lines() -> dict[int, bytes]:
    """Return those of all processes of this machine, by process id."""
    found = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with suppress(OSError):  # it has just ended
                found[int(each.name)] = (each / "cmdline").read_bytes()
    return found


async def _insist(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask an API server that may be away."""
    while True:
        try:
            return await ask()
        except KubeUnavailable:
            await asyncio.sleep(0.5)


async def _answers(client: BrokerClient) -> bool:
    with suppress(BrokerUnavailable):
        await client.list_agents()
        return True
    return False


async def _run(*command: str) -> str:
    """Run a command; return what it complains about, if it fails."""
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    return errors.decode().strip() or "failed" if process.returncode else ""

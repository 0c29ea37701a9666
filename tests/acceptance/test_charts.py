"""
What the charts install is a broker and an agent that build together.

Nothing runs pods here.  So the containers' own commands are run as processes, with what their
Deployments, as the API server has them, say of environment and volumes.
"""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import helm_python
import pytest
import yaml

from brokkr.agent.kinds import CONFIG_MAPS, SECRETS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.client import BrokerClient
from brokkr.local.agent_account import _until_in_force, _with_token
from brokkr.local.control_plane import ControlPlane
from brokkr.local.process import Server, free_port, running
from brokkr.wire.bodies import RegisterAgent, SubmitWork, TargetBody, WorkBody, WorkState
from support.charts import AGENT, BROKER, Values, loaded
from support.factories import a_build_template
from support.shipwright import DIGEST, PlayedShipwright
from support.signals import eventually
from support.system import brokkr, environment

pytestmark = [pytest.mark.kube, pytest.mark.postgres]

DEPLOYMENTS: Final = Resource("apps", "v1", "Deployment", "deployments")


@dataclass
class Cluster:
    """The API server, and the namespace that releases go to."""

    kube: KubeClient
    kubeconfig: Path
    namespace: str

    async def install(self, chart: Path, values: Values) -> "Container":
        """Install a chart, and return the container of its Deployment."""
        with helm_python.Config(
            kubeconfig_path=self.kubeconfig, namespace=self.namespace
        ) as config:
            await asyncio.to_thread(config.install, loaded(chart), chart.name, values)
        deployment = await self.kube.get(DEPLOYMENTS, self.namespace, chart.name)
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        return Container(self, pod, container)


@dataclass
class Container:
    """One container, as the API server has it."""

    cluster: Cluster
    pod: dict[str, Any]
    spec: dict[str, Any]

    @asynccontextmanager
    async def process(self, folder: Path, **more: str) -> AsyncIterator[Server]:
        """Run its command with its volumes under a folder, until it answers its probes."""
        mounts = await self._mounted(folder)

        def moved(word: str) -> str:
            for path, at in mounts.items():
                if word.startswith(f"{path}/"):
                    return word.replace(path, str(at), 1)
            return word

        program, *words = self.spec["command"]
        assert program == "brokkr"
        async with running(
            self.spec["name"],
            brokkr(*map(moved, words)),
            log=folder / "log",
            env={**environment(), **await self._environment(), **more},
            cwd=folder,
            is_ready=self.answers_its_probes,
            within=timedelta(seconds=30),
        ) as server:
            yield server

    async def answers_its_probes(self) -> bool:
        ports = {each["name"]: each["containerPort"] for each in self.spec["ports"]}
        async with aiohttp.ClientSession() as session:
            for probe in ("livenessProbe", "readinessProbe"):
                asked = self.spec[probe]["httpGet"]
                url = f"http://127.0.0.1:{ports[asked['port']]}{asked['path']}"
                try:
                    async with session.get(url) as answer:
                        if answer.status != 200:
                            return False
                except aiohttp.ClientError:
                    return False
        return True

    async def _mounted(self, folder: Path) -> dict[str, Path]:
        volumes = {each["name"]: each for each in self.pod["volumes"]}
        mounts = {}
        for mount in self.spec["volumeMounts"]:
            at = folder / mount["mountPath"].strip("/").replace("/", "-")
            at.mkdir()
            mounts[mount["mountPath"]] = at
            if source := volumes[mount["name"]].get("configMap"):
                found = await self.cluster.kube.get(
                    CONFIG_MAPS, self.cluster.namespace, source["name"]
                )
                for name, text in found["data"].items():
                    (at / name).write_text(text)
        return mounts

    async def _environment(self) -> dict[str, str]:
        return {each["name"]: await self._value(each) for each in self.spec.get("env", ())}

    async def _value(self, variable: dict[str, Any]) -> str:
        if "value" in variable:
            return str(variable["value"])
        source = variable["valueFrom"]["secretKeyRef"]
        secret = await self.cluster.kube.get(SECRETS, self.cluster.namespace, source["name"])
        return base64.b64decode(secret["data"][source["key"]]).decode()

    async def kubeconfig(self, admin: Path, folder: Path) -> Path:
        """Write one with a token of the account that the pod runs as."""
        token, path = folder / "token", folder / "kubeconfig"
        account = self.pod["serviceAccountName"]
        token.write_text(
            await self.cluster.kube.create_token(
                self.cluster.namespace, account, lifetime=timedelta(hours=1)
            )
        )
        path.write_text(yaml.safe_dump(_with_token(admin, token)))
        return path


@pytest.fixture
def cluster(kube: KubeClient, control_plane: ControlPlane, namespace: str) -> Cluster:
    return Cluster(kube, control_plane.kubeconfig, namespace)


def a_port_of_its_own(port: int) -> Values:
    return {"host": "127.0.0.1", "port": port}


@pytest.mark.parametrize("existing", [False, True], ids=["made secrets", "existing secrets"])
async def test_a_build_that_is_submitted_to_the_installed_broker_is_done_by_the_installed_agent(
    existing: bool, cluster: Cluster, database_url: str, tmp_path: Path
) -> None:
    admin_key = f"brokkr_adm{'a' * 10}_{secrets.token_urlsafe(32)}"
    port, work_namespace = free_port(), f"{cluster.namespace}-work"
    for name in ("broker", "agent"):
        (tmp_path / name).mkdir()
    broker = await cluster.install(
        BROKER,
        {
            "database": await secret(cluster, existing, "database", "url", database_url),
            "adminKey": await secret(cluster, existing, "admin", "value", admin_key),
            "config": {"broker": a_port_of_its_own(port)},
        },
    )
    url = f"http://127.0.0.1:{port}"
    async with (
        broker.process(tmp_path / "broker"),
        BrokerClient(url, admin_key) as admin,
        shipwright(cluster.kube, work_namespace),
    ):
        registered = await admin.register_agent(RegisterAgent(name="edge", labels={"env": "chart"}))
        agent = await cluster.install(
            AGENT,
            {
                "key": await secret(cluster, existing, "agent", "value", registered.key),
                "work": {"namespace": work_namespace},
                "config": {"agent": {"broker_url": url, "health": a_port_of_its_own(free_port())}},
            },
        )
        kubeconfig = await agent.kubeconfig(cluster.kubeconfig, tmp_path)
        await _until_in_force(kubeconfig, work_namespace)
        async with agent.process(tmp_path / "agent", KUBECONFIG=str(kubeconfig)):
            submitted = await admin.submit_work(
                SubmitWork(
                    work_type="build",
                    template=a_build_template(),
                    target=TargetBody(match_labels={"env": "chart"}),
                )
            )

            async def is_finished() -> WorkBody | None:
                found = await admin.get_work(submitted.id)
                return found if found.status.is_finished else None

            work = await eventually(is_finished)

    assert work.status is WorkState.SUCCEEDED
    assert (work.result or {})["digest"] == DIGEST
    # Their file systems are read-only, and they have nothing to write.
    for name in ("broker", "agent"):
        written = {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*")}
        assert written == {"log", "tmp", "etc-brokkr", "etc-brokkr/brokkr.toml"}


async def secret(cluster: Cluster, existing: bool, name: str, key: str, value: str) -> Values:
    """Return the values for a secret that the chart makes, or that is there already."""
    if not existing:
        return {key: value}
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {"what": value},
    }
    await cluster.kube.create(SECRETS, cluster.namespace, manifest)
    return {"existingSecret": name, "secretKey": "what"}


@asynccontextmanager
async def shipwright(kube: KubeClient, namespace: str) -> AsyncIterator[None]:
    """Play Shipwright in a namespace that the agent's chart is going to make."""
    playing = asyncio.create_task(PlayedShipwright(kube, namespace).run())
    try:
        yield
    finally:
        playing.cancel()

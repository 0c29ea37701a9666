import base64
import stat
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from brokkr.agent.kinds import SECRETS, SERVICE_ACCOUNTS, WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeForbidden
from brokkr.local.agent_account import agent_kubeconfig
from brokkr.local.control_plane import ControlPlane
from support.signals import eventually


def test_kubeconfig_and_token_are_for_their_owner_only(agent_kubeconfig: Path) -> None:
    folder = agent_kubeconfig.parent
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}

    assert modes == {"kubeconfig": 0o600, "token": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_of_the_administrator_s_is_in_it(
    agent_kubeconfig: Path, control_plane: ControlPlane
) -> None:
    (admin,) = yaml.safe_load(control_plane.kubeconfig.read_text())["users"]

    (agent,) = yaml.safe_load(agent_kubeconfig.read_text())["users"]
    assert list(agent["user"]) == ["tokenFile"]
    assert admin["user"]["token"] not in Path(agent["user"]["tokenFile"]).read_text()


async def test_it_is_good_from_its_first_moment(agent_kube: KubeClient, namespace: str) -> None:
    items, _ = await agent_kube.list(WORKS, namespace)

    assert items == []
    with pytest.raises(KubeForbidden, match="cannot list resource"):
        await agent_kube.list(SECRETS, namespace)


async def test_its_token_is_renewed_while_it_is_in_use(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    async with agent_kubeconfig(
        control_plane.kubeconfig,
        tmp_path / "account",
        say=pytest.fail,
        namespace=namespace,
        agent_namespace=namespace,
        renew_every=timedelta(milliseconds=100),
    ) as kubeconfig:
        token = kubeconfig.with_name("token")
        first = token.read_text()

        async def is_another() -> bool:
            return token.read_text() != first

        await eventually(is_another)
        async with KubeClient(KubeConfig.load(kubeconfig)) as agent:
            assert (await agent.list(WORKS, namespace))[0] == []


async def test_a_token_that_cannot_be_renewed_is_said_and_asked_for_again(
    control_plane: ControlPlane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    said: list[str] = []
    async with agent_kubeconfig(
        control_plane.kubeconfig,
        tmp_path / "account",
        say=said.append,
        namespace=namespace,
        agent_namespace=namespace,
        renew_every=timedelta(milliseconds=50),
    ):
        await kube.delete(SERVICE_ACCOUNTS, namespace, "brokkr-agent")

        async def is_said_twice() -> bool:
            return len(said) >= 2

        await eventually(is_said_twice)

    assert "could not be renewed" in said[0]


async def test_the_cluster_s_certificate_is_found_though_its_path_is_relative(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    document = yaml.safe_load(control_plane.kubeconfig.read_text())
    cluster = document["clusters"][0]["cluster"]
    certificate = base64.b64decode(cluster.pop("certificate-authority-data"))
    (tmp_path / "ca.crt").write_bytes(certificate)
    cluster["certificate-authority"] = "ca.crt"
    admin = tmp_path / "admin"
    admin.write_text(yaml.safe_dump(document))

    async with (
        agent_kubeconfig(
            admin,
            tmp_path / "account",
            say=pytest.fail,
            namespace=namespace,
            agent_namespace=namespace,
        ) as kubeconfig,
        KubeClient(KubeConfig.load(kubeconfig)) as agent,
    ):
        assert (await agent.list(WORKS, namespace))[0] == []

"""The one way to the logs is through an API server that knows the key."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from brokkr.agent.kube.client import KubeClient
from brokkr.local.build_runner.kubelet import (
    NODES,
    logs_folder,
    node_name,
    register_node,
    serving_logs,
)
from brokkr.local.build_runner.steps import log_of
from brokkr.local.control_plane import ControlPlane

pytestmark = pytest.mark.kube

TEXT = "one\ntwo\nthree\n"


@dataclass(frozen=True)
class Server:
    """A server with one log."""

    port: int
    identity: Path

    async def get(self, path: str, *, identity: Path | None) -> tuple[int, str]:
        """Ask for a log with a client's key pair, or without one."""
        tls = ssl.create_default_context(cafile=self.identity)
        if identity is not None:
            tls.load_cert_chain(identity)
        url = f"https://127.0.0.1:{self.port}/containerLogs/{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, ssl=tls) as answer,
        ):
            return answer.status, await answer.text()


@pytest.fixture
async def server(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Server]:
    folder = logs_folder(tmp_path / "logs", "here", "it-pod")
    folder.mkdir(parents=True)
    log_of(folder, "step-build").write_text(TEXT)
    (tmp_path / "secret.log").write_text("not for you")
    identity = control_plane.kubelet_identity
    async with serving_logs(tmp_path / "logs", identity) as port:
        yield Server(port, identity)


async def test_who_has_the_key_may_read(server: Server) -> None:
    answer = await server.get("here/it-pod/step-build", identity=server.identity)

    assert answer == (200, TEXT)


async def test_who_has_no_key_may_not(server: Server) -> None:
    with pytest.raises(aiohttp.ClientError):
        await server.get("here/it-pod/step-build", identity=None)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("tailLines=2", "two\nthree\n"),
        ("tailLines=0", ""),
        ("tailLines=9", TEXT),
        ("limitBytes=5", "one\nt"),
        ("tailLines=1&limitBytes=3", "thr"),
    ],
)
async def test_a_part_can_be_asked_for(server: Server, query: str, text: str) -> None:
    answer = await server.get(f"here/it-pod/step-build?{query}", identity=server.identity)

    assert answer == (200, text)


@pytest.mark.parametrize(
    "path",
    [
        "here/it-pod/step-push",
        "here/other-pod/step-build",
        "there/it-pod/step-build",
        "here/%2e%2e/secret",
        "%2e%2e/%2e%2e/secret",
        "here/it-pod/%2e%2e%2F%2e%2e%2F%2e%2e%2Fsecret",
    ],
)
async def test_there_is_nothing_else(server: Server, path: str) -> None:
    status, _ = await server.get(path, identity=server.identity)

    assert status == 404


async def test_a_node_says_what_it_is_and_moves_with_its_runner(
    kube: KubeClient, tmp_path: Path
) -> None:
    name = node_name(tmp_path)
    for port in (1001, 1002):
        await register_node(kube, name, port=port, note={"local.brokkr.io/stand-in": "one"})

    node = await kube.get(NODES, None, name)
    assert node["metadata"]["annotations"]["local.brokkr.io/stand-in"] == "one"
    assert node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 1002
    assert node["spec"]["unschedulable"]

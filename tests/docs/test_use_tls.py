"""The guide to TLS: its lines in a real nginx, in front of a real broker."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest

from brokkr.broker.db.keys import create_admin_key
from brokkr.local.process import free_port
from brokkr.wire.bodies import RegisterAgent, SubmitWork
from support.broker import RunningBroker
from support.command_line import CommandLine
from support.factories import a_build_template
from support.nginx import nginx
from support.signals import eventually
from support.system import an_agent

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-tls.md"


def block_of(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return str(text)


def replaced(text: str, **others: str) -> str:
    """Put what is here in the place of what the page says; all of it must stand there."""
    for usual, here in others.items():
        assert usual in text
        text = text.replace(usual, here)
    return text


async def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make one of localhost's own, which is its own authority."""
    certificate, key = folder / "brokkr.crt", folder / "brokkr.key"
    process = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "1"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        *("-keyout", key, "-out", certificate),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
    return certificate, key


@pytest.fixture
async def front(broker: RunningBroker, tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """The broker's address behind the proxy, and the authority that vouches for it."""
    port = free_port()
    certificate, key = await make_certificate(tmp_path)
    servers = replaced(
        block_of("nginx"),
        **{
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "brokkr.example.com": "localhost",
            "/etc/ssl/brokkr.crt": str(certificate),
            "/etc/ssl/brokkr.key": str(key),
            "http://127.0.0.1:3000": broker.url,
        },
    )
    async with nginx(tmp_path, servers, port=port):
        yield f"https://localhost:{port}", certificate


async def test_the_command_line_trusts_whom_the_page_tells_it_to_trust(
    front: tuple[str, Path], broker: RunningBroker, tmp_path: Path
) -> None:
    url, authority = front
    key = await create_admin_key(broker.database_url)
    (shell,) = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    export, command = replaced(
        shell, **{"/etc/ssl/our-ca.crt": str(authority), "https://brokkr.example.com": url}
    ).splitlines()
    trusted = dict([export.removeprefix("export ").split("=")])
    words = command.split()[1:]

    listed = await CommandLine(tmp_path, BROKKR_KEY=key, **trusted)(*words)
    refused = await CommandLine(tmp_path, BROKKR_KEY=key)(*words)

    assert (listed.code, listed.err) == (0, "")
    assert refused.code == 3
    shown = block_of("text").replace("localhost:34443", url.removeprefix("https://"))
    assert refused.err.splitlines() == shown.splitlines()


async def test_an_agent_comes_through_with_the_same_variable(
    front: tuple[str, Path],
    broker: RunningBroker,
    namespace: str,
    agent_kubeconfig: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, authority = front
    folder = authority.parent
    agent = await broker.admin.register_agent(RegisterAgent(name="edge-1"))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))

    async def is_seen() -> bool:
        return (await broker.admin.get_agent("edge-1")).last_seen_at is not None

    async with an_agent(
        folder, broker_url=url, key=agent.key, kubeconfig=agent_kubeconfig, namespace=namespace
    ):
        await eventually(is_seen)


async def test_events_come_through_at_once_and_what_is_too_large_is_the_brokers_to_refuse(
    front: tuple[str, Path], broker: RunningBroker
) -> None:
    url, authority = front
    key = await create_admin_key(broker.database_url)
    wanted = {
        "work_type": "build",
        "template": a_build_template(),
        "target": {"agents": ["edge-1"]},
    }
    work = await broker.admin.submit_work(SubmitWork.model_validate(wanted))
    trust = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=authority))
    async with (
        aiohttp.ClientSession(
            f"{url}/api/v1/", connector=trust, headers={"Authorization": f"Bearer {key}"}
        ) as session,
        session.get(f"work/{work.id}/events?follow=true") as stream,
        asyncio.timeout(20),
    ):
        await until_told(stream, "submitted")
        await broker.admin.cancel_work(work.id)  # the stream is open, and brings what comes later
        await until_told(stream, "cancelled")

        async with session.post("work", data=BytesIO(b" " * 1_500_000)) as refused:
            assert refused.status == 413
            assert refused.content_type == "application/problem+json"


async def until_told(stream: aiohttp.ClientResponse, kind: str) -> None:
    while f"event: {kind}" not in (line := (await stream.content.readline()).decode()):
        assert line, "the stream has ended"

"""Brokers and agents as processes of their own, for acceptance tests."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import yaml

from brokkr.local.process import Server, running


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with settings of ``brokkr`` added."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("BROKKR_")}
    return {**inherited, **{f"BROKKR__{k}": v for k, v in settings.items()}}


def from_source(source: Path | None) -> dict[str, str]:
    """Return what makes ``brokkr`` that of another revision, if its sources are given."""
    return {} if source is None else {"PYTHONPATH": str(source)}


def brokkr(*arguments: str) -> list[str]:
    """Return the command line of ``brokkr``."""
    return [sys.executable, "-m", "brokkr", *arguments]


@asynccontextmanager
async def a_broker(
    folder: Path, database_url: str, *, port: int, source: Path | None = None
) -> AsyncIterator[tuple[str, Server]]:
    """Run a broker on a database; yield its URL, and its process, which the test may kill."""
    url = f"http://127.0.0.1:{port}"

    async def is_ready() -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as got:
                return got.status == 200
        except aiohttp.ClientError:
            return False

    async with running(
        "broker",
        brokkr("broker", "serve"),
        log=folder / "broker.log",
        env={
            **environment(BROKER__PORT=str(port), DATABASE__URL=database_url),
            **from_source(source),
        },
        cwd=folder,
        is_ready=is_ready,
    ) as server:
        yield url, server


@asynccontextmanager
async def an_agent(
    folder: Path,
    *,
    broker_url: str,
    key: str,
    kubeconfig: Path,
    namespace: str,
    settings: Mapping[str, str] | None = None,
    source: Path | None = None,
) -> AsyncIterator[Server]:
    """Run an agent; yield its process, which the test may kill."""
    async with running(
        "agent",
        brokkr("agent", "run"),
        log=folder / "agent.log",
        env=environment(
            **{
                "AGENT__BROKER_URL": broker_url,
                "AGENT__KEY": key,
                "AGENT__KUBECONFIG": str(kubeconfig),
                "AGENT__WORK_CRD__NAMESPACE": namespace,
                "AGENT__WORK_CRD__RETRY_BASE_DELAY_SECONDS": "0.1",
                "AGENT__WORK_CRD__RECONCILE_INTERVAL_SECONDS": "1",
                **(settings or {}),
            }
        )
        | from_source(source),
        cwd=folder,
        within=timedelta(seconds=20),
    ) as server:
        yield server


def kill(server: Server) -> None:
    """End a process as a crash would."""
    os.kill(server.pid, signal.SIGKILL)


def proxied_kubeconfig(original: Path, url: str, to: Path) -> Path:
    """Write a kubeconfig that goes through a proxy, which speaks plain http to the agent."""
    document = yaml.safe_load(original.read_text())
    document["clusters"][0]["cluster"] = {"server": url}
    to.write_text(yaml.safe_dump(document))
    return to

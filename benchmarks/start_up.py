"""
How long until a command answers, and until broker and agent are ready.

All are processes of their own, started one after the other, again and again.  An API server
is needed for the agent, as local mode starts it.  CPU is what the process has computed, which
depends less on who else is at work than the time does.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter, time

import aiohttp
import uvloop

from agent_process import agent_process
from broker_process import broker_process, call
from brokkr.agent.kinds import NAMESPACES
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.broker.db.pool import connect
from brokkr.local.agent_account import agent_kubeconfig
from brokkr.local.control_plane import control_plane
from machine import QUICK, Report, middle, report_on, spread
from process_usage import cpu_seconds
from world import custom_resources, database, throw_away_postgres

RUNS = 3 if QUICK else 11
NAMESPACE = "bench-start"
IMPORTS = {
    "brokkr --help": "brokkr.cli.main",
    "commands of work": "brokkr.cli.work",
    "the broker": "brokkr.broker.app",
    "the agent": "brokkr.agent.app",
}


async def main() -> None:
    """Run everything."""
    async with AsyncExitStack() as stack:
        name = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="brokkr-bench-", ignore_cleanup_errors=True)
        )
        server = await stack.enter_async_context(throw_away_postgres())
        url = await stack.enter_async_context(database(server))
        db = await stack.enter_async_context(connect(url))
        report = await report_on("start-up", db)
        await _commands(url, report)
        await _brokers(url, report)
        await _agents(Path(name), url, report)
        for what, module in IMPORTS.items():
            report.add(what=f"imports of {what}", **_imports(module))
        report.save()


async def _commands(url: str, report: Report) -> None:
    program = str(Path(sys.executable).with_name("brokkr"))
    async with broker_process(url) as broker:
        env = {"BROKKR_URL": broker.url, "BROKKR_KEY": broker.admin_key}
        for words in (("--version",), ("--help",), ("work", "--help"), ("work", "list")):
            runs = [await _run([program, *words], env) for _ in range(RUNS)]
            seconds, cpu = zip(*runs, strict=True)
            _add(report, f"brokkr {' '.join(words)}", seconds, cpu)


async def _run(command: list[str], env: Mapping[str, str]) -> tuple[float, float]:
    """Run a command; return its seconds, and those that it has computed."""
    cpu, began = os.times(), perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.DEVNULL, env={**os.environ, **env}
    )
    if await process.wait() != 0:
        raise RuntimeError(f"{command} failed")
    seconds, after = perf_counter() - began, os.times()
    used = after.children_user + after.children_system - cpu.children_user - cpu.children_system
    return seconds, used


async def _brokers(url: str, report: Report) -> None:
    seconds, cpu = [], []
    for _ in range(RUNS):
        began = perf_counter()
        async with broker_process(url) as broker:
            seconds.append(perf_counter() - began)
            cpu.append(cpu_seconds(broker.pid))
    _add(report, "broker ready", seconds, cpu)


async def _agents(folder: Path, url: str, report: Report) -> None:
    """Start an agent until it says that it is ready."""
    async with (
        broker_process(url) as broker,
        control_plane(folder / "cluster", print, crds=custom_resources()) as plane,
        KubeClient(KubeConfig.load(plane.kubeconfig)) as kube,
        aiohttp.ClientSession() as session,
    ):
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        await kube.create(NAMESPACES, None, manifest)
        registered = await call(broker, "/api/v1/agents", {"name": "start", "labels": {}})
        account = agent_kubeconfig(
            plane.kubeconfig,
            folder / "account",
            say=print,
            namespace=NAMESPACE,
            agent_namespace=NAMESPACE,
        )
        async with account as kubeconfig:
            seconds, cpu = [], []
            for _ in range(RUNS):
                async with agent_process(
                    folder,
                    broker_url=broker.url,
                    key=registered["key"],
                    kubeconfig=kubeconfig,
                    namespace=NAMESPACE,
                    settings={},
                ) as agent:
                    await _until_ready(session, f"{agent.url}/readyz")
                    seconds.append(time() - agent.started_at)
                    cpu.append(cpu_seconds(agent.pid))
        _add(report, "agent ready", seconds, cpu)


async def _until_ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass  # it does not listen yet
            await asyncio.sleep(0.01)


def _imports(module: str) -> dict[str, float | str]:
    """Import a module in a new interpreter; say how long it took and how much that brings."""
    code = (
        "import sys, time; before, began = len(sys.modules), time.process_time();"
        f"import {module};"
        "print(time.process_time() - began, len(sys.modules) - before)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.split()
        for _ in range(RUNS)
    ]
    times = [float(each[0]) * 1000 for each in runs]
    return {"cpu_ms": middle(times), "spread": spread(times), "modules": int(runs[0][1])}


def _add(report: Report, what: str, seconds: Sequence[float], cpu: Sequence[float]) -> None:
    times = [1000 * each for each in seconds]
    report.add(
        what=what,
        ms=middle(times),
        spread=spread(times),
        cpu_ms=1000 * middle(cpu),
    )


if __name__ == "__main__":
    uvloop.run(main())

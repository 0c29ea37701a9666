"""
Does a queue drain by priority, and without starving anybody, through many agents?

Twenty agents, each a process with a namespace of its own, run fifty Works at once: first on
one API server, then on three.  Shipwright is played.  When all their places are taken by one
generator's Works, that generator submits a backlog, and then two others theirs: the one more
urgent, the other not.  Then every build ends as soon as it runs, until all is done.  Works of
one priority are to be started in the order of their submission, so the wait of whoever comes
last is bounded by what was there before.
"""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import uvloop

from agent_process import AgentProcess, agent_process
from broker_process import BrokerProcess, Http, broker_process, call
from brokkr.agent.kinds import NAMESPACES
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.broker.db.pool import Connection, connect
from brokkr.local.agent_account import agent_kubeconfig
from brokkr.local.control_plane import control_plane
from machine import QUICK, Report, percentile, report_on
from played_shipwright import played_shipwright
from process_usage import cpu_seconds, peak_rss_mb
from world import a_template, custom_resources, database, throw_away_postgres

AGENTS = 3 if QUICK else 20
AT_ONCE = 5 if QUICK else 50
BACKLOG = 30 if QUICK else 500
URGENT = 10 if QUICK else 100
LATE = 10 if QUICK else 100
PATIENCE_SECONDS = 900

_OF_ONE = """
SELECT extract(epoch FROM claimed_at - created_at)::float AS waited, outcome
  FROM work_execution_log
 WHERE labels ->> 'part' = $1
"""
# How many pairs of Works were claimed in the wrong order, of those that waited together.
_OVERTAKEN = """
SELECT count(*)
  FROM work_execution_log AS first
  JOIN work_execution_log AS second
    ON second.labels ->> 'part' = $2 AND second.claimed_at < first.claimed_at
 WHERE first.labels ->> 'part' = $1
"""


async def main() -> None:
    """Run it with one API server, and with three."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(throw_away_postgres())
        db = await stack.enter_async_context(connect(server))
        report = await report_on("many-agents", db)
        for servers in (1, 3):
            async with database(server) as url:
                await _drain(url, report, servers=servers)
        report.save()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The broker, its database, and by name the keys of who submits there."""

    broker: BrokerProcess
    db: Connection
    generators: dict[str, str]

    async def submit(self, generator: str, part: str, number: int, *, priority: int = 0) -> None:
        """Submit so many in one go; the broker closes connections that are silent before it."""
        item = {
            "work_type": "build",
            "template": a_template(),
            "target": {"match_labels": {"any": "yes"}},
            "priority": priority,
            "labels": {"part": part},
        }
        client = await Http.open(self.broker.url, self.generators[generator])
        for start in range(0, number, 100):
            body = {"items": [item] * min(100, number - start)}
            await client.post("/api/v1/work/batch", json.dumps(body).encode())
        await client.close()

    async def until(self, wanted: int, query: str) -> None:
        """Wait until there are so many."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.db.fetchval(query) != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def _drain(url: str, report: Report, *, servers: int) -> None:
    async with AsyncExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="brokkr-bench-", ignore_cleanup_errors=True)
            )
        )
        broker = await stack.enter_async_context(broker_process(url))
        db = await stack.enter_async_context(connect(url))
        site = Site(broker=broker, db=db, generators={})
        for name in ("first", "urgent", "late"):
            made = await call(broker, "/api/v1/generators", {"name": name})
            site.generators[name] = made["key"]
        may_end = asyncio.Event()
        agents = await _agents(stack, site, folder, servers=servers, may_end=may_end)
        places = AGENTS * AT_ONCE
        await site.submit("first", "running", places)
        await site.until(places, "SELECT count(*) FROM work_queue WHERE status = 'CLAIMED'")
        await site.submit("first", "backlog", BACKLOG)
        await site.submit("urgent", "urgent", URGENT, priority=10)
        await site.submit("late", "late", LATE)
        began, cpu = perf_counter(), sum(cpu_seconds(each.pid) for each in agents)
        may_end.set()
        total = places + BACKLOG + URGENT + LATE
        await site.until(total, "SELECT count(*) FROM work_execution_log")
        seconds = perf_counter() - began
        what = {"api_servers": servers, "agents": AGENTS}
        report.add(
            **what,
            works=total,
            seconds=seconds,
            works_per_second=total / seconds,
            agents_cpu_ms_per_work=1000
            * (sum(cpu_seconds(each.pid) for each in agents) - cpu)
            / total,
            agent_peak_rss_mb=max(peak_rss_mb(each.pid) for each in agents),
            urgent_after_backlog=await db.fetchval(_OVERTAKEN, "urgent", "backlog"),
            late_before_backlog=await db.fetchval(_OVERTAKEN, "backlog", "late"),
        )
        for part in ("running", "urgent", "backlog", "late"):
            report.add(**what, part=part, **await _waits(db, part))


async def _agents(
    stack: AsyncExitStack, site: Site, folder: Path, *, servers: int, may_end: asyncio.Event
) -> list[AgentProcess]:
    """Start API servers, and the agents in turn on each; Shipwright is played by this process."""
    clusters = []
    for number in range(servers):
        plane = await stack.enter_async_context(
            control_plane(folder / f"cluster-{number}", print, crds=custom_resources())
        )
        kube = KubeClient(KubeConfig.load(plane.kubeconfig))
        clusters.append((plane, await stack.enter_async_context(kube)))
    agents = []
    for number in range(AGENTS):
        plane, kube = clusters[number % servers]
        namespace = f"bench-{number}"
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await kube.create(NAMESPACES, None, manifest)
        body = {"name": namespace, "labels": {"any": "yes"}}
        registered: dict[str, Any] = await call(site.broker, "/api/v1/agents", body)
        account = agent_kubeconfig(
            plane.kubeconfig,
            folder / namespace,
            say=print,
            namespace=namespace,
            agent_namespace=namespace,
        )
        shipwright = await stack.enter_async_context(played_shipwright(kube, namespace))
        shipwright.end_when_noticed(may_end)
        agents.append(
            await stack.enter_async_context(
                agent_process(
                    folder,
                    broker_url=site.broker.url,
                    key=registered["key"],
                    kubeconfig=await stack.enter_async_context(account),
                    namespace=namespace,
                    settings={"WORK_QUEUE__MAX_CONCURRENT": str(AT_ONCE)},
                )
            )
        )
    return agents


async def _waits(db: Connection, part: str) -> dict[str, float]:
    rows = await db.fetch(_OF_ONE, part)
    if any(each["outcome"] != "succeeded" for each in rows):
        raise RuntimeError("a Work has not succeeded")
    waits: Sequence[float] = [each["waited"] for each in rows]
    return {
        "works": len(waits),
        "waited_p50_seconds": percentile(waits, 0.5),
        "waited_max_seconds": max(waits),
    }


if __name__ == "__main__":
    uvloop.run(main())

"""
What an agent adds to a build's time, asks of its API server, and costs while Works are kept.

Run it as ``python benchmarks/agent.py``.  Broker, PostgreSQL, etcd, kube-apiserver and the
agent are real and have processes of their own; the agent has its own account's rights.
Shipwright is played by this process, which builds nothing, so what is left is the agent's
own.  All of them share one machine and its clock.
"""

# Note [The times that are taken]
#
# ``claimed_at`` and ``completed_at`` are the database's, of when those transactions began.
# A BuildRun is there when this process's watch says so; its end counts from when the played
# Shipwright begins to write it.  So the played part of the way from claim to BuildRun, which
# is to register the Build, is in the first time, and printed beside it.

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from uuid import UUID

import uvloop

from agent_process import AgentProcess, agent_process
from broker_process import BrokerProcess, broker_process, call
from brokkr.agent.kinds import NAMESPACES, WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.broker.db.pool import Connection, connect
from brokkr.local.agent_account import agent_kubeconfig
from brokkr.local.control_plane import control_plane
from brokkr.work.names import work_name
from counting_proxy import counting_proxy
from finished_works import make_finished_works
from machine import Report, percentile, report_on
from played_shipwright import PlayedShipwright, played_shipwright
from process_usage import cpu_seconds, peak_rss_mb, rss_mb
from world import a_template, custom_resources, database, throw_away_postgres

AT_ONCE = 50
ROUNDS = {0: (200, 4), 100: (50, 2), 1000: (50, 2), 10_000: (20, 1)}
"""By how many finished Works are there: how many go one by one, and how often 50 at once."""
SETTLE_SECONDS = 12
"""Longer than from one look at everything to the next, which are ten seconds apart."""
WINDOW_SECONDS = 30
COUNTED = (50, 2)
PATIENCE_SECONDS = 120
"""For one round, or for a start; a round that takes longer is given up, and that is said."""
_ON_ITS_OWN = (
    *("list ", "watch ", "get what is served"),
    *("get customresourcedefinitions", "get namespaces"),
)
"""What an agent asks whether there is Work or not."""


async def main() -> None:
    """Count requests; then measure with nothing kept, and with up to 10,000 Works."""
    with tempfile.TemporaryDirectory(prefix="brokkr-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        async with (
            throw_away_postgres() as server,
            database(server) as url,
            connect(url) as db,
            broker_process(url) as broker,
            control_plane(folder / "cluster", print, crds=custom_resources()) as plane,
            KubeClient(KubeConfig.load(plane.kubeconfig)) as kube,
        ):
            report = await report_on("agent", db)
            site = Site(folder=folder, db=db, broker=broker, kube=kube, admin=plane.kubeconfig)
            async with _place(site, "bench-requests") as place:
                await _count_requests(place, report)
            cpu_without = 0.0
            for works in ROUNDS:
                async with _place(site, f"bench-{works}") as place:
                    cpu = await _measure(place, works, report, cpu_without=cpu_without)
                    cpu_without = cpu if works == 0 else cpu_without
            report.save()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """All that is started once; ``admin`` and ``kube`` are the cluster's administrator's."""

    folder: Path
    db: Connection
    broker: BrokerProcess
    kube: KubeClient
    admin: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A namespace, and an agent that is registered for it and does not run yet."""

    site: Site
    namespace: str
    agent_id: UUID
    key: str
    kubeconfig: Path

    @asynccontextmanager
    async def agent(
        self, *, kubeconfig: Path | None = None, **settings: str
    ) -> AsyncIterator[AgentProcess]:
        """Run the agent for the block."""
        async with agent_process(
            self.site.folder,
            broker_url=self.site.broker.url,
            key=self.key,
            kubeconfig=kubeconfig or self.kubeconfig,
            namespace=self.namespace,
            settings={"WORK_QUEUE__MAX_CONCURRENT": str(AT_ONCE), **settings},
        ) as process:
            yield process

    async def first_heartbeat_at(self) -> float:
        """Wait for it; return when it came, in seconds since 1970."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                seen = await self.site.db.fetchval(
                    "SELECT extract(epoch FROM last_seen_at)::float FROM agents WHERE id = $1",
                    self.agent_id,
                )
                if seen is not None:
                    return float(seen)
                await asyncio.sleep(0.05)

    async def submit(self, number: int) -> list[UUID]:
        """Submit so many builds at once, which this agent alone may claim."""
        item = {
            "work_type": "build",
            "template": a_template(),
            "target": {"match_labels": {"place": self.namespace}},
        }
        answer = await call(self.site.broker, "/api/v1/work/batch", {"items": [item] * number})
        return [UUID(each["work"]["id"]) for each in answer["items"]]

    async def logged(self, works: Sequence[UUID]) -> list[tuple[UUID, float, float]]:
        """Wait until all have succeeded; return when each was claimed and completed."""
        while True:
            rows = await self.site.db.fetch(
                "SELECT id, outcome, extract(epoch FROM claimed_at)::float AS claimed_at,"
                "       extract(epoch FROM completed_at)::float AS completed_at"
                "  FROM work_execution_log WHERE id = ANY($1)",
                works,
            )
            if len(rows) == len(works):
                break
            await asyncio.sleep(0.02)
        if any(each["outcome"] != "succeeded" for each in rows):
            raise RuntimeError("a Work has not succeeded")
        return [(each["id"], each["claimed_at"], each["completed_at"]) for each in rows]


@asynccontextmanager
async def _place(site: Site, namespace: str) -> AsyncIterator[Place]:
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    await site.kube.create(NAMESPACES, None, manifest)
    body = {"name": namespace, "labels": {"place": namespace}}
    registered = await call(site.broker, "/api/v1/agents", body)
    async with agent_kubeconfig(
        site.admin,
        site.folder / namespace,
        say=print,
        namespace=namespace,
        agent_namespace=namespace,
    ) as kubeconfig:
        yield Place(
            site=site,
            namespace=namespace,
            agent_id=UUID(registered["id"]),
            key=registered["key"],
            kubeconfig=kubeconfig,
        )


async def _measure(place: Place, works: int, report: Report, *, cpu_without: float) -> float:
    """Measure with so many finished Works; return the CPU seconds of a minute at rest."""
    await make_finished_works(place.site.kube, place.namespace, works, agent_id=place.agent_id)
    async with place.agent() as agent:
        first_at = await place.first_heartbeat_at()
        at_rest = await _at_rest(agent)
        cpu = at_rest["cpu_seconds_per_minute"]
        per_thousand = 1000 * (cpu - cpu_without) / works if works else 0.0
        report.add(
            finished=works,
            first_heartbeat_seconds=first_at - agent.started_at,
            **at_rest,
            cpu_seconds_per_minute_per_1000=per_thousand,
        )
        async with played_shipwright(place.site.kube, place.namespace) as shipwright:
            alone, bursts = ROUNDS[works]
            for at_once, rounds in ((1, alone), (AT_ONCE, bursts)):
                what = {"finished": works, "submitted": f"{at_once} at once"}
                looks_before, cpu_before = await agent.looks(), cpu_seconds(agent.pid)
                try:
                    times = await _pass_through(place, shipwright, at_once=at_once, rounds=rounds)
                except TimeoutError:
                    report.add(**what, given_up_after_seconds=PATIENCE_SECONDS)
                    break
                cpu_used = cpu_seconds(agent.pid) - cpu_before
                looks = await agent.looks() - looks_before
                report.add(
                    **what,
                    works=at_once * rounds,
                    **times,
                    cpu_ms_per_work=1000 * cpu_used / (at_once * rounds),
                    looks=looks.count,
                    look_p50_ms=looks.percentile_ms(0.5),
                    look_p99_ms=looks.percentile_ms(0.99),
                )
        return cpu


async def _at_rest(agent: AgentProcess) -> dict[str, float]:
    """Measure what the agent's process does while nothing happens."""
    await asyncio.sleep(SETTLE_SECONDS)
    looks_before = await agent.looks()
    began, cpu_before = perf_counter(), cpu_seconds(agent.pid)
    await asyncio.sleep(WINDOW_SECONDS)
    seconds, cpu = perf_counter() - began, cpu_seconds(agent.pid) - cpu_before
    asked_at = perf_counter()
    looks = await agent.looks() - looks_before
    return {
        "rss_mb": rss_mb(agent.pid),
        "peak_rss_mb": peak_rss_mb(agent.pid),
        "cpu_seconds_per_minute": 60 * cpu / seconds,
        "looks": looks.count,
        "look_p50_ms": looks.percentile_ms(0.5),
        "look_p99_ms": looks.percentile_ms(0.99),
        "metrics_answered_ms": 1000 * (perf_counter() - asked_at),
    }


async def _pass_through(
    place: Place, shipwright: PlayedShipwright, *, at_once: int, rounds: int
) -> dict[str, float]:
    """Let Works pass through, so many at once; see Note [The times that are taken]."""
    started, finished = [], []
    shipwright.registering.clear()
    for _ in range(rounds):
        async with asyncio.timeout(PATIENCE_SECONDS):
            ids = await place.submit(at_once)
            names = {each: work_name(each, round=1) for each in ids}
            for name in names.values():
                await shipwright.until_noticed(name)
            await asyncio.gather(*(shipwright.end(name) for name in names.values()))
            for work_id, claimed_at, completed_at in await place.logged(ids):
                started.append(1000 * (shipwright.created_at[names[work_id]] - claimed_at))
                finished.append(1000 * (completed_at - shipwright.ended_at[names[work_id]]))
    return {
        "claim_to_build_run_p50_ms": percentile(started, 0.5),
        "claim_to_build_run_p99_ms": percentile(started, 0.99),
        "of_it_played_p50_ms": 1000 * percentile(shipwright.registering, 0.5),
        "end_to_logged_p50_ms": percentile(finished, 0.5),
        "end_to_logged_p99_ms": percentile(finished, 0.99),
    }


async def _count_requests(place: Place, report: Report) -> None:
    """Count what the agent asks of the API server for a Work that succeeds."""
    async with (
        counting_proxy(place.kubeconfig) as (kubeconfig, counted),
        # Kept for a moment only, so that the clean-up is in the count.
        place.agent(kubeconfig=kubeconfig, WORK_CRD__BUILD__BUILD_RETENTION_SUCCEEDED="1s"),
        played_shipwright(place.site.kube, place.namespace) as shipwright,
    ):
        await place.first_heartbeat_at()
        await asyncio.sleep(SETTLE_SECONDS)
        before = counted.copy()
        await asyncio.sleep(WINDOW_SECONDS)
        _add_requests(report, "at rest, a minute", counted - before, WINDOW_SECONDS / 60)
        alone, bursts = COUNTED
        for at_once, rounds in ((1, alone), (AT_ONCE, bursts)):
            before = counted.copy()
            await _pass_through(place, shipwright, at_once=at_once, rounds=rounds)
            await _until_cleaned_up(place)
            asked = Counter(
                {k: n for k, n in (counted - before).items() if not k.startswith(_ON_ITS_OWN)}
            )
            _add_requests(report, f"a Work, {at_once} at once", asked, at_once * rounds)


def _add_requests(report: Report, per: str, asked: Mapping[str, int], number: float) -> None:
    events = sum(n for name, n in asked.items() if name.endswith("events"))
    clean_up = sum(n for name, n in asked.items() if name.startswith("delete "))
    report.add(
        requests_per=per,
        others=(sum(asked.values()) - events - clean_up) / number,
        events=events / number,
        clean_up=clean_up / number,
        **{name.replace(" ", "_"): n / number for name, n in sorted(asked.items())},
    )


async def _until_cleaned_up(place: Place) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await place.site.kube.list(WORKS, place.namespace))[0]:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    uvloop.run(main())

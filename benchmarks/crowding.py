"""
What one tenant, or one frozen broker, costs all others.

Run it as ``python benchmarks/crowding.py``; ``--source FOLDER`` takes the broker from the
sources of another revision, to compare.  Each attack has a database and a broker process of its
own, and is looked at from the outside: by heartbeats, claims and submissions of others, over HTTP.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import uvloop

from broker_process import BrokerProcess
from brokkr.broker.db.embedded import embedded_postgres
from machine import QUICK, Report, percentile, report_on
from process_usage import rss_mb
from world import a_template

SOURCE = sys.argv[sys.argv.index("--source") + 1] if "--source" in sys.argv else None
LANES = 600 if QUICK else 6000
PARKED = 30 if QUICK else 300
LARGE_TARGETS = 30 if QUICK else 120
LABELLED = 20_000 if QUICK else 400_000
LISTS = 40
STREAMS = 1000
LOOKS = 20 if QUICK else 100
FROZEN_SECONDS = 5 if QUICK else 15
REST_SECONDS = 0 if QUICK else 260
"""Until lanes rest in which nothing is queued."""

ANYBODY = {"match_labels": {"any": "yes"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody with a key, who calls one broker."""

    http: aiohttp.ClientSession
    url: str
    key: str
    id: str = ""

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask, and return the status and what was answered."""
        async with self.http.request(
            method,
            f"{self.url}/api/v1{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.key}"},
        ) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def beat(self) -> float:
        """Send a heartbeat; return the milliseconds that it took, or a minute if it failed."""
        began = perf_counter()
        body = {"incarnation": "00000000-0000-4000-8000-000000000001", "claims": []}
        status, _ = await self.ask("POST", f"/agents/{self.id}/heartbeat", body)
        return (perf_counter() - began) * 1000 if status == 200 else 60_000

    async def claim(self) -> float:
        """Claim one Work; return the milliseconds that it took."""
        began = perf_counter()
        status, answer = await self.ask("POST", f"/agents/{self.id}/work/claim", {"max": 1})
        assert status == 200, answer
        assert answer["claims"], "there was nothing to claim"
        return (perf_counter() - began) * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A broker on a database of its own, and who calls it."""

    url: str
    database_url: str
    http: aiohttp.ClientSession
    broker: BrokerProcess
    admin: Caller
    tenant: Caller
    other: Caller
    agent: Caller

    async def an_agent(self, name: str, **labels: str) -> Caller:
        """Register an agent."""
        body = {"name": name, "cluster_name": "c", "labels": {"any": "yes", **labels}}
        _, made = await self.admin.ask("POST", "/agents", body)
        return Caller(http=self.http, url=self.url, key=made["key"], id=made["id"])


async def main() -> None:
    """Try one attack after the other."""
    with tempfile.TemporaryDirectory(prefix="brokkr-bench-", ignore_cleanup_errors=True) as folder:
        async with embedded_postgres(Path(folder)) as server:
            connection = await asyncpg.connect(server)
            report = await report_on("crowding", connection)
            await connection.close()
            asked = [each for each in sys.argv[1:] if each in ATTACKS]
            for name in asked or ATTACKS:
                async with a_world(server) as world:
                    await ATTACKS[name](world, report)
            report.save()


# -- attacks -------------------------------------------------------------------------------


async def many_lanes(world: World, report: Report) -> None:
    """One tenant submits Works with a target of its own each; what does a claim cost others?"""
    before = await claims_of(world)
    began = perf_counter()
    made = await make_lanes(world, LANES, keep=True)
    seconds = perf_counter() - began
    report.add(attack="lanes", asked=LANES, made=made, seconds=seconds)
    after = await claims_of(world)
    report.add(attack="lanes", claims="before", p50_ms=percentile(before, 0.5))
    report.add(attack="lanes", claims="with them", p50_ms=percentile(after, 0.5))
    await cancel_all(world)
    if REST_SECONDS:
        await asyncio.sleep(REST_SECONDS)
    rested = await claims_of(world)
    report.add(
        attack="lanes",
        claims=f"{REST_SECONDS} s after their end",
        p50_ms=percentile(rested, 0.5),
    )


async def parked_agents(world: World, report: Report) -> None:
    """The same with many agents that wait: what do they cost the broker's memory?"""
    agents = [await world.an_agent(f"parked-{number}") for number in range(PARKED)]
    before = rss_mb(world.broker.pid)
    polls = [
        asyncio.create_task(each.ask("POST", f"/agents/{each.id}/work/claim", {"wait": 60}))
        for each in agents
    ]
    await asyncio.sleep(2)
    parked = rss_mb(world.broker.pid)
    made = await make_lanes(world, LANES, keep=False)
    await asyncio.sleep(2)
    polls += [
        asyncio.create_task(each.ask("POST", f"/agents/{each.id}/work/claim", {"wait": 20}))
        for each in agents
    ]
    await asyncio.sleep(3)
    with_lanes = rss_mb(world.broker.pid)
    report.add(
        attack="parked",
        agents=PARKED,
        lanes=made,
        idle_mb=before,
        parked_mb=parked,
        with_lanes_mb=with_lanes,
    )
    for each in polls:
        each.cancel()
    await asyncio.gather(*polls, return_exceptions=True)


async def large_targets(world: World, report: Report) -> None:
    """One tenant's targets are as large as a body may be; what does a relabel cost others?"""
    accepted = 0
    for alternatives in (100, 7):  # each of two annotations as long as they may be
        for number in range(LARGE_TARGETS):
            target = [
                {"match_annotations": dict.fromkeys(("a", "b"), f"{number}-{each}" + "x" * 4000)}
                for each in range(alternatives)
            ]
            status, _ = await world.tenant.ask("POST", "/work", submission(target))
            accepted += status == 201
    stalls: list[float] = []

    async def watch() -> None:
        number = 0
        while True:
            number += 1
            began = perf_counter()
            await world.other.ask(
                "POST", "/work", submission({"match_labels": {"watch": f"w{number}"}})
            )
            stalls.append((perf_counter() - began) * 1000)

    watching = asyncio.create_task(watch())
    relabels = []
    for number in range(10):
        began = perf_counter()
        await world.admin.ask("PATCH", f"/agents/{world.agent.id}", {"labels": {"n": f"x{number}"}})
        relabels.append((perf_counter() - began) * 1000)
    watching.cancel()
    report.add(
        attack="large targets",
        asked=2 * LARGE_TARGETS,
        accepted=accepted,
        relabel_p50_ms=percentile(relabels, 0.5),
        new_target_max_ms=max(stalls),
    )


async def frozen_broker(world: World, report: Report) -> None:
    """A broker is stopped while it holds the selectors' lock; do heartbeats at another fail?"""
    db = await asyncpg.connect(world.database_url)
    async with a_broker(world.database_url) as (url, pid):
        there = Caller(http=world.http, url=url, key=world.admin.key)
        agents = [await world.an_agent(f"frozen-{number}") for number in range(10)]

        async def relabel(agent: Caller) -> None:
            number = 0
            while True:
                number += 1
                await there.ask("PATCH", f"/agents/{agent.id}", {"labels": {"n": f"x{number}"}})

        relabels = [asyncio.create_task(relabel(each)) for each in agents]
        try:
            while True:
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(0.05)
                if await db.fetchval(
                    "SELECT EXISTS (SELECT FROM pg_locks AS held JOIN pg_stat_activity USING (pid)"
                    " WHERE locktype = 'advisory' AND classid = 1 AND mode = 'ExclusiveLock'"
                    " AND granted AND state = 'idle in transaction')"
                ):
                    break
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(0.03)
            began = perf_counter()
            submitting = [
                asyncio.create_task(
                    world.tenant.ask("POST", "/work", submission({"match_labels": {"f": f"{n}"}}))
                )
                for n in range(20)
            ]
            beats: list[float] = []
            while perf_counter() - began < FROZEN_SECONDS:
                beats.append(await world.agent.beat())
                await asyncio.sleep(0.1)
            answers = await asyncio.gather(*submitting)
        finally:
            os.kill(pid, signal.SIGCONT)
            for each in relabels:
                each.cancel()
            await asyncio.gather(*relabels, return_exceptions=True)
    await db.close()
    report.add(
        attack="frozen broker",
        heartbeats=len(beats),
        failed=sum(each >= 60_000 for each in beats),
        slowest_ms=max(beats),
        submissions=sorted({status for status, _ in answers}),
    )


async def slow_lists(world: World, report: Report) -> None:
    """One tenant lists by a label that only others have, many at once; and how long one takes."""
    await fill_with_labels(world)
    path = "/work?label=team%3Dothers"
    alone = []
    for wanted in ("team%3Dothers", "team%3Dnobody"):
        took = []
        for _ in range(5):
            began = perf_counter()
            await world.tenant.ask("GET", f"/work?label={wanted}")
            took.append((perf_counter() - began) * 1000)
        alone.append(percentile(took, 0.5))
    report.add(
        attack="lists", rows=LABELLED, only_others_have_it_ms=alone[0], nobody_has_it_ms=alone[1]
    )
    statuses: list[int] = []
    is_over = asyncio.Event()

    async def list_on() -> None:
        while not is_over.is_set():
            statuses.append((await world.tenant.ask("GET", path))[0])
            await asyncio.sleep(0.01)

    lists = [asyncio.create_task(list_on()) for _ in range(LISTS)]
    await asyncio.sleep(0.5)
    beats = [await world.agent.beat() for _ in range(LOOKS)]
    is_over.set()
    await asyncio.gather(*lists)
    report.add(
        attack="lists",
        at_once=LISTS,
        heartbeat_p50_ms=percentile(beats, 0.5),
        heartbeat_max_ms=max(beats),
        answers={each: statuses.count(each) for each in sorted(set(statuses))},
    )


async def all_streams(world: World, report: Report) -> None:
    """One tenant follows as many Works as it may; does another get a stream?"""
    works = []
    for caller in (world.tenant, world.other):
        _, work = await caller.ask("POST", "/work", submission(ANYBODY))
        works.append(work["id"])
    connector = aiohttp.TCPConnector(limit=0)
    statuses: list[int] = []
    async with aiohttp.ClientSession(connector=connector) as http:

        async def follow(caller: Caller, work_id: str) -> int:
            answer = await http.get(
                f"{caller.url}/api/v1/work/{work_id}/events?follow=true",
                headers={"Authorization": f"Bearer {caller.key}"},
            )
            return answer.status

        for _ in range(STREAMS // 50):
            statuses += await asyncio.gather(*(follow(world.tenant, works[0]) for _ in range(50)))
        theirs = await follow(world.other, works[1])
    report.add(
        attack="streams",
        asked=len(statuses),
        got=statuses.count(200),
        refused=statuses.count(429),
        another_tenant=theirs,
    )


async def late_revocation(world: World, report: Report) -> None:
    """A key is revoked at one broker; how many Works does another accept after the answer?"""
    async with a_broker(world.database_url) as (url, _pid):
        _, made = await world.admin.ask("POST", "/generators", {"name": "revoked"})
        there = Caller(http=world.http, url=url, key=made["key"])
        accepted = late = 0
        is_over = False

        async def submit_on() -> None:
            nonlocal accepted, late
            while True:
                was_over = is_over
                status, _ = await there.ask("POST", "/work", submission(ANYBODY))
                if status == 401:
                    return
                accepted += status == 201
                late += status == 201 and was_over

        submitting = [asyncio.create_task(submit_on()) for _ in range(8)]
        await asyncio.sleep(1)
        await world.admin.ask("POST", "/generators/revoked/rotate-key")
        is_over, began = True, perf_counter()
        await asyncio.gather(*submitting)
        report.add(
            attack="revocation",
            accepted=accepted,
            after_the_answer=late,
            until_refused_ms=(perf_counter() - began) * 1000,
        )


# -- what they do --------------------------------------------------------------------------


def submission(target: Any, **fields: Any) -> dict[str, Any]:
    """Return what is sent to submit a Work."""
    return {"work_type": "build", "template": a_template(), "target": target, **fields}


async def make_lanes(world: World, number: int, *, keep: bool) -> int:
    """Submit Works with so many targets, all of which select every agent; say how many it got."""
    made = 0
    for start in range(0, number, 50):
        items = [
            submission(
                {"match_expressions": [{"key": f"no-{each}", "operator": "DoesNotExist"}]}
                | ANYBODY,
                **({} if keep else {"not_before": "2100-01-01T00:00:00Z"}),
            )
            for each in range(start, min(number, start + 50))
        ]
        status, answer = await world.tenant.ask("POST", "/work/batch", {"items": items})
        assert status == 200, answer
        got = sum(each["status"] == 201 for each in answer["items"])
        made += got
        if not got and start > 1000:
            break
    return made


async def cancel_all(world: World) -> None:
    """Cancel all of the tenant's Work."""
    while True:
        _, page = await world.tenant.ask("GET", "/work?status=PENDING&limit=500")
        if not page["items"]:
            return
        for start in range(0, len(page["items"]), 20):
            await asyncio.gather(
                *(
                    world.tenant.ask("DELETE", f"/work/{each['id']}")
                    for each in page["items"][start : start + 20]
                )
            )


async def claims_of(world: World) -> list[float]:
    """Let the agent claim Work of another tenant, again and again; return the milliseconds."""
    took = []
    for _ in range(LOOKS):
        body = submission({"agents": ["agent"]}, priority=100)
        status, _ = await world.other.ask("POST", "/work", body)
        assert status == 201
        took.append(await world.agent.claim())
    return took


async def fill_with_labels(world: World) -> None:
    """Log Works of another tenant, all with one label."""
    db = await asyncpg.connect(world.database_url)
    await world.other.ask("POST", "/work", submission(ANYBODY))
    other = await db.fetchval("SELECT generator_id FROM work_queue")
    selector = await db.fetchval("SELECT selector_id FROM work_queue")
    await db.execute("SET session_replication_role = replica")
    await db.execute(
        "INSERT INTO work_execution_log (id, work_type, created_at, outcome, crd_spec, selector_id,"
        " priority, max_retries, claim_timeout_seconds, round, lost_claims, labels, generator_id)"
        " SELECT ('018' || lpad(to_hex(n), 9, '0') || '7' || substr(md5(n::text), 1, 3) || '8' ||"
        " substr(md5(n::text), 4, 15))::uuid, 'build', now(), 'succeeded', repeat('x', 300), $1, 0,"
        ' 3, 60, 1, 0, \'{"team": "others"}\', $2 FROM generate_series(1, $3::int) AS n',
        selector,
        other,
        LABELLED,
    )
    labels = "INSERT INTO {} SELECT {} 'team=others', id FROM work_execution_log"
    await db.execute(labels.format("work_labels (label, work_id)", ""))
    if await db.fetchval("SELECT to_regclass('generator_labels')"):
        into = "generator_labels (generator_id, label, work_id)"
        await db.execute(labels.format(into, "generator_id,"))
    await db.execute("VACUUM ANALYZE")
    await db.close()


# -- the parts -----------------------------------------------------------------------------


@asynccontextmanager
async def a_world(server: str) -> AsyncIterator[World]:
    """Serve a fresh database, with an admin, two tenants and an agent."""
    name = f"crowd_{uuid4().hex[:8]}"
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    database_url = server.replace("/postgres?", f"/{name}?")
    key = await brokkr_says("broker", "create-admin-key", "--database-url", database_url)
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        a_broker(database_url) as (url, pid),
        aiohttp.ClientSession(timeout=timeout, connector=connector) as http,
    ):
        admin = Caller(http=http, url=url, key=key)
        keys = []
        for each in ("tenant", "other"):
            _, made = await admin.ask("POST", "/generators", {"name": each})
            keys.append(made["key"])
        _, agent = await admin.ask(
            "POST", "/agents", {"name": "agent", "cluster_name": "c", "labels": {"any": "yes"}}
        )
        yield World(
            url=url,
            database_url=database_url,
            http=http,
            broker=BrokerProcess(url=url, pid=pid, admin_key=key),
            admin=admin,
            tenant=Caller(http=http, url=url, key=keys[0]),
            other=Caller(http=http, url=url, key=keys[1]),
            agent=Caller(http=http, url=url, key=agent["key"], id=agent["id"]),
        )


@asynccontextmanager
async def a_broker(database_url: str) -> AsyncIterator[tuple[str, int]]:
    """Serve a database with the broker that is asked for; yield its URL and its process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brokkr", "broker", "serve", "--port", "0"),
        *("--database-url", database_url),
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
    )
    assert process.stderr is not None
    url = ""
    async with asyncio.timeout(60):
        while line := await process.stderr.readline():
            said = json.loads(line) if line.startswith(b"{") else {}
            url = str(said.get("url", url))
            if said.get("event") == "broker ready":
                break
    drain = asyncio.create_task(process.stderr.read())
    try:
        yield url, process.pid
    finally:
        process.terminate()
        await drain
        await process.wait()


async def brokkr_says(*arguments: str) -> str:
    """Run ``brokkr``, and return the last line of what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brokkr", *arguments),
        stdout=asyncio.subprocess.PIPE,
        env=_environment(),
    )
    said, _ = await process.communicate()
    return said.decode().strip().splitlines()[-1]


def _environment() -> dict[str, str]:
    source = {} if SOURCE is None else {"PYTHONPATH": SOURCE}
    return {**os.environ, **source, "BROKKR__BROKER__LOG_FORMAT": "json"}


ATTACKS = {
    "lanes": many_lanes,
    "parked": parked_agents,
    "targets": large_targets,
    "frozen": frozen_broker,
    "lists": slow_lists,
    "streams": all_streams,
    "revocation": late_revocation,
}
"""By the names that the command line takes; all, if it names none."""


if __name__ == "__main__":
    uvloop.run(main())

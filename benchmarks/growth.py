"""
Does a queue grow, or slow down, while a day's Work passes through it?

Twenty-four hours of steady load go through in minutes: an hour is so many Works, submitted,
claimed and completed over HTTP.  Two databases with a broker each take turns; in one of them
a reader holds its snapshot open from the first hour to the last, so that nothing which dies
meanwhile may be cleaned up there.  The clock is not turned, so nothing is old enough for
retention: what is kept of finished Works grows by what was finished.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from uuid import uuid4

import uvloop

from broker_process import Http, broker_process, call
from brokkr.broker.db.pool import Connection, connect
from machine import QUICK, percentile, report_on
from world import a_template, database, throw_away_postgres

HOURS = 4 if QUICK else 24
WORKS_AN_HOUR = 200 if QUICK else 600
PAIRS = 8
"""Who submit, and agents that claim, at once."""
CLAIMS = 40
"""How many are timed at the end of each hour, alone."""
SUBMISSION = json.dumps(
    {
        "work_type": "build",
        "template": a_template(),
        "target": {"match_labels": {"any": "yes"}},
    }
).encode()

_TABLES = """
SELECT relname, n_dead_tup, pg_total_relation_size(relid) AS bytes
  FROM pg_stat_user_tables
 WHERE relname IN ('work_queue', 'work_claims', 'work_execution_log', 'work_events', 'agents')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One database's: who submits, who claims, and how to look at it."""

    reader: str
    db: Connection
    users: list[Http]
    agents: list[Http]

    async def pass_hour(self) -> dict[str, Any]:
        """Let an hour's Works through; then time some, and see what the tables have become."""
        numbers = iter(range(WORKS_AN_HOUR - CLAIMS))

        async def go(user: Http, agent: Http) -> None:
            for _ in numbers:
                await self._through(user, agent)

        began = perf_counter()
        await asyncio.gather(*map(go, self.users, self.agents))
        seconds = perf_counter() - began
        times = [await self._through(self.users[0], self.agents[0]) for _ in range(CLAIMS)]
        await self.db.fetchval("SELECT pg_stat_clear_snapshot()")
        tables = {}
        for row in await self.db.fetch(_TABLES):
            name = row["relname"]
            tables[f"{name}_dead"] = row["n_dead_tup"]
            tables[f"{name}_mb"] = row["bytes"] / 2**20
        return {
            "works_per_second": (WORKS_AN_HOUR - CLAIMS) / seconds,
            "claim_p50_ms": percentile(times, 0.5),
            "claim_p95_ms": percentile(times, 0.95),
            **dict(sorted(tables.items())),
        }

    @staticmethod
    async def _through(user: Http, agent: Http) -> float:
        """Submit, claim and complete one, and return the milliseconds of the claim."""
        await user.post("/api/v1/work", SUBMISSION)
        began = perf_counter()
        body = json.dumps({"max": 1, "wait": 10, "request_id": str(uuid4())}).encode()
        answer = await agent.post("/api/v1/agents/self/work/claim", body)
        took = 1000 * (perf_counter() - began)
        for each in json.loads(answer)["claims"]:
            report = {"claim_id": each["claim_id"], "success": True, "message": "done"}
            await agent.post(f"/api/v1/work/{each['id']}/complete", json.dumps(report).encode())
        return took


async def main() -> None:
    """Let both days pass, hour by hour in turn; then let the reader go and clean up."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(throw_away_postgres())
        report = await report_on("growth", await stack.enter_async_context(connect(server)))
        days, end_reading = [], []
        for reader in ("none", "held open"):
            url = await stack.enter_async_context(database(server))
            days.append(await _day(stack, url, reader))
            if reader != "none":
                end_reading.append(await _read_long(stack, url))
        for hour in range(1, HOURS + 1):
            for day in days:
                report.add(reader=day.reader, hour=hour, **await day.pass_hour())
        for end in end_reading:
            await end()
        for day in days:
            await day.db.execute("VACUUM work_queue, work_claims, agents")
            report.add(reader=day.reader, hour="cleaned up", **await day.pass_hour())
            for each in (*day.users, *day.agents):
                await each.close()
        report.save()


async def _day(stack: AsyncExitStack, url: str, reader: str) -> Day:
    broker = await stack.enter_async_context(broker_process(url))
    agents = []
    for number in range(PAIRS):
        body = {"name": f"agent-{number}", "labels": {"any": "yes"}}
        made = await call(broker, "/api/v1/agents", body)
        agents.append(await Http.open(broker.url, made["key"]))
    users = [await Http.open(broker.url, broker.admin_key) for _ in agents]
    db = await stack.enter_async_context(connect(url))
    return Day(reader=reader, db=db, users=users, agents=agents)


async def _read_long(stack: AsyncExitStack, url: str) -> Callable[[], Awaitable[None]]:
    """Take a snapshot that stays, and return what lets it go."""
    db = await stack.enter_async_context(connect(url))
    reading = db.transaction(isolation="repeatable_read", readonly=True)
    await reading.start()
    await db.fetchval("SELECT count(*) FROM work_queue")
    return reading.rollback


if __name__ == "__main__":
    uvloop.run(main())

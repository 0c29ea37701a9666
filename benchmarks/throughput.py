"""
How many Works a second go through the broker, and as what share of pgbench's.

A route that does nothing shows what HTTP costs by itself.  Then the broker and pgbench take
turns on one server, so that both meet the same minute: submit, claim and complete, then
claims alone.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any
from uuid import uuid4

import uvloop

from broker_process import BrokerProcess, Http, broker_process, call
from brokkr.broker.db.pool import Connection, connect
from machine import Report, middle, report_on, spread
from pgbench import claim, complete, run_pgbench, submit
from world import a_template, a_work, database, fill, throw_away_postgres

RUNS = 5
SECONDS = {1: 1, 4: 1, 16: 1, 64: 2}
"""How long a run is, by the number of clients: many take a while to get going."""
CLIENTS = tuple(SECONDS)
BATCHES = (1, 10, 100)
BACKLOG = 2_000
"""Works that wait at any time, so that no claim comes back empty."""
PILE = 40_000
"""What is added before each run that only claims."""
SUBMISSION = {
    "work_type": "build",
    "template": a_template(),
    "target": {"match_labels": {"any": "yes"}},
}
ONE = json.dumps(SUBMISSION).encode()
SOME = {size: json.dumps({"items": [SUBMISSION] * size}).encode() for size in BATCHES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An agent, and the user whose Works it executes, each with a connection."""

    agent: Http
    user: Http


Step = Callable[[Pair, int], Awaitable[None]]


async def main() -> None:
    """Run everything."""
    async with throw_away_postgres() as server, database(server) as url, connect(url) as db:
        report = await report_on("throughput", db)
        async with broker_process(url) as broker:
            pairs = [await _pair(broker, number + 1) for number in range(max(CLIENTS))]
            await call(broker, "/api/v1/work", SUBMISSION)  # now the target is known
            bench = Bench(report=report, url=url, db=db, selector=await _tell_pgbench(db))
            await fill(db, [bench.selector], BACKLOG)
            for clients in CLIENTS:
                await bench.nothing(pairs[:clients])
            for batch in BATCHES:
                for clients in CLIENTS:
                    await bench.cycles(pairs[:clients], batch)
            for batch in BATCHES:
                await bench.claims(pairs[:16], batch)
            for pair in pairs:
                await pair.agent.close()
                await pair.user.close()
        report.save()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One database, which the broker and pgbench use in turn, and what they come to."""

    report: Report
    url: str
    db: Connection
    selector: int

    async def cycles(self, pairs: Sequence[Pair], batch: int) -> None:
        """Submit, claim and complete."""
        script = f"{submit()}\n{claim()}\n{complete()}"
        runs = []
        for _ in range(RUNS):
            ours = await self._rate("work_execution_log", _run(_cycle, pairs, batch))
            theirs = await self._rate("work_execution_log", self._pgbench(script, pairs, batch))
            runs.append((ours, theirs))
        self._add("submit, claim, complete", pairs, batch, runs)

    async def claims(self, pairs: Sequence[Pair], batch: int) -> None:
        """Claim what has been piled up."""
        runs = []
        for _ in range(RUNS):
            await fill(self.db, [self.selector], PILE)
            ours = await self._rate("work_claims", _run(_claim_only, pairs, batch))
            await fill(self.db, [self.selector], PILE)
            theirs = await self._rate("work_claims", self._pgbench(claim(), pairs, batch))
            runs.append((ours, theirs))
        self._add("claim", pairs, batch, runs)

    async def nothing(self, pairs: Sequence[Pair]) -> None:
        """Ask for what costs nothing but the asking."""
        rates = []
        for _ in range(RUNS):
            asked = count()

            async def ask(pair: Pair, _batch: int, asked: Iterator[int] = asked) -> None:
                await pair.agent.get("/healthz")
                next(asked)

            seconds = await _run(ask, pairs, 1)
            rates.append(next(asked) / seconds)
        self.report.add(
            what="empty route", clients=len(pairs), each=middle(rates), spread=spread(rates)
        )

    async def _pgbench(self, script: str, pairs: Sequence[Pair], batch: int) -> float:
        clients = len(pairs)
        return await run_pgbench(
            self.url, script, clients=clients, seconds=SECONDS[clients], variables={"limit": batch}
        )

    async def _rate(self, table: str, run: Awaitable[float]) -> float:
        """Wait for a run's seconds, and return how many rows a second a table has got by it."""
        rows = f"SELECT count(*) FROM {table}"
        before = await self.db.fetchval(rows)
        seconds = await run
        return float(await self.db.fetchval(rows) - before) / seconds

    def _add(
        self, what: str, pairs: Sequence[Pair], batch: int, runs: Sequence[tuple[float, float]]
    ) -> None:
        ours, theirs = zip(*runs, strict=True)
        self.report.add(
            what=what,
            clients=len(pairs),
            batch=batch,
            each=middle(ours),
            spread=spread(ours),
            pgbench=middle(theirs),
            pgbench_spread=spread(theirs),
            share=middle([our / their for our, their in runs]),
        )


async def _pair(broker: BrokerProcess, number: int) -> Pair:
    body = {"name": f"agent-{number}", "labels": {"any": "yes"}}
    made = await call(broker, "/api/v1/agents", body)
    return Pair(
        agent=await Http.open(broker.url, made["key"]),
        user=await Http.open(broker.url, broker.admin_key),
    )


async def _tell_pgbench(db: Connection) -> int:
    """Leave in the database what pgbench submits, and return the lane."""
    selector = await db.fetchrow("SELECT id, digest FROM selectors")
    assert selector is not None
    await db.execute("CREATE TABLE bench_input (size int, digest bytea, works text)")
    await db.executemany(
        "INSERT INTO bench_input VALUES ($1, $2, $3)",
        [
            (size, selector["digest"], json.dumps([a_work(selector["id"])] * size))
            for size in BATCHES
        ],
    )
    return int(selector["id"])


async def _run(step: Step, pairs: Sequence[Pair], batch: int) -> float:
    """Let all take steps for a while, and return the seconds until the last was done."""
    began = perf_counter()

    async def repeat(pair: Pair) -> None:
        while perf_counter() - began < SECONDS[len(pairs)]:
            await step(pair, batch)

    await asyncio.gather(*map(repeat, pairs))
    return perf_counter() - began


async def _cycle(pair: Pair, batch: int) -> None:
    if batch == 1:
        await pair.user.post("/api/v1/work", ONE)
    else:
        await pair.user.post("/api/v1/work/batch", SOME[batch])
    reports = [
        {"work_id": each["id"], "claim_id": each["claim_id"], "success": True, "message": "done"}
        for each in await _claim(pair, batch)
    ]
    if batch == 1:
        for report in reports:
            path = f"/api/v1/work/{report.pop('work_id')}/complete"
            await pair.agent.post(path, json.dumps(report).encode())
    elif reports:
        body = json.dumps({"items": reports}).encode()
        await pair.agent.post("/api/v1/agents/self/work/complete", body)


async def _claim_only(pair: Pair, batch: int) -> None:
    await _claim(pair, batch)


async def _claim(pair: Pair, batch: int) -> list[dict[str, Any]]:
    body = json.dumps({"max": batch, "request_id": str(uuid4())}).encode()
    answer = json.loads(await pair.agent.post("/api/v1/agents/self/work/claim", body))
    claims: list[dict[str, Any]] = answer["claims"]
    return claims


if __name__ == "__main__":
    uvloop.run(main())

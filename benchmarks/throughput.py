"""
How many Works a second go through the broker, beside pgbench and two other queues.

A route that does nothing shows what HTTP costs by itself.  Then the broker, pgbench and the
other queues take turns on one server, so that all meet the same minute: submit, claim and
complete, then the same with two brokers, then claims alone.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count
from time import perf_counter
from typing import Any
from uuid import uuid4

import uvloop

from broker_process import BrokerProcess, Http, broker_process, call
from brokkr.broker.db.pool import Connection, connect
from machine import QUICK, Report, middle, report_on, spread
from peers import NAMES, Peer, peer
from pgbench import claim, complete, run_pgbench, submit
from world import a_template, a_work, database, fill, throw_away_postgres

RUNS = 1 if QUICK else 5
SECONDS = {1: 1, 4: 1, 16: 1, 64: 2}
"""How long a run is, by the number of clients: many take a while to get going."""
CLIENTS = tuple(SECONDS)
BATCHES = (1, 10, 100)
JOBS = {1: 200, 10: 400, 100: 1_000}
"""How many one of the other queues gets in a run, by the size of a batch."""
REQUESTS = 3
"""What a Work takes that goes through by itself: submit, claim, complete."""
BACKLOG = 2_000
"""Works that wait at any time, so that no claim comes back empty."""
PILE = 4_000 if QUICK else 40_000
"""What is added before each run that only claims."""
SUBMISSION = {
    "work_type": "build",
    "template": a_template(),
    "target": {"match_labels": {"any": "yes"}},
}
ONE = json.dumps(SUBMISSION).encode()
SOME = {size: json.dumps({"items": [SUBMISSION] * size}).encode() for size in BATCHES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An agent at a broker, and the user whose Works it executes."""

    broker: BrokerProcess
    key: str

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Pair"]:
        """Connect both for the block: the broker closes what is silent while others run."""
        agent = await Http.open(self.broker.url, self.key)
        user = await Http.open(self.broker.url, self.broker.admin_key)
        yield Pair(agent=agent, user=user)
        await agent.close()
        await user.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The two connections of an account."""

    agent: Http
    user: Http


Step = Callable[[Pair, int], Awaitable[None]]


async def main() -> None:
    """Run everything."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(throw_away_postgres())
        url = await stack.enter_async_context(database(server))
        db = await stack.enter_async_context(connect(url))
        report = await report_on("throughput", db, more={each: version(each) for each in NAMES})
        brokers = [await stack.enter_async_context(broker_process(url)) for _ in range(2)]
        # Those of the second broker's agents come last.
        accounts = [
            await _account(broker, number + 1 + place * max(CLIENTS))
            for place, broker in enumerate(brokers)
            for number in range(max(CLIENTS) if place == 0 else 8)
        ]
        await call(brokers[0], "/api/v1/work", SUBMISSION)  # now the target is known
        bench = Bench(
            report=report,
            url=url,
            db=db,
            selector=await _tell_pgbench(db),
            peers=[await stack.enter_async_context(peer(server, each)) for each in NAMES],
        )
        await fill(db, [bench.selector], BACKLOG)
        for clients in CLIENTS:
            await bench.nothing(accounts[:clients])
        for batch in BATCHES:
            for clients in CLIENTS:
                await bench.cycles(accounts[:clients], batch)
        for batch in BATCHES:
            await bench.two_brokers(accounts[:16], [*accounts[:8], *accounts[-8:]], batch)
        for batch in BATCHES:
            await bench.claims(accounts[:16], batch)
        report.save()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """
    One database, which the broker and pgbench use in turn, and what they come to.

    Attributes:
        empty: By the number of clients, how many requests a second the empty route answers.
    """

    report: Report
    url: str
    db: Connection
    selector: int
    peers: Sequence[Peer]
    empty: dict[int, float] = field(default_factory=dict)

    async def cycles(self, accounts: Sequence[Account], batch: int) -> None:
        """Submit, claim and complete."""
        script = f"{submit()}\n{claim()}\n{complete()}"
        runs = []
        rates: dict[str, list[float]] = {}
        for _ in range(RUNS):
            ours = await self._rate("work_execution_log", _run(_cycle, accounts, batch))
            theirs = await self._rate("work_execution_log", self._pgbench(script, accounts, batch))
            runs.append((ours, theirs))
            for each in self.peers:
                rate = await each.rate(clients=len(accounts), batch=batch, jobs=JOBS[batch])
                rates.setdefault(each.name, []).append(rate)
        beside: dict[str, float | str] = {}
        for name, seen in rates.items():
            beside[name] = middle(seen)
            beside[f"{name}_spread"] = spread(seen)
            beside[f"ahead_of_{name}"] = middle(
                [our / their for (our, _), their in zip(runs, seen, strict=True)]
            )
        if batch == 1:  # what goes by itself pays for HTTP three times, and for the database
            empty = self.empty[len(accounts)]
            beside["share_of_http_and_pgbench"] = middle(
                [our * (REQUESTS / empty + 1 / their) for our, their in runs]
            )
        self._add("submit, claim, complete", accounts, batch, runs, **beside)

    async def two_brokers(
        self, with_one: Sequence[Account], with_two: Sequence[Account], batch: int
    ) -> None:
        """Submit, claim and complete, with all at one broker and with half at another."""
        runs = []
        for _ in range(RUNS):
            one = await self._rate("work_execution_log", _run(_cycle, with_one, batch))
            two = await self._rate("work_execution_log", _run(_cycle, with_two, batch))
            runs.append((one, two))
        one_alone, two_together = zip(*runs, strict=True)
        self.report.add(
            what="two brokers",
            clients=len(with_two),
            batch=batch,
            each=middle(two_together),
            spread=spread(two_together),
            one=middle(one_alone),
            one_spread=spread(one_alone),
            ratio=middle([two / one for one, two in runs]),
        )

    async def claims(self, accounts: Sequence[Account], batch: int) -> None:
        """Claim what has been piled up."""
        runs = []
        for _ in range(RUNS):
            await fill(self.db, [self.selector], PILE)
            ours = await self._rate("work_claims", _run(_claim_only, accounts, batch))
            await fill(self.db, [self.selector], PILE)
            theirs = await self._rate("work_claims", self._pgbench(claim(), accounts, batch))
            runs.append((ours, theirs))
        self._add("claim", accounts, batch, runs)

    async def nothing(self, accounts: Sequence[Account]) -> None:
        """Ask for what costs nothing but the asking."""
        rates = []
        for _ in range(RUNS):
            asked = count()

            async def ask(pair: Pair, _batch: int, asked: Iterator[int] = asked) -> None:
                await pair.agent.get("/healthz")
                next(asked)

            seconds = await _run(ask, accounts, 1)
            rates.append(next(asked) / seconds)
        self.empty[len(accounts)] = middle(rates)
        self.report.add(
            what="empty route", clients=len(accounts), each=middle(rates), spread=spread(rates)
        )

    async def _pgbench(self, script: str, accounts: Sequence[Account], batch: int) -> float:
        clients = len(accounts)
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
        self,
        what: str,
        accounts: Sequence[Account],
        batch: int,
        runs: Sequence[tuple[float, float]],
        **beside: Any,
    ) -> None:
        ours, theirs = zip(*runs, strict=True)
        self.report.add(
            what=what,
            clients=len(accounts),
            batch=batch,
            each=middle(ours),
            spread=spread(ours),
            pgbench=middle(theirs),
            pgbench_spread=spread(theirs),
            share=middle([our / their for our, their in runs]),
            **beside,
        )


async def _account(broker: BrokerProcess, number: int) -> Account:
    body = {"name": f"agent-{number}", "labels": {"any": "yes"}}
    made = await call(broker, "/api/v1/agents", body)
    return Account(broker=broker, key=made["key"])


async def _tell_pgbench(db: Connection) -> int:
    """Leave in the database what pgbench submits, and return the lane."""
    selector = await db.fetchrow("SELECT id, digest FROM selectors")
    assert selector is not None
    await db.execute("CREATE TABLE bench_input (size int, works text)")
    await db.executemany(
        "INSERT INTO bench_input VALUES ($1, $2)",
        [(size, json.dumps([a_work(selector["digest"])] * size)) for size in BATCHES],
    )
    return int(selector["id"])


async def _run(step: Step, accounts: Sequence[Account], batch: int) -> float:
    """Let all take steps for a while, and return the seconds until the last was done."""
    async with AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(each.connected()) for each in accounts]
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

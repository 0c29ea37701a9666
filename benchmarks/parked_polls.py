"""
What agents cost that wait for Work, and how soon one of them has it.

Run it as ``python benchmarks/parked_polls.py``.  Every agent has a connection of its own to
a real broker process; this process plays all of them, on the same machine.  With two brokers
all agents wait at the one and all Works are submitted to the other.  An agent that polls
every thirty seconds would have a Work when the first of them happens to ask: that is
computed, for polls that are spread evenly, and not measured.
"""

import asyncio
import json
import resource
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter

import uvloop

from broker_process import BrokerProcess, Http, broker_process, call
from brokkr.broker.db.pool import Connection, connect
from machine import QUICK, Report, percentile, report_on
from process_usage import cpu_seconds, rss_mb
from world import a_template, database, throw_away_postgres

AGENTS = (1, 100) if QUICK else (1, 100, 1000)
POLLING_SECONDS = 30
WAIT_SECONDS = 60
SETTLE_SECONDS = 2 if QUICK else 12
"""PostgreSQL's backends publish their counts within ten seconds after they were busy."""
WINDOW_SECONDS = 5 if QUICK else 20
"""Over before the first poll is, which the broker ends after four fifths of its wait."""
SUBMISSIONS = 100 if QUICK else 500
BURST = 50

Claimed = defaultdict[str, asyncio.Future[float]]
"""When which Work had come to an agent."""


async def main() -> None:
    """Measure with no agent and with ever more; and how soon Work comes through two brokers."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with (
        throw_away_postgres() as server,
        connect(server) as db,  # another database, so that looking is not counted
        database(server) as url,
        broker_process(url) as broker,
        broker_process(url) as other,
    ):
        report = await report_on("parked_polls", db)
        await call(broker, "/api/v1/work", _submission("nobody"))  # so that all code is warm
        report.add(parked=0, **await _idle(broker, db))
        agents: list[Agent] = []
        for number in AGENTS:
            agents += [await _an_agent(broker, n) for n in range(len(agents), number)]
            async with _parked(broker, agents) as claimed:
                report.add(parked=number, **await _idle(broker, db))
                await _measure_latency(broker, claimed, report, parked=number, brokers=1)
            async with _parked(other, agents) as claimed:
                await _measure_latency(broker, claimed, report, parked=number, brokers=2)
            polls = {f"p{share}_ms": _polled_ms(number, share / 100) for share in (50, 99)}
            report.add(parked=number, submitted="polls every 30 s, computed", **polls)
        report.save()


class Agent:
    """An agent as far as it waits: one connection, one poll after the other."""

    def __init__(self, agent_id: str, key: str) -> None:
        self._path = f"/api/v1/agents/{agent_id}/work/claim"
        self._key = key

    async def poll(self, broker: BrokerProcess, claimed: Claimed) -> None:
        """Claim for ever, and note when each Work had come."""
        http = await Http.open(broker.url, self._key)
        body = json.dumps({"max": 1, "wait": WAIT_SECONDS}).encode()
        try:
            while True:
                answer = await http.post(self._path, body)
                now = perf_counter()
                for claim in json.loads(answer)["claims"]:
                    claimed[claim["id"]].set_result(now)
        finally:
            await http.close()


@asynccontextmanager
async def _parked(broker: BrokerProcess, agents: Sequence[Agent]) -> AsyncIterator[Claimed]:
    """Park all agents for the block; yield when they got which Work."""
    claimed: Claimed = defaultdict(asyncio.get_running_loop().create_future)
    async with asyncio.TaskGroup() as group:  # a poll that fails is not passed over
        polls = [group.create_task(each.poll(broker, claimed)) for each in agents]
        await _until_waiting(broker, len(agents))
        yield claimed
        for each in polls:
            each.cancel()
    await _until_waiting(broker, 0)


async def _until_waiting(broker: BrokerProcess, number: int) -> None:
    http = await Http.open(broker.url, broker.admin_key)
    async with asyncio.timeout(120):
        while b"waiting_polls %d.0\n" % number not in await http.get("/metrics"):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    await http.close()


async def _idle(broker: BrokerProcess, db: Connection) -> dict[str, float]:
    """Measure what the broker's process and its database do while nothing happens."""
    await asyncio.sleep(SETTLE_SECONDS)
    before = (perf_counter(), cpu_seconds(broker.pid), await _transactions(db))
    active, looks = 0, 0
    while perf_counter() - before[0] < WINDOW_SECONDS:
        active += await _active(db)
        looks += 1
        await asyncio.sleep(0.1)
    after = (perf_counter(), cpu_seconds(broker.pid), await _transactions(db))
    seconds, cpu, transactions = (b - a for a, b in zip(before, after, strict=True))
    return {
        "rss_mb": rss_mb(broker.pid),
        "cpu_percent": 100 * cpu / seconds,
        "transactions_per_second": transactions / seconds,
        "backends_active_percent": 100 * active / looks,
    }


async def _measure_latency(
    broker: BrokerProcess, claimed: Claimed, report: Report, *, parked: int, brokers: int
) -> None:
    """Submit Works one after the other, then many at once; say how soon they were claimed."""
    https = [await Http.open(broker.url, broker.admin_key) for _ in range(BURST)]
    body = json.dumps(_submission("yes")).encode()

    async def latency(http: Http) -> float:
        began = perf_counter()
        work_id = json.loads(await http.post("/api/v1/work", body))["id"]
        async with asyncio.timeout(WAIT_SECONDS):
            return 1000 * (await claimed[work_id] - began)

    alone = [await latency(https[0]) for _ in range(SUBMISSIONS)]
    at_once = await asyncio.gather(*map(latency, https))
    for how, values in (("one by one", alone), (f"{BURST} at once", at_once)):
        report.add(
            parked=parked,
            brokers=brokers,
            submitted=how,
            p50_ms=percentile(values, 0.5),
            p99_ms=percentile(values, 0.99),
            max_ms=max(values),
        )
    for http in https:
        await http.close()


def _polled_ms(agents: int, share: float) -> float:
    """Return within what time this share of Works is found, if nobody is told of them."""
    return float(1000 * POLLING_SECONDS * (1 - (1 - share) ** (1 / agents)))


async def _an_agent(broker: BrokerProcess, number: int) -> Agent:
    body = {"name": f"edge-{number}", "labels": {"any": "yes", "zone": f"z{number % 50}"}}
    registered = await call(broker, "/api/v1/agents", body)
    return Agent(registered["id"], registered["key"])


def _submission(meant: str) -> dict[str, object]:
    target = {"match_labels": {"any": meant}}
    return {"work_type": "build", "template": a_template(), "target": target}


async def _transactions(db: Connection) -> int:
    await db.fetchval("SELECT pg_stat_clear_snapshot()")
    committed: int = await db.fetchval(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname LIKE 'bench_%'"
    )
    return committed


async def _active(db: Connection) -> int:
    """Say whether any connection of the broker's executes something now."""
    found: int = await db.fetchval(
        "SELECT (count(*) > 0)::int FROM pg_stat_activity"
        " WHERE datname LIKE 'bench_%' AND state = 'active'"
    )
    return found


if __name__ == "__main__":
    uvloop.run(main())

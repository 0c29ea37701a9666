"""
Where leases are kept, measured: what a renewal costs in each of four designs.

A lease stands in the queue's row or in a table of its own, and is indexed by its end or
by a time that moves only when it has passed.  Of a hundred thousand claims of a thousand
agents some are renewed by each heartbeat, or all; alone, or beside a reader that keeps an
old snapshot for all that time: what is dead can then not be reused.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from time import perf_counter
from typing import Any
from uuid import UUID

import uvloop

from brokkr.broker.db.pool import Connection, Pool, connect
from brokkr.broker.db.statements import Statement, parse, statement
from machine import Report, middle, report_on
from world import a_resource, database, make_agents, pool_of, throw_away_postgres

AGENTS = 1_000
CLAIMS_EACH = 100
ROUNDS = 2
HEARTBEATS_AT_ONCE = 4
# How many of an agent's claims are due at a time, and how many heartbeats make a round: as it
# is when claims come one by one and last an hour, and at its worst.
SPREAD = (3, 4_000)
AT_ONCE = (CLAIMS_EACH, AGENTS)
STALE = 20
BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """One way to keep leases.

    Attributes:
        table: Where renewals are written.
        setup: What it needs beyond the broker's own schema.
        sweep: What looks for stale claims, in its order.
    """

    name: str
    table: str
    setup: str
    renew: Statement
    sweep: Sequence[Statement]


# In the benchmark every lease is due; a heartbeat that finds none due is measured apart.
ALWAYS = re.sub(r"0\.9 \*", "2 *", statement("renew_claims").sql)
IN_ROW = Statement(sql=ALWAYS, parameters=statement("renew_claims").parameters)
IN_TABLE = parse("""
WITH due AS (
    SELECT lease.work_id
      FROM work_claims AS claim
      JOIN work_leases AS lease ON lease.work_id = claim.work_id
     WHERE claim.claim_id = ANY (:claim_ids::uuid[])
       AND claim.agent_id = :agent_id
       AND lease.claim_id = claim.claim_id
       AND lease.expires_at < now() + 2 * make_interval(secs => lease.timeout_seconds)
     ORDER BY lease.work_id
       FOR UPDATE OF lease
), renewed AS (
    UPDATE work_leases AS lease
       SET expires_at = now() + make_interval(secs => lease.timeout_seconds)
      FROM due
     WHERE lease.work_id = due.work_id
    RETURNING lease.work_id, lease.claim_id, lease.expires_at
)
SELECT work.id, renewed.claim_id, work.round, work.cancel_requested_at IS NOT NULL,
       extract(epoch FROM renewed.expires_at - now())::float, :actor::text
  FROM renewed
  JOIN work_queue AS work ON work.id = renewed.work_id
""")
LEASES = """
CREATE TABLE work_leases (
    work_id uuid PRIMARY KEY,
    claim_id uuid NOT NULL,
    timeout_seconds int NOT NULL,
    expires_at timestamptz NOT NULL,
    check_at timestamptz NOT NULL
) WITH (fillfactor = 50);
INSERT INTO work_leases
SELECT id, claim_id, claim_timeout_seconds, lease_expires_at, lease_expires_at FROM work_queue;
"""


def _stale(table: str, key: str, column: str, *, where: str = "true") -> Statement:
    return parse(f"""
SELECT {key} FROM {table} WHERE {where} AND {column} < now() ORDER BY {column} LIMIT :limit
   FOR UPDATE SKIP LOCKED""")


def _postponed(table: str, key: str) -> Statement:
    return parse(f"""
WITH renewed AS (
    SELECT {key} FROM {table} WHERE check_at < now() AND expires_at >= now()
     ORDER BY check_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE {table} SET check_at = expires_at FROM renewed WHERE {table}.{key} = renewed.{key}""")


DESIGNS = (
    Design(
        name="in the row, indexed",
        table="work_queue",
        setup="DROP INDEX work_queue_by_lease_check; CREATE INDEX work_queue_by_lease"
        " ON work_queue (lease_expires_at) WHERE status = 'CLAIMED'",
        renew=IN_ROW,
        sweep=[_stale("work_queue", "id", "lease_expires_at", where="status = 'CLAIMED'")],
    ),
    Design(
        name="in the row, check indexed",
        table="work_queue",
        setup="SELECT 1",  # as it is
        renew=IN_ROW,
        sweep=[statement("postpone_lease_checks"), statement("lock_stale_claims")],
    ),
    Design(
        name="a table, indexed",
        table="work_leases",
        setup=LEASES + "CREATE INDEX ON work_leases (expires_at)",
        renew=IN_TABLE,
        sweep=[_stale("work_leases", "work_id", "expires_at")],
    ),
    Design(
        name="a table, check indexed",
        table="work_leases",
        setup=LEASES + "CREATE INDEX ON work_leases (check_at)",
        renew=IN_TABLE,
        sweep=[_postponed("work_leases", "work_id"), _stale("work_leases", "work_id", "check_at")],
    ),
)


async def main() -> None:
    """Run everything."""
    async with throw_away_postgres() as server, database(server) as filled:
        async with connect(filled) as db:
            report = await report_on("leases", db)
            await _fill(db)
            name = await db.fetchval("SELECT current_database()")
        scenarios = ((SPREAD, False), (SPREAD, True), (AT_ONCE, True))
        for (scenario, has_reader), design in product(scenarios, DESIGNS):
            async with database(server, template=name) as url:
                await _measure(report, url, design, scenario, has_reader=has_reader)
        async with database(server, template=name) as url:
            await _measure_heartbeats(report, url)
        report.save()


async def _fill(db: Connection) -> None:
    """Let every agent hold its claims, with an hour to go."""
    await make_agents(db, AGENTS)
    await db.execute(
        "INSERT INTO work_queue (id, work_type, crd_spec, selector_id, priority, max_retries,"
        " events, status, round, claimed_by, claimed_at, claim_id, lease_expires_at,"
        " lease_check_at)"
        " SELECT uuidv7(), 'build', $1, 1, 0, 3, 2, 'CLAIMED', 1, agent.id, now(),"
        "        gen_random_uuid(), now() + interval '1 hour', now() + interval '1 hour'"
        "   FROM agents AS agent, generate_series(1, $2::int) AS n ORDER BY agent.id",
        a_resource(),
        CLAIMS_EACH,
    )
    await db.execute(
        "INSERT INTO work_claims (claim_id, work_id, agent_id, round, claimed_at)"
        " SELECT claim_id, id, claimed_by, 1, claimed_at FROM work_queue"
    )


async def _measure(
    report: Report, url: str, design: Design, scenario: tuple[int, int], *, has_reader: bool
) -> None:
    async with connect(url) as db:
        await db.execute(design.setup)
        await db.execute("VACUUM (ANALYZE)")
        await db.execute("CHECKPOINT")
        before = await _state(db, design.table)
        async with _reader(url, is_there=has_reader):
            seconds = await _renew_all(url, design, scenario)
            after = await _state(db, design.table)
            sweep = await _sweep(db, design)
    due, heartbeats = scenario
    renewals = ROUNDS * due * heartbeats
    grown = {key: after[key] - before[key] for key in before}
    report.add(
        design=design.name,
        due=due,
        reader=has_reader,
        renewals_per_second=renewals / seconds,
        hot_share=grown["hot"] / max(grown["updated"], 1),
        wal_bytes_each=grown["wal"] / renewals,
        full_pages=grown["full_pages"],
        dead_rows=after["dead"],
        table_grew_mb=grown["table"] / 2**20,
        indexes_grew_mb=grown["indexes"] / 2**20,
        sweep_ms=sweep * 1000,
    )


async def _state(db: Connection, table: str) -> dict[str, Any]:
    await asyncio.sleep(1.2)  # the server's counters are a second late
    row = await db.fetchrow(
        "SELECT n_tup_upd AS updated, n_tup_hot_upd AS hot, n_dead_tup AS dead,"
        "       pg_relation_size(relid) AS table, pg_indexes_size(relid) AS indexes,"
        "       pg_current_wal_insert_lsn() - '0/0' AS wal,"
        "       (SELECT wal_fpi FROM pg_stat_wal) AS full_pages"
        "  FROM pg_stat_user_tables WHERE relname = $1",
        table,
    )
    assert row is not None
    return {key: int(value) for key, value in row.items()}


@asynccontextmanager
async def _reader(url: str, *, is_there: bool) -> AsyncIterator[None]:
    """Keep a snapshot for the block, as a report or a backup does."""
    if not is_there:
        yield
        return
    async with connect(url) as db, db.transaction(isolation="repeatable_read"):
        await db.fetchval("SELECT count(*) FROM agents")
        yield


async def _renew_all(url: str, design: Design, scenario: tuple[int, int]) -> float:
    """
    Let agents send their heartbeats, a few at a time, and return the seconds.

    The table is vacuumed after each round, as the server would do it in its own time.
    """
    due, heartbeats = scenario
    dice = random.Random(1)  # noqa: S311
    seconds = 0.0
    async with pool_of(url, size=HEARTBEATS_AT_ONCE) as pool:
        claims: dict[UUID, list[UUID]] = {}
        for row in await pool.fetch("SELECT claimed_by, claim_id FROM work_queue ORDER BY id"):
            claims.setdefault(row["claimed_by"], []).append(row["claim_id"])
        agents = list(claims)
        for _ in range(ROUNDS):
            turns = dice.sample(agents * (heartbeats // AGENTS), heartbeats)
            # What is due together was claimed together, and lies on one page.
            firsts = [dice.randrange(CLAIMS_EACH - due + 1) for _ in turns]
            beats = [
                (agent, claims[agent][first : first + due])
                for agent, first in zip(turns, firsts, strict=True)
            ]
            began = perf_counter()
            await _beat_all(pool, design.renew, beats)
            seconds += perf_counter() - began
            await asyncio.sleep(1.2)
            await pool.execute(f"VACUUM {design.table}")
    return seconds


async def _beat_all(pool: Pool, renew: Statement, beats: list[tuple[UUID, list[UUID]]]) -> None:
    async def beat_on() -> None:
        while beats:
            agent_id, claim_ids = beats.pop()
            values = {"agent_id": agent_id, "claim_ids": claim_ids, "actor": "agent:bench"}
            renewed = await pool.fetch(renew.sql, *renew.values(values))
            assert len(renewed) == len(claim_ids)

    await asyncio.gather(*(beat_on() for _ in range(HEARTBEATS_AT_ONCE)))


async def _sweep(db: Connection, design: Design) -> float:
    """Let a few leases run out, and return how long it takes to find them (median)."""
    columns = ("lease_expires_at", "lease_check_at")
    key = "id"
    if design.table == "work_leases":
        columns, key = ("expires_at", "check_at"), "work_id"
    await db.execute(
        f"UPDATE {design.table} SET {columns[0]} = now() - interval '1 second',"
        f" {columns[1]} = now() - interval '1 second'"
        f" WHERE {key} IN (SELECT id FROM work_queue LIMIT $1)",
        STALE,
    )
    times = []
    for _ in range(7):
        transaction = db.transaction()
        await transaction.start()
        began = perf_counter()
        for each in design.sweep:
            found = await db.fetch(each.sql, *each.values({"limit": BATCH}))
        times.append(perf_counter() - began)
        await transaction.rollback()
        assert len(found) == STALE
    return middle(times)


async def _measure_heartbeats(report: Report, url: str) -> None:
    """Compare heartbeats that renew with those that find nine tenths of each lease left."""
    async with connect(url) as db:
        await db.execute("VACUUM (ANALYZE)")
        agent = await db.fetchval("SELECT id FROM agents LIMIT 1")
        claims = [
            row["id"]
            for row in await db.fetch(
                "SELECT claim_id AS id FROM work_queue WHERE claimed_by = $1", agent
            )
        ]
        values = {"agent_id": agent, "claim_ids": claims, "actor": "agent:bench"}
        for what, renew in (("all due", IN_ROW), ("none due", statement("renew_claims"))):
            await db.fetch(renew.sql, *renew.values(values))
            times = []
            wal = await _wal(db)
            for _ in range(50):
                began = perf_counter()
                await db.fetch(renew.sql, *renew.values(values))
                times.append(perf_counter() - began)
            wal = await _wal(db) - wal
            report.add(
                heartbeat_of_100_claims=what, ms=middle(times) * 1000, wal_bytes=wal / len(times)
            )
        # What a table of its own would add to each claim and its end.
        await db.execute(LEASES + "CREATE INDEX ON work_leases (check_at)")
        await db.execute("VACUUM (ANALYZE) work_leases")
        wal = await _wal(db)
        for claim in claims:
            work = await db.fetchval(
                "INSERT INTO work_leases VALUES (gen_random_uuid(), $1, 3600, now(), now())"
                " RETURNING work_id",
                claim,
            )
            await db.execute("DELETE FROM work_leases WHERE work_id = $1", work)
        wal = await _wal(db) - wal
        report.add(lease_row="inserted and deleted", wal_bytes=wal / len(claims))


async def _wal(db: Connection) -> int:
    return int(await db.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'"))


if __name__ == "__main__":
    uvloop.run(main())

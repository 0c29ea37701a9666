"""
What each index of the queue costs the Works that pass through.

Some are submitted, claimed and completed with every index, and without each of them, in
turn.  Times are the best of several runs; WAL bytes do not depend on the machine.
"""

from collections import defaultdict
from datetime import timedelta
from time import perf_counter
from uuid import UUID, uuid4

import uvloop

from brokkr.broker.db import claims, work_queue
from brokkr.broker.db.claims import Holder
from brokkr.broker.db.pool import Pool, autocommit, connect
from brokkr.broker.db.statements import fetch_all
from brokkr.broker.db.work_ids import new_work_id
from brokkr.broker.db.work_queue import HandOffPolicy
from brokkr.wire.bodies import CompleteOne
from machine import report_on
from world import (
    a_work,
    database,
    fill,
    make_agents,
    make_selectors,
    pool_of,
    throw_away_postgres,
)

RUNS = 5
BATCH = 100
BATCHES = 10
BACKLOG = 20_000


async def main() -> None:
    """Run everything."""
    async with throw_away_postgres() as server, database(server) as filled:
        async with connect(filled) as db:
            report = await report_on("indexes", db)
            await make_agents(db, 100)
            lanes = await make_selectors(db)
            await fill(db, lanes, BACKLOG)
            name = await db.fetchval("SELECT current_database()")
            [found] = await db.fetch("SELECT id, name FROM agents LIMIT 1")
            agent = Holder(**dict(found))
            target = await db.fetchval(
                "SELECT digest FROM selectors JOIN agent_selectors ON selector_id = id"
                " WHERE agent_id = $1",
                agent.id,
            )
            indexes = await db.fetch(
                "SELECT indexrelid::regclass::text AS name, indrelid::regclass::text AS on_table"
                "  FROM pg_index"
                " WHERE NOT indisunique AND indrelid = ANY"
                "       ('{work_queue,work_claims,work_execution_log,work_labels}'::regclass[])"
                " ORDER BY 2, 1"
            )
        seconds = defaultdict(list)
        wal = {}
        tables = {None: "", **{each["name"]: each["on_table"] for each in indexes}}
        for _ in range(RUNS):
            for without in tables:
                async with database(server, template=name) as url, pool_of(url, size=1) as pool:
                    if without:
                        await pool.execute(f"DROP INDEX {without}")
                    before = await _wal(pool)
                    began = perf_counter()
                    for _ in range(BATCHES):
                        await _pass_through(pool, agent, target)
                    seconds[without].append((perf_counter() - began) / BATCH / BATCHES)
                    wal[without] = (await _wal(pool) - before) / BATCH / BATCHES
        whole = min(seconds[None])
        report.add(indexes="all", us_each=whole * 1e6, wal_bytes_each=wal[None])
        for without, table in tables.items():
            if without is not None:
                report.add(
                    without=without,
                    on=table,
                    saves_us=(whole - min(seconds[without])) * 1e6,
                    saves_wal_bytes=wal[None] - wal[without],
                )
        report.save()


async def _pass_through(pool: Pool, agent: Holder, target_sha256: bytes) -> None:
    async with autocommit(pool) as db:
        await fetch_all(
            db,
            "insert_work",
            works=[{**a_work(target_sha256), "id": str(new_work_id())} for _ in range(BATCH)],
            is_alone=True,
            owner=UUID(int=0),
            key_lifetime=timedelta(days=1),
            generator_id=None,
            actor="admin:bench",
            traceparent=None,
        )
    async with autocommit(pool) as db:
        claimed = await claims.claim_some_work(db, by=agent, limit=BATCH, request_id=uuid4())
    reports = [
        CompleteOne(work_id=each.work_id, claim_id=each.claim_id, success=True) for each in claimed
    ]
    async with autocommit(pool) as db:
        await work_queue.complete_work(db, reports, by=agent, policy=HandOffPolicy())


async def _wal(pool: Pool) -> int:
    return int(await pool.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'"))


if __name__ == "__main__":
    uvloop.run(main())

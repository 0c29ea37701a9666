"""At 10^5 Works the hot statements read index ranges, and not the queue."""

import json
from typing import Any
from uuid import uuid4

from brokkr.broker.db.statements import statement
from support.queue import Queue

DEPTH = 100_000

_FILL = """
INSERT INTO work_queue (id, work_type, crd_spec, selector_id, priority, max_retries,
                        status, claimed_by, claimed_at, claim_id, lease_expires_at)
SELECT gen_random_uuid(), 'build', '{}', 1 + number % 50, 0, 3, 'PENDING',
       NULL, NULL, NULL, NULL::timestamptz
  FROM generate_series(1, $1::int) AS number
UNION ALL
SELECT gen_random_uuid(), 'build', '{}', 1 + number % 50, 0, 3, 'CLAIMED',
       $2::uuid, now(), gen_random_uuid(), now() + interval '1 hour'
  FROM generate_series(1, 1000) AS number
"""


async def plan(queue: Queue, name: str, **parameters: Any) -> dict[str, Any]:
    """Run a statement in a transaction that is undone, and return how it was done."""
    one = statement(name)
    connection = await queue.pool.acquire()
    transaction = connection.transaction()
    await transaction.start()
    try:
        text = await connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {one.sql}", *one.values(parameters)
        )
    finally:
        await transaction.rollback()
        await queue.pool.release(connection)
    found: dict[str, Any] = json.loads(text)[0]
    return found


def nodes(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all nodes of a plan."""
    below = [each for child in found.get("Plans", []) for each in nodes(child)]
    return [found, *below]


async def test_no_hot_statement_reads_the_whole_queue(queue: Queue) -> None:
    agent = await queue.an_agent(**{f"lane-{number}": "x" for number in range(5)})
    for number in range(50):
        await queue.submit({"match_labels": {f"lane-{number}": "x"}})
    await queue.pool.execute(_FILL, DEPTH, agent.id)
    await queue.pool.execute("ANALYZE")
    work_id = await queue.pool.fetchval("SELECT id FROM work_queue LIMIT 1")
    hot: dict[str, dict[str, Any]] = {
        "list_pending_work": {"agent_id": agent.id, "types": None, "limit": 10},
        "claim_some_work": {
            "agent_id": agent.id,
            "types": None,
            "limit": 10,
            "request_id": uuid4(),
        },
        "claim_work": {"work_id": work_id, "agent_id": agent.id, "request_id": None},
        "release_stale_claims": {"max_lost_claims": 3, "limit": 500},
        "renew_claims": {"claim_ids": [uuid4()], "agent_id": agent.id},
        "get_work": {"work_id": work_id},
        "list_work": {
            "type": None,
            "states": None,
            "agent_id": None,
            "since": None,
            "since_id": None,
            "before_id": None,
            "limit": 50,
        },
    }

    for name, parameters in hot.items():
        found = await plan(queue, name, **parameters)
        scans = [
            each
            for each in nodes(found["Plan"])
            if each["Node Type"] == "Seq Scan" and each.get("Relation Name") == "work_queue"
        ]
        buffers = found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"]
        assert (name, scans) == (name, [])
        assert (name, buffers < 1500) == (name, True)

    found = await plan(queue, "list_pending_work", **hot["list_pending_work"])
    assert "work_queue_lane" in {each.get("Index Name") for each in nodes(found["Plan"])}

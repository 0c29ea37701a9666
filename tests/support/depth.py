"""A database as it is after much use: so many Works pending, and as many finished."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from brokkr.broker.db.pool import Connection, Pool

AGENT = UUID("00000000-0000-0000-0001-000000000001")
GENERATOR = UUID("00000000-0000-0000-0000-000000000001")

_LONG = 1800

# Ids that begin with a time, as those of the broker do: what is finished is older than what is
# pending, and of what is queued the oldest is claimed.
_FILL = """
CREATE FUNCTION pg_temp.id(kind int, number bigint) RETURNS uuid LANGUAGE sql AS $$
    SELECT (lpad(to_hex(1600000000000 + kind * 50000000000 + number * 10), 12, '0') || '7'
            || substr(md5(number::text), 1, 3) || '8' || substr(md5(number::text), 4, 15))::uuid
$$;
CREATE FUNCTION pg_temp.agent(number bigint) RETURNS uuid LANGUAGE sql AS $$
    SELECT ('00000000-0000-0000-0001-' || lpad((1 + number % 100)::text, 12, '0'))::uuid
$$;
-- Half of all Work is an admin's; generator 1 has ten pieces among those of the other nine.
CREATE FUNCTION pg_temp.generator(number bigint) RETURNS uuid LANGUAGE sql AS $$
    SELECT CASE WHEN number <= 10 THEN '00000000-0000-0000-0000-000000000001'::uuid
                WHEN number % 2 = 0
                THEN ('00000000-0000-0000-0000-' || lpad((2 + number % 9)::text, 12, '0'))::uuid
           END
$$;
CREATE FUNCTION pg_temp.labels(number bigint) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE WHEN number <= 10 THEN '{"team": "few", "any": "yes"}'
                WHEN number % 4 = 0 THEN '{"team": "many", "any": "yes"}' ELSE '{}' END::jsonb
$$;
CREATE FUNCTION pg_temp.type(number bigint) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN number <= 10 THEN 'rare' ELSE 'build' END
$$;
INSERT INTO agents (id, name, cluster_name, labels, annotations, last_seen_at)
SELECT pg_temp.agent(number), 'agent-' || number, '', '{}', '{}', now()
  FROM generate_series(0, 99) AS number;
INSERT INTO generators (id, name)
SELECT ('00000000-0000-0000-0000-' || lpad(number::text, 12, '0'))::uuid, 'generator-' || number
  FROM generate_series(1, 10) AS number;
INSERT INTO selectors (digest, targets, work_type, created_at)
SELECT sha256(number::text::bytea), '[{"match_labels": {"a": "b"}}]', 'build',
       now() - interval '2 days'
  FROM generate_series(1, 1000) AS number;
INSERT INTO agent_selectors (agent_id, selector_id)
SELECT pg_temp.agent(agent), 1 + (agent * 5 + lane) % 50
  FROM generate_series(0, 99) AS agent, generate_series(0, 4) AS lane;
INSERT INTO work_queue
    (id, work_type, crd_spec, selector_id, priority, max_retries, status, claimed_by, claimed_at,
     claim_id, lease_expires_at, lease_check_at, round, generator_id, labels, start_deadline,
     not_before, is_due, pending_since, events)
SELECT pg_temp.id(2, number), pg_temp.type(number), repeat('x', 300), 1 + number % 50, 0, 3,
       CASE WHEN is_claimed THEN 'CLAIMED' ELSE 'PENDING' END,
       CASE WHEN is_claimed THEN pg_temp.agent(number / 20) END,
       CASE WHEN is_claimed THEN now() END,
       CASE WHEN is_claimed THEN pg_temp.id(3, number) END,
       CASE WHEN is_claimed THEN now() + interval '30 minutes' END,
       CASE WHEN is_claimed THEN now() + interval '30 minutes' END,
       is_claimed::int, pg_temp.generator(number), pg_temp.labels(number),
       CASE WHEN number % 100 = 3 THEN now() + interval '1 hour' END,
       CASE WHEN number % 100 = 5 THEN now() + interval '1 hour' END,
       number % 100 <> 5 OR is_claimed,
       now() - interval '1 hour' * (number % 100) / 100,
       1 + is_claimed::int
  FROM (SELECT number, number > 10 AND number <= 10 + {claimed} AS is_claimed
          FROM generate_series(1, {depth}) AS number) AS each;
INSERT INTO work_execution_log
    (id, work_type, created_at, claimed_at, completed_at, claimed_by, claim_id, outcome, crd_spec,
     selector_id, priority, max_retries, claim_timeout_seconds, round, lost_claims, generator_id,
     labels, events)
SELECT pg_temp.id(1, number), pg_temp.type(number), ended_at, ended_at, ended_at,
       pg_temp.agent(number), pg_temp.id(4, number),
       CASE WHEN number <= 10 THEN 'quarantined' WHEN number % 10 = 0 THEN 'failed'
            ELSE 'succeeded' END,
       repeat('x', 300), 1 + number % 50, 0, 3, 3600, 1, 0, pg_temp.generator(number),
       pg_temp.labels(number), 3
  FROM (SELECT number, now() - interval '200 days' * ({depth} - number) / {depth} AS ended_at
          FROM generate_series(1, {depth}) AS number) AS each;
INSERT INTO generator_labels (generator_id, label, work_id)
SELECT work.generator_id, label.key || '=' || label.value, work.id
  FROM works AS work CROSS JOIN LATERAL jsonb_each_text(work.labels) AS label
 WHERE work.generator_id IS NOT NULL;
INSERT INTO work_labels (is_copied, label, work_id)
SELECT true, label.key || '=' || label.value, work.id
  FROM works AS work CROSS JOIN LATERAL jsonb_each_text(work.labels) AS label;
INSERT INTO work_claims (claim_id, work_id, agent_id, round, request_id, claimed_at)
SELECT claim_id, id, claimed_by, 1, id, claimed_at FROM work_queue WHERE status = 'CLAIMED';
INSERT INTO work_claims
    (claim_id, work_id, agent_id, round, request_id, claimed_at, ended_at, ended_as, answer)
SELECT claim_id, id, claimed_by, 1, id, claimed_at, completed_at, 'completed', '{}'
  FROM work_execution_log;
INSERT INTO work_events (work_id, number, kind, actor, detail)
SELECT work.id, number, 'submitted', 'admin:test', '{}'
  FROM works AS work CROSS JOIN LATERAL generate_series(1, work.events) AS number;
INSERT INTO idempotency_keys (owner, key, body_sha256, work_id, expires_at)
SELECT '00000000-0000-0000-0000-000000000000', number::text, '', pg_temp.id(2, number),
       now() + interval '1 day' * number / {depth}
  FROM generate_series(1, {depth}) AS number;
"""

_A_FEW = {
    "pending": "SELECT id FROM work_queue WHERE status = 'PENDING' AND is_due"
    " AND work_type = 'build' AND selector_id = 1",
    "claimed": f"SELECT id FROM work_queue WHERE claimed_by = '{AGENT}'",
    "claims": f"SELECT claim_id FROM work_queue WHERE claimed_by = '{AGENT}'",
    "finished": "SELECT id FROM work_execution_log WHERE outcome = 'failed'",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deep:
    """A database that was filled, and a few rows in it: what :data:`AGENT` may claim and holds."""

    pool: Pool
    pending: list[UUID]
    claimed: list[UUID]
    claims: list[UUID]
    finished: list[UUID]
    lane: int = 1
    agent: UUID = AGENT
    generator: UUID = GENERATOR


async def fill(pool: Pool, depth: int) -> Deep:
    """Queue so many Works, of which a hundredth is claimed, and finish as many."""
    text = _FILL.replace("{depth}", str(depth)).replace("{claimed}", str(depth // 100))
    async with pool.acquire() as db:
        await db.execute("SET statement_timeout = 0")
        await db.execute(text, timeout=_LONG)
        await db.execute("VACUUM (ANALYZE)", timeout=_LONG)
        await db.execute("SET statement_timeout = '60s'")
        few = {
            name: [row[0] for row in await db.fetch(f"{query} ORDER BY id LIMIT 9")]
            for name, query in _A_FEW.items()
        }
    return Deep(
        pool=pool,
        pending=few["pending"],
        claimed=few["claimed"],
        claims=few["claims"],
        finished=few["finished"],
    )


async def explain(db: Connection, sql: str, values: list[Any]) -> dict[str, Any]:
    """Run a statement as the broker does, prepared, and return its plan as it was carried out."""
    await db.execute(f"PREPARE looked_at AS {sql}")
    types = await db.fetchval(
        "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'looked_at'"
    )
    literals = [
        await db.fetchval(f"SELECT quote_nullable($1::{kind}::text)", value)
        for kind, value in zip(types, values, strict=True)
    ]
    execute = f"EXECUTE looked_at ({', '.join(literals)})" if literals else "EXECUTE looked_at"
    try:
        text = await db.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}")
    finally:
        await db.execute("DEALLOCATE looked_at")
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan

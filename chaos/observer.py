"""Looks at the database and at the clusters, past all lines that may be broken."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from brokkr.agent.kinds import BUILD_RUNS, BUILDS, WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.wire.custom_resource import ANNOTATION_CLAIM_ID, LABEL_WORK_ID
from chaos.build_runner import is_cancelled, is_over
from chaos.invariants import ClaimRow, Event, Execution, History
from chaos.system import NAMESPACES_USED

_TERMINAL = {"Succeeded", "Failed", "Cancelled"}
_HISTORIES = """
SELECT work.*,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'number', number, 'kind', kind, 'detail', detail) ORDER BY number), '[]')
          FROM work_events WHERE work_id = work.id) AS told,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'claim_id', claim_id, 'round', round, 'ended_as', ended_as)
                   ORDER BY round), '[]')
          FROM work_claims WHERE work_id = work.id) AS claims
  FROM (SELECT id, idempotency_key, count(*) AS places, max(status) AS status,
               max(round) AS round, (array_agg(claim_id))[1] AS claim_id,
               max(lost_claims) AS lost_claims, max(events) AS events
          FROM (SELECT id, idempotency_key, status, round, claim_id, lost_claims, events
                  FROM work_queue
                UNION ALL
                SELECT id, idempotency_key, upper(outcome), round, claim_id, lost_claims, events
                  FROM work_execution_log) AS place
         GROUP BY id, idempotency_key) AS work
 WHERE $1::uuid[] IS NULL OR id = ANY ($1)
"""


async def read_histories(
    database_url: str, work_ids: Sequence[str] | None = None
) -> dict[str, History]:
    """Return Works by id, in one snapshot; all of them if none are named."""
    connection = await asyncpg.connect(database_url, timeout=5)
    try:
        ids = None if work_ids is None else list(map(UUID, work_ids))
        rows = await connection.fetch(_HISTORIES, ids, timeout=30)
    finally:
        await connection.close()
    return {str(row["id"]): _history(row) for row in rows}


async def count_queued(database_url: str) -> int:
    """Return how many Works are not finished."""
    connection = await asyncpg.connect(database_url, timeout=5)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM work_queue", timeout=10))
    finally:
        await connection.close()


def _history(row: asyncpg.Record) -> History:
    return History(
        work_id=str(row["id"]),
        key=row["idempotency_key"],
        places=row["places"],
        status=row["status"],
        round=row["round"],
        claim_id=row["claim_id"] and str(row["claim_id"]),
        lost_claims=row["lost_claims"],
        events_counted=row["events"],
        events=[Event(**each) for each in json.loads(row["told"])],
        claims=[ClaimRow(**each) for each in json.loads(row["claims"])],
    )


async def live_executions(kube: KubeClient) -> list[Execution]:
    """Return the BuildRuns that neither have ended nor were told to."""
    found = []
    for namespace in NAMESPACES_USED:
        for run in (await kube.list(BUILD_RUNS, namespace))[0]:
            live = not is_over(run) and not is_cancelled(run)
            if live and "deletionTimestamp" not in run["metadata"]:
                name = run["metadata"]["name"]
                work, _, attempt = name.removeprefix("work-").rpartition("-r")
                round = int(attempt.partition("-a")[0])
                found.append(Execution(name=name, work_id=work, round=round))
    return found


async def terminal_works(kube: KubeClient) -> dict[str, tuple[str, str]]:
    """Return the finished Work resources by claim id: their Work, and their phase."""
    found = {}
    for namespace in NAMESPACES_USED:
        for work in (await kube.list(WORKS, namespace))[0]:
            phase = _phase(work)
            if phase in _TERMINAL:
                metadata = work["metadata"]
                claim_id = metadata["annotations"][ANNOTATION_CLAIM_ID]
                found[claim_id] = (metadata["labels"][LABEL_WORK_ID], phase)
    return found


async def leftovers(kube: KubeClient) -> list[str]:
    """Return what is still in the clusters."""
    return [
        f"{resource.plural} {namespace}/{each['metadata']['name']} {_phase(each)}".strip()
        for namespace in NAMESPACES_USED
        for resource in (WORKS, BUILDS, BUILD_RUNS)
        for each in (await kube.list(resource, namespace))[0]
    ]


def _phase(manifest: Mapping[str, Any]) -> str:
    return str((manifest.get("status") or {}).get("phase", ""))

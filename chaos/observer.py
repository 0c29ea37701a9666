"""Looks at the database and at the clusters, past all lines that may be broken."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final
from uuid import UUID

import aiohttp
import asyncpg

from brokkr.agent.kinds import BUILD_RUNS, BUILDS, PODS, TASK_RUNS, WORKS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.resources import CLAIM_LOST
from brokkr.wire.custom_resource import (
    ANNOTATION_ACKNOWLEDGED,
    ANNOTATION_CANCEL,
    ANNOTATION_CLAIM_ID,
    LABEL_WORK_ID,
)
from chaos.build_runner import is_cancelled, is_over
from chaos.invariants import ClaimRow, Event, Execution, History

_LEFT: Final = (WORKS, BUILDS, BUILD_RUNS, TASK_RUNS, PODS)
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
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
               max(lost_claims) AS lost_claims, max(events) AS events, max(digest) AS digest
          FROM (SELECT id, idempotency_key, status, round, claim_id, lost_claims, events,
                       NULL AS digest
                  FROM work_queue
                UNION ALL
                SELECT id, idempotency_key, upper(outcome), round, claim_id, lost_claims, events,
                       result ->> 'digest'
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
        digest=row["digest"],
        events=[Event(**each) for each in json.loads(row["told"])],
        claims=[ClaimRow(**each) for each in json.loads(row["claims"])],
    )


@dataclass(frozen=True, slots=True)
class Cluster:
    """One API server, and the namespaces in it that agents use."""

    kube: KubeClient
    namespaces: Sequence[str]

    async def list(self, resource: Resource) -> list[dict[str, Any]]:
        """Return all objects of a kind."""
        found = [(await self.kube.list(resource, each))[0] for each in self.namespaces]
        return list(chain.from_iterable(found))


async def live_executions(clusters: Iterable[Cluster]) -> list[Execution]:
    """Return the BuildRuns that neither have ended nor were told to."""
    found = []
    for cluster in clusters:
        for run in await cluster.list(BUILD_RUNS):
            live = not is_over(run) and not is_cancelled(run)
            if live and "deletionTimestamp" not in run["metadata"]:
                name = run["metadata"]["name"]
                work, _, attempt = name.removeprefix("work-").rpartition("-r")
                round = int(attempt.partition("-a")[0])
                found.append(Execution(name=name, work_id=work, round=round))
    return found


async def terminal_works(clusters: Iterable[Cluster]) -> dict[str, tuple[str, str]]:
    """
    Return the finished Work resources by claim id: their Work, and their phase.

    One that was stopped because its claim is over says nothing of what the claim came to: a
    process that was frozen when it got the claim may write it once more, after the end.
    """
    found = {}
    for cluster in clusters:
        for work in await cluster.list(WORKS):
            phase = _phase(work)
            metadata = work["metadata"]
            is_fenced = metadata["annotations"].get(ANNOTATION_CANCEL) == CLAIM_LOST
            if phase in _TERMINAL and not is_fenced:
                claim_id = metadata["annotations"][ANNOTATION_CLAIM_ID]
                found[claim_id] = (metadata["labels"][LABEL_WORK_ID], phase)
    return found


async def given_up(clusters: Iterable[Cluster]) -> dict[str, tuple[str, str]]:
    """Return the claims that agents take for over, by id: their Work, and what was made of it."""
    found = {}
    for cluster in clusters:
        for work in await cluster.list(WORKS):
            metadata = work["metadata"]
            marks = metadata["annotations"]
            is_told, is_lost = ANNOTATION_ACKNOWLEDGED in marks, ANNOTATION_CANCEL in marks
            if is_told or (is_lost and marks[ANNOTATION_CANCEL] == CLAIM_LOST):
                what = "acknowledged" if is_told else "stopped as lost"
                found[marks[ANNOTATION_CLAIM_ID]] = (metadata["labels"][LABEL_WORK_ID], what)
    return found


async def leftovers(clusters: Iterable[Cluster]) -> list[str]:
    """Return what is still in the clusters."""
    return [
        f"{resource.plural} {each['metadata']['namespace']}/{each['metadata']['name']} "
        f"{_phase(each)}".strip()
        for cluster in clusters
        for resource in _LEFT
        for each in await cluster.list(resource)
    ]


async def has_image(image: str, digest: str) -> bool:
    """Say whether a registry has exactly this image."""
    host, _, repository = image.partition("/")
    url = f"http://{host}/v2/{repository}/manifests/{digest}"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers={"Accept": _MANIFEST}) as answer,
    ):
        return answer.status == 200


def _phase(manifest: Mapping[str, Any]) -> str:
    return str((manifest.get("status") or {}).get("phase", ""))

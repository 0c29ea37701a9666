"""
Works that are over and still there: finished, acknowledged, within their retention.

They are written past broker and agent, as these would have left them: each with its Build
and its BuildRun, with the agent's own functions for names, labels and statuses.
"""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any
from uuid import UUID, uuid4

from brokkr.agent.controller.record import ended
from brokkr.agent.handlers.build.manifests import BuildDefaults, render_build, render_build_run
from brokkr.agent.kinds import BUILD_RUNS, BUILDS, WORKS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.wire.custom_resource import (
    ANNOTATION_ACKNOWLEDGED,
    render_claimed,
    render_status,
    work_from_resource,
)
from brokkr.work.model import Claim, Manifest, Phase, Work, WorkStatus
from played_shipwright import FINISHED_BEFORE, REGISTERED, succeeded
from world import a_resource

AT_A_TIME = 16
_DEFAULTS = BuildDefaults()


async def make_finished_works(
    kube: KubeClient, namespace: str, works: int, *, agent_id: UUID
) -> None:
    """Write so many of one agent's."""
    began = perf_counter()
    waiting = iter(range(1, works + 1))

    async def write() -> None:
        for number in waiting:
            await _make_one(kube, namespace, agent_id)
            if number % 1000 == 0:
                took = perf_counter() - began
                print(f"    {number} of {works} finished Works after {took:.0f} s", flush=True)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_A_TIME):
            tasks.create_task(write())


async def _make_one(kube: KubeClient, namespace: str, agent_id: UUID) -> None:
    now = datetime.now(UTC)
    claim = Claim(
        work_id=uuid4(), claim_id=uuid4(), round=1, agent_id=agent_id, broker=str(uuid4())
    )
    resource = render_claimed(json.loads(a_resource())["spec"], claim)
    resource["metadata"]["annotations"][ANNOTATION_ACKNOWLEDGED] = now.isoformat(timespec="seconds")

    async def write(kind: Resource, manifest: Manifest) -> dict[str, Any]:
        metadata = manifest["metadata"]
        labels = {**metadata["labels"], FINISHED_BEFORE: "yes"}
        return await kube.create(
            kind, namespace, {**manifest, "metadata": {**metadata, "labels": labels}}
        )

    created = await write(WORKS, resource)
    work = work_from_resource(created)
    build = await write(BUILDS, render_build(work, 1, _DEFAULTS))
    run = await write(BUILD_RUNS, render_build_run(work, 1, _DEFAULTS))
    for kind, manifest, status in (
        (BUILDS, build, REGISTERED),
        (BUILD_RUNS, run, succeeded(build["spec"])),
        (WORKS, created, render_status(_status(work, run, now))),
    ):
        await kube.replace_status(kind, namespace, {**manifest, "status": status})


def _status(work: Work, run: Manifest, now: datetime) -> WorkStatus:
    digest = "sha256:" + "ab" * 32
    message = f"Image built successfully: {digest}"
    status = ended(work, Phase.SUCCEEDED, "BuildCompleted", message, now=now)
    return replace(
        status,
        attempts=tuple(replace(each, uid=run["metadata"]["uid"]) for each in status.attempts),
        result={
            "image": "registry.example.com/shop/frontend:latest",
            "digest": digest,
            "size": 12345678,
            "source": {"commit": "5952cc5a", "author": "bench"},
        },
    )

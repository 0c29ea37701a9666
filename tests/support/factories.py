"""Valid by default, keyword-only: a test names what matters to it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from brokkr.work.model import Claim, Manifest, Work, WorkStatus
from brokkr.work.names import work_name

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WORK_ID = UUID("0197a000-0000-7000-8000-000000000001")
AGENT_ID = UUID("0197a000-0000-7000-8000-0000000a6e17")
CLAIM_ID = UUID("0197a000-0000-4000-8000-00000000c1a1")


def a_build_template(**spec: Any) -> dict[str, Any]:
    """Return a Build that any broker and agent accept."""
    return {
        "apiVersion": "shipwright.io/v1beta1",
        "kind": "Build",
        "metadata": {"name": "hello"},
        "spec": {
            "source": {"type": "Git", "git": {"url": "http://git.example/hello.git"}},
            "strategy": {"name": "buildah", "kind": "ClusterBuildStrategy"},
            "output": {"image": "registry.example/hello:latest"},
            **spec,
        },
    }


def a_work(
    *,
    work_id: UUID = WORK_ID,
    max_retries: int = 3,
    template: Manifest | None = None,
    status: WorkStatus | None = None,
    cancel_reason: str = "",
    acknowledged_at: datetime | None = None,
    is_deleting: bool = False,
    work_type: str = "build",
) -> Work:
    """Return a Work resource as the controller would read it."""
    return Work(
        name=work_name(work_id, round=1),
        namespace="brokkr-agent",
        uid="uid-of-the-work",
        resource_version="7",
        generation=1,
        created_at=NOON - timedelta(minutes=1),
        is_deleting=is_deleting,
        work_type=work_type,
        max_retries=max_retries,
        claim_timeout=timedelta(hours=1),
        template=template or a_build_template(),
        claim=Claim(
            work_id=work_id,
            claim_id=CLAIM_ID,
            round=1,
            agent_id=AGENT_ID,
            broker="the-broker",
        ),
        cancel_reason=cancel_reason,
        acknowledged_at=acknowledged_at,
        status=status or WorkStatus(),
    )


def with_status(work: Work, status: WorkStatus) -> Work:
    """Return the Work as it is read back after its status was written."""
    return replace(work, status=status)

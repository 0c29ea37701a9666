"""
The example of a work type from outside, with a whole agent: installed beside it, and allowed.

Nothing here runs Jobs: the test says of each what Kubernetes would say.
"""

import os
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from brokkr.agent.kinds import PODS, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeConflict
from brokkr.agent.kube.permissions import SERVICE_ACCOUNT
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import SubmitWork, TargetBody, WorkBody, WorkState
from brokkr.work.names import attempt_name, work_name
from support.agent import Stage, a_stage
from support.broker import RunningBroker, serving
from support.kube import agent_namespace
from support.packages import EXAMPLE, install_example
from support.signals import eventually

pytestmark = [pytest.mark.kube, pytest.mark.postgres]

JOBS = Resource("batch", "v1", "Job", "jobs")
BEGAN, ENDED = "2026-03-01T12:00:00Z", "2026-03-01T12:01:00Z"


@pytest.fixture
async def stage(  # noqa: PLR0917 - fixtures
    database_url: str,
    kube: KubeClient,
    agent_kubeconfig: Path,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    """A broker and an agent that were set up as the example's README says."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    install_example(packages)
    path = [str(packages), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))

    role = yaml.safe_load((EXAMPLE / "role.yaml").read_text())
    role["metadata"]["namespace"] = namespace
    await kube.create(ROLES, namespace, role)
    await kube.create(ROLE_BINDINGS, namespace, a_binding(role, namespace))

    [block] = re.findall(r"```toml\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    configured = tomllib.loads(re.sub("^ +", "", block, flags=re.MULTILINE))["broker"]
    settings = BrokerSettings(stale_claim_interval_seconds=0.2, **configured)
    key = await create_admin_key(database_url)
    async with serving(settings, database_url) as app, BrokerClient(app.url, key) as admin:
        broker = RunningBroker(url=app.url, database_url=database_url, admin=admin, parts=app.parts)
        yield await a_stage(broker, kube, agent_kubeconfig, namespace)


def a_binding(role: dict[str, Any], namespace: str) -> dict[str, Any]:
    name = role["metadata"]["name"]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [
            {
                "kind": "ServiceAccount",
                "name": SERVICE_ACCOUNT,
                "namespace": agent_namespace(namespace),
            }
        ],
    }


async def submit(stage: Stage) -> WorkBody:
    return await stage.broker.admin.submit_work(
        SubmitWork(
            work_type="job",
            template=(EXAMPLE / "job.yaml").read_text(),
            target=TargetBody(match_labels={"stage": stage.namespace}),
            max_retries=2,
            claim_timeout_seconds=3,
        )
    )


async def job_of(stage: Stage, work: WorkBody, *, attempt: int = 1) -> dict[str, Any]:
    """Wait until the Job of an attempt is there."""
    name = attempt_name(work_name(work.id, round=1), attempt)
    return await eventually(lambda: stage.kube.find(JOBS, stage.namespace, name))


async def says(stage: Stage, job: dict[str, Any], *conditions: str, **status: Any) -> None:
    """Write a Job's status as Kubernetes would."""

    async def is_written() -> bool:
        live = await stage.kube.get(JOBS, stage.namespace, job["metadata"]["name"])
        said = {
            "startTime": BEGAN,
            "conditions": [
                {
                    "type": each,
                    "status": "True",
                    "reason": "BackoffLimitExceeded" if "Fail" in each else "",
                    "lastProbeTime": ENDED,
                    "lastTransitionTime": ENDED,
                }
                for each in conditions
            ],
            **status,
        }
        try:
            await stage.kube.replace_status(JOBS, stage.namespace, {**live, "status": said})
        except KubeConflict:
            return False
        return True

    await eventually(is_written)


async def succeeds(stage: Stage, job: dict[str, Any]) -> None:
    await says(stage, job, "SuccessCriteriaMet", "Complete", succeeded=1, completionTime=ENDED)


async def is_said_to_be_active(stage: Stage, work: WorkBody) -> None:
    """Wait until the broker has heard of what the Job's status says."""

    async def is_so() -> bool:
        progress = (await stage.broker.admin.get_work(work.id)).progress
        return progress is not None and "the Job's pod is pending" in progress.message

    await eventually(is_so)


async def make_failed_pod(stage: Stage, job: dict[str, Any], *, exit_code: int) -> None:
    name = job["metadata"]["name"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{name}-x", "labels": {"batch.kubernetes.io/job-name": name}},
        "spec": job["spec"]["template"]["spec"],
    }

    # A namespace's default account is made a moment after the namespace.
    await eventually(lambda: stage.kube.find(SERVICE_ACCOUNTS, stage.namespace, "default"))
    made = await stage.kube.create(PODS, stage.namespace, pod)
    end = {"exitCode": exit_code, "reason": "Error", "startedAt": BEGAN, "finishedAt": ENDED}
    container = {
        "name": "hello",
        "image": "busybox",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"terminated": end},
    }
    status = {"phase": "Failed", "containerStatuses": [container]}
    await stage.kube.replace_status(PODS, stage.namespace, {**made, "status": status})


async def test_a_job_that_completes_is_work_that_has_succeeded(
    stage: Stage, tmp_path: Path
) -> None:
    async with stage.agent_process(tmp_path):
        submitted = await submit(stage)
        job = await job_of(stage, submitted)
        await succeeds(stage, job)
        work = await stage.finished(submitted)
        said = (await stage.broker.admin.get_agent(stage.agent_id)).capabilities

    assert work.status is WorkState.SUCCEEDED
    assert (work.result or {})["job"] == job["metadata"]["name"]
    assert job["spec"]["backoffLimit"] == 0
    assert said is not None
    assert said.types == ["build", "job"]


async def test_a_job_that_fails_is_tried_again_as_another_job(stage: Stage, tmp_path: Path) -> None:
    async with stage.agent_process(tmp_path):
        submitted = await submit(stage)
        first = await job_of(stage, submitted)
        await make_failed_pod(stage, first, exit_code=3)
        await says(stage, first, active=1)
        await is_said_to_be_active(stage, submitted)
        await says(stage, first, "FailureTarget", "Failed", failed=1)
        await succeeds(stage, await job_of(stage, submitted, attempt=2))
        work = await stage.finished(submitted)

    attempts = (work.result or {})["attempts"]
    assert (work.status, work.retries_attempted) == (WorkState.SUCCEEDED, 1)
    assert [each["reason"] for each in attempts] == ["BackoffLimitExceeded", "JobCompleted"]
    assert "container hello ended with 3" in attempts[0]["message"]


async def test_to_cancel_the_work_deletes_its_job(stage: Stage, tmp_path: Path) -> None:
    async with stage.agent_process(tmp_path):
        submitted = await submit(stage)
        job = await job_of(stage, submitted)
        await says(stage, job, active=1)
        await is_said_to_be_active(stage, submitted)
        await stage.broker.admin.cancel_work(submitted.id)
        work = await stage.finished(submitted)

    assert work.status is WorkState.CANCELLED
    assert await stage.kube.find(JOBS, stage.namespace, job["metadata"]["name"]) is None

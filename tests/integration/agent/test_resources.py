"""Writing the Work resource of a claim, whatever is there already."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from brokkr.agent.kinds import WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.resources import create_work
from brokkr.wire.bodies import ClaimBody
from brokkr.wire.custom_resource import (
    ANNOTATION_ACKNOWLEDGED,
    ANNOTATION_CANCEL,
    ANNOTATION_CLAIM_ID,
    ANNOTATION_TRACEPARENT,
    LABEL_AGENT,
    render_spec,
)
from brokkr.work.errors import InvalidWork
from brokkr.work.names import work_name
from support.factories import AGENT_ID, a_build_template

pytestmark = pytest.mark.kube


def a_claim(*, claim_id: UUID | None = None, work_id: UUID | None = None, **spec: Any) -> ClaimBody:
    rendered = render_spec(
        work_type="build",
        max_retries=1,
        claim_timeout=timedelta(hours=1),
        template=a_build_template(),
    )
    return ClaimBody(
        id=work_id or uuid4(),
        claim_id=claim_id or uuid4(),
        round=1,
        work_type="build",
        broker="the-broker",
        lease_seconds=3600,
        resource={"spec": {**rendered, **spec}},
    )


async def test_writing_a_claim_twice_makes_one_resource(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    claim = a_claim()
    await create_work(agent_kube, namespace, claim, agent_id=AGENT_ID)
    first = await kube.get(WORKS, namespace, work_name(claim.id, round=1))
    await create_work(agent_kube, namespace, claim, agent_id=AGENT_ID)

    (only,), _ = await kube.list(WORKS, namespace)
    assert only["metadata"]["uid"] == first["metadata"]["uid"]


async def test_an_adopted_resource_carries_the_current_claim_id(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    before = a_claim()
    now = a_claim(work_id=before.id)
    await create_work(agent_kube, namespace, before, agent_id=AGENT_ID)
    await create_work(agent_kube, namespace, now, agent_id=AGENT_ID)

    (only,), _ = await kube.list(WORKS, namespace)
    assert only["metadata"]["annotations"][ANNOTATION_CLAIM_ID] == str(now.claim_id)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Cancelled"])
async def test_what_a_restored_broker_was_told_is_told_again_unless_it_was_stopped(
    kube: KubeClient, agent_kube: KubeClient, namespace: str, phase: str
) -> None:
    told = a_claim()
    await create_work(agent_kube, namespace, told, agent_id=AGENT_ID)
    marks = {ANNOTATION_ACKNOWLEDGED: "2026-01-31T12:00:00+00:00", ANNOTATION_CANCEL: "stop"}
    name = work_name(told.id, round=1)
    await kube.merge_patch(WORKS, namespace, name, {"metadata": {"annotations": marks}})
    work = await kube.get(WORKS, namespace, name)
    await kube.replace_status(WORKS, namespace, {**work, "status": {"phase": phase, "retries": 0}})
    now = a_claim(work_id=told.id)

    can_be_told = await create_work(agent_kube, namespace, now, agent_id=AGENT_ID)

    (only,), _ = await kube.list(WORKS, namespace)
    marks = only["metadata"]["annotations"]
    assert can_be_told is (phase != "Cancelled")
    assert (ANNOTATION_ACKNOWLEDGED not in marks) is can_be_told
    assert (marks[ANNOTATION_CLAIM_ID] == str(now.claim_id)) is can_be_told


@pytest.mark.parametrize("change", ["its spec", "its agent"])
async def test_a_resource_of_the_same_name_that_is_another_one_is_not_adopted(
    kube: KubeClient, agent_kube: KubeClient, namespace: str, change: str
) -> None:
    planted = a_claim(maxRetries=0 if change == "its spec" else 1)
    owner = uuid4() if change == "its agent" else AGENT_ID
    await create_work(agent_kube, namespace, planted, agent_id=owner)
    ours = a_claim(work_id=planted.id, claim_id=planted.claim_id)

    with pytest.raises(InvalidWork, match="exists already"):
        await create_work(agent_kube, namespace, ours, agent_id=AGENT_ID)

    kept = await kube.get(WORKS, namespace, work_name(planted.id, round=1))
    assert kept["metadata"]["labels"][LABEL_AGENT] == str(owner)
    assert kept["spec"]["maxRetries"] == planted.resource["spec"]["maxRetries"]


async def test_what_the_api_server_refuses_is_said_in_its_words(
    agent_kube: KubeClient, namespace: str
) -> None:
    with pytest.raises(InvalidWork, match=r"spec\.maxRetries"):
        await create_work(agent_kube, namespace, a_claim(maxRetries=1000), agent_id=AGENT_ID)


async def test_a_claim_without_a_spec_is_refused(agent_kube: KubeClient, namespace: str) -> None:
    claim = a_claim().model_copy(update={"resource": {"spec": "rm -rf /"}})
    with pytest.raises(InvalidWork, match="without a spec"):
        await create_work(agent_kube, namespace, claim, agent_id=AGENT_ID)


@pytest.mark.parametrize("flags", ["01", "00", "no flags"])
async def test_a_trace_is_written_if_it_is_one_whatever_the_broker_sends(
    kube: KubeClient, agent_kube: KubeClient, namespace: str, flags: str
) -> None:
    traceparent = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"
    claim = a_claim()
    claim.resource["metadata"] = {"annotations": {ANNOTATION_TRACEPARENT: traceparent, "x": "y"}}
    await create_work(agent_kube, namespace, claim, agent_id=AGENT_ID)

    (only,), _ = await kube.list(WORKS, namespace)
    expected = {ANNOTATION_CLAIM_ID: str(claim.claim_id)}
    if flags != "no flags":
        expected[ANNOTATION_TRACEPARENT] = traceparent
    assert only["metadata"]["annotations"] == expected

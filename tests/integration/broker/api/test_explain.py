"""`GET /work/{id}/explain`."""

from uuid import uuid4

import pytest

from brokkr.wire.bodies import Heartbeat, SubmitWork, TargetBody
from brokkr.work.errors import AgentNotFound, WorkNotFound
from support.factories import a_build_template

from .conftest import Served


async def test_a_pending_work_is_explained_and_one_agent_can_be_asked_for(served: Served) -> None:
    agent, client = await served.an_agent("edge-1", gpu="true")
    await served.an_agent("edge-2")
    await client.heartbeat(agent.id, Heartbeat(incarnation=uuid4()))
    target = TargetBody(match_labels={"gpu": "true"})
    work = await served.admin.submit_work(
        SubmitWork(work_type="build", template=a_build_template(), target=target)
    )

    found = await served.admin.explain_work(work.id)
    other = await served.admin.explain_work(work.id, agent="edge-2")

    assert found.summary == "1 agent may claim it now; it is the first of its lane."
    assert found.waiting is not None
    assert [each.name for each in found.waiting.agents] == ["edge-1", "edge-2"]
    assert other.waiting is not None
    assert [each.sentence for each in other.waiting.agents] == ["has no label gpu, wanted 'true'"]
    with pytest.raises(AgentNotFound):
        await served.admin.explain_work(work.id, agent="nobody")
    with pytest.raises(WorkNotFound):
        await served.admin.explain_work(uuid4())

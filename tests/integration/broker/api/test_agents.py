import asyncio
from typing import Any
from uuid import uuid4

import pytest

from brokkr.broker.db.agents import touch_agent
from brokkr.broker.db.pool import transaction
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import (
    Capabilities,
    Capacity,
    ClaimOne,
    ClaimSome,
    CompleteWork,
    Heartbeat,
    RegisterAgent,
    RelabelAgent,
    ReportProgress,
    SubmitWork,
    TargetBody,
    WorkBody,
    WorkState,
)
from brokkr.work.errors import (
    AgentDrained,
    AgentNameTaken,
    AgentNotFound,
    AgentSuperseded,
    NotPermitted,
    Unauthenticated,
)
from support.broker import serving
from support.factories import a_build_template
from support.queue import Queue
from support.signals import eventually

from .conftest import Served


async def a_work(served: Served, agent: str = "edge-7") -> WorkBody:
    target = TargetBody(agents=[agent])
    return await served.admin.submit_work(
        SubmitWork(work_type="build", template=a_build_template(), target=target)
    )


async def test_a_key_is_shown_once_and_opens_the_agents_own_door(served: Served) -> None:
    agent, client = await served.an_agent(zone="eu-1")

    assert agent.key.startswith("brokkr_agt")
    assert (await client.get_agent("self")).id == agent.id
    shown = await served.request("GET", f"/api/v1/agents/{agent.name}")
    assert "key" not in shown[1]
    assert agent.key not in str(await served.broker.pool.fetch("SELECT * FROM api_keys"))


async def test_two_living_agents_cannot_share_a_name(served: Served) -> None:
    agent, _ = await served.an_agent("twin")

    with pytest.raises(AgentNameTaken):
        await served.an_agent("twin")

    await served.admin.delete_agent(agent.id)
    again, _ = await served.an_agent("twin")
    assert again.id != agent.id


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "Edge 7"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "self"}, "name"),
        ({"name": "a", "labels": {"bad key": "x"}}, "labels.bad key"),
        ({"name": "a", "labels": {"key": "bad value"}}, "labels.key"),
        ({"name": "a", "annotations": {"key": "x" * 5000}}, "annotations.key"),
        ({"name": "a", "labels": {"key": 1}}, "labels.key"),
        ({}, "name"),
    ],
)
async def test_registration_names_the_field_that_it_refuses(
    served: Served, body: dict[str, Any], field: str
) -> None:
    status, problem = await served.request("POST", "/api/v1/agents", json=body)

    assert (status, problem["field"]) == (422, field)


async def test_agents_are_listed_by_name_in_pages(served: Served) -> None:
    for name in ("c", "a", "b"):
        await served.an_agent(name)

    first = await served.admin.list_agents(limit=2)
    second = await served.admin.list_agents(limit=2, cursor=first.next_cursor)

    assert [each.name for each in [*first.items, *second.items]] == ["a", "b", "c"]
    assert second.next_cursor is None


async def test_labels_are_set_and_removed_one_by_one(served: Served) -> None:
    await served.an_agent(gpu="true", zone="eu-1")

    changed = await served.admin.relabel_agent(
        "edge-7", RelabelAgent(labels={"zone": None, "arch": "arm"}, annotations={"team": "ml"})
    )

    assert changed.labels == {"gpu": "true", "arch": "arm"}
    assert changed.annotations == {"team": "ml"}
    assert (await served.admin.get_agent("edge-7")) == changed


async def test_a_deleted_agent_is_gone_and_what_it_held_is_free(served: Served) -> None:
    agent, client = await served.an_agent()
    work_id = (await a_work(served)).id
    await client.claim_work(work_id, ClaimOne())

    await served.admin.delete_agent("edge-7")

    with pytest.raises(Unauthenticated):
        await client.get_agent("self")
    with pytest.raises(AgentNotFound):
        await served.admin.get_agent(agent.id)
    work = await served.admin.get_work(work_id)
    assert (work.status, work.eligible_agents) == (WorkState.PENDING, 0)
    _, successor = await served.an_agent()
    assert (await successor.claim_work(work_id, ClaimOne())).round == 2


async def test_a_rotated_key_replaces_the_old_one(served: Served) -> None:
    agent, client = await served.an_agent()

    rotated = await served.admin.rotate_agent_key("edge-7")

    assert rotated.id == agent.id
    with pytest.raises(Unauthenticated):
        await client.get_agent("self")
    assert (await (await served.client(rotated.key)).get_agent("self")).id == agent.id


async def test_an_agent_does_not_see_other_agents(served: Served) -> None:
    _, client = await served.an_agent("mine")
    other, _ = await served.an_agent("other")

    with pytest.raises(AgentNotFound):
        await client.get_agent(other.id)
    with pytest.raises(AgentNotFound):
        await client.heartbeat(other.id, Heartbeat(incarnation=uuid4()))
    with pytest.raises(NotPermitted):
        await client.register_agent(RegisterAgent(name="friend"))
    with pytest.raises(NotPermitted):
        await client.list_agents()


async def test_a_heartbeat_renews_and_tells_what_is_lost(served: Served) -> None:
    agent, client = await served.an_agent()
    incarnation = uuid4()
    work_id = (await a_work(served)).id
    claim = await client.claim_work(work_id, ClaimOne())
    await served.admin.cancel_work(work_id)
    unknown = uuid4()

    beat = Heartbeat(incarnation=incarnation, claims=[claim.claim_id, unknown])
    answer = await client.heartbeat(agent.id, beat)

    assert [(each.claim_id, each.cancel_requested) for each in answer.renewed] == [
        (claim.claim_id, True)
    ]
    assert answer.lost == [unknown]
    assert answer.broker == str(served.broker.id)
    assert (await served.admin.get_agent(agent.id)).last_seen_at is not None
    assert (await served.admin.get_agent(agent.id)).claimed == 1


async def test_the_first_heartbeat_of_a_process_brings_all_its_claims(served: Served) -> None:
    agent, client = await served.an_agent()
    claim = await client.claim_work((await a_work(served)).id, ClaimOne())
    beat = Heartbeat(incarnation=uuid4())

    first = await client.heartbeat(agent.id, beat)
    second = await client.heartbeat(agent.id, beat)

    assert first.held is not None
    assert [each.resource for each in first.held] == [claim.resource]
    assert second.held is None


async def test_a_claim_that_an_agent_cannot_work_on_is_free_until_it_can(served: Served) -> None:
    agent, client = await served.an_agent()
    work_id = (await a_work(served)).id
    claim = await client.claim_work(work_id, ClaimOne())
    beat = Heartbeat(incarnation=uuid4(), claims=[claim.claim_id])
    answer = await client.heartbeat(agent.id, beat)
    assert "unworkable" in answer.features

    told = beat.model_copy(update={"claims": [], "unworkable": {claim.claim_id: "no answer"}})
    answer = await client.heartbeat(agent.id, told)
    between = await served.admin.get_work(work_id)
    back = await client.heartbeat(agent.id, beat)

    assert (answer.renewed, answer.lost) == ([], [])
    assert (between.status, between.lost_claims) == (WorkState.PENDING, 0)
    assert [each.claim_id for each in back.renewed] == [claim.claim_id]


async def test_a_superseded_process_gives_nothing_back(served: Served) -> None:
    agent, client = await served.an_agent()
    work_id = (await a_work(served)).id
    claim = await client.claim_work(work_id, ClaimOne())
    old = Heartbeat(incarnation=uuid4())
    await client.heartbeat(agent.id, old)
    await client.heartbeat(agent.id, Heartbeat(incarnation=uuid4()))

    told = old.model_copy(update={"unworkable": {claim.claim_id: "no answer"}})
    with pytest.raises(AgentSuperseded):
        await client.heartbeat(agent.id, told)

    assert (await served.admin.get_work(work_id)).status is WorkState.CLAIMED


async def test_the_newest_process_of_an_agent_is_the_agent(served: Served) -> None:
    agent, client = await served.an_agent()
    older, newer = Heartbeat(incarnation=uuid4()), Heartbeat(incarnation=uuid4())
    await client.heartbeat(agent.id, older)
    await client.heartbeat(agent.id, newer)

    for _ in range(2):
        with pytest.raises(AgentSuperseded):
            await client.heartbeat(agent.id, older)
        await client.heartbeat(agent.id, newer)


CAPACITY = Capacity(max_concurrent=4, free=1)
CAPABILITIES = Capabilities(
    types=["build"],
    unavailable={"test": "there is no runner"},
    strategies=["buildah (cluster)"],
    version="1.2",
)


async def test_what_an_agent_says_of_itself_is_shown_until_it_says_something_else(
    served: Served,
) -> None:
    agent, client = await served.an_agent()
    mine = uuid4()
    said = Heartbeat(incarnation=mine, capacity=CAPACITY, capabilities=CAPABILITIES)
    busy = Capacity(max_concurrent=4, free=0)

    await client.heartbeat(agent.id, said)
    first = await served.admin.get_agent(agent.id)
    await client.heartbeat(agent.id, Heartbeat(incarnation=mine, capacity=busy))
    second = await served.admin.get_agent(agent.id)

    assert (first.capacity, first.capabilities) == (CAPACITY, CAPABILITIES)
    assert (second.capacity, second.capabilities) == (busy, CAPABILITIES)


async def test_a_process_of_an_older_version_does_not_inherit_what_a_newer_one_said(
    served: Served,
) -> None:
    agent, client = await served.an_agent()
    said = Heartbeat(incarnation=uuid4(), capacity=CAPACITY, capabilities=CAPABILITIES)
    await client.heartbeat(agent.id, said)

    await client.heartbeat(agent.id, Heartbeat(incarnation=uuid4()))

    shown = await served.admin.get_agent(agent.id)
    assert (shown.capacity, shown.capabilities) == (None, None)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"unavailable": {"build": "y" * 501}}, "unavailable.build"),
        ({"unavailable": {"build": "a\0b"}}, "unavailable.build"),
        ({"strategies": ["x" * 321]}, "strategies[0]"),
    ],
)
async def test_a_heartbeat_names_the_field_that_it_refuses(
    served: Served, said: dict[str, Any], field: str
) -> None:
    agent, _ = await served.an_agent()
    path = f"/api/v1/agents/{agent.id}/heartbeat"
    body = {"incarnation": str(uuid4()), "capabilities": {"types": [], **said}}

    status, problem = await served.request("POST", path, key=agent.key, json=body)

    assert (status, problem["field"]) == (422, f"capabilities.{field}")


async def test_of_two_heartbeats_at_once_the_second_sees_what_the_first_has_said(
    served: Served,
) -> None:
    """Or it could take back what the first has said, and nobody would be told."""
    queue = Queue(served.broker.pool)
    agent = await queue.an_agent()
    await queue.declare(agent, build="no disk")
    unable = Heartbeat(
        incarnation=uuid4(), capabilities=Capabilities(types=[], unavailable={"build": "no disk"})
    )

    async def declared() -> bool:
        async with transaction(queue.pool) as db:
            return (await touch_agent(db, agent.id, unable)).has_other_types

    async with transaction(queue.pool) as db:
        able = Heartbeat(incarnation=uuid4(), capabilities=Capabilities(types=["build"]))
        first = await touch_agent(db, agent.id, able)
        second = asyncio.create_task(declared())
        await eventually(queue.somebody_waits)

    assert first.has_other_types
    assert await second


async def test_only_an_agent_itself_says_what_it_can_execute(served: Served) -> None:
    agent, _ = await served.an_agent()
    _, other = await served.an_agent("other")
    beat = Heartbeat(
        incarnation=uuid4(), capabilities=Capabilities(types=[], unavailable={"build": "no disk"})
    )

    with pytest.raises(AgentNotFound):
        await other.heartbeat(agent.id, beat)
    with pytest.raises(NotPermitted):
        await served.admin.heartbeat(agent.id, beat)

    assert (await served.admin.get_agent(agent.id)).capabilities is None


async def test_a_drained_agent_is_offered_nothing(served: Served) -> None:
    agent, client = await served.an_agent()
    work_id = (await a_work(served)).id

    drained = await served.admin.drain_agent("edge-7")
    again = await served.admin.drain_agent("edge-7")

    assert drained.drained_at is not None
    assert again.drained_at == drained.drained_at
    assert (await client.list_pending(agent.id)).items == []
    with pytest.raises(AgentDrained):
        await client.claim_work(work_id, ClaimOne())
    assert await client.claim_some(agent.id, ClaimSome()) == []


async def test_a_drained_agent_waits_until_it_is_undrained(served: Served) -> None:
    agent, client = await served.an_agent()
    await served.admin.drain_agent("edge-7")
    await a_work(served)
    loop = asyncio.get_running_loop()
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))

    async def is_parked() -> bool:
        return bool(served.broker.dispatcher.waiting == 1)

    await eventually(is_parked)
    work_id = (await a_work(served)).id  # wakes nobody
    await asyncio.sleep(0.3)
    assert not poll.done()
    began = loop.time()
    await served.admin.undrain_agent("edge-7")
    [claim] = await poll

    assert loop.time() - began < 1
    assert claim.id < work_id  # the older one


async def test_what_a_drained_agent_holds_goes_on(served: Served) -> None:
    agent, client = await served.an_agent()
    claim = await client.claim_work((await a_work(served)).id, ClaimOne())
    await served.admin.drain_agent("edge-7")

    beat = Heartbeat(incarnation=uuid4(), claims=[claim.claim_id])
    answer = await client.heartbeat(agent.id, beat)
    progress = ReportProgress(claim_id=claim.claim_id, phase="Running", attempt=1)
    await client.report_progress(claim.id, progress)
    done = await client.complete_work(claim.id, CompleteWork(claim_id=claim.claim_id, success=True))

    assert [each.claim_id for each in answer.renewed] == [claim.claim_id]
    assert done.status is WorkState.SUCCEEDED


async def test_a_drain_outlives_broker_and_agent(served: Served, database_url: str) -> None:
    agent, client = await served.an_agent()
    await a_work(served)
    await served.admin.drain_agent("edge-7")
    await client.heartbeat(agent.id, Heartbeat(incarnation=uuid4()))

    async with (
        serving(BrokerSettings(), database_url) as restarted,
        BrokerClient(restarted.url, agent.key) as newer,
    ):
        await newer.heartbeat(agent.id, Heartbeat(incarnation=uuid4()))

        assert (await newer.get_agent("self")).drained_at is not None
        assert await newer.claim_some(agent.id, ClaimSome(wait=0.2)) == []

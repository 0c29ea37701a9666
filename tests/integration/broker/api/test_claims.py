import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import (
    Capabilities,
    ClaimOne,
    ClaimSome,
    CompleteBatch,
    CompleteWork,
    Heartbeat,
    RegisterAgent,
    ReleaseWork,
    RequeueWork,
    SubmitWork,
    TargetBody,
    WorkState,
)
from brokkr.work.errors import (
    AgentDrained,
    ClaimLost,
    WorkNotClaimable,
    WorkNotFound,
    WorkTypeUnavailable,
)
from support.broker import serving
from support.factories import a_build_template
from support.signals import eventually

from .conftest import Served


def submit(**fields: Any) -> SubmitWork:
    return SubmitWork(
        work_type="build",
        template=a_build_template(),
        **{"target": TargetBody(match_labels={"gpu": "true"})} | fields,
    )


async def test_a_claim_and_what_is_left_of_its_lease_are_shown(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")
    work_id = (await served.admin.submit_work(submit(claim_timeout_seconds=90))).id

    claim = await client.claim_work(work_id, ClaimOne())

    assert (claim.id, claim.round, claim.work_type) == (work_id, 1, "build")
    assert claim.lease_seconds == 90
    shown = await served.admin.get_work(work_id)
    assert (shown.claimed_by, shown.agent) == (agent.id, agent.name)
    assert shown.lease_seconds == pytest.approx(90, abs=10)


async def test_who_asks_again_with_the_same_request_id_is_told_the_same(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")
    for _ in range(3):
        await served.admin.submit_work(submit())
    some, one = uuid4(), uuid4()

    first = await client.claim_some(agent.id, ClaimSome(max=2, request_id=some))
    again = await client.claim_some(agent.id, ClaimSome(max=2, request_id=some))
    [third] = (await client.list_pending(agent.id)).items
    single = await client.claim_work(third.id, ClaimOne(request_id=one))
    single_again = await client.claim_work(third.id, ClaimOne(request_id=one))

    assert [each.claim_id for each in again] == [each.claim_id for each in first]
    assert [each.resource for each in again] == [each.resource for each in first]
    assert single_again.claim_id == single.claim_id


async def test_work_for_others_does_not_exist_and_a_drained_agent_is_told_why(
    served: Served,
) -> None:
    agent, client = await served.an_agent(gpu="true")
    foreign = await served.admin.submit_work(submit(target=TargetBody(agents=["other"])))
    own = await served.admin.submit_work(submit())

    with pytest.raises(WorkNotFound):
        await client.claim_work(foreign.id, ClaimOne())
    await served.admin.drain_agent(agent.id)
    with pytest.raises(AgentDrained):
        await client.claim_work(own.id, ClaimOne())
    assert list(await client.claim_some(agent.id, ClaimSome())) == []


async def test_the_loser_of_a_race_is_told_so(served: Served) -> None:
    _, first = await served.an_agent("first", gpu="true")
    _, second = await served.an_agent("second", gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    await first.claim_work(work_id, ClaimOne())

    with pytest.raises(WorkNotClaimable):
        await second.claim_work(work_id, ClaimOne())


async def test_a_wrong_claim_id_completes_nothing(served: Served) -> None:
    _, client = await served.an_agent(gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    await client.claim_work(work_id, ClaimOne())

    with pytest.raises(ClaimLost) as caught:
        await client.complete_work(work_id, CompleteWork(claim_id=uuid4(), success=True))

    assert caught.value.state == "CLAIMED"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("result", {"log": "x" * 70_000}, "larger than 65536"),
        ("result", {"log": "a\0b"}, "NUL"),
        ("message", "half \ud800", "surrogate"),
    ],
)
async def test_a_result_that_cannot_be_kept_is_refused(
    served: Served, field: str, value: Any, words: str
) -> None:
    agent, client = await served.an_agent(gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    claim = await client.claim_work(work_id, ClaimOne())
    body = {"claim_id": str(claim.claim_id), "success": True, field: value}

    status, problem = await served.request(
        "POST", f"/api/v1/work/{work_id}/complete", key=agent.key, json=body
    )

    assert (status, problem["field"].partition(".")[0]) == (422, field)
    assert words in problem["detail"]
    assert (await served.admin.get_work(work_id)).status is WorkState.CLAIMED


# -- several reports in one request ----------------------------------------------------


async def test_each_report_of_a_request_is_answered_by_itself(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")
    for _ in range(3):
        await served.admin.submit_work(submit(max_handoffs=1))
    good, passing, kept = await client.claim_some(agent.id, ClaimSome(max=3))

    def report(work_id: UUID, claim_id: UUID, **fields: Any) -> dict[str, Any]:
        return {"work_id": str(work_id), "claim_id": str(claim_id), "success": True, **fields}

    answers = await client.complete_some(
        agent.id,
        CompleteBatch(
            items=[
                report(good.id, good.claim_id, message="built"),
                report(kept.id, kept.claim_id, result={"log": "x" * 70_000}),
                report(kept.id, uuid4()),
                report(uuid4(), uuid4()),
                {"work_id": str(kept.id)},
                report(passing.id, passing.claim_id, success=False, retryable=True),
                report(good.id, good.claim_id, success=False),
            ]
        ),
    )

    assert [each.status for each in answers] == [200, 422, 409, 404, 422, 200, 200]
    works = [each.work and (each.work.status, each.work.result_message) for each in answers]
    assert works == [
        (WorkState.SUCCEEDED, "built"),
        *[None] * 4,
        (WorkState.PENDING, None),
        (WorkState.SUCCEEDED, "built"),
    ]
    problems = [each.problem for each in answers if each.problem is not None]
    assert [(each["code"], each.get("field")) for each in problems] == [
        ("invalid", "items[1].result"),
        ("claim_lost", None),
        ("work_not_found", None),
        ("invalid", "items[4].claim_id"),
    ]
    assert (await served.admin.get_work(kept.id)).status is WorkState.CLAIMED


# -- giving back -----------------------------------------------------------------------


async def test_an_agent_gives_back_what_it_names_and_holds(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")
    _, other = await served.an_agent("other", gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    claim = await client.claim_work(work_id, ClaimOne())
    body = ReleaseWork(claim_id=claim.claim_id, reason="draining")

    path = f"/api/v1/work/{work_id}/release"
    status, problem = await served.request("POST", path, key=agent.key, json={})
    assert (status, problem["field"]) == (422, "claim_id")
    with pytest.raises(ClaimLost):
        await other.release_work(work_id, body)
    released = await client.release_work(work_id, body)

    assert released.status is WorkState.PENDING
    with pytest.raises(ClaimLost):
        await client.release_work(work_id, body)


async def test_a_lost_claim_is_lost_everywhere(served: Served) -> None:
    """Renewed, reported on, given back, completed: all are told, and of the same code."""
    agent, client = await served.an_agent(gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    claim = await client.claim_work(work_id, ClaimOne())
    await served.admin.release_work(work_id, ReleaseWork())
    await client.claim_work(work_id, ClaimOne())
    lost = {"claim_id": str(claim.claim_id)}

    bodies = {
        "progress": {**lost, "phase": "Running", "attempt": 1},
        "release": lost,
        "complete": {**lost, "success": True},
    }
    answers = {
        route: await served.request(
            "POST", f"/api/v1/work/{work_id}/{route}", key=agent.key, json=body
        )
        for route, body in bodies.items()
    }
    beat = await client.heartbeat(agent.id, Heartbeat(incarnation=uuid4(), claims=[claim.claim_id]))

    assert {route: status for route, (status, _) in answers.items()} == dict.fromkeys(bodies, 409)
    assert {problem["code"] for _, problem in answers.values()} == {"claim_lost"}
    assert (beat.renewed, beat.lost) == ([], [claim.claim_id])


# -- long polls ------------------------------------------------------------------------


async def waiting(served: Served, number: int) -> None:
    """Wait until so many long polls are parked."""

    async def is_so() -> bool:
        return served.broker.dispatcher.waiting == number

    await eventually(is_so)


async def test_a_long_poll_is_answered_when_work_comes(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
    await waiting(served, 1)

    submitted = await served.admin.submit_work(submit())
    async with asyncio.timeout(10):
        [claim] = await poll

    assert claim.id == submitted.id


async def test_each_of_several_works_wakes_an_agent_of_its_own(served: Served) -> None:
    agents = [await served.an_agent(f"edge-{number}", gpu="true") for number in range(4)]
    polls = [
        asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
        for agent, client in agents
    ]
    await waiting(served, 4)

    submitted = [(await served.admin.submit_work(submit())).id for _ in range(4)]
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*polls)

    assert sorted(claim.id for claims in answers for claim in claims) == sorted(submitted)


async def test_work_for_one_agent_leaves_the_others_waiting(served: Served) -> None:
    meant, client = await served.an_agent("meant", gpu="true")
    other, other_client = await served.an_agent("other")
    others = asyncio.create_task(other_client.claim_some(other.id, ClaimSome(wait=60)))
    await waiting(served, 1)
    poll = asyncio.create_task(client.claim_some(meant.id, ClaimSome(wait=60)))
    await waiting(served, 2)

    await served.admin.submit_work(submit())
    async with asyncio.timeout(10):
        assert len(await poll) == 1

    assert served.broker.dispatcher.waiting == 1
    others.cancel()
    await waiting(served, 0)


async def test_a_client_that_goes_away_frees_its_place(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
    await waiting(served, 1)

    poll.cancel()

    await waiting(served, 0)
    submitted = await served.admin.submit_work(submit())
    assert (await served.admin.get_work(submitted.id)).status is WorkState.PENDING


async def test_a_poll_ends_empty_when_its_time_is_over(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")

    assert list(await client.claim_some(agent.id, ClaimSome(wait=0.2))) == []
    assert served.broker.dispatcher.waiting == 0


async def test_an_agent_that_is_relabelled_hears_of_the_work_it_gains(served: Served) -> None:
    agent, client = await served.an_agent()
    submitted = await served.admin.submit_work(submit())
    assert submitted.eligible_agents == 0
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
    await waiting(served, 1)

    await served.request("PATCH", f"/api/v1/agents/{agent.id}", json={"labels": {"gpu": "true"}})
    async with asyncio.timeout(10):
        [claim] = await poll

    assert claim.id == submitted.id


async def test_a_stopping_broker_answers_its_long_polls_at_once(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
    await waiting(served, 1)

    served.server.should_exit = True
    async with asyncio.timeout(5):
        assert list(await poll) == []


async def test_the_pending_list_can_be_waited_for(served: Served) -> None:
    agent, _client = await served.an_agent(gpu="true")
    path = f"/api/v1/agents/{agent.name}/work/pending?wait=60"
    poll = asyncio.create_task(served.request("GET", path, key=agent.key))
    await waiting(served, 1)

    submitted = await served.admin.submit_work(submit())
    async with asyncio.timeout(10):
        status, page = await poll

    assert status == 200
    assert [each["id"] for each in page["items"]] == [str(submitted.id)]


async def test_waiting_goes_on_after_the_listening_connection_was_lost(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
    await waiting(served, 1)

    await served.broker.pool.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE '%LISTEN%'"
        " AND pid <> pg_backend_pid()"
    )
    submitted = await served.admin.submit_work(submit())
    async with asyncio.timeout(20):
        [claim] = await poll

    assert claim.id == submitted.id


async def test_an_agent_lists_what_it_could_claim_the_most_urgent_first(served: Served) -> None:
    agent, client = await served.an_agent()
    other, _ = await served.an_agent("edge-8")
    target = TargetBody(agents=[agent.name])
    later, urgent, _ = [
        await served.admin.submit_work(
            SubmitWork(
                work_type="build",
                template=a_build_template(),
                target=aim,
                priority=priority,
            )
        )
        for aim, priority in ((target, 0), (target, 5), (TargetBody(agents=[other.name]), 9))
    ]

    listed = await client.list_pending(agent.id)
    first = await client.list_pending(agent.id, limit=1)

    assert [each.id for each in listed.items] == [urgent.id, later.id]
    assert [each.id for each in first.items] == [urgent.id]


async def test_an_agent_that_has_just_registered_gets_what_waits_for_it(served: Served) -> None:
    submitted = await served.admin.submit_work(submit())

    agent, client = await served.an_agent(gpu="true")

    [claim] = await client.claim_some(agent.id, ClaimSome(wait=60))
    assert claim.id == submitted.id


async def test_work_that_is_given_back_is_there_for_who_waits(served: Served) -> None:
    _, holder = await served.an_agent("holder", gpu="true")
    agent, client = await served.an_agent("other", gpu="true")
    work_id = (await served.admin.submit_work(submit())).id

    claim = await holder.claim_work(work_id, ClaimOne())
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
    await waiting(served, 1)
    await holder.release_work(work_id, ReleaseWork(claim_id=claim.claim_id))
    async with asyncio.timeout(10):
        [given_back] = await poll
    await client.complete_work(work_id, CompleteWork(claim_id=given_back.claim_id, success=True))
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
    await waiting(served, 1)
    await served.admin.requeue_work(work_id, RequeueWork(reason="once more"))
    async with asyncio.timeout(10):
        [again] = await poll

    assert (given_back.id, given_back.round) == (work_id, 2)
    assert (again.id, again.round) == (work_id, 3)


async def test_what_a_deleted_agent_held_is_there_for_who_waits(served: Served) -> None:
    gone, holder = await served.an_agent("gone", gpu="true")
    agent, client = await served.an_agent("other", gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    await holder.claim_work(work_id, ClaimOne())
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
    await waiting(served, 1)

    await served.admin.delete_agent(gone.id)
    async with asyncio.timeout(10):
        [claim] = await poll

    assert (claim.id, claim.round) == (work_id, 2)


@pytest.mark.setting("broker.handoff_base_delay_seconds")
async def test_a_work_that_is_handed_on_is_there_for_who_waits(database_url: str) -> None:
    key = await create_admin_key(database_url)
    settings = BrokerSettings(handoff_base_delay_seconds=0)
    async with serving(settings, database_url) as app, BrokerClient(app.url, key) as admin:
        tired, fresh = [
            await admin.register_agent(RegisterAgent(name=name, labels={"gpu": "true"}))
            for name in ("tired", "fresh")
        ]
        work_id = (await admin.submit_work(submit(max_handoffs=1))).id
        async with BrokerClient(app.url, tired.key) as one, BrokerClient(app.url, fresh.key) as two:
            await two.heartbeat(fresh.id, Heartbeat(incarnation=uuid4()))
            claim = await one.claim_work(work_id, ClaimOne())
            poll = asyncio.create_task(two.claim_some(fresh.id, ClaimSome(wait=60)))
            await eventually(lambda: _is_waiting(app.parts.dispatcher))
            failed = CompleteWork(claim_id=claim.claim_id, success=False, retryable=True)
            answer = await one.complete_work(work_id, failed)
            async with asyncio.timeout(10):
                [handed_on] = await poll

    assert (answer.status, answer.handoffs) == (WorkState.PENDING, 1)
    assert (handed_on.id, handed_on.round) == (work_id, 2)


async def _is_waiting(dispatcher: Dispatcher) -> bool:
    return dispatcher.waiting > 0


# -- types that an agent cannot execute now --------------------------------------------


NO_SHIPWRIGHT = Capabilities(types=["test"], unavailable={"build": "Shipwright is not installed"})


@pytest.mark.parametrize("types", [None, ["build"]])
async def test_an_agent_gets_nothing_of_a_type_that_it_cannot_execute_now(
    served: Served, types: list[str] | None
) -> None:
    agent, client = await served.an_agent(gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    await client.heartbeat(agent.id, Heartbeat(incarnation=uuid4(), capabilities=NO_SHIPWRIGHT))

    assert list(await client.claim_some(agent.id, ClaimSome(types=types))) == []
    assert list(await client.claim_some(agent.id, ClaimSome(types=types, wait=0.3))) == []
    for query in ("", "?type=build", "?type=build&wait=0.3"):
        path = f"/api/v1/agents/{agent.id}/work/pending{query}"
        assert await served.request("GET", path, key=agent.key) == (200, {"items": []})
    with pytest.raises(WorkTypeUnavailable) as caught:
        await client.claim_work(work_id, ClaimOne())

    assert str(caught.value) == ("this agent cannot execute build now: Shipwright is not installed")
    assert (await served.admin.get_work(work_id)).status is WorkState.PENDING


@pytest.mark.parametrize("recovered", [Capabilities(types=["build"]), None])
async def test_a_parked_poll_gets_the_work_as_soon_as_its_agent_can_execute_it(
    served: Served, recovered: Capabilities | None
) -> None:
    """By the next heartbeat of its process, or by the first of one that says nothing."""
    agent, client = await served.an_agent(gpu="true")
    mine = uuid4()
    await client.heartbeat(agent.id, Heartbeat(incarnation=mine, capabilities=NO_SHIPWRIGHT))
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
    await waiting(served, 1)
    work_id = (await served.admin.submit_work(submit())).id  # wakes nobody
    await asyncio.sleep(0.3)
    assert not poll.done()

    await client.heartbeat(agent.id, Heartbeat(incarnation=mine))  # nothing new
    await asyncio.sleep(0.3)
    assert not poll.done()
    beat = Heartbeat(incarnation=mine if recovered else uuid4(), capabilities=recovered)
    await client.heartbeat(agent.id, beat)
    async with asyncio.timeout(10):
        [claim] = await poll

    assert claim.id == work_id


async def test_a_poll_that_is_parked_already_gets_nothing_that_its_agent_cannot_execute_now(
    served: Served,
) -> None:
    agent, client = await served.an_agent("unable", gpu="true")
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))
    await waiting(served, 1)
    await client.heartbeat(agent.id, Heartbeat(incarnation=uuid4(), capabilities=NO_SHIPWRIGHT))
    able, able_client = await served.an_agent("able", gpu="true")
    other = asyncio.create_task(able_client.claim_some(able.id, ClaimSome(wait=60)))
    await waiting(served, 2)

    work_id = (await served.admin.submit_work(submit())).id
    async with asyncio.timeout(10):
        [claim] = await other

    assert claim.id == work_id
    assert not poll.done()
    poll.cancel()
    await waiting(served, 0)


async def test_what_an_agent_holds_goes_on_when_it_cannot_begin_more_of_it(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    request_id = uuid4()
    claim = await client.claim_work(work_id, ClaimOne(request_id=request_id))

    beat = Heartbeat(incarnation=uuid4(), claims=[claim.claim_id], capabilities=NO_SHIPWRIGHT)
    answer = await client.heartbeat(agent.id, beat)
    again = await client.claim_work(work_id, ClaimOne(request_id=request_id))
    done = await client.complete_work(work_id, CompleteWork(claim_id=claim.claim_id, success=True))

    assert [each.claim_id for each in answer.renewed] == [again.claim_id] == [claim.claim_id]
    assert done.status is WorkState.SUCCEEDED


async def test_a_type_that_nobody_declared_unavailable_is_given_to_whoever_asks(
    served: Served,
) -> None:
    """``types`` says what an agent will ask for; only ``unavailable`` keeps Work from it."""
    agent, client = await served.an_agent(gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    other = Capabilities(types=["test"], unavailable={"scan": "no scanner"})
    await client.heartbeat(agent.id, Heartbeat(incarnation=uuid4(), capabilities=other))

    [claim] = await client.claim_some(agent.id, ClaimSome())

    assert claim.id == work_id

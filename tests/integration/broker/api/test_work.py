import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from brokkr.wire.bodies import (
    ClaimOne,
    ClaimSome,
    CompleteWork,
    ReportProgress,
    SubmitWork,
    TargetBody,
    WorkState,
)
from brokkr.work.errors import (
    ClaimLost,
    InvalidWork,
    NotPermitted,
    WorkFinished,
    WorkNotClaimable,
    WorkNotFound,
)
from support.factories import a_build_template
from support.signals import eventually

from .conftest import Served


def a_submission(**fields: Any) -> dict[str, Any]:
    return {
        "work_type": "build",
        "template": a_build_template(),
        "target": {"match_labels": {"gpu": "true"}},
        **fields,
    }


def submit(**fields: Any) -> SubmitWork:
    return SubmitWork.model_validate(a_submission(**fields))


async def test_a_work_goes_from_submit_to_the_log(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")

    submitted = await served.admin.submit_work(submit(max_retries=2))
    [claim] = await client.claim_some(agent.id, ClaimSome())
    await client.report_progress(
        submitted.id,
        ReportProgress(claim_id=claim.claim_id, phase="Running", attempt=2, message="building"),
    )
    running = await served.admin.get_work(submitted.id)
    finished = await client.complete_work(
        submitted.id,
        CompleteWork(
            claim_id=claim.claim_id, success=True, retries=1, result={"digest": "sha256:1"}
        ),
    )

    assert submitted.status is WorkState.PENDING
    assert submitted.eligible_agents == 1
    assert submitted.target == [{"match_labels": {"gpu": "true"}}]
    assert claim.broker == str(served.broker.id)
    assert claim.resource["metadata"]["name"] == f"work-{submitted.id}-r1"
    assert claim.resource["spec"]["maxRetries"] == 2
    assert running.status is WorkState.CLAIMED
    assert running.agent == "edge-7"
    assert running.progress is not None
    assert (running.progress.attempt, running.progress.message) == (2, "building")
    assert finished.status is WorkState.SUCCEEDED
    assert (await served.admin.get_work(submitted.id)).result == {"digest": "sha256:1"}


async def test_submit_says_where_the_work_is(served: Served) -> None:
    async with served.http.post(
        f"{served.url}/api/v1/work",
        json=a_submission(),
        headers={"Authorization": f"Bearer {served.admin_key}"},
    ) as response:
        body = await response.json()

    assert response.status == 201
    assert response.headers["Location"] == f"/api/v1/work/{body['id']}"


async def test_a_submission_may_be_yaml(served: Served) -> None:
    text = f"""
    work_type: build
    target: {{match_labels: {{gpu: "true"}}}}
    template: {json.dumps(a_build_template())}
    """

    status, body = await served.request(
        "POST", "/api/v1/work", data=text, headers={"Content-Type": "application/yaml"}
    )

    assert (status, body["resource"]["spec"]["template"]["kind"]) == (201, "Build")


async def test_a_template_may_be_yaml_text_of_several_documents(served: Served) -> None:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "args"}}
    text = f"{json.dumps(a_build_template())}\n---\n{json.dumps(config_map)}"

    work = await served.admin.submit_work(submit(template=text))

    assert work.resource is not None
    template = work.resource["spec"]["template"]
    assert [each["kind"] for each in template["items"]] == ["Build", "ConfigMap"]


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"work_type": "baking"}, "work_type", "known types: build"),
        ({"target": {}}, "target", "empty target"),
        ({"target": []}, "target", "at least 1"),
        ({"target": {"match_label": {"a": "b"}}}, "target.match_label", "extra inputs"),
        ({"target": {"match_labels": {"not a key": "b"}}}, "target", "not a key"),
        ({"target": [{"agents": ["a"]}, {"match_labels": {"a": "!"}}]}, "target[1]", "'!'"),
        ({"max_retries": -1}, "max_retries", "greater than or equal to 0"),
        ({"claim_timeout_seconds": 0}, "claim_timeout_seconds", "greater than"),
        ({"colour": "red"}, "colour", "extra inputs"),
        ({"template": "kind: [unclosed"}, "template", "not valid YAML"),
        (
            {"template": "kind: Build\nspec: {a: 0x" + "f" * 5000 + "}"},
            "template.spec.a",
            "64 bits",
        ),
        ({"template": 'kind: "a\\0b"'}, "template.kind", "NUL"),
        ({"template": {"apiVersion": "v1", "kind": "Secret"}}, "template.kind", "Secret"),
        (
            {"target": {"match_expressions": [{"key": "zone", "operator": "Near", "values": []}]}},
            "target.match_expressions[0].operator",
            "'In'",
        ),
    ],
)
async def test_submit_names_the_field_that_it_refuses(
    served: Served, change: dict[str, Any], field: str, words: str
) -> None:
    status, problem = await served.request("POST", "/api/v1/work", json=a_submission(**change))

    assert (status, problem["field"]) == (422, field)
    assert words in problem["detail"]


async def test_submit_names_the_field_that_is_missing(served: Served) -> None:
    body = a_submission()
    del body["target"]

    status, problem = await served.request("POST", "/api/v1/work", json=body)

    assert (status, problem["field"], problem["code"]) == (422, "target", "invalid")


async def test_a_refused_template_raises_the_same_class_at_the_client(served: Served) -> None:
    with pytest.raises(InvalidWork) as caught:
        await served.admin.submit_work(submit(template={"apiVersion": "v1", "kind": "Secret"}))

    assert caught.value.field == "template.kind"


async def test_work_is_listed_newest_first_in_pages(served: Served) -> None:
    _, client = await served.an_agent(gpu="true")
    ids = [(await served.admin.submit_work(submit())).id for _ in range(5)]
    claim = await client.claim_work(ids[2], ClaimOne())
    await client.complete_work(ids[2], CompleteWork(claim_id=claim.claim_id, success=False))

    first = await served.admin.list_work(limit=3)
    second = await served.admin.list_work(limit=3, cursor=first.next_cursor)

    assert [each.id for each in [*first.items, *second.items]] == ids[::-1]
    assert second.next_cursor is None


async def test_lists_can_be_narrowed(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")
    ids = [(await served.admin.submit_work(submit())).id for _ in range(3)]
    claim = await client.claim_work(ids[0], ClaimOne())
    await client.complete_work(ids[0], CompleteWork(claim_id=claim.claim_id, success=False))
    await client.claim_work(ids[1], ClaimOne())

    async def listed(**filters: str | int | None) -> list[Any]:
        return [each.id for each in (await served.admin.list_work(**filters)).items]

    assert await listed(status="PENDING") == [ids[2]]
    assert await listed(status="CLAIMED") == [ids[1]]
    assert await listed(outcome="failed") == [ids[0]]
    assert await listed(agent_id=str(agent.id)) == [ids[1], ids[0]]
    assert await listed(type="backup") == []
    assert await listed(since="2001-01-01T00:00:00Z") == ids[::-1]
    assert await listed(since="2199-01-01T00:00:00Z") == []


async def test_of_a_cancelled_work_the_answer_says_whether_it_is_over(served: Served) -> None:
    _, client = await served.an_agent(gpu="true")
    pending = (await served.admin.submit_work(submit())).id
    claimed = (await served.admin.submit_work(submit())).id
    await client.claim_work(claimed, ClaimOne())

    status, work = await served.request("DELETE", f"/api/v1/work/{pending}")
    assert (status, work["status"]) == (200, "CANCELLED")
    status, work = await served.request("DELETE", f"/api/v1/work/{claimed}")
    assert (status, work["status"]) == (202, "CLAIMED")
    assert work["cancel_requested_at"] is not None
    with pytest.raises(WorkFinished):
        await served.admin.cancel_work(pending)


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


async def test_an_agent_sees_what_it_holds_and_nothing_else(served: Served) -> None:
    _, holder = await served.an_agent("holder", gpu="true")
    _, other = await served.an_agent("other", gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    await holder.claim_work(work_id, ClaimOne())

    assert (await holder.get_work(work_id)).id == work_id
    with pytest.raises(WorkNotFound):
        await other.get_work(work_id)


async def test_roles_keep_to_their_own(served: Served) -> None:
    agent, client = await served.an_agent(gpu="true")
    work_id = (await served.admin.submit_work(submit())).id

    for forbidden in (
        client.submit_work(submit()),
        client.list_work(),
        client.cancel_work(work_id),
        served.admin.claim_work(work_id, ClaimOne()),
        served.admin.claim_some(agent.id, ClaimSome()),
    ):
        with pytest.raises(NotPermitted):
            await forbidden


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

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import (
    ClaimOne,
    ClaimSome,
    CompleteWork,
    ReleaseWork,
    ReportProgress,
    RequeueWork,
    SubmitBatch,
    SubmitWork,
    WorkState,
)
from brokkr.work.errors import (
    ClaimLost,
    InvalidWork,
    NotPermitted,
    WorkFinished,
    WorkNotFinished,
    WorkNotFound,
    WorkNotHeld,
)
from support.broker import serving
from support.factories import a_build_template

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
        ReportProgress(
            claim_id=claim.claim_id, phase="Running", attempt=2, step="build", message="building"
        ),
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
    told = (running.progress.attempt, running.progress.step, running.progress.message)
    assert told == (2, "build", "building")
    [event] = [
        each
        for each in (await served.admin.list_events(submitted.id)).items
        if each.kind == "progress"
    ]
    assert event.detail["step"] == "build"
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


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"priority": 101}, "priority"),
        ({"priority": -101}, "priority"),
        ({"not_before": "2030-01-01T00:00:00"}, "not_before"),
        ({"start_within_seconds": 0}, "start_within_seconds"),
        ({"max_handoffs": -1}, "max_handoffs"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"target": {"agents": ["Edge 7"]}}, "target.agents"),
        ({"target": {"agents": [str(uuid4()).upper()]}}, "target.agents"),
        ({"target": {"match_labels": {"k" * 64: "v"}}}, "target"),
        ({"target": {"match_labels": {"x" * 254 + "/k": "v"}}}, "target"),
        ({"target": {"match_labels": {"Example.com/k": "v"}}}, "target"),
        ({"target": {"match_labels": {"k": "v" * 64}}}, "target.match_labels.k"),
        ({"target": [{"agents": ["a"]}, {}]}, "target[1]"),
        ({"labels": {"k": "-v"}}, "labels.k"),
    ],
)
async def test_numbers_times_and_labels_have_their_bounds(
    served: Served, change: dict[str, Any], field: str
) -> None:
    status, problem = await served.request("POST", "/api/v1/work", json=a_submission(**change))

    assert (status, problem["field"]) == (422, field)


async def test_what_is_just_within_its_bounds_is_accepted(served: Served) -> None:
    prefix = ".".join(["x" * 63] * 3 + ["y" * 61])
    work = await served.admin.submit_work(
        submit(
            priority=-100,
            not_before="2030-01-01T00:00:00+02:00",
            start_within_seconds=1,
            target={
                "agents": ["edge-7", str(uuid4())],
                "match_labels": {f"{prefix}/{'k' * 63}": "v" * 63},
                "match_expressions": [{"key": "empty", "operator": "In", "values": [""]}],
            },
        )
    )

    assert len(prefix) == 253
    assert (work.priority, work.eligible_agents) == (-100, 0)
    assert work.not_before is not None
    assert work.start_deadline is not None
    assert work.not_before.isoformat() == "2029-12-31T22:00:00+00:00"
    assert (work.start_deadline - work.not_before).total_seconds() == 1


# -- idempotency keys ------------------------------------------------------------------


async def submit_with_key(
    served: Served, header: str | None, **fields: Any
) -> tuple[int, dict[str, Any]]:
    headers = {} if header is None else {"Idempotency-Key": header}
    return await served.request(
        "POST", "/api/v1/work", json=a_submission(**fields), headers=headers
    )


async def test_a_repeated_submission_gets_the_first_work_with_200(served: Served) -> None:
    first_status, first = await submit_with_key(served, "k")

    for header, fields in (
        ("k", {}),
        (None, {"idempotency_key": "k"}),
        ("k", {"idempotency_key": "k"}),
    ):
        status, again = await submit_with_key(served, header, **fields)
        assert (status, again["id"]) == (200, first["id"])
    assert first_status == 201
    assert len((await served.admin.list_work()).items) == 1


async def test_a_key_that_was_used_for_another_body_is_a_conflict(served: Served) -> None:
    await submit_with_key(served, "k")

    status, problem = await submit_with_key(served, "k", priority=1)

    assert (status, problem["code"]) == (409, "idempotency_key_reused")


async def test_two_different_keys_in_one_request_are_refused(served: Served) -> None:
    status, problem = await submit_with_key(served, "k", idempotency_key="other")

    assert (status, problem["field"]) == (422, "idempotency_key")


async def test_a_repeat_is_told_what_has_become_of_the_work(served: Served) -> None:
    _, first = await submit_with_key(served, "k")
    await served.admin.cancel_work(UUID(first["id"]))

    status, again = await submit_with_key(served, "k")

    assert (status, again["id"], again["status"]) == (200, first["id"], "CANCELLED")


async def test_simultaneous_repeats_make_one_work(served: Served) -> None:
    answers = await asyncio.gather(*(submit_with_key(served, "k") for _ in range(8)))

    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert len({work["id"] for _, work in answers}) == 1


# -- several submissions in one request ------------------------------------------------


async def test_each_submission_of_a_request_is_answered_by_itself_and_in_order(
    served: Served,
) -> None:
    agent, client = await served.an_agent(gpu="true")
    known = await served.admin.submit_work(submit(idempotency_key="known"))

    answers = await served.admin.submit_some(
        SubmitBatch(
            items=[
                a_submission(labels={"n": "0"}),
                a_submission(priority=1000),
                a_submission(idempotency_key="known"),
                a_submission(idempotency_key="known", priority=1),
                a_submission(template={"apiVersion": "v1", "kind": "Secret"}),
                a_submission(template="kind: [unclosed"),
                {},
                a_submission(labels={"n": "7"}),
                a_submission(target={"match_expressions": [{"key": "k", "operator": "Near"}]}),
            ]
        )
    )

    assert [each.status for each in answers] == [201, 422, 200, 409, 422, 422, 422, 201, 422]
    works = [each.work for each in answers if each.work is not None]
    assert [each.labels.get("n") for each in works] == ["0", None, "7"]
    assert works[1].id == known.id
    problems = [each.problem for each in answers if each.problem is not None]
    assert [(each["status"], each["code"], each.get("field")) for each in problems] == [
        (422, "invalid", "items[1].priority"),
        (409, "idempotency_key_reused", None),
        (422, "invalid_work", "items[4].template.kind"),
        (422, "invalid_work", "items[5].template"),
        (422, "invalid", "items[6].work_type"),
        (422, "invalid", "items[8].target.match_expressions[0].operator"),
    ]
    pending = [each.id for each in (await client.list_pending(agent.id)).items]
    assert pending == [known.id, works[0].id, works[2].id]
    assert [each.resource for each in works] == [None, None, None]  # who asks knows it


@pytest.mark.parametrize("number", [0, 101])
async def test_a_request_holds_one_to_a_hundred_submissions(served: Served, number: int) -> None:
    status, problem = await served.request(
        "POST", "/api/v1/work/batch", json={"items": [{}] * number}
    )

    assert (status, problem["field"]) == (422, "items")


async def test_a_request_of_which_nothing_is_good_is_answered_all_the_same(served: Served) -> None:
    answers = await served.admin.submit_some(SubmitBatch(items=[{}, {}]))

    assert [each.status for each in answers] == [422, 422]


# -- what operators do -----------------------------------------------------------------


async def test_an_operator_takes_a_work_from_its_holder(served: Served) -> None:
    _, client = await served.an_agent(gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    with pytest.raises(WorkNotHeld):
        await served.admin.release_work(work_id, ReleaseWork())
    first = await client.claim_work(work_id, ClaimOne())

    released = await served.admin.release_work(work_id, ReleaseWork(reason="node is broken"))

    assert (released.status, released.lost_claims) == (WorkState.PENDING, 0)
    second = await client.claim_work(work_id, ClaimOne())
    with pytest.raises(ClaimLost):
        await served.admin.release_work(work_id, ReleaseWork(claim_id=first.claim_id))
    await served.admin.release_work(work_id, ReleaseWork(claim_id=second.claim_id))
    await served.admin.cancel_work(work_id)
    with pytest.raises(WorkFinished):
        await served.admin.release_work(work_id, ReleaseWork())
    with pytest.raises(WorkNotFound):
        await served.admin.release_work(uuid4(), ReleaseWork())


async def test_an_operator_queues_a_finished_work_again(served: Served) -> None:
    _, client = await served.an_agent(gpu="true")
    work_id = (await served.admin.submit_work(submit())).id
    with pytest.raises(WorkNotFinished):
        await served.admin.requeue_work(work_id, RequeueWork())
    claim = await client.claim_work(work_id, ClaimOne())
    await client.complete_work(work_id, CompleteWork(claim_id=claim.claim_id, success=False))

    work = await served.admin.requeue_work(work_id, RequeueWork(reason="fixed the network"))

    assert (work.id, work.status, work.round) == (work_id, WorkState.PENDING, 1)
    assert work.requeued_at is not None
    assert (await client.claim_work(work_id, ClaimOne())).round == 2
    with pytest.raises(WorkNotFound):
        await served.admin.requeue_work(uuid4(), RequeueWork())


# -- configured work types -------------------------------------------------------------


@pytest.mark.setting("broker.work_types")
async def test_a_broker_takes_the_types_that_it_is_configured_for(database_url: str) -> None:
    settings = BrokerSettings(work_types={"job": ["batch/v1 Job"]})
    key = await create_admin_key(database_url)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {}}
    good = a_submission(work_type="job", template=job)
    wrong = a_submission(work_type="job")
    unknown = a_submission(work_type="jbo")

    async with serving(settings, database_url) as app, BrokerClient(app.url, key) as admin:
        assert (await admin.submit_work(SubmitWork.model_validate(good))).work_type == "job"
        assert (await admin.submit_work(submit())).work_type == "build"
        with pytest.raises(InvalidWork, match=r"'Build'.* is not allowed here; allowed: Job"):
            await admin.submit_work(SubmitWork.model_validate(wrong))
        with pytest.raises(InvalidWork, match="'jbo' is not known; known types: build, job"):
            await admin.submit_work(SubmitWork.model_validate(unknown))
        answers = await admin.submit_some(SubmitBatch(items=[good, wrong, unknown]))

    assert [each.status for each in answers] == [201, 422, 422]


async def test_a_broker_that_is_not_configured_for_a_type_says_which_it_knows(
    served: Served,
) -> None:
    status, problem = await served.request(
        "POST", "/api/v1/work", json=a_submission(work_type="job")
    )

    assert (status, problem["field"]) == (422, "work_type")
    assert problem["detail"].endswith("'job' is not known; known types: build")


TOKEN = "glpat-q7Zk2Xw9Rt4Vb6Nm1Hs8"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"labels": {"note": TOKEN}}, "labels.note"),
        ({"target": {"match_labels": {"zone": TOKEN}}}, "target"),
        ({"target": {"match_annotations": {"zone": TOKEN}}}, "target"),
        (
            {"template": a_build_template(env=[{"name": "X", "value": TOKEN}])},
            "template.spec.env[0].value",
        ),
        (
            {"template": a_build_template(env=[{"name": "X_PASSWORD", "value": "q7Zk2Xw9Rt4V"}])},
            "template.spec.env[0]",
        ),
        # Wrong for another reason, and repeated there.
        ({"work_type": TOKEN}, "work_type"),
        ({"target": {"agents": [TOKEN.upper() + TOKEN]}}, "target.agents"),
    ],
)
async def test_a_credential_in_a_submission_is_refused_and_not_repeated(
    served: Served, change: dict[str, Any], field: str
) -> None:
    body = a_submission(**change)

    answers = [
        await served.request("POST", "/api/v1/work", json=body),
        await served.request("POST", "/api/v1/work/batch", json={"items": [body]}),
    ]

    assert [answers[0][0], answers[0][1]["field"]] == [422, field]
    assert answers[1][1]["items"][0]["status"] == 422
    assert "q7Zk2Xw9" not in str(answers)

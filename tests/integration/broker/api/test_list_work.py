"""Which Work is listed, for whom, and how wrong filters are answered."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimOne, CompleteWork, SubmitWork, TargetBody
from brokkr.wire.tenants import CreatedGenerator, CreateGenerator
from support.factories import a_build_template

from .conftest import Served


async def submit(client: BrokerClient, **fields: Any) -> UUID:
    target = TargetBody(match_labels={"any": "yes"})
    body = SubmitWork(work_type="build", template=a_build_template(), target=target, **fields)
    return (await client.submit_work(body)).id


async def a_generator(served: Served, name: str) -> tuple[CreatedGenerator, BrokerClient]:
    created = await served.admin.create_generator(CreateGenerator(name=name))
    return created, await served.client(created.key)


async def listed(served: Served, query: str, key: str = "") -> list[UUID]:
    status, page = await served.request("GET", f"/api/v1/work?{query}", key=key)
    assert (status, page.get("detail")) == (200, None)
    return [UUID(item["id"]) for item in page["items"]]


async def test_labels_are_asked_for_as_key_equals_value_and_all_must_hold(served: Served) -> None:
    both = await submit(served.admin, labels={"team": "ml", "brokkr.io/app": "a"})
    one = await submit(served.admin, labels={"team": "ml"})
    await submit(served.admin)

    assert await listed(served, "label=team=ml") == [one, both]
    assert await listed(served, "label=team=ml&label=brokkr.io/app=a") == [both]
    assert await listed(served, "label=team=ml&label=brokkr.io/app=b") == []
    assert await listed(served, "label=team=ml&status=PENDING&limit=1") == [one]


@pytest.mark.parametrize(
    "query", ["label=team", "label==ml", "label=a%20b=c", "label=a=b&label=a=c", "label=a=b=c"]
)
async def test_a_label_that_no_work_could_have_is_refused(served: Served, query: str) -> None:
    status, problem = await served.request("GET", f"/api/v1/work?{query}")

    assert (status, problem["field"]) == (422, "label")


async def test_a_generator_is_asked_for_by_name_or_id_also_after_its_end(served: Served) -> None:
    generator, client = await a_generator(served, "ci")
    work_id = await submit(client)
    await submit(served.admin)

    assert await listed(served, "generator=ci") == [work_id]
    await served.admin.delete_generator("ci")
    assert await listed(served, f"generator={generator.id}") == [work_id]
    assert await listed(served, f"generator={uuid4()}") == []
    status, problem = await served.request("GET", "/api/v1/work?generator=ci")
    assert (status, problem["code"]) == (404, "generator_not_found")


async def test_a_generator_lists_its_own_whatever_it_asks_for(served: Served) -> None:
    generator, client = await a_generator(served, "ci")
    other, others_client = await a_generator(served, "other")
    own = await submit(client, labels={"team": "ml"})
    await submit(others_client, labels={"team": "ml"})
    await submit(served.admin, labels={"team": "ml"})

    for query in ("", "label=team=ml", "generator=ci", f"generator={generator.id}"):
        assert await listed(served, query, key=generator.key) == [own]
    for foreign in ("other", other.id):
        path = f"/api/v1/work?generator={foreign}"
        status, _ = await served.request("GET", path, key=generator.key)
        assert status == 404


async def test_outcome_agent_and_time_are_asked_for(served: Served) -> None:
    agent, client = await served.an_agent(any="yes")
    failed, held = [await submit(served.admin) for _ in range(2)]
    await submit(served.admin)
    claim = await client.claim_work(failed, ClaimOne())
    await client.complete_work(failed, CompleteWork(claim_id=claim.claim_id, success=False))
    await client.claim_work(held, ClaimOne())

    assert await listed(served, "outcome=failed") == [failed]
    assert await listed(served, "outcome=succeeded") == []
    assert await listed(served, f"agent_id={agent.id}") == [held, failed]
    assert await listed(served, "status=CLAIMED&status=FAILED") == [held, failed]
    assert await listed(served, "since=2100-01-01T00:00:00Z") == []


async def test_the_cursor_of_a_page_leads_to_the_next_with_the_same_filters(
    served: Served,
) -> None:
    wanted = [await submit(served.admin, labels={"team": "ml"}) for _ in range(3)]
    await submit(served.admin)

    first = await served.admin.list_work(label="team=ml", limit=2)
    rest = await served.admin.list_work(label="team=ml", limit=2, cursor=first.next_cursor)

    assert [each.id for each in (*first.items, *rest.items)] == wanted[::-1]
    assert rest.next_cursor is None

import asyncio
from typing import Any

import pytest

from brokkr.broker.db import agents, submissions
from brokkr.broker.db.pool import transaction
from brokkr.broker.db.submissions import Submitted, Submitter
from brokkr.wire.bodies import RelabelAgent, TargetBody, WorkState
from support.queue import Queue, a_submission
from support.signals import eventually


@pytest.mark.parametrize(
    ("target", "selected"),
    [
        ({"agents": ["a"]}, {"a"}),
        ({"match_labels": {"gpu": "true"}}, {"a", "b"}),
        ({"agents": ["a", "c"], "match_labels": {"gpu": "true"}}, {"a"}),
        ({"match_expressions": [{"key": "zone", "operator": "In", "values": ["1"]}]}, {"a"}),
        (
            {"match_expressions": [{"key": "zone", "operator": "NotIn", "values": ["1"]}]},
            {"b", "c"},
        ),
        ({"match_expressions": [{"key": "gpu", "operator": "DoesNotExist"}]}, {"c"}),
        ([{"agents": ["a"]}, {"agents": ["c"]}], {"a", "c"}),
        ([{"agents": ["a"]}, {"match_labels": {"zone": "2"}}], {"a", "b"}),
        ({"match_labels": {"gpu": "never"}}, set()),
    ],
)
async def test_work_is_for_the_agents_that_its_target_selects(
    queue: Queue, target: Any, selected: set[str]
) -> None:
    everybody = [
        await queue.an_agent("a", gpu="true", zone="1"),
        await queue.an_agent("b", gpu="true", zone="2"),
        await queue.an_agent("c"),
    ]
    work_id = await queue.submit(target)

    assert {each.name for each in everybody if await queue.pending(each)} == selected
    assert await queue.targets(work_id) == selected
    assert (await queue.look(work_id)).eligible_agents == len(selected)


async def test_an_agent_that_comes_later_gets_the_work_that_waits(queue: Queue) -> None:
    work_id = await queue.submit({"match_labels": {"gpu": "true"}})

    agent = await queue.an_agent(gpu="true")

    assert [each.id for each in await queue.pending(agent)] == [work_id]


async def test_a_relabelled_agent_gains_and_loses_pending_work(queue: Queue) -> None:
    agent = await queue.an_agent(zone="1")
    one = await queue.submit({"match_labels": {"zone": "1"}})
    two = await queue.submit({"match_labels": {"zone": "2"}})
    assert [each.id for each in await queue.pending(agent)] == [one]

    await queue.relabel(agent, zone="2")

    assert [each.id for each in await queue.pending(agent)] == [two]
    assert await queue.claim_some(agent, limit=5) != []
    assert (await queue.look(one)).status is WorkState.PENDING


async def test_a_relabelled_agent_keeps_what_it_holds(queue: Queue) -> None:
    agent = await queue.an_agent(zone="1")
    claim = await queue.claim(await queue.submit({"match_labels": {"zone": "1"}}), by=agent)

    await queue.relabel(agent, zone=None)

    assert len(await queue.renew(claim, by=agent)) == 1
    assert (await queue.complete(claim, by=agent)).status is WorkState.SUCCEEDED


async def test_a_deleted_agent_is_no_target_any_more(queue: Queue) -> None:
    agent = await queue.an_agent()
    work_id = await queue.submit()

    await queue.delete_agent(agent)

    assert (await queue.look(work_id)).eligible_agents == 0


async def test_targets_that_mean_the_same_are_one_selector(queue: Queue) -> None:
    expressions = [
        {"key": "a", "operator": "In", "values": ["1", "2"]},
        {"key": "b", "operator": "Exists"},
    ]
    await queue.submit({"agents": ["x", "y"], "match_expressions": expressions})
    await queue.submit({"agents": ["y", "x", "y"], "match_expressions": expressions[::-1]})
    await queue.submit([{"agents": ["x", "y"], "match_expressions": expressions}])

    assert await queue.pool.fetchval("SELECT count(*) FROM selectors") == 1


async def test_a_stored_selector_means_what_was_submitted(queue: Queue) -> None:
    target = {
        "agents": ["x"],
        "match_labels": {"gpu": "true"},
        "match_expressions": [{"key": "a", "operator": "Exists", "values": []}],
        "match_annotations": {"team": "ml"},
    }

    work = await queue.look(await queue.submit(target))

    assert [TargetBody.model_validate(each) for each in work.target] == [
        TargetBody.model_validate(target)
    ]


async def test_new_selectors_and_relabelled_agents_always_find_each_other(queue: Queue) -> None:
    everybody = [await queue.an_agent(f"a{number}") for number in range(4)]
    for number in range(12):
        label = {f"round-{number}": "x"}

        work_id, *_ = await asyncio.gather(
            queue.submit({"match_labels": label}),
            *(queue.relabel(agent, **label) for agent in everybody),
        )

        assert work_id is not None
        assert (await queue.look(work_id)).eligible_agents == len(everybody)


async def test_submissions_with_the_same_new_target_share_one_selector(queue: Queue) -> None:
    await queue.an_agent()

    ids = await asyncio.gather(*(queue.submit() for _ in range(10)))

    assert await queue.pool.fetchval("SELECT count(*) FROM selectors") == 1
    assert {(await queue.look(each)).eligible_agents for each in ids} == {1}


async def test_annotations_are_compared_as_a_whole(queue: Queue) -> None:
    team = {"team": "ml; on call: +41"}
    await queue.an_agent("a", annotations=team)
    await queue.an_agent("b", annotations={"team": "ml"})
    await queue.an_agent("c", team="ml")

    assert await queue.targets(await queue.submit({"match_annotations": team})) == {"a"}
    assert await queue.targets(await queue.submit({"match_annotations": {"team": "ml"}})) == {"b"}


async def test_an_agent_is_named_by_its_name_or_by_its_id(queue: Queue) -> None:
    one, other = await queue.an_agent("a"), await queue.an_agent("b")
    await queue.an_agent("c")

    work_id = await queue.submit({"agents": [str(one.id), other.name]})

    assert await queue.targets(work_id) == {"a", "b"}


async def test_a_name_that_is_free_again_means_the_agent_that_has_it_now(queue: Queue) -> None:
    first = await queue.an_agent("edge-7")
    by_name = await queue.submit({"agents": ["edge-7"]})
    by_id = await queue.submit({"agents": [str(first.id)]})
    await queue.delete_agent(first)

    second = await queue.an_agent("edge-7")

    assert [each.id for each in await queue.pending(second)] == [by_name]
    assert await queue.targets(by_id) == set()


async def test_the_agents_of_a_work_can_be_asked_for_after_its_end(queue: Queue) -> None:
    agent = await queue.an_agent("a", zone="1")
    await queue.an_agent("b", zone="2")
    work_id = await queue.submit({"match_labels": {"zone": "1"}})
    await queue.complete(await queue.claim(work_id, by=agent), by=agent)

    assert await queue.targets(work_id) == {"a"}
    columns = await queue.pool.fetch(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_name = 'work_targets' ORDER BY column_name"
    )
    assert [tuple(row) for row in columns] == [("agent_id", "uuid"), ("work_id", "uuid")]


async def test_agents_gain_and_lose_work_without_a_write_to_it(queue: Queue) -> None:
    agent = await queue.an_agent("a", zone="1")
    works = [
        await queue.submit({"match_labels": {"zone": zone}}) for zone in ("1", "2") for _ in "ab"
    ]
    versions = "SELECT id, xmin::text, ctid::text FROM work_queue ORDER BY id"
    before = await queue.pool.fetch(versions)

    await queue.relabel(agent, zone="2")
    other = await queue.an_agent("b", zone="1")
    await queue.drain(other)
    await queue.drain(other, is_drained=False)
    await queue.delete_agent(agent)

    assert await queue.pool.fetch(versions) == before
    assert [each.id for each in await queue.pending(other)] == works[:2]
    assert [await queue.targets(each) for each in works] == [{"b"}, {"b"}, set(), set()]


async def test_a_submission_waits_for_an_agent_that_is_being_relabelled(queue: Queue) -> None:
    agent = await queue.an_agent("a")

    async with transaction(queue.pool) as db:
        labels = RelabelAgent(labels={"gpu": "true"})
        await agents.relabel_agent(db, agent.name, labels)
        submission = asyncio.create_task(queue.submit({"match_labels": {"gpu": "true"}}))
        await eventually(queue.somebody_waits)

    assert await queue.targets(await submission) == {"a"}


async def test_a_registration_waits_for_a_target_that_is_being_stored(queue: Queue) -> None:
    template = a_submission({"match_labels": {"gpu": "true"}})

    async with transaction(queue.pool) as db:
        [submitted] = await submissions.submit_work(
            db, [template], by=Submitter(actor="admin:test")
        )
        registration = asyncio.create_task(queue.an_agent("a", gpu="true"))
        await eventually(queue.somebody_waits)
    await registration

    assert isinstance(submitted, Submitted)
    assert await queue.targets(submitted.work_id) == {"a"}


async def test_an_agent_that_is_relabelled_takes_nobody_else_out_of_a_lane(queue: Queue) -> None:
    relabelled, other = await queue.an_agent(), await queue.an_agent(gpu="true")
    work_id = await queue.submit({"match_labels": {"gpu": "true"}})

    await queue.relabel(relabelled, colour="red")

    assert [each.id for each in await queue.pending(other)] == [work_id]

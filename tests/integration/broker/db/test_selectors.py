import asyncio
from typing import Any

import pytest

from brokkr.wire.bodies import TargetBody, WorkState
from support.queue import Queue


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
        ({"match_labels": {"gpu": "never"}}, set()),
    ],
)
async def test_work_is_for_the_agents_that_its_target_selects(
    queue: Queue, target: Any, selected: set[str]
) -> None:
    agents = [
        await queue.an_agent("a", gpu="true", zone="1"),
        await queue.an_agent("b", gpu="true", zone="2"),
        await queue.an_agent("c"),
    ]
    work_id = await queue.submit(target)

    found = {each.name for each in agents if await queue.pending(each)}
    rows = await queue.pool.fetch("SELECT agent_id FROM work_targets WHERE work_id = $1", work_id)
    assert found == selected
    assert {row["agent_id"] for row in rows} == {
        each.id for each in agents if each.name in selected
    }
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


async def test_the_cancelled_work_of_a_deleted_agent_is_over(queue: Queue) -> None:
    agent = await queue.an_agent()
    cancelled, kept = await queue.submit(), await queue.submit()
    await queue.claim_some(agent, limit=2)
    await queue.cancel(cancelled)

    await queue.delete_agent(agent)

    assert (await queue.look(cancelled)).status is WorkState.CANCELLED
    assert (await queue.look(kept)).status is WorkState.PENDING
    assert await queue.history(kept) == ["released"]


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
    agents = [await queue.an_agent(f"a{number}") for number in range(4)]
    for number in range(12):
        label = {f"round-{number}": "x"}

        work_id, *_ = await asyncio.gather(
            queue.submit({"match_labels": label}),
            *(queue.relabel(agent, **label) for agent in agents),
        )

        assert work_id is not None
        assert (await queue.look(work_id)).eligible_agents == len(agents)


async def test_submissions_with_the_same_new_target_share_one_selector(queue: Queue) -> None:
    await queue.an_agent()

    ids = await asyncio.gather(*(queue.submit() for _ in range(10)))

    assert await queue.pool.fetchval("SELECT count(*) FROM selectors") == 1
    assert {(await queue.look(each)).eligible_agents for each in ids} == {1}

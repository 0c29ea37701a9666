from uuid import UUID

import pytest
from structlog.testing import capture_logs

from brokkr.broker.db import memberships
from brokkr.broker.db.pool import transaction
from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.maintenance import selectors
from brokkr.broker.maintenance.selectors import SelectorRepair
from brokkr.broker.metrics import Metrics
from brokkr.wire.bodies import AgentBody
from brokkr.work.selectors import selects
from support.dispatch import WITHIN, a_replica
from support.queue import Queue


def a_repair(queue: Queue, dispatcher: Dispatcher | None = None) -> SelectorRepair:
    return SelectorRepair(pool=queue.pool, dispatcher=dispatcher or Dispatcher(), metrics=Metrics())


async def lose_lanes(queue: Queue, agent: AgentBody) -> None:
    """Damage what is stored, as no statement of the broker does."""
    await queue.pool.execute("DELETE FROM agent_selectors WHERE agent_id = $1", agent.id)


async def test_an_agent_that_is_missing_in_a_lane_is_put_into_it(queue: Queue) -> None:
    agent, other = [await queue.an_agent() for _ in range(2)]
    work_id = await queue.submit()
    await lose_lanes(queue, agent)
    assert await queue.pending(agent) == []
    repair = a_repair(queue)

    with capture_logs() as logs:
        await repair()

    assert [each.id for each in await queue.pending(agent)] == [work_id]
    assert [each.id for each in await queue.pending(other)] == [work_id]
    assert b"brokkr_broker_repaired_agents_total 1.0" in repair.metrics.render()
    assert [(each["event"], each["agent_id"]) for each in logs] == [
        ("agent put into its lanes", str(agent.id))
    ]


async def test_an_agent_that_is_in_a_foreign_lane_is_taken_out_of_it(queue: Queue) -> None:
    agent = await queue.an_agent()
    await queue.submit({"agents": ["somebody-else"]})
    await queue.pool.execute(
        "INSERT INTO agent_selectors (agent_id, selector_id) SELECT $1, id FROM selectors", agent.id
    )
    assert len(await queue.pending(agent)) == 1

    await a_repair(queue)()

    assert await queue.pending(agent) == []


async def test_what_is_right_is_left_alone(queue: Queue) -> None:
    agents = [await queue.an_agent() for _ in range(3)]
    await queue.submit()
    await queue.submit({"agents": ["agent-of-nobody"]})
    await queue.drain(agents[0])
    await queue.delete_agent(agents[1])
    repair = a_repair(queue)

    await repair()

    assert b"brokkr_broker_repaired_agents_total 0.0" in repair.metrics.render()


async def test_a_repaired_agent_that_waits_is_woken(queue: Queue, database_url: str) -> None:
    agent = await queue.an_agent()
    await queue.submit()
    await lose_lanes(queue, agent)
    await queue.submit({"agents": [agent.name]})

    async with a_replica(database_url) as replica:
        waiter = await replica.parked(agent)
        await a_repair(queue, dispatcher=replica.dispatcher)()

        assert await waiter.is_woken(within=WITHIN)


async def test_slice_by_slice_everybody_is_looked_at_and_then_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "_AGENTS", 2)
    monkeypatch.setattr(selectors, "_SELECTORS", 3)
    agents = [await queue.an_agent() for _ in range(5)]
    for number in range(7):
        await queue.submit({"match_labels": {"any": "yes"}, "match_annotations": {}})
        await queue.submit({"agents": [f"agent-{number}", agents[0].name]})
    repair = a_repair(queue)

    for _ in range(2):
        for agent in agents:
            await lose_lanes(queue, agent)
        for _ in range(3 * 4):
            await repair()
        assert await stored(queue) == await wanted(queue)


async def test_what_is_too_much_for_one_run_is_left_for_the_next(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "_REPAIRS", 2)
    agents = [await queue.an_agent() for _ in range(3)]
    await queue.submit()
    for agent in agents:
        await lose_lanes(queue, agent)
    repair = a_repair(queue)

    await repair()
    assert len(await stored(queue)) == 2
    await repair()

    assert len(await stored(queue)) == 3


async def stored(queue: Queue) -> set[tuple[UUID, int]]:
    rows = await queue.pool.fetch("SELECT agent_id, selector_id FROM agent_selectors")
    return {(row["agent_id"], row["selector_id"]) for row in rows}


async def wanted(queue: Queue) -> set[tuple[UUID, int]]:
    """Evaluate every target for every agent."""
    async with transaction(queue.pool) as db:
        everything = await memberships.read_slice(
            db, agents_after=UUID(int=0), agents=1000, selectors_after=0, selectors=1000
        )
    return {
        (agent.id, selector)
        for agent in everything.agents
        for selector, targets in everything.selectors.items()
        if selects(targets, agent)
    }


async def test_who_has_tried_it_may_again_when_nobody_else_is_heard_of(queue: Queue) -> None:
    tired, fresh = [await queue.an_agent() for _ in range(2)]
    for each in (tired, fresh):
        await queue.touch(each)
    work_id = await queue.submit(max_handoffs=1)
    claim = await queue.claim(work_id, by=tired)
    await queue.complete(claim, tired, success=False, retryable=True)
    await queue.move_due()
    assert await queue.pending(tired) == []
    repair = a_repair(queue)

    await repair()
    assert await queue.pending(tired) == []
    await queue.pool.execute(
        "UPDATE agents SET last_seen_at = now() - interval '1 hour' WHERE id = $1", fresh.id
    )
    await repair()

    assert [each.id for each in await queue.pending(tired)] == [work_id]


async def test_who_has_tried_it_may_again_while_nobody_else_can_execute_the_type(
    queue: Queue,
) -> None:
    tired, fresh = [await queue.an_agent() for _ in range(2)]
    for each in (tired, fresh):
        await queue.touch(each)
    work_id = await queue.submit(max_handoffs=1)
    claim = await queue.claim(work_id, by=tired)
    await queue.complete(claim, tired, success=False, retryable=True)
    await queue.move_due()
    repair = a_repair(queue)

    await queue.declare(fresh, build="no disk")
    await repair()
    assert [each.id for each in await queue.pending(tired)] == [work_id]
    await queue.declare(fresh)
    await repair()

    assert await queue.pending(tired) == []
    assert [each.id for each in await queue.pending(fresh)] == [work_id]

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID, uuid4

from brokkr.broker.waiting import Lanes, Waiter

LANE, OTHER = 7, 8
BUILDS: Mapping[int, str] = {LANE: "build"}


def a_waiter(
    lanes: Lanes,
    *,
    of: UUID | None = None,
    types: Sequence[str] | None = None,
    mine: Mapping[int, str] = BUILDS,
) -> Waiter:
    """A parked waiter of an agent with these lanes."""
    waiter = Waiter(of or uuid4(), types, lanes)
    lanes.add(waiter)
    for selector_id, work_type in mine.items():
        lanes.add_lane(selector_id, work_type, [waiter.agent_id])
    return waiter


async def test_who_has_waited_longest_is_woken_first_and_each_once() -> None:
    lanes = Lanes()
    first, second = a_waiter(lanes), a_waiter(lanes)

    woken = [lanes.wake(LANE), first.is_roused, second.is_roused]
    assert woken == [True, True, False]
    assert lanes.wake(LANE)
    assert second.is_roused
    assert not lanes.wake(LANE)


async def test_who_has_looked_in_vain_waits_at_the_end() -> None:
    lanes = Lanes()
    first, second = a_waiter(lanes), a_waiter(lanes)
    lanes.wake(LANE)
    assert await first.is_woken(within=1)

    lanes.wake(LANE)

    assert second.is_roused
    assert not first.is_roused


async def test_a_waiter_waits_in_all_its_lanes_and_leaves_all_of_them_with_its_wake() -> None:
    lanes = Lanes()
    waiter = a_waiter(lanes, mine={LANE: "build", OTHER: "build"})

    assert lanes.wake(OTHER)
    assert not lanes.wake(LANE)
    assert await waiter.is_woken(within=1)
    assert lanes.wake(LANE)


async def test_a_waiter_waits_only_for_the_types_it_wants() -> None:
    lanes = Lanes()
    a_waiter(lanes, types=["backup"])

    assert not lanes.wake(LANE)
    a_waiter(lanes, types=["backup", "build"])
    assert lanes.wake(LANE)


async def test_several_polls_of_one_agent_are_woken_one_by_one() -> None:
    lanes = Lanes()
    agent_id = uuid4()
    polls = [a_waiter(lanes, of=agent_id) for _ in range(2)]

    lanes.wake(LANE)

    assert [each.is_roused for each in polls] == [True, False]


async def test_what_is_announced_while_a_waiter_looks_wakes_it_again() -> None:
    lanes = Lanes()
    waiter = a_waiter(lanes)
    lanes.wake(LANE)
    assert await waiter.is_woken(within=1)

    assert lanes.wake(LANE)

    assert await waiter.is_woken(within=1)
    assert not await waiter.is_woken(within=0.01)


async def test_a_look_in_vain_is_the_end_of_its_wake() -> None:
    lanes = Lanes()
    waiter = a_waiter(lanes)
    lanes.wake(LANE)

    assert waiter.unheeded == [LANE]
    assert await waiter.is_woken(within=1)
    assert waiter.unheeded == [LANE]
    assert not await waiter.is_woken(within=0.01)
    assert waiter.unheeded == []


async def test_work_of_another_lane_leaves_the_wake_to_others() -> None:
    lanes = Lanes()
    waiter = a_waiter(lanes, mine={LANE: "build", OTHER: "build"})
    lanes.wake(LANE)
    await waiter.is_woken(within=1)

    waiter.heeded([OTHER])
    assert waiter.unheeded == [LANE]
    waiter.heeded([OTHER, LANE])
    assert waiter.unheeded == []


async def test_who_leaves_is_not_woken_any_more() -> None:
    lanes = Lanes()
    waiter = a_waiter(lanes)
    waits = asyncio.create_task(waiter.is_woken(within=60))
    await asyncio.sleep(0)

    waiter.leave()

    assert not await asyncio.wait_for(waits, 1)
    lanes.remove(waiter)
    assert not lanes.wake(LANE)
    assert len(lanes) == 0


async def test_the_lanes_of_an_agent_are_kept_for_its_next_poll() -> None:
    lanes = Lanes()
    agent_id = uuid4()
    lanes.remove(a_waiter(lanes, of=agent_id))

    assert lanes.add(Waiter(agent_id, None, lanes))
    assert lanes.wake(LANE)


async def test_other_lanes_rouse_the_waiters_and_say_what_was_lost() -> None:
    lanes = Lanes()
    waiter = a_waiter(lanes, mine={LANE: "build", 1: "build"})

    lost = lanes.replace(waiter.agent_id, {1: "build", OTHER: "build"})

    assert set(lost) == {LANE}
    assert await waiter.is_woken(within=1)
    assert not lanes.wake(LANE)
    assert lanes.wake(OTHER)


async def test_an_agent_without_lanes_is_let_sleep() -> None:
    lanes = Lanes()
    waiter = a_waiter(lanes)

    assert set(lanes.replace(waiter.agent_id, {})) == {LANE}

    assert not await waiter.is_woken(within=0.01)
    assert not lanes.wake(LANE)


async def test_a_roused_waiter_keeps_its_wake_when_lanes_change() -> None:
    lanes = Lanes()
    waiter = a_waiter(lanes)
    lanes.wake(LANE)

    lanes.replace(waiter.agent_id, {OTHER: "build"})

    assert waiter.unheeded == [LANE]
    assert not lanes.wake(OTHER)  # it looks there anyway
    assert await waiter.is_woken(within=1)


async def test_a_new_lane_is_joined_in_the_order_of_waiting() -> None:
    lanes = Lanes()
    first = a_waiter(lanes)
    await asyncio.sleep(0.01)
    second = a_waiter(lanes)

    lanes.add_lane(OTHER, "build", [second.agent_id, first.agent_id])
    lanes.wake(OTHER)

    assert (first.is_roused, second.is_roused) == (True, False)

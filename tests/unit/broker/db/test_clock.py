"""The database's clock, followed by one that nobody sets."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from brokkr.broker.db.clock import DatabaseClock
from brokkr.broker.db.work_ids import first_work_id_at, new_work_id

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = 1_000_000_000


@dataclass
class Machine:
    """A machine whose own clock is wrong by so much."""

    wrong_by: timedelta = timedelta(0)
    uptime: int = 12345 * SECOND

    def monotonic_ns(self) -> int:
        return self.uptime

    def wall_ns(self) -> int:
        return nanoseconds(NOON + self.wrong_by)


def nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * SECOND)


def a_clock(machine: Machine) -> DatabaseClock:
    return DatabaseClock(monotonic_ns=machine.monotonic_ns, wall_ns=machine.wall_ns)


@pytest.mark.parametrize("hours", [-1, 0, 1, 24])
def test_a_broker_whose_own_clock_is_wrong_means_the_databases_time(hours: int) -> None:
    machine = Machine(wrong_by=timedelta(hours=hours))
    clock = a_clock(machine)
    clock.note(NOON, at=machine.uptime)
    machine.uptime += 90 * SECOND

    assert clock.time_ns() == nanoseconds(NOON + timedelta(seconds=90))
    made = new_work_id(clock.time_ns)
    assert first_work_id_at(NOON) < made < first_work_id_at(NOON + timedelta(minutes=10))


def test_ids_of_two_brokers_are_in_the_order_of_submission() -> None:
    behind, right = Machine(wrong_by=-timedelta(hours=1)), Machine(uptime=3 * SECOND)
    clocks = [a_clock(behind), a_clock(right)]
    for machine, clock in zip((behind, right), clocks, strict=True):
        clock.note(NOON, at=machine.uptime)
    ids = []
    for number in range(10):
        behind.uptime += SECOND
        right.uptime += SECOND
        ids.append(new_work_id(clocks[number % 2].time_ns))

    assert ids == sorted(ids)


def test_time_does_not_go_back_because_an_answer_took_long() -> None:
    machine = Machine()
    clock = a_clock(machine)
    clock.note(NOON, at=machine.uptime)
    before = clock.time_ns()
    clock.note(NOON - timedelta(milliseconds=15), at=machine.uptime)

    assert clock.time_ns() == before
    clock.note(NOON - timedelta(seconds=15), at=machine.uptime)
    assert clock.time_ns() == before - 15 * SECOND


def test_until_the_database_was_asked_the_machines_own_clock_is_all_there_is() -> None:
    assert a_clock(Machine()).time_ns() == nanoseconds(NOON)


@pytest.mark.parametrize("days", [-365, 365])
def test_a_clock_that_jumped_is_not_steady_for_a_day(days: int) -> None:
    machine = Machine()
    clock = a_clock(machine)
    clock.note(NOON, at=machine.uptime)
    assert clock.is_steady

    clock.note(NOON + timedelta(days=days), at=machine.uptime)
    machine.uptime += 10 * SECOND
    clock.note(NOON + timedelta(seconds=10), at=machine.uptime)
    assert not clock.is_steady

    machine.uptime += 24 * 3600 * SECOND
    assert clock.is_steady


def test_a_database_that_is_a_year_ahead_from_the_start_is_not_steady() -> None:
    machine = Machine()
    clock = a_clock(machine)
    clock.note(NOON + timedelta(days=365), at=machine.uptime)

    assert not clock.is_steady
    assert clock.time_ns() == nanoseconds(NOON + timedelta(days=365))

from dataclasses import replace

from brokkr.work.model import Phase, WorkStatus
from support.factories import a_work


def test_three_phases_are_final() -> None:
    assert {phase for phase in Phase if phase.is_terminal} == {
        Phase.SUCCEEDED,
        Phase.FAILED,
        Phase.CANCELLED,
    }


def test_attempts_are_counted_from_one() -> None:
    work = a_work()

    assert work.attempt == 1
    assert replace(work, status=WorkStatus(retries=2)).attempt == 3


def test_a_work_is_to_stop_once_there_is_a_reason() -> None:
    assert not a_work().cancel_requested
    assert a_work(cancel_reason="by ann").cancel_requested

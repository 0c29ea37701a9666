"""How long an agent waits between heartbeats while its broker does not answer."""

from datetime import timedelta

import pytest

from brokkr.agent.heartbeat import AWAY_INTERVAL, LONGEST_INTERVAL, pause_without_broker


def pauses(*, usual: float, retry_after: float = 0, jitter: float = 1.0) -> list[float]:
    """Return the first six pauses of an outage, in seconds."""
    return [
        pause_without_broker(
            failures, usual=timedelta(seconds=usual), retry_after=retry_after, jitter=jitter
        ).total_seconds()
        for failures in range(1, 7)
    ]


def test_each_pause_is_twice_the_one_before_up_to_the_usual_interval() -> None:
    assert pauses(usual=10) == [1, 2, 4, 8, 10, 10]


def test_a_short_lease_bears_no_long_pause() -> None:
    assert pauses(usual=3) == [1, 2, 3, 3, 3, 3]
    assert pauses(usual=0.3) == [1] * 6  # and never more often than once a second


def test_agents_that_lost_a_broker_together_do_not_come_back_together() -> None:
    assert pauses(usual=10, jitter=0.75) == [0.75, 1.5, 3, 6, 7.5, 7.5]


@pytest.mark.parametrize("jitter", [0.75, 0.9, 1.0])
def test_a_broker_that_says_when_to_come_back_is_not_asked_before(jitter: float) -> None:
    asked_for = pauses(usual=10, retry_after=5, jitter=jitter)

    assert min(asked_for) >= 5
    assert max(asked_for) <= 10


def test_nobody_can_silence_an_agent_for_longer_than_its_leases_bear() -> None:
    assert max(pauses(usual=10, retry_after=1e9, jitter=0.75)) == 12.5
    assert max(pauses(usual=2, retry_after=60)) == 2


def test_the_longest_outage_overflows_nothing() -> None:
    pause = pause_without_broker(10**6, usual=LONGEST_INTERVAL, retry_after=0, jitter=1.0)

    assert pause == LONGEST_INTERVAL
    assert AWAY_INTERVAL < LONGEST_INTERVAL

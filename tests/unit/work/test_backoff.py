from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.work.backoff import Backoff

SECONDS = st.floats(min_value=0.01, max_value=86400).map(lambda s: timedelta(seconds=s))


@pytest.mark.parametrize(("retry", "seconds"), [(1, 120), (2, 240), (3, 480), (6, 3600)])
def test_the_delay_doubles_from_twice_the_base_up_to_the_cap(retry: int, seconds: int) -> None:
    assert Backoff().delay(retry) == timedelta(seconds=seconds)


@given(base=SECONDS, cap=SECONDS, retry=st.integers(min_value=1, max_value=10**9))
def test_no_retry_waits_less_than_the_one_before_or_longer_than_the_cap(
    base: timedelta, cap: timedelta, retry: int
) -> None:
    backoff = Backoff(base=base, cap=cap)

    assert timedelta(0) < backoff.delay(retry) <= backoff.delay(retry + 1) <= cap

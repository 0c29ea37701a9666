import re
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from brokkr.work.names import MAX_NAME, attempt_name, work_name

# More than anybody will see.
ROUNDS = st.integers(min_value=1, max_value=99_999)
ATTEMPTS = st.integers(min_value=1, max_value=999)


@given(st.uuids(), ROUNDS, ATTEMPTS)
def test_a_name_is_a_dns_label_that_leaves_room_for_what_shipwright_adds(
    work_id: UUID, round_: int, attempt: int
) -> None:
    name = attempt_name(work_name(work_id, round=round_), attempt)

    assert len(name) <= MAX_NAME
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)


@given(*[st.tuples(st.uuids(), ROUNDS, ATTEMPTS)] * 2)
def test_the_same_attempt_has_the_same_name_and_another_has_another(
    one: tuple[UUID, int, int], other: tuple[UUID, int, int]
) -> None:
    names = [attempt_name(work_name(i, round=r), n) for i, r, n in (one, other)]

    assert (names[0] == names[1]) == (one == other)


@given(st.uuids(), ROUNDS, ATTEMPTS)
def test_no_name_can_be_taken_for_an_executor_of_another(
    work_id: UUID, round_: int, attempt: int
) -> None:
    # Shipwright strips "-" and five characters off a TaskRun's name to find its BuildRun.
    work = work_name(work_id, round=round_)

    assert not re.search(r"-[a-z0-9]{5}$", attempt_name(work, attempt))

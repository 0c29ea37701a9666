from datetime import UTC, datetime, timedelta

from brokkr.broker.db.work_ids import first_work_id_at, new_work_id


def test_ids_sort_in_the_order_in_which_they_were_made() -> None:
    ids = [new_work_id() for _ in range(1000)]

    # Two made within a quarter of a microsecond may stand either way round.
    assert [each.int >> 64 for each in ids] == sorted(each.int >> 64 for each in ids)
    assert len(set(ids)) == 1000
    assert {each.version for each in ids} == {7}


def test_an_id_is_not_below_the_first_of_its_time() -> None:
    now = datetime.now(tz=UTC)

    assert first_work_id_at(now) < new_work_id() < first_work_id_at(now + timedelta(minutes=6))


def test_the_first_id_of_a_time_before_all_ids_is_the_smallest() -> None:
    assert first_work_id_at(datetime(1, 1, 1, tzinfo=UTC)).int == 0

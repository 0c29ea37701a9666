import pytest

from brokkr.agent.handlers.build.reading import (
    condition_of,
    has_ended,
    part_of,
    parts_of,
    text_of,
)


@pytest.mark.parametrize("garbage", [None, 1, "text", [], [1], {"a": None}, {"a": [1, "b"]}])
def test_what_is_not_of_the_kind_that_was_asked_for_is_absent(garbage: object) -> None:
    assert part_of(garbage, "a", "b") == {}
    assert parts_of(garbage, "a") == []
    assert text_of(garbage, "a") == ""


def test_what_is_there_is_found() -> None:
    value = {"a": {"b": [{"c": "d"}, "no object"]}}

    assert parts_of(value, "a", "b") == [{"c": "d"}]
    assert text_of(part_of({"a": {"c": "d"}}, "a"), "c") == "d"


@pytest.mark.parametrize(
    ("status", "ended"), [("True", True), ("False", True), ("Unknown", False), (True, False)]
)
def test_a_run_ends_with_its_condition_and_not_with_a_time(status: object, ended: bool) -> None:
    conditions = [{"type": "Other", "status": "True"}, {"type": "Succeeded", "status": status}]
    run = {"status": {"conditions": conditions, "completionTime": "2026-01-01T00:00:00Z"}}

    assert has_ended(run) is ended
    assert condition_of(run)["status"] == status
    assert not has_ended({"status": {"completionTime": "2026-01-01T00:00:00Z"}})

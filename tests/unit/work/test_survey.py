from types import MappingProxyType
from typing import Any

import pytest

from brokkr.work.survey import survey


def test_everything_in_a_value_is_counted_wherever_it_stands() -> None:
    seen = survey({"a": ["b", 1, 2.5, True, None], "c": {"d": {}}}, enough=100)

    assert (seen.depth, seen.values, seen.keys, seen.widest) == (3, 9, 3, 2)
    assert sorted(seen.texts) == ["a", "b", "c", "d"]
    assert seen.numbers == [1, 2.5]


@pytest.mark.parametrize(
    ("value", "depth"), [("text", 1), ([], 1), ([[]], 2), ({"a": [{}]}, 3), (None, 1)]
)
def test_a_value_is_as_deep_as_its_deepest_part(value: Any, depth: int) -> None:
    assert survey(value, enough=100).depth == depth


def test_what_is_no_dict_and_no_str_by_class_is_looked_into_all_the_same() -> None:
    class Text(str):
        __slots__ = ()

    seen = survey(MappingProxyType({"a": [Text("b")]}), enough=100)

    assert (seen.values, seen.keys, seen.texts) == (3, 1, ["a", "b"])


def test_who_says_too_much_is_not_listened_to_for_longer() -> None:
    seen = survey([[[["never seen"]]], *range(10)], enough=10)

    assert seen.values > 10
    assert seen.texts == []


def test_strings_are_looked_at_together() -> None:
    assert survey({"a": "b"}, enough=10).together() == "a\nb"
    with pytest.raises(TypeError):
        survey({1: "b"}, enough=10).together()

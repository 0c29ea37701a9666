import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.work.survey import is_ascii, is_small, survey

SIGNS = st.text(alphabet='[]{}",:\\\u00e9\0a')
"""What a text of JSON is made of, in strings, to mislead who counts it."""
VALUES = st.recursive(
    SIGNS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SIGNS, inner, max_size=4),
    max_leaves=30,
)


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


@given(value=VALUES, is_escaped=st.booleans())
def test_a_text_means_never_more_than_its_signs_say(value: Any, is_escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_escaped).encode()
    seen = survey(value, enough=10_000)

    assert not is_small(text, values=seen.values - 1, depth=100)
    assert not is_small(text, values=1_000, depth=seen.depth - 1)
    assert not is_ascii(text) or (seen.together().isascii() and "\0" not in seen.together())


def test_what_is_ordinary_is_known_by_its_text_alone() -> None:
    text = b'{"a": ["b", {"c": 1}], "d": "["}'

    assert is_small(text, values=10, depth=5)
    assert not is_small(text, values=10, depth=4)  # if the one in the string were none
    assert is_ascii(text)


@pytest.mark.parametrize("text", [b'"\\u0000"', '"\u00e9"'.encode(), b'"\\u00e9"'])
def test_a_text_that_is_not_ascii_is_not_taken_for_it(text: bytes) -> None:
    assert not is_ascii(text)

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.agent.kube.documents import MAX_DEPTH, _without_depths, read_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='"\\[]{}a\n'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='"\\[]{}a'), inner),
    max_leaves=20,
)


def nested(value: str, *, levels: int) -> str:
    return "[" * levels + value + "]" * levels


def test_an_object_nested_beyond_reason_is_read_without_its_depths() -> None:
    deep = nested('"]"', levels=5000)

    read = read_json(f'{{"a": 1, "deep": {deep}, "b": {{"deep": {deep}, "c": 2}}}}'.encode())

    assert (read["a"], read["b"]["c"]) == (1, 2)
    for found, above in ((read["deep"], 1), (read["b"]["deep"], 2)):
        assert json.dumps(found) == nested("null", levels=MAX_DEPTH - above)


@given(JSON)
def test_what_is_no_deeper_is_left_as_it_is(value: object) -> None:
    text = json.dumps(value)

    assert _without_depths(text) == text


def test_what_is_deep_and_broken_is_no_json() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        read_json(b"[" * 100_000)

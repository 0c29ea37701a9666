import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.wire.documents import (
    MAX_DEPTH,
    MAX_YAML_VALUES,
    parse_json,
    parse_yaml,
    template_of,
)
from brokkr.work.errors import InvalidWork, MalformedBody

# Without fractions: YAML 1.1 reads 1e-06 as text.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["C"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
)


def lol(levels: int) -> str:
    """Nine aliases to nine aliases to …: 9^levels strings."""
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@given(JSON)
def test_json_means_the_same_as_json_and_as_yaml(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)

    assert parse_json(text) == value
    assert parse_yaml(text) == ([] if value is None else [value])


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(lol(12), id="aliases"),
        pytest.param("a: &a {b: *a}", id="an alias to itself"),
        pytest.param("a: &a {x: 1}\nb: {<<: *a}", id="merge key"),
        pytest.param("[" * 100_000, id="depth, never closed"),
        pytest.param("[" * 900 + "]" * 900, id="depth"),
        pytest.param("- " * 50_000 + "x", id="depth in block style"),
        pytest.param("9" * 100_000, id="a number of many digits"),
        pytest.param("- a\n" * MAX_YAML_VALUES, id="values"),
        pytest.param("--- a\n" * MAX_YAML_VALUES, id="documents"),
        pytest.param("!!int " + "1:" * 500_000 + "1", id="a number to base 60"),
        pytest.param("!!float " + "1:" * 500 + "1.5", id="a fraction to base 60"),
    ],
)
def test_yaml_that_would_exhaust_its_reader_is_refused(bomb: str) -> None:
    with pytest.raises(MalformedBody):
        parse_yaml(bomb)


@pytest.mark.parametrize("bomb", ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000])
def test_json_that_would_exhaust_its_reader_is_refused(bomb: str) -> None:
    with pytest.raises(MalformedBody):
        parse_json(bomb)


def test_yaml_may_be_as_deep_as_is_allowed() -> None:
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize(
    "text",
    [
        "a: b: c",
        "'",
        "\x00",
        b"\xff\xfe\xff",
        "!!python/object/apply:os.system [true]",
        "a: !!binary aGVsbG8=",
        "a: !!set {x}",
        "a: !!timestamp 2026-01-01",
        "a: .inf",
        "a: .nan",
        "? [a]\n: b",
    ],
)
def test_what_is_not_yaml_or_says_what_json_cannot_is_refused(text: str | bytes) -> None:
    with pytest.raises(MalformedBody):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", "{'a': 1}", b"\xff"])
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(MalformedBody):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "a": 2}}]', "{a: 1, a: 2}", "a: 1\nb: 2\na: 3"],
)
def test_an_object_that_says_a_key_twice_is_refused(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        with pytest.raises(MalformedBody):
            parse(text)


@pytest.mark.parametrize("text", ["1: a", "true: a", "null: a", "1.5: a", "[a]: b", "<<: {a: 1}"])
def test_a_key_of_yaml_is_a_string_as_it_is_in_json(text: str) -> None:
    with pytest.raises(MalformedBody):
        parse_yaml(text)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_what_is_not_utf_8_is_refused(encoding: str) -> None:
    content = '{"name": "bücher"}'.encode(encoding)

    for parse in (parse_json, parse_yaml):
        with pytest.raises(MalformedBody):
            parse(content)


def test_a_byte_order_mark_is_refused_in_a_text_too() -> None:
    for parse in (parse_json, parse_yaml):
        with pytest.raises(MalformedBody):
            parse("\ufeff{}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("1:30.5", "1:30.5"),
        ("0x1F", 31),
        ("0b11", 3),
        ("017", 15),
        ("-1_000", -1000),
        ("+7", 7),
        ("0", 0),
        ("1.5", 1.5),
        ("-1.5e+3", -1500.0),
        (".5", 0.5),
        ("1e3", "1e3"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_what_is_a_number_in_yaml_and_what_is_not(text: str, value: object) -> None:
    assert parse_yaml(f"a: {text}") == [{"a": value}]


def test_yaml_may_hold_as_much_as_is_allowed() -> None:
    assert parse_yaml("- a\n" * (MAX_YAML_VALUES - 2))


def test_times_stay_as_they_were_written() -> None:
    assert parse_yaml("at: 2026-01-01T00:00:00Z\nday: 2026-01-01") == [
        {"at": "2026-01-01T00:00:00Z", "day": "2026-01-01"}
    ]


def test_empty_documents_are_dropped() -> None:
    assert parse_yaml("---\n---\na: 1\n---\n# nothing\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]


def test_a_complaint_about_yaml_is_one_line_that_says_where() -> None:
    with pytest.raises(MalformedBody) as refusal:
        parse_yaml("fine: yes\nbroken: [")

    assert "\n" not in str(refusal.value)
    assert "line" in str(refusal.value)


def test_one_document_is_the_template_and_several_are_a_list() -> None:
    assert template_of([{"a": 1}]) == {"a": 1}
    assert template_of([{"a": 1}, {"b": 2}]) == {
        "apiVersion": "v1",
        "kind": "List",
        "items": [{"a": 1}, {"b": 2}],
    }


@pytest.mark.parametrize("documents", [[], ["text"], [{"a": 1}, 2]])
def test_what_is_no_object_is_no_template(documents: list[Any]) -> None:
    with pytest.raises(InvalidWork):
        template_of(documents)

from importlib.resources import files
from pathlib import Path

import pytest

from brokkr.broker.db import statements
from brokkr.broker.db.statements import parse

QUERIES = sorted(
    each.name.removesuffix(".sql") for each in (files(statements.__package__) / "queries").iterdir()
)
CODE = "\n".join(each.read_text() for each in Path(str(files(statements.__package__))).glob("*.py"))


def test_names_become_numbers_in_the_order_of_their_first_use() -> None:
    parsed = parse("SELECT :b, :a, :b")

    assert parsed.sql == "SELECT $1, $2, $1"
    assert parsed.parameters == ("b", "a")


def test_casts_and_comments_are_no_parameters() -> None:
    parsed = parse("-- about :nothing\nSELECT :a::int[], x::text")

    assert parsed.sql == "SELECT $1::int[], x::text"


def test_a_parameter_too_many_or_too_few_is_refused() -> None:
    parsed = parse("SELECT :a, :b")

    assert parsed.values({"b": 2, "a": 1}) == [1, 2]
    for wrong in ({"a": 1}, {"a": 1, "b": 2, "c": 3}):
        with pytest.raises(TypeError):
            parsed.values(wrong)


def test_a_line_is_left_out_when_its_optional_parameter_is_absent() -> None:
    text = "SELECT 1\n WHERE a = :a?\n   AND b = :b?::int\n   AND c = :c"

    assert parse(text).sql == "SELECT 1\n WHERE a = $1\n   AND b = $2::int\n   AND c = $3"
    assert parse(text).optional == {"a", "b"}
    without = parse(text, absent=frozenset({"b"}))
    assert without.sql == "SELECT 1\n WHERE a = $1\n   AND c = $2"
    assert without.parameters == ("a", "c")


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_says_why_it_is_there_and_is_used(name: str) -> None:
    text = (files(statements.__package__) / "queries" / f"{name}.sql").read_text()

    assert text.startswith("-- ")
    assert f'"{name}"' in CODE

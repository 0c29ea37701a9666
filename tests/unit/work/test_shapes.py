"""Shapes: what a value has to look like, and how it is said that it does not."""

from typing import Any

import pytest

from brokkr.work.shapes import Flag, ListOf, MapOf, Number, Quantity, Text, fields, find_misfit

TOOL = fields(
    {
        "name!": Text(),
        "kind": Text(choices=("Hammer", "Saw")),
        "weight": Number(1, 10),
        "sharp": Flag(),
        "price": Quantity(),
        "labels": MapOf(Text()),
        "parts": [{"name!": Text(), "spare": Flag()}],
        "owners": ListOf(Text(), at_least=1),
        "handle": {"material": Text(), "maker": {"address": Text()}},
    }
)


@pytest.mark.parametrize(
    "value",
    [
        {"name": "a"},
        {"name": "a", "kind": "Saw", "weight": 10, "sharp": False, "price": 2, "labels": {}},
        {
            "name": "a",
            "price": "2m",
            "labels": {"a": "b"},
            "parts": [{"name": "b"}],
            "owners": ["c"],
        },
        {"name": "a", "handle": {"maker": {}}},
        # Left to the cluster: what a newer one may know.
        {"name": "a", "colour": "red"},
        {"name": "a", "kind": "Chisel"},
        {"name": "a", "handle": {"length": {"weight": "x"}}},
        # Null is a field that is not there.
        {"name": "a", "weight": None, "handle": None, "labels": {"a": None}},
    ],
)
def test_what_fits_or_may_fit_elsewhere_is_no_misfit(value: Any) -> None:
    assert find_misfit(TOOL, value, "tool") is None


@pytest.mark.parametrize(
    ("value", "field", "told"),
    [
        ([], "tool", "must be an object, not a list"),
        ({}, "tool.name", "is missing"),
        ({"name": None}, "tool.name", "is missing"),
        ({"name": 1}, "tool.name", "must be a string, not the number 1; write it in quotes"),
        ({"name": 1.1}, "tool.name", "must be a string, not the number 1.1; write it in quotes"),
        ({"name": True}, "tool.name", "must be a string, not true; write it in quotes"),
        ({"name": ["a"]}, "tool.name", "must be a string, not a list"),
        ({"name": "a", "weight": 0}, "tool.weight", "must be from 1 to 10"),
        ({"name": "a", "weight": True}, "tool.weight", "must be a whole number, not true"),
        ({"name": "a", "weight": "5"}, "tool.weight", "must be a whole number, not the text '5'"),
        ({"name": "a", "weight": 1.5}, "tool.weight", "must be a whole number, not the number 1.5"),
        (
            {"name": "a", "sharp": "yes"},
            "tool.sharp",
            "must be true or false, without quotes, not the text 'yes'",
        ),
        (
            {"name": "a", "sharp": 1},
            "tool.sharp",
            "must be true or false, without quotes, not the number 1",
        ),
        (
            {"name": "a", "price": 1.5},
            "tool.price",
            "must be an amount such as 500m or 4Gi, not the number 1.5",
        ),
        (
            {"name": "a", "price": False},
            "tool.price",
            "must be an amount such as 500m or 4Gi, not false",
        ),
        ({"name": "a", "labels": ["a"]}, "tool.labels", "must be an object, not a list"),
        (
            {"name": "a", "labels": {"a": 1}},
            "tool.labels.a",
            "must be a string, not the number 1; write it in quotes",
        ),
        ({"name": "a", "parts": {"name": "b"}}, "tool.parts", "must be a list, not an object"),
        ({"name": "a", "parts": [{"name": "b"}, {}]}, "tool.parts[1].name", "is missing"),
        ({"name": "a", "parts": [None]}, "tool.parts[0]", "must be an object, not null"),
        ({"name": "a", "owners": []}, "tool.owners", "must not be empty"),
        # Misspelt, and put into the wrong place.
        ({"name": "a", "wieght": 1}, "tool.wieght", "is not a field here; did you mean weight?"),
        ({"name": "a", "pirce": 1}, "tool.pirce", "is not a field here; did you mean price?"),
        ({"name": "a", "Labels": {}}, "tool.Labels", "is not a field here; did you mean labels?"),
        ({"name": "a", "kind": "hammer"}, "tool.kind", "'hammer' is unknown; did you mean Hammer?"),
        (
            {"name": "a", "material": "wood"},
            "tool.material",
            "is not a field here; it belongs under tool.handle",
        ),
        (
            {"name": "a", "handle": {"address": "x"}},
            "tool.handle.address",
            "is not a field here; it belongs under tool.handle.maker",
        ),
    ],
)
def test_a_misfit_is_told_with_its_place(value: Any, field: str, told: str) -> None:
    assert find_misfit(TOOL, value, "tool") == (field, told)

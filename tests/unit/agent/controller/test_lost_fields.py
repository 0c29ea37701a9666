"""What an API server has dropped without a word."""

from typing import Any

import pytest

from brokkr.agent.controller.lost_fields import find_lost_field

GIVEN: dict[str, Any] = {
    "kind": "Build",
    "metadata": {"name": "a", "lables": {}},
    "spec": {"a": {"b": [{"c": 1}, {"d": None}]}, "e": False, "f": []},
    "status": {"x": 1},
    "more": "text",
}


def without(*path: Any) -> dict[str, Any]:
    """Return what was given without one field."""

    def drop(value: Any, first: Any, *rest: Any) -> Any:
        if isinstance(value, list):
            return [drop(e, *rest) if n == first else e for n, e in enumerate(value)]
        if rest:
            return {k: drop(e, *rest) if k == first else e for k, e in value.items()}
        return {k: e for k, e in value.items() if k != first}

    kept: dict[str, Any] = drop(GIVEN, *path)
    return kept


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (("spec",), "spec"),
        (("more",), "more"),
        (("spec", "e"), "spec.e"),
        (("spec", "a", "b"), "spec.a.b"),
        (("spec", "a", "b", 0, "c"), "spec.a.b[0].c"),
    ],
)
def test_what_was_dropped_is_named(path: tuple[Any, ...], told: str) -> None:
    assert find_lost_field(GIVEN, without(*path)) == told


@pytest.mark.parametrize("path", [("status",), ("metadata", "lables"), ("spec", "a", "b", 1, "d")])
def test_a_status_metadata_and_nulls_are_not_compared(path: tuple[Any, ...]) -> None:
    assert find_lost_field(GIVEN, without(*path)) is None


def test_what_the_server_adds_is_no_loss() -> None:
    assert find_lost_field(GIVEN, {**GIVEN, "spec": {**GIVEN["spec"], "default": 1}}) is None

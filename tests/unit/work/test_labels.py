import pytest

from brokkr.work.errors import InvalidAgent
from brokkr.work.labels import (
    MAX_ANNOTATION,
    MAX_PAIRS,
    check_agent_name,
    check_annotations,
    check_labels,
    problem_with_name,
)

GOOD_KEYS = ["gpu", "a", "A.b_c-1", "example.com/gpu", "a-b.example.com/x", "k" * 63]
BAD_KEYS = ["", "-gpu", "gpu-", "g pu", "k" * 64, "/gpu", "Example.com/gpu", "a/b/c", "x.com/", "é"]
GOOD_VALUES = ["", "true", "eu-1", "v1.2_3", "v" * 63]
BAD_VALUES = [" ", "a b", "-a", "a-", "v" * 64, "a/b", "é", "a\n"]


@pytest.mark.parametrize("key", GOOD_KEYS)
def test_a_key_that_kubernetes_takes_is_taken(key: str) -> None:
    check_labels({key: "x"}, field="labels")
    check_annotations({key: "x"}, field="annotations")


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_kubernetes_refuses_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidAgent) as refusal:
        check_labels({key: "x"}, field="labels")
    with pytest.raises(InvalidAgent):
        check_annotations({key: "x"}, field="annotations")

    assert refusal.value.field == f"labels.{key}"


@pytest.mark.parametrize("value", GOOD_VALUES)
def test_a_value_that_kubernetes_takes_is_taken(value: str) -> None:
    check_labels({"key": value}, field="labels")


@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_value_that_kubernetes_refuses_is_refused(value: str) -> None:
    with pytest.raises(InvalidAgent):
        check_labels({"key": value}, field="labels")


def test_an_annotation_may_say_anything_but_not_at_any_length() -> None:
    check_annotations({"key": "any thing: {} é\n" + "x" * 4000}, field="annotations")

    for value in ("x" * (MAX_ANNOTATION + 1), "a\0b"):
        with pytest.raises(InvalidAgent):
            check_annotations({"key": value}, field="annotations")


def test_too_many_labels_are_refused() -> None:
    pairs = {f"k{n}": "x" for n in range(MAX_PAIRS)}
    check_labels(pairs, field="labels")

    with pytest.raises(InvalidAgent):
        check_labels(pairs | {"more": "x"}, field="labels")


@pytest.mark.parametrize("name", ["edge-7", "a", "edge.eu", "7"])
def test_an_agents_name_may_stand_in_a_host_name(name: str) -> None:
    check_agent_name(name)


@pytest.mark.parametrize("name", ["", "Edge", "edge_7", "-edge", "edge-", "e" * 64, "a b", "e\n"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidAgent):
        check_agent_name(name)


@pytest.mark.parametrize(
    "name",
    ["0197a000-0000-7000-8000-000000000001", "0197a000000070008000000000000001", "f" * 32],
)
def test_a_name_that_looks_like_an_id_is_refused(name: str) -> None:
    assert problem_with_name(name) is not None
    assert problem_with_name(f"{name}-x") is None

from brokkr.local.build_runner.parameters import (
    find_missing,
    find_refused,
    merge_by_name,
    value_of,
)
from brokkr.work.model import Manifest

STRATEGY = {
    "spec": {
        "parameters": [
            {"name": "must"},
            {"name": "dockerfile", "default": "Dockerfile"},
            {"name": "build-args", "type": "array", "defaults": ["A=1"]},
        ]
    }
}


def test_what_the_build_run_says_wins_by_name() -> None:
    merged = merge_by_name(
        [{"name": "a", "value": "1"}, {"name": "b", "value": "1"}], [{"name": "b", "value": "2"}]
    )

    assert merged == [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]


def test_a_parameter_without_default_needs_a_value() -> None:
    assert find_missing(STRATEGY, []) == (
        "MissingParameterValues",
        "The following parameters are required but no value has been provided: must",
    )
    assert find_missing(STRATEGY, [{"name": "must", "value": "x"}]) is None


def test_defaults_stand_in_for_what_was_not_said() -> None:
    assert value_of(STRATEGY, [], "dockerfile") == [{"value": "Dockerfile"}]
    assert value_of(STRATEGY, [], "build-args") == [{"value": "A=1"}]
    assert value_of(STRATEGY, [{"name": "build-args", "values": []}], "build-args") == []


def test_what_tekton_refuses_for_ever_is_found() -> None:
    empty: Manifest = {"name": "build-args", "values": []}
    twice: list[Manifest] = [
        {"name": "dockerfile", "value": "a"},
        {"name": "dockerfile", "value": "b"},
    ]

    assert find_refused([empty]) == "the parameter build-args is an empty array"
    assert find_refused(merge_by_name(twice, [])) == "the parameter dockerfile is given twice"
    assert find_refused(merge_by_name(twice, [{"name": "c"}])) is None
    assert find_refused([{"name": "build-args"}, {"name": "dockerfile", "value": ""}]) is None

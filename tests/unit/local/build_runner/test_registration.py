"""Each recorded Build gets the status that Shipwright gave it."""

import json
from pathlib import Path
from typing import Any

import pytest

from brokkr.local.build_runner.registration import problem_with_env, register

RECORDINGS = Path(__file__).parents[3] / "data" / "buildruns"

STRATEGY: dict[str, Any] = {
    "metadata": {"name": "any"},
    "spec": {
        "parameters": [
            {"name": "dockerfile", "default": "Dockerfile"},
            {"name": "build-args", "type": "array", "defaults": []},
            {"name": "registries-insecure", "type": "array", "defaults": []},
        ]
    },
}


@pytest.mark.parametrize(
    "path", sorted(RECORDINGS.glob("*/build.json")), ids=lambda p: p.parent.name
)
def test_a_build_is_registered_as_it_was_recorded(path: Path) -> None:
    build = json.loads(path.read_text())

    registration = register(
        build["metadata"]["name"],
        build["metadata"]["namespace"],
        build["spec"],
        secrets={"gitcred", "gitcred-bad", "gitkey", "regcred", "regcred-gone"},
        strategy=None if build["spec"]["strategy"]["name"] == "no-such-strategy" else STRATEGY,
    )

    assert registration.status() == build["status"]


def a_spec(**fields: object) -> dict[str, Any]:
    return {"strategy": {"name": "any"}, "output": {"image": "h/x"}, **fields}


def reason_of(spec: dict[str, Any], name: str = "b", strategy: dict[str, Any] = STRATEGY) -> str:
    return register(name, "ns", spec, secrets=set(), strategy=strategy).reason


def test_two_missing_secrets_have_a_reason_of_their_own() -> None:
    spec = a_spec(
        source={"git": {"cloneSecret": "one"}}, output={"image": "h/x", "pushSecret": "two"}
    )

    assert reason_of(spec) == "MultipleSecretRefNotFound"


def test_a_kind_that_is_no_strategy_is_refused() -> None:
    assert reason_of(a_spec(strategy={"name": "any", "kind": "X"})) == "UnknownBuildStrategyKind"


def test_a_name_too_long_for_a_label_is_refused() -> None:
    assert reason_of(a_spec(), name="x" * 64) == "BuildNameInvalid"


def test_a_volume_that_the_strategy_keeps_to_itself_is_refused() -> None:
    strategy = {**STRATEGY, "spec": {"volumes": [{"name": "cache"}]}}

    assert reason_of(a_spec(volumes=[{"name": "cache"}]), strategy=strategy) == (
        "VolumeNotOverridable"
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"name": "dockerfile", "values": [{"value": "x"}]}, "WrongParameterValueType"),
        (
            {"name": "dockerfile", "value": "x", "secretValue": {"name": "s", "key": "k"}},
            "InconsistentParameterValues",
        ),
        ({"name": "build-args", "values": [{}]}, "EmptyArrayItemParameterValues"),
        (
            {"name": "dockerfile", "configMapValue": {"name": "c"}},
            "IncompleteConfigMapValueParameterValues",
        ),
        (
            {"name": "build-args", "values": [{"secretValue": {"key": "k"}}]},
            "IncompleteSecretValueParameterValues",
        ),
        ({"name": "DOCKERFILE", "value": "x"}, "RestrictedParametersInUse"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(value: dict[str, Any], reason: str) -> None:
    assert reason_of(a_spec(paramValues=[value])) == reason


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ({"name": "LD_PRELOAD", "value": "x"}, "SpecEnvNameForbidden"),
        (
            {"name": "A", "value": "x", "valueFrom": {}},
            "SpecEnvOnlyOneOfValueOrValueFromMustBeSpecified",
        ),
        ({"name": ""}, "SpecEnvNameCanNotBeBlank"),
    ],
)
def test_an_environment_variable_that_makes_no_sense_is_refused(
    variable: dict[str, Any], reason: str
) -> None:
    problem = problem_with_env([variable])

    assert problem is not None
    assert problem[0] == reason


GIT = {"type": "Git", "git": {"url": "https://git.example/a.git"}}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"output": {"image": "h/x", "timestamp": "yesterday"}}, "OutputTimestampNotValid"),
        (
            {"output": {"image": "h/x", "timestamp": "SourceTimestamp"}},
            "OutputTimestampNotSupported",
        ),
        (
            {"output": {"image": "h/x", "platforms": [{"os": "Linux", "arch": "arm64"}]}},
            "InvalidPlatform",
        ),
        (
            {"output": {"image": "h/x", "platforms": [{"os": "linux", "arch": "arm64"}] * 2}},
            "InvalidPlatform",
        ),
        (
            {
                "output": {"image": "h/x", "platforms": [{"os": "linux", "arch": "arm64"}]},
                "nodeSelector": {"kubernetes.io/arch": "arm64"},
            },
            "NodeSelectorPlatformConflict",
        ),
        ({"nodeSelector": {"a b": "c"}}, "NodeSelectorNotValid"),
        ({"tolerations": [{"key": "a", "operator": "Is"}]}, "TolerationNotValid"),
        ({"schedulerName": "a b"}, "SchedulerNameNotValid"),
        ({"runtimeClassName": "A"}, "RuntimeClassNameNotValid"),
        ({"trigger": {"when": [{"name": "a", "type": "Svn"}]}}, "TriggerInvalidType"),
        ({"trigger": {"when": [{"name": "", "type": "Image"}]}}, "TriggerNameCanNotBeBlank"),
        ({"trigger": {"when": [{"name": "a", "type": "Image"}]}}, "TriggerInvalidImage"),
        (
            {"trigger": {"when": [{"name": "a", "type": "GitHub", "github": {"branches": []}}]}},
            "TriggerInvalidGitHubWebHook",
        ),
        (
            {"strategy": {"name": "any", "stepResources": [{"name": "no", "resources": {}}]}},
            "UndefinedStepResource",
        ),
    ],
)
def test_what_shipwright_s_controller_refuses_is_refused_with_its_reason(
    fields: dict[str, Any], reason: str
) -> None:
    assert reason_of(a_spec(**fields)) == reason


@pytest.mark.parametrize(
    "fields",
    [
        {"source": GIT, "output": {"image": "h/x", "timestamp": "SourceTimestamp"}},
        {"output": {"image": "h/x", "timestamp": "-1"}},
        {"env": [{"name": "A"}, {"name": "B", "value": ""}]},
        {"tolerations": [{"key": "a", "operator": "Exists"}], "nodeSelector": {"a": ""}},
        {"trigger": {"when": [{"name": "a", "type": "Image", "image": {"names": ["b"]}}]}},
    ],
)
def test_what_shipwright_s_controller_takes_is_taken(fields: dict[str, Any]) -> None:
    assert reason_of(a_spec(**fields)) == "Succeeded"

"""What the stand-in refuses because it cannot do it, and what it only notes."""

import platform
from typing import Any

import pytest

from brokkr.local.build_runner.feasible import (
    BUILDER_ANNOTATION,
    check_feasible,
    what_is_ignored,
)
from brokkr.local.build_runner.references import Rejected
from brokkr.work.model import Manifest

STRATEGY: dict[str, Any] = {
    "metadata": {"name": "s", "annotations": {BUILDER_ANNOTATION: "buildah"}}
}
OTHER_MACHINE = "arm64" if platform.machine() == "x86_64" else "amd64"


def a_spec(**fields: Any) -> dict[str, Any]:
    return {
        "source": {"type": "Git", "git": {"url": "https://git.example/a.git"}},
        "strategy": {"name": "s"},
        "output": {"image": "registry.example/a"},
        **fields,
    }


def output(**fields: Any) -> dict[str, Any]:
    return {"output": {"image": "registry.example/a", **fields}}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"source": None}, "builds from Git, not without"),
        ({"source": {"type": "Git"}}, "builds from Git, not without"),
        ({"source": {"type": "OCI", "ociArtifact": {"image": "a"}}}, "not from OCI"),
        (output(vulnerabilityScan={"enabled": True, "failOnFinding": True}), "scans no image"),
        ({"nodeSelector": {"kubernetes.io/arch": OTHER_MACHINE}}, f"arch={OTHER_MACHINE}"),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, "os=windows"),
    ],
)
def test_what_would_make_another_image_or_break_a_promise_is_refused(
    fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(Rejected) as rejected:
        check_feasible(a_spec(**fields), {}, STRATEGY, [])

    assert rejected.value.reason == "TaskRunGenerationFailed"
    assert told in rejected.value.message
    assert "local build runner" in rejected.value.message


def test_a_parameter_that_only_the_strategy_s_steps_know_is_refused() -> None:
    values: list[Manifest] = [
        {"name": "dockerfile", "value": "D"},
        {"name": "target", "value": "test"},
    ]

    with pytest.raises(Rejected) as rejected:
        check_feasible(a_spec(), {}, STRATEGY, values)

    assert "target" in rejected.value.message


def test_what_a_build_run_asks_for_counts_too() -> None:
    run = output(vulnerabilityScan={"enabled": True, "failOnFinding": True})

    with pytest.raises(Rejected):
        check_feasible(a_spec(), run, STRATEGY, [])


def test_what_the_image_is_the_same_without_is_noted() -> None:
    build = a_spec(
        strategy={"name": "s", "stepResources": [{"name": "build", "resources": {}}]},
        nodeSelector={"disk": "ssd"},
        trigger={"when": []},
        volumes=[],
    )
    check_feasible(build, {}, STRATEGY, [{"name": "dockerfile", "value": "D"}])

    assert what_is_ignored(
        build, {"schedulerName": "other"}, {"vulnerabilityScan": {"enabled": True}}
    ) == (
        *("nodeSelector", "schedulerName", "trigger"),
        *("strategy.stepResources", "output.vulnerabilityScan"),
    )
    assert what_is_ignored(a_spec(), {}, {"image": "a"}) == ()

"""Which definitions are new enough for a type of work."""

from typing import Any

import pytest

from brokkr.agent.handlers.protocol import Prerequisite
from brokkr.agent.prerequisites import problem_with

WANTED = Prerequisite(
    definition="buildruns.shipwright.io",
    version="v1beta1",
    field=("status", "executor"),
    release_label="pipeline.tekton.dev/release",
    oldest_release="v0.59.0",
    cure="install it",
)
NEW: dict[str, Any] = {
    "type": "object",
    "properties": {"status": {"type": "object", "properties": {"executor": {"type": "object"}}}},
}
OLD: dict[str, Any] = {"type": "object", "properties": {"status": {"type": "object"}}}
OPEN: dict[str, Any] = {
    "properties": {"status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
}


def a_definition(
    *,
    schema: dict[str, Any] = NEW,
    version: str = "v1beta1",
    served: bool = True,
    release: str | None = None,
) -> dict[str, Any]:
    labels = {} if release is None else {"pipeline.tekton.dev/release": release}
    served_version = {
        "name": version,
        "served": served,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "metadata": {"name": "buildruns.shipwright.io", "labels": labels},
        "spec": {"versions": [served_version]},
    }


@pytest.mark.parametrize("schema", [NEW, OPEN], ids=["spelled out", "anything goes"])
def test_a_definition_that_knows_the_field_will_do(schema: dict[str, Any]) -> None:
    assert problem_with(a_definition(schema=schema), WANTED) is None


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        (None, "has no buildruns.shipwright.io"),
        (a_definition(version="v1alpha1"), "does not serve v1beta1"),
        (a_definition(served=False), "does not serve v1beta1"),
        (a_definition(schema=OLD), "too old: it has no status.executor"),
        (a_definition(schema={}), "too old"),
        (a_definition(release="v0.58.3"), "is of v0.58.3"),
        (a_definition(release="v0.9.0"), "is of v0.9.0"),
    ],
)
def test_a_definition_that_will_not_do_is_named_with_what_it_lacks(
    definition: dict[str, Any] | None, words: str
) -> None:
    problem = problem_with(definition, WANTED)

    assert problem is not None
    assert words in problem


@pytest.mark.parametrize("release", ["v0.59.0", "v0.100.1", "v1.0.0", "devel", "", None])
def test_a_newer_release_or_one_without_a_number_will_do(release: str | None) -> None:
    assert problem_with(a_definition(release=release), WANTED) is None

"""The documents of a build: their fields on top, their metadata, and what is misspelt in them."""

from typing import Any

import pytest

from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest
from brokkr.work.template import check_template
from support.templates import a_build, a_build_run, a_config_map, a_list


def misspelt(**fields: Any) -> Manifest:
    """Return a Build whose spec has these instead of its own."""
    build = a_build()
    return {**build, "spec": {**build["spec"], **fields}}


def without(field: str, **more: Any) -> Manifest:
    build = a_build()
    return {**build, "spec": {k: v for k, v in build["spec"].items() if k != field} | more}


STRATEGY = {"name": "buildah", "kind": "ClusterBuildStrategy"}


@pytest.mark.parametrize(
    ("template", "field", "told"),
    [
        (
            without("strategy", stratgy=STRATEGY),
            "template.spec.stratgy",
            "did you mean strategy?",
        ),
        (without("output", ouput={"image": "a/b"}), "template.spec.ouput", "did you mean output?"),
        (misspelt(param_values=[]), "template.spec.param_values", "did you mean paramValues?"),
        (misspelt(evn=[]), "template.spec.evn", "did you mean env?"),
        (
            misspelt(stepResources=[]),
            "template.spec.stepResources",
            "it belongs under template.spec.strategy",
        ),
        (misspelt(revision="main"), "template.spec.revision", "under template.spec.source.git"),
        (misspelt(pushSecret="a"), "template.spec.pushSecret", "under template.spec.output"),
        (
            misspelt(source={"type": "Git", "url": "https://git.example/a.git"}),
            "template.spec.source.url",
            "it belongs under template.spec.source.git",
        ),
        (without("strategy"), "template.spec.strategy.name", "must name its strategy"),
        (without("output"), "template.spec.output.image", "must name the image"),
        (a_build(specs={}), "template.specs", "did you mean spec?"),
        (a_build(strategy=STRATEGY), "template.strategy", "it belongs under template.spec"),
        (a_build(metadata={"lables": {}}), "template.metadata.lables", "did you mean labels?"),
        (
            a_build(metadata={"labels": {"version": 1.0}}),
            "template.metadata.labels.version",
            "the number 1.0; write it in quotes",
        ),
        (a_build(metadata={"labels": {"a b": "c"}}), "template.metadata.labels.a b", "letters"),
        (a_build(metadata={"labels": {"a": "c d"}}), "template.metadata.labels.a", "letters"),
        (
            a_build(metadata={"annotations": {"a/b/c": "d"}}),
            "template.metadata.annotations.a/b/c",
            "DNS subdomain",
        ),
        (
            a_list(a_build(), a_config_map(data={"port": 8080})),
            "template.items[1].data.port",
            "the number 8080; write it in quotes",
        ),
        (
            a_list(a_build(), a_config_map(dtaa={})),
            "template.items[1].dtaa",
            "did you mean data?",
        ),
        (
            a_list(a_build(), a_build_run(spec={"serviceAcount": "a"})),
            "template.items[1].spec.serviceAcount",
            "did you mean serviceAccount?",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_was_meant(
    template: Manifest, field: str, told: str
) -> None:
    with pytest.raises(InvalidWork) as refusal:
        check_template("build", template)

    assert refusal.value.field == field
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    "template",
    [
        misspelt(fromTheFuture={"a": 1}),
        a_build(fromTheFuture=1),
        a_build(status={"registered": "False"}),
        a_build(metadata={"labels": None, "annotations": {"a": "any value"}}),
        a_list(a_build(), a_config_map(data={"a": "b"}, binaryData={"c": "ZA=="}, immutable=True)),
        a_list(a_build(), a_build_run(spec={"fromTheFuture": 1})),
    ],
)
def test_what_a_newer_cluster_may_know_is_left_to_it(template: Manifest) -> None:
    check_template("build", template)

"""The fields of a Build and a BuildRun: what is refused before it is queued, and what is not."""

from time import process_time
from typing import Any

import pytest

from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest
from brokkr.work.template import check_template
from support.templates import a_build, a_build_run, a_list

KEY = {"name": "settings", "key": "version"}


def git(**more: Any) -> Manifest:
    return {"source": {"type": "Git", "git": {"url": "https://git.example/app.git", **more}}}


def output(**more: Any) -> Manifest:
    return {"output": {"image": "registry.example/app", **more}}


def values(*given: Manifest) -> Manifest:
    return {"paramValues": list(given)}


ACCEPTED: list[Manifest] = [
    git(revision="", depth=0, cloneSecret="git-ssh"),
    {"source": {**git()["source"], "contextDir": "/services/a/../b"}},
    {"strategy": {"name": "ours"}},
    output(timestamp="Zero", labels={"any key": "any value"}, pushSecret="registry"),
    output(timestamp="1700000000"),
    output(platforms=[{"os": "linux", "arch": "arm64"}, {"os": "linux", "arch": "amd64"}]),
    {"timeout": "1h30m"},
    values({"name": "a", "value": ""}, {"name": "b", "values": []}, {"name": "c"}),
    values({"name": "a", "configMapValue": KEY}, {"name": "b", "values": [{"secretValue": KEY}]}),
    {"env": [{"name": "A"}, {"name": "B", "value": ""}, {"name": "A", "value": "twice"}]},
    {"env": [{"name": "a.b-c d", "valueFrom": {"secretKeyRef": KEY}}]},
    {"env": None, "paramValues": None, "volumes": None, "retention": None, "timeout": None},
    {"retention": {"ttlAfterFailed": "24h", "failedLimit": 10_000, "atBuildDeletion": True}},
    {"volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}]},
    {"volumes": [{"name": "new", "quantumDisk": {"id": "x"}}]},
    {"nodeSelector": {"kubernetes.io/arch": "arm64"}, "schedulerName": "my-scheduler"},
    {"tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]},
    {"runtimeClassName": "gvisor"},
    {"strategy": {"name": "s", "stepResources": [{"name": "build", "resources": {"limits": {}}}]}},
]


@pytest.mark.parametrize("spec", ACCEPTED)
def test_what_a_cluster_could_run_is_accepted(spec: Manifest) -> None:
    check_template("build", a_build(spec=spec))


REFUSED: list[tuple[Manifest, str, str]] = [
    # names in other systems
    (git(url=""), "source.git.url", "must be the URL of a git repository"),
    (git(url="file:///srv/app"), "source.git.url", "has the scheme 'file'"),
    (git(revision="-x"), "source.git.revision", "cannot be the name of a branch"),
    (git(revision=1.10), "source.git.revision", "the number 1.1; write it in quotes"),
    (git(depth=-1), "source.git.depth", "must be 0"),
    (git(cloneSecret=""), "source.git.cloneSecret", "cannot be the name of a Secret"),
    (
        {"source": {**git()["source"], "contextDir": "../other"}},
        "source.contextDir",
        "inside the sources",
    ),
    (
        {"source": {"type": "OCI", "ociArtifact": {"image": "A"}}},
        "source.ociArtifact.image",
        "write 'a'",
    ),
    ({"source": {"type": "Svn"}}, "source.type", "must be Git or OCI"),
    ({"source": {"type": "git", "git": {"url": "x"}}}, "source.type", "did you mean Git?"),
    ({"strategy": {"name": "Ours"}}, "strategy.name", "cannot be the name of a strategy"),
    (
        {"strategy": {"name": "a", "kind": "Strategy"}},
        "strategy.kind",
        "must be ClusterBuildStrategy",
    ),
    (
        {"strategy": {"name": "a", "kind": "clusterbuildstrategy"}},
        "strategy.kind",
        "did you mean ClusterBuildStrategy?",
    ),
    (output(image="Registry/App:1"), "output.image", "write 'app'"),
    (output(image="registry.example/app@sha256:" + "0" * 64), "output.image", "no digest"),
    (output(image=7), "output.image", "a Build must name the image it makes"),
    (output(timestamp="now"), "output.timestamp", "must be Zero"),
    ({**output(timestamp="SourceTimestamp"), "source": None}, "output.timestamp", "needs a source"),
    (
        output(platforms=[{"os": "Linux", "arch": "arm64"}]),
        "output.platforms[0].os",
        "kubernetes.io/os",
    ),
    (output(platforms=[{"os": "linux", "arch": "arm64"}] * 2), "output.platforms", "twice"),
    (output(insecure="true"), "output.insecure", "without quotes"),
    # times and numbers
    ({"timeout": "10x"}, "timeout", "'10x' is not a duration such as 90m or 1h30m"),
    ({"timeout": 600}, "timeout", "write it in quotes"),
    ({"timeout": "0s"}, "timeout", "would never end a build"),
    ({"timeout": "-5m"}, "timeout", "is not a duration"),
    ({"timeout": "1d"}, "timeout", "is not a duration"),
    ({"timeout": "9" * 20 + "h"}, "timeout", "is too long"),
    ({"retention": {"ttlAfterFailed": "soon"}}, "retention.ttlAfterFailed", "is not a duration"),
    ({"retention": {"failedLimit": 0}}, "retention.failedLimit", "must be from 1 to 10000"),
    # parameters
    (values({"value": "a"}), "paramValues[0].name", "is missing"),
    (values({"name": "", "value": "a"}), "paramValues[0].name", "must not be empty"),
    (values({"name": "shp-source-root", "value": "a"}), "paramValues[0].name", "sets itself"),
    (values({"name": "DOCKERFILE", "value": "a"}), "paramValues[0].name", "sets itself"),
    (values({"name": "a", "value": "b"}, {"name": "a"}), "paramValues[1].name", "given twice"),
    (values({"name": "a", "value": "b", "values": []}), "paramValues[0].values", "beside value"),
    (values({"name": "a", "values": ["b"]}), "paramValues[0].values[0]", "must be an object"),
    (values({"name": "a", "values": [{}]}), "paramValues[0].values[0]", "needs one of value"),
    (
        values({"name": "a", "value": "b", "secretValue": KEY}),
        "paramValues[0]",
        "must have one of value and secretValue",
    ),
    (
        values({"name": "a", "configMapValue": {"name": "", "key": "k"}}),
        "paramValues[0].configMapValue.name",
        "must not be empty",
    ),
    (values({"name": "a", "value": 8}), "paramValues[0].value", "write it in quotes"),
    # the environment, volumes, nodes
    ({"env": [{"name": ""}]}, "env[0].name", "printable ASCII"),
    ({"env": [{"name": "a=b"}]}, "env[0].name", "without '='"),
    ({"env": [{"name": "A", "value": 1}]}, "env[0].value", "write it in quotes"),
    (
        {"env": [{"name": "A", "value": "b", "valueFrom": {"secretKeyRef": KEY}}]},
        "env[0]",
        "not both",
    ),
    ({"env": [{"name": "A", "valueFrom": {}}]}, "env[0].valueFrom", "must have one source"),
    ({"env": {"A": "b"}}, "env", "must be a list"),
    ({"volumes": [{"name": "a"}]}, "volumes[0]", "must have one source"),
    (
        {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]},
        "volumes[1].name",
        "given twice",
    ),
    ({"nodeSelector": {"a b": "c"}}, "nodeSelector.a b", "letters, digits"),
    ({"nodeSelector": {"a": "c d"}}, "nodeSelector.a", "letters, digits"),
    ({"tolerations": [{"key": "a"}]}, "tolerations[0].operator", "must be Exists or Equal"),
    (
        {"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute"}]},
        "tolerations[0].effect",
        "must be NoSchedule",
    ),
    ({"schedulerName": "a b"}, "schedulerName", "letters, digits"),
    ({"runtimeClassName": "A"}, "runtimeClassName", "is not a Kubernetes name"),
]


@pytest.mark.parametrize(("spec", "field", "told"), REFUSED, ids=lambda each: str(each)[:40])
def test_what_the_build_alone_shows_to_be_wrong_is_refused(
    spec: Manifest, field: str, told: str
) -> None:
    with pytest.raises(InvalidWork) as refusal:
        check_template("build", a_build(spec=spec))

    assert refusal.value.field == f"template.spec.{field}"
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"timeout": "10x"}, "timeout"),
        ({"output": {}}, "output.image"),
        ({"output": {"image": "A"}}, "output.image"),
        (values({"name": "shp-x"}), "paramValues[0].name"),
        ({"env": [{"name": "="}]}, "env[0].name"),
        ({"serviceAccount": "a b"}, "serviceAccount"),
        ({"stepResources": [{"name": "a"}]}, "stepResources[0].resources"),
        ({"volumes": [{"name": "a"}]}, "volumes[0]"),
        ({"retention": {"ttlAfterSucceeded": "x"}}, "retention.ttlAfterSucceeded"),
    ],
)
def test_the_pattern_of_a_build_run_is_checked_too(spec: Manifest, field: str) -> None:
    with pytest.raises(InvalidWork) as refusal:
        check_template("build", a_list(a_build(), a_build_run(spec=spec)))

    assert refusal.value.field == f"template.items[1].spec.{field}"


def test_a_service_account_of_the_builds_own_is_accepted() -> None:
    check_template("build", a_list(a_build(), a_build_run(spec={"serviceAccount": ".generate"})))


def test_many_parameters_take_no_time() -> None:
    many = [{"name": f"p{number}"} for number in range(4_900)]
    begin = process_time()
    check_template("build", a_build(spec={"paramValues": many}))

    assert process_time() - begin < 0.3

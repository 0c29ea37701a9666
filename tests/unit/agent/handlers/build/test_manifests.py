import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from brokkr.agent.handlers.build.manifests import (
    BuildDefaults,
    render_build,
    render_build_run,
    render_config_maps,
    timeout_of,
    timeout_of_template,
)
from brokkr.wire.custom_resource import ANNOTATION_TRACEPARENT
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest, WorkStatus
from brokkr.work.template import check_template
from brokkr.work.trace import TraceContext
from support.factories import WORK_ID, a_work, with_status
from support.templates import a_build, a_build_run, a_config_map, a_list

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# Names that no field of a Build or BuildRun has.
UNKNOWN_FIELDS = st.dictionaries(st.text().map("x-{}".format), JSON, max_size=4)

DEFAULTS = BuildDefaults()


def run_of(template: Manifest, defaults: BuildDefaults = DEFAULTS) -> dict[str, Any]:
    spec: dict[str, Any] = render_build_run(a_work(template=template), 1, defaults)["spec"]
    return spec


def all_objects(template: Manifest) -> list[Manifest]:
    work = a_work(template=template)
    return [
        *render_config_maps(work, 2),
        render_build(work, 2, DEFAULTS),
        render_build_run(work, 2, DEFAULTS),
    ]


@given(of_build=UNKNOWN_FIELDS, of_run=UNKNOWN_FIELDS)
def test_what_the_user_wrote_comes_through_unharmed(
    of_build: dict[str, Any], of_run: dict[str, Any]
) -> None:
    build, run = a_build(spec=of_build), a_build_run(spec=of_run)
    template = a_list(build, run)
    before = deepcopy(template)
    work = a_work(template=template)

    assert render_build(work, 1, DEFAULTS)["spec"] == build["spec"]
    assert of_run.items() <= render_build_run(work, 1, DEFAULTS)["spec"].items()
    assert template == before


# What a Build may say, one thing at a time; the agent has no opinion on any of it.
OF_A_BUILD: Mapping[str, Manifest] = {
    "a rootful strategy": {
        "strategy": {"name": "buildah-shipwright-managed-push", "kind": "ClusterBuildStrategy"}
    },
    "a rootless strategy": {"strategy": {"name": "buildkit", "kind": "ClusterBuildStrategy"}},
    "a strategy of the namespace": {"strategy": {"name": "ours", "kind": "BuildStrategy"}},
    "a strategy of the default kind": {"strategy": {"name": "ours"}},
    "step resources": {
        "strategy": {
            "name": "buildah",
            "stepResources": [{"name": "build", "resources": {"limits": {"memory": "4Gi"}}}],
        }
    },
    "a git source with a secret": {
        "source": {
            "type": "Git",
            "git": {
                "url": "git@git.example:a/b.git",
                "revision": "v1",
                "cloneSecret": "clone",
                "depth": 0,
            },
            "contextDir": "src",
        }
    },
    "an OCI source": {
        "source": {
            "type": "OCI",
            "ociArtifact": {"image": "r/source", "prune": "Never", "pullSecret": "pull"},
        }
    },
    "parameters": {
        "paramValues": [
            {"name": "dockerfile", "value": "Dockerfile.x"},
            {"name": "build-args", "values": [{"value": "A=1"}, {"value": "B=$(x)"}]},
            {"name": "empty", "value": ""},
            {"name": "mirror", "configMapValue": {"name": "c", "key": "k"}},
            {
                "name": "token",
                "secretValue": {"name": "s", "key": "k", "format": "T=${SECRET_VALUE}"},
            },
            {"name": "tokens", "values": [{"secretValue": {"name": "s", "key": "k"}}]},
        ]
    },
    "an environment": {
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]
    },
    "volumes": {
        "volumes": [
            {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}},
            {"name": "certificates", "configMap": {"name": "c"}},
            {"name": "netrc", "secret": {"secretName": "s"}},
        ]
    },
    "where to run": {
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "builds", "operator": "Exists", "effect": "NoSchedule"}],
    },
    "who schedules and runs it": {"schedulerName": "packing", "runtimeClassName": "kata"},
    "an image with all that is said of it": {
        "output": {
            "image": "r/hello:1",
            "pushSecret": "push",
            "insecure": True,
            "annotations": {"org.opencontainers.image.url": "https://example.com"},
            "labels": {"maintainer": "ann"},
            "timestamp": "SourceTimestamp",
            "platforms": [{"os": "linux", "arch": "amd64"}, {"os": "linux", "arch": "arm64"}],
            "vulnerabilityScan": {
                "enabled": True,
                "failOnFinding": True,
                "ignore": {"id": ["CVE-1"], "severity": "low", "unfixed": True},
            },
        }
    },
    "a timeout": {"timeout": "1h30m"},
    "a trigger": {"trigger": {"when": [{"name": "t", "type": "Image"}]}},
}

# The same for a BuildRun, where it may say the same.
OF_A_BUILD_RUN: Mapping[str, Manifest] = {
    **{
        case: OF_A_BUILD[case]
        for case in (
            *("parameters", "an environment", "volumes", "where to run", "a timeout"),
            *("who schedules and runs it", "an image with all that is said of it"),
        )
    },
    "step resources": {
        "stepResources": [{"name": "build", "resources": {"requests": {"cpu": "2"}}}]
    },
    "a service account": {"serviceAccount": ".generate"},
}


@pytest.mark.parametrize("case", OF_A_BUILD)
def test_a_build_comes_through_unharmed(case: str) -> None:
    given = OF_A_BUILD[case]

    rendered = render_build(a_work(template=a_build(spec=given)), 1, DEFAULTS)["spec"]

    assert rendered == a_build(spec=given)["spec"]
    assert all(run_of(a_build(spec=given)).get(field) is None for field in given)


@pytest.mark.parametrize("case", OF_A_BUILD_RUN)
def test_a_build_run_comes_through_unharmed(case: str) -> None:
    given = OF_A_BUILD_RUN[case]

    assert run_of(a_list(a_build(), a_build_run(spec=given))).items() >= given.items()


def test_build_and_build_run_have_the_attempts_name_and_config_maps_their_own() -> None:
    config_map, build, run = all_objects(a_list(a_build(), a_config_map(name="settings")))

    name = f"work-{WORK_ID}-r1-a2"
    assert build["metadata"]["name"] == run["metadata"]["name"] == name
    assert run["spec"]["build"] == {"name": name}
    assert config_map["metadata"]["name"] == "settings"


def test_every_object_says_whose_it_is() -> None:
    for each in all_objects(a_list(a_build(), a_config_map(), a_build_run())):
        metadata = each["metadata"]

        assert metadata["namespace"] == "brokkr-agent"
        assert metadata["labels"] == {
            "brokkr.io/work-id": str(WORK_ID),
            "brokkr.io/work": f"work-{WORK_ID}-r1",
            "brokkr.io/round": "1",
            "brokkr.io/attempt": "2",
        }
        assert metadata["annotations"] == {"brokkr.io/build-name": "hello"}
        # No controller, which Shipwright wants to set; nothing that blocks a deletion.
        assert metadata["ownerReferences"] == [
            {
                "apiVersion": "brokkr.io/v1alpha1",
                "kind": "Work",
                "name": f"work-{WORK_ID}-r1",
                "uid": a_work().uid,
            }
        ]


def test_the_users_labels_are_kept_unless_they_pose_as_brokkrs() -> None:
    metadata = {
        "name": "hello",
        "labels": {"team": "ml", "brokkr.io/work-id": "forged", "brokkr.io/new": "forged"},
        "annotations": {"note": "hi", "brokkr.io/cancel": "forged"},
    }

    build = render_build(a_work(template=a_build(metadata=metadata)), 1, DEFAULTS)["metadata"]

    assert build["labels"]["team"] == "ml"
    assert build["annotations"] == {"note": "hi", "brokkr.io/build-name": "hello"}
    assert "forged" not in build["labels"].values()


def test_the_agent_fills_in_only_what_is_open() -> None:
    assert run_of(a_build()) == {
        "build": {"name": f"work-{WORK_ID}-r1-a1"},
        "serviceAccount": "builder-sa",
        "timeout": "900s",
        "retention": {"ttlAfterSucceeded": "3600s", "ttlAfterFailed": "86400s"},
    }
    given = run_of(a_list(a_build(), a_build_run(spec={"serviceAccount": "s", "timeout": "1m"})))
    assert (given["serviceAccount"], given["timeout"]) == ("s", "1m")


def test_a_timeout_of_the_build_is_not_overridden() -> None:
    assert "timeout" not in run_of(a_build(spec={"timeout": "5m"}))


@pytest.mark.parametrize("timeout", ["0s", "0h0m", "-5m", "soon", "", 900, "9999999h"])
@pytest.mark.parametrize("kind", ["Build", "BuildRun"])
def test_a_timeout_that_would_never_end_a_build_is_refused_with_advice(
    kind: str, timeout: object
) -> None:
    given = {kind: {"timeout": timeout}}
    template = a_list(
        a_build(spec=given.get("Build", {})), a_build_run(spec=given.get("BuildRun", {}))
    )

    # With the very first object, though it is the BuildRun's.
    with pytest.raises(InvalidWork) as refusal:
        render_build(a_work(template=template), 1, DEFAULTS)

    assert refusal.value.field == "template.spec.timeout"
    assert "leave it out for 900s" in str(refusal.value)


@pytest.mark.parametrize(
    ("of_run", "of_build", "timeout"),
    [
        ({}, {}, timedelta(minutes=15)),
        ({}, {"timeout": "5m"}, timedelta(minutes=5)),
        ({"timeout": "1h"}, {"timeout": "5m"}, timedelta(hours=1)),
    ],
)
def test_the_build_runs_timeout_wins_over_the_builds_and_that_over_the_agents(
    of_run: Manifest, of_build: Manifest, timeout: timedelta
) -> None:
    work = a_work(template=a_list(a_build(spec=of_build), a_build_run(spec=of_run)))
    run = render_build_run(work, 1, DEFAULTS)

    assert timeout_of_template(work, DEFAULTS) == timeout
    assert timeout_of(run, render_build(work, 1, DEFAULTS), DEFAULTS) == timeout


def test_without_a_service_account_of_the_agents_shipwright_chooses() -> None:
    assert "serviceAccount" not in run_of(a_build(), BuildDefaults(service_account=None))


@pytest.mark.parametrize(
    ("of_build", "of_run", "kept_for"),
    [
        ({}, {}, "3600s"),
        ({"ttlAfterSucceeded": "1s"}, {}, "3600s"),
        ({"ttlAfterSucceeded": "2h"}, {}, "7200s"),
        ({}, {"ttlAfterSucceeded": "1h30m"}, "5400s"),
        ({"ttlAfterSucceeded": "9h"}, {"ttlAfterSucceeded": "2h"}, "7200s"),
    ],
)
def test_a_build_run_is_kept_as_long_as_its_reader_needs_and_the_user_wants(
    of_build: Manifest, of_run: Manifest, kept_for: str
) -> None:
    template = a_list(
        a_build(spec={"retention": of_build}), a_build_run(spec={"retention": of_run})
    )

    assert run_of(template)["retention"]["ttlAfterSucceeded"] == kept_for


def test_no_limit_can_delete_a_build_run_that_was_not_read() -> None:
    retention = {"succeededLimit": 1, "failedLimit": 1, "atBuildDeletion": True}
    template = a_build(spec={"retention": retention})

    assert "retention" not in render_build(a_work(template=template), 1, DEFAULTS)["spec"]
    assert run_of(template)["retention"].keys() == {"ttlAfterSucceeded", "ttlAfterFailed"}


@pytest.mark.parametrize("nonsense", ["soon", "", "1", "-1h", "1h ", 5, "9" * 400 + "h"])
def test_a_retention_that_cannot_be_understood_is_refused(nonsense: object) -> None:
    with pytest.raises(InvalidWork) as refusal:
        run_of(a_build(spec={"retention": {"ttlAfterFailed": nonsense}}))

    assert refusal.value.field == "template.spec.retention.ttlAfterFailed"


def test_an_oci_source_is_pruned_only_when_no_retry_can_need_it() -> None:
    source = {"type": "OCI", "ociArtifact": {"image": "r/source", "prune": "AfterPull"}}
    work = a_work(template=a_build(spec={"source": source}), max_retries=1)

    lost = with_status(work, WorkStatus(infrastructure_retries=1))
    retried = with_status(work, WorkStatus(retries=1))
    first, last = render_build(work, 1, DEFAULTS), render_build(retried, 2, DEFAULTS)

    assert render_build(lost, 2, DEFAULTS)["spec"] == first["spec"]
    assert first["spec"]["source"]["ociArtifact"] == {"image": "r/source", "prune": "Never"}
    assert last["spec"]["source"] == source


def test_defaults_are_those_that_are_documented() -> None:
    assert BuildDefaults() == BuildDefaults(
        service_account="builder-sa",
        timeout=timedelta(minutes=15),
        retention_succeeded=timedelta(hours=1),
        retention_failed=timedelta(hours=24),
        deadline_grace=timedelta(minutes=1),
    )


def test_the_objects_of_an_attempt_name_its_span() -> None:
    trace = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", is_sampled=True)
    untraced = a_work(template=a_build())
    work = replace(untraced, trace=trace)

    def spans_on(attempt: int) -> set[str]:
        objects = [render_build(work, attempt, DEFAULTS), render_build_run(work, attempt, DEFAULTS)]
        return {each["metadata"]["annotations"][ANNOTATION_TRACEPARENT] for each in objects}

    assert len(spans_on(1)) == len(spans_on(2)) == 1
    assert spans_on(1) != spans_on(2)
    assert TraceContext.parse(*spans_on(1)) == trace.child(work.claim.claim_id).child(1)
    assert (
        ANNOTATION_TRACEPARENT not in render_build(untraced, 1, DEFAULTS)["metadata"]["annotations"]
    )


HOW_TO = Path(__file__).parents[5] / "docs" / "how-to" / "build-for-several-platforms.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", HOW_TO.read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_for_several_platforms_can_be_submitted(example: str) -> None:
    template = yaml.safe_load(example)

    check_template("build", template)
    build = render_build(a_work(template=template), 1, DEFAULTS)

    assert "platforms" not in build["spec"]["output"]


EMPTY: Manifest = {"name": "build-args", "values": []}
FULL: Manifest = {"name": "build-args", "values": [{"value": "A=1"}]}


def test_an_empty_array_is_left_out_and_its_parameter_is_not() -> None:
    """Tekton would refuse the TaskRun for ever, and nobody would be told."""
    file: Manifest = {"name": "dockerfile", "value": "Dockerfile"}
    template = a_list(
        a_build(spec={"paramValues": [file, FULL]}),
        a_build_run(spec={"paramValues": [EMPTY]}),
    )
    # The BuildRun's parameter still takes back what the Build gives.
    assert run_of(template)["paramValues"] == [{"name": "build-args"}]

    work = a_work(template=a_build(spec={"paramValues": [file, EMPTY]}))
    assert render_build(work, 1, DEFAULTS)["spec"]["paramValues"] == [file, {"name": "build-args"}]
    work = a_work(template=template)
    assert render_build(work, 1, DEFAULTS)["spec"]["paramValues"] == [file, FULL]

"""What the charts make of their values, by a real Helm and without a cluster."""

import base64
import json
import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import helm_python
import pytest

from brokkr.agent.app import LEAVE_WITHIN
from brokkr.agent.kube.permissions import render_permissions
from brokkr.broker.app import _GRACE_SECONDS
from brokkr.cli.settings import Settings
from brokkr.configuration import load
from brokkr.work.model import Manifest
from support.charts import (
    AGENT,
    BROKER,
    Values,
    is_agent_permission,
    loaded,
    render,
    the_leaves,
    the_only,
    the_values,
    value_sets,
    with_value,
)

SETS: Final = [(chart, name) for chart in (BROKER, AGENT) for name in value_sets(chart)]
LEAVES: Final = [
    (chart, path) for chart in (BROKER, AGENT) for path, _ in the_leaves(the_values(chart))
]
SETTINGS: Final = [(chart, path) for chart, path in LEAVES if path.startswith("config.")]

TEXTS: Final = ("flipped", "7m", f"sha256:{'7' * 64}")
CANNOT_BE_GUESSED: Final[Values] = {
    "config.broker.work_types": {"flipped": ["v1 ConfigMap"], "my.type": ["batch/v1 Job"]},
    "config.agent.work_queue.max_concurrent_by_type": {"flipped": 7, "my.type": 0},
}


def named(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value)


def default_values(chart: Path) -> Values:
    return value_sets(chart)["default"]


def another(chart: Path, path: str) -> Any:
    """Return a value that the schema allows and that is not the default."""
    if path in CANNOT_BE_GUESSED:
        return CANNOT_BE_GUESSED[path]
    schema: Any = loaded(chart).schema
    for key in path.split("."):
        schema = schema["properties"][key]
    default = dict(the_leaves(the_values(chart)))[path].default
    return another_of(schema, default)


def another_of(schema: dict[str, Any], default: Any = None) -> Any:
    if choices := schema.get("enum"):
        return next(each for each in choices if each != default)
    if choices := schema.get("oneOf") or schema.get("anyOf"):
        return another_of(choices[0], default)
    match schema["type"]:
        case "boolean":
            return not default
        case "integer" | "number":
            return (default or 1) + 1
        case "string":
            return next(each for each in TEXTS if re.search(schema.get("pattern", ""), each))
        case "array":
            return [another_of(schema["items"])]
        case _:
            inner = schema.get("additionalProperties")
            return {"flipped": another_of(inner) if inner else "yes"}


def toml_of(manifests: list[Manifest]) -> str:
    text: str = the_only(manifests, "ConfigMap")["data"]["brokkr.toml"]
    return text


def pod_of(manifests: list[Manifest]) -> dict[str, Any]:
    pod: dict[str, Any] = the_only(manifests, "Deployment")["spec"]["template"]["spec"]
    return pod


def flattened(tree: dict[str, Any], parent: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        path = f"{parent}{key}"
        if isinstance(value, dict) and path != "broker.work_types":
            yield from flattened(value, f"{path}.")
        else:
            yield path, value


# What is in the values


@pytest.mark.parametrize(("chart", "values"), SETS, ids=named)
def test_helm_finds_nothing_to_say_against_the_chart(chart: Path, values: str) -> None:
    report = helm_python.lint(chart, value_sets(chart)[values], strict=True)

    # Of level 1 is that there is no icon.
    assert [each for each in report["messages"] if each["severity"] > 1] == []
    assert report["errors"] == []


@pytest.mark.parametrize(("chart", "path"), LEAVES, ids=named)
def test_every_value_makes_a_difference_and_none_changes_a_selector(chart: Path, path: str) -> None:
    differs, value = False, another(chart, path)
    for values in value_sets(chart).values():
        before = render(chart, values)
        try:
            after = render(chart, with_value(values, path, value))
        except helm_python.HelmRenderError as error:
            assert "exclude each other" in str(error)  # noqa: PT017 - not with this set
            continue
        if differs := before != after:
            assert isinstance(value, bool) or is_in(after, value)
            assert selector_of(before) == selector_of(after)
            break

    assert differs


def is_in(manifests: list[Manifest], value: Any) -> bool:
    """Say whether a value, or what a list or table of it holds, is found in the objects."""
    while isinstance(value, list | dict):
        (value, *_) = value.values() if isinstance(value, dict) else value
    text, word = json.dumps(manifests), str(value)
    return word in text or base64.b64encode(word.encode()).decode() in text


def selector_of(manifests: list[Manifest]) -> object:
    return the_only(manifests, "Deployment")["spec"]["selector"]


@pytest.mark.parametrize(("chart", "path"), SETTINGS, ids=named)
def test_every_setting_arrives_in_the_program(chart: Path, path: str, tmp_path: Path) -> None:
    setting, value = path.removeprefix("config."), another(chart, path)
    file = tmp_path / "brokkr.toml"
    file.write_text(toml_of(render(chart, with_value(default_values(chart), path, value))))
    flags = dict(flattened(tomllib.loads(toml_of(render(chart, default_values(chart))))))

    arrived = load(Settings, file=file, environment={})

    assert arrived == load(Settings, environment={}, flags={**flags, setting: value})
    assert arrived != load(Settings, environment={}, flags=flags)


@pytest.mark.parametrize("chart", [BROKER, AGENT], ids=named)
def test_what_is_not_set_is_as_the_program_has_it(chart: Path, tmp_path: Path) -> None:
    file = tmp_path / "brokkr.toml"
    file.write_text(toml_of(render(chart, default_values(chart))))

    arrived = load(Settings, file=file, environment={}).model_dump()
    different = {
        path
        for (path, mine), (_, program) in zip(
            flattened(arrived), flattened(Settings().model_dump()), strict=True
        )
        if mine != program
    }

    assert different == (
        {"broker.host"}
        if chart == BROKER
        else {"agent.broker_url", "agent.health.host", "agent.health.port"}
    )


def test_a_text_of_any_characters_arrives_as_it_is(tmp_path: Path) -> None:
    odd = 'a"b\\c <&> é \t\n{{ .Values }} [x] #'
    values = with_value(default_values(AGENT), "config.agent.broker_url", odd)
    file = tmp_path / "brokkr.toml"
    file.write_text(toml_of(render(AGENT, values)))

    assert load(Settings, file=file, environment={}).agent.broker_url == odd


def test_a_policy_that_is_not_set_is_not_one_that_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "brokkr.toml"
    values = with_value(default_values(AGENT), "config.agent.policy.secrets", [])
    file.write_text(toml_of(render(AGENT, values)))

    policy = load(Settings, file=file, environment={}).agent.policy

    assert policy.secrets == ()
    assert policy.registries is None


# What the schema and the templates refuse


@pytest.mark.parametrize("chart", [BROKER, AGENT], ids=named)
def test_a_key_that_is_not_known_is_refused_wherever_it_stands(chart: Path) -> None:
    groups = {""} | {path.rpartition(".")[0] for path, _ in the_leaves(the_values(chart))}
    accepted = []
    for group in groups:
        values = with_value(default_values(chart), f"{group}.nonsense".lstrip("."), 1)
        try:
            render(chart, values)
        except helm_python.HelmError as error:
            assert "nonsense" in str(error)  # noqa: PT017
        else:
            accepted.append(group)

    assert accepted == []


@pytest.mark.parametrize(
    ("chart", "path", "value"),
    [
        (BROKER, "replicas", -1),
        (BROKER, "replicas", "many"),
        (BROKER, "image.pullPolicy", "Sometimes"),
        (BROKER, "image.tag", 1.2),
        (BROKER, "image.digest", "sha256:short"),
        (BROKER, "service.port", 70000),
        (BROKER, "service.type", "ExternalName"),
        (BROKER, "podDisruptionBudget.maxUnavailable", "half"),
        (BROKER, "networkPolicy.databasePorts", []),
        (BROKER, "serviceMonitor.interval", "often"),
        (BROKER, "podLabels", {"a": 1}),
        (BROKER, "config.broker.port", 0),
        (BROKER, "config.broker.log_level", "loud"),
        (BROKER, "config.broker.max_lost_claims", 0),
        (BROKER, "config.broker.work_types", {"job": []}),
        (BROKER, "config.broker.retention.failed_days", -1),
        (BROKER, "config.database.pool_size", 1),
        (AGENT, "work.namespace", ""),
        (AGENT, "work.namespace", "No_Name"),
        (AGENT, "builder.rules", ["get"]),
        (AGENT, "config.agent.health.port", 0),
        (AGENT, "config.agent.work_queue.max_concurrent", 101),
        (AGENT, "config.agent.work_queue.max_concurrent_by_type", {"build": -1}),
        (AGENT, "config.agent.work_crd.orphan_grace", 600),
        (AGENT, "config.agent.work_crd.orphan_grace", "a while"),
        (AGENT, "config.agent.policy.secrets", "push"),
    ],
    ids=named,
)
def test_a_value_that_cannot_be_is_refused_by_the_schema(
    chart: Path, path: str, value: object
) -> None:
    values = with_value(default_values(chart), path, value)

    with pytest.raises(helm_python.HelmValuesError) as refused:
        loaded(chart).validate_schema(values)
    with pytest.raises(helm_python.HelmError):
        render(chart, values)

    assert path.replace(".", "/") in str(refused.value)


@pytest.mark.parametrize(
    ("chart", "values", "says"),
    [
        (BROKER, {}, "the broker needs a PostgreSQL"),
        (BROKER, {"database": {"url": "x", "existingSecret": "y"}}, "database.existingSecret excl"),
        (
            BROKER,
            {"database": {"url": "x"}, "adminKey": {"value": "x", "existingSecret": "y"}},
            "adminKey.existingSecret exclude each other",
        ),
        (AGENT, {"key": {"value": "x"}}, "where is the broker?"),
        (AGENT, {"config": {"agent": {"broker_url": "x"}}}, "the agent needs its key"),
        (
            AGENT,
            {
                "key": {"value": "x"},
                "work": {"namespace": "brokkr-system"},
                "config": {"agent": {"broker_url": "x"}},
            },
            "the release's own namespace",
        ),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_said(
    chart: Path, values: Values, says: str
) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=re.escape(says)):
        render(chart, values)


# What is rendered


@pytest.mark.parametrize("chart", [BROKER, AGENT], ids=named)
def test_no_template_throws_dice_or_looks_at_clock_or_cluster(chart: Path) -> None:
    texts = [each["data"] for each in loaded(chart).templates]
    dice = re.compile(r"\b(lookup|rand\w+|uuidv4|now|gen[A-Z]\w+|htpasswd|derivePassword)\b")

    found = [dice.findall(line) for text in texts for line in re.findall(r"{{.*?}}", text)]

    assert [each for each in found if each] == []


@pytest.mark.parametrize(
    ("values", "name", "account", "namespace"),
    [
        ({}, "brokkr-agent", "brokkr-agent", "brokkr-agent"),
        (
            {"work": {"namespace": "builds"}, "serviceAccount": {"name": "edge"}},
            "brokkr-agent",
            "edge",
            "builds",
        ),
        ({}, "west", "west-brokkr-agent", "brokkr-agent"),
    ],
)
def test_the_agent_gets_exactly_the_permissions_that_the_code_asks_for(
    values: Values, name: str, account: str, namespace: str
) -> None:
    wanted = render_permissions(
        namespace=namespace, agent_namespace="brokkr-system", service_account=account
    )

    manifests = render(AGENT, {**default_values(AGENT), **values}, name=name)
    found = [without_labels(each) for each in manifests if is_agent_permission(each)]

    role = "brokkr-agent" if name == "brokkr-agent" else f"{name}-brokkr-agent"
    assert by_kind(found) == by_kind([of_a_release(each, role) for each in wanted])


def without_labels(manifest: Manifest) -> Manifest:
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "labels"}
    return {**manifest, "metadata": metadata}


def of_a_release(manifest: Manifest, role: str) -> Manifest:
    """Rename roles and bindings: a release owns its ClusterRole, which agents else share."""
    if manifest["kind"] == "ServiceAccount":
        return manifest
    names = {"Role": role, "ClusterRole": f"{role}:brokkr-system"}
    name = names[manifest["kind"].removesuffix("Binding")]
    renamed = {**manifest, "metadata": {**manifest["metadata"], "name": name}}
    if reference := manifest.get("roleRef"):
        renamed["roleRef"] = {**reference, "name": names[reference["kind"]]}
    return renamed


def by_kind(manifests: list[Manifest]) -> list[Manifest]:
    return sorted(manifests, key=lambda each: str(each["kind"]))


def test_builds_have_no_rights_and_no_token_unless_rules_are_given() -> None:
    def builder(values: Values) -> dict[str, Any]:
        (account,) = (
            each
            for each in render(AGENT, values)
            if (each["kind"], each["metadata"]["name"]) == ("ServiceAccount", "builder-sa")
        )
        return dict(account)

    without = default_values(AGENT)
    given = value_sets(AGENT)["everything"]
    kinds = [
        each["kind"] for each in render(AGENT, given) if each["metadata"]["name"] == "builder-sa"
    ]

    assert builder(without)["automountServiceAccountToken"] is False
    assert builder(without)["metadata"]["namespace"] == "brokkr-agent"
    assert builder(given)["automountServiceAccountToken"] is True
    assert builder(given)["secrets"] == [{"name": "push"}]
    assert builder(given)["imagePullSecrets"] == [{"name": "registry"}]
    assert sorted(kinds) == ["Role", "RoleBinding", "ServiceAccount"]


@pytest.mark.parametrize(("chart", "values"), SETS, ids=named)
def test_pods_have_no_privileges_and_write_nowhere_but_to_their_own_folder(
    chart: Path, values: str
) -> None:
    pod = pod_of(render(chart, value_sets(chart)[values]))
    volumes = {each["name"]: each for each in pod["volumes"]}

    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        writable = [each for each in container["volumeMounts"] if not each.get("readOnly")]
        assert [(each["mountPath"], volumes[each["name"]]) for each in writable] == [
            ("/tmp", {"name": "tmp", "emptyDir": {}})
        ]
    # The broker has no business with the cluster.
    assert pod.get("automountServiceAccountToken", True) is (chart == AGENT)


def test_a_pod_has_the_time_that_its_program_needs_to_end() -> None:
    broker = pod_of(render(BROKER, default_values(BROKER)))
    agent = pod_of(render(AGENT, default_values(AGENT)))
    spans = timedelta(seconds=2)  # to a collector that does not answer

    (broker_container,) = broker["containers"]
    waits = re.search(r"sleep\((\d+)\)", str(broker_container["lifecycle"]["preStop"]))
    assert waits is not None
    needs = timedelta(seconds=int(waits[1]) + _GRACE_SECONDS) + spans
    assert needs < timedelta(seconds=broker["terminationGracePeriodSeconds"]) < 3 * needs
    health = timedelta(seconds=1)
    needs = LEAVE_WITHIN + health + spans
    assert needs < timedelta(seconds=agent["terminationGracePeriodSeconds"]) < 3 * needs


def test_a_secret_is_either_made_or_named_and_never_in_the_configuration() -> None:
    made = render(BROKER, value_sets(BROKER)["secrets"])
    named_only = render(BROKER, default_values(BROKER))

    data = the_only(made, "Secret")["data"]
    assert base64.b64decode(data["url"]).decode() == "postgresql://brokkr:secret@db.example/brokkr"
    assert base64.b64decode(data["admin-key"]).startswith(b"brokkr_adm")
    assert "secret@" not in toml_of(made)
    assert [each["kind"] for each in named_only if each["kind"] == "Secret"] == []
    (container,) = pod_of(named_only)["containers"]
    assert container["env"] == [
        {
            "name": "BROKKR__DATABASE__URL",
            "valueFrom": {"secretKeyRef": {"name": "brokkr-database", "key": "url"}},
        }
    ]


@pytest.mark.parametrize(
    ("kind", "group", "old"),
    [("Ingress", "networking.k8s.io", "v1beta1"), ("PodDisruptionBudget", "policy", "v1beta1")],
)
def test_an_older_version_is_used_where_the_cluster_has_only_that(
    kind: str, group: str, old: str
) -> None:
    values = value_sets(BROKER)["everything"]
    served = f"{group}/{old}/{kind}"

    def version(*api_versions: str) -> str:
        manifest = the_only(render(BROKER, values, api_versions=api_versions), kind)
        return str(manifest["apiVersion"])

    assert version() == f"{group}/v1"
    assert version(served) == f"{group}/{old}"
    assert version(served, f"{group}/v1/{kind}") == f"{group}/v1"


@pytest.mark.parametrize(
    ("chart", "listens", "reaches"),
    [
        (BROKER, ["http"], [[53, 53], [5432]]),
        (AGENT, ["health"], [[53, 53], [443, 6443], [443, 3000]]),
    ],
    ids=named,
)
def test_a_network_policy_is_asked_for_and_lets_through_what_the_program_needs(
    chart: Path, listens: list[str], reaches: list[list[int]]
) -> None:
    """By default there is none: where database, broker and API server are, no chart can know."""
    values = default_values(chart)
    assert not [each for each in render(chart, values) if each["kind"] == "NetworkPolicy"]

    manifests = render(chart, with_value(values, "networkPolicy.enabled", value=True))

    spec = the_only(manifests, "NetworkPolicy")["spec"]
    labels = the_only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in spec["ingress"] for port in rule["ports"]] == listens
    assert [[port["port"] for port in rule["ports"]] for rule in spec["egress"]] == reaches
    named_ports = {
        port["name"]
        for container in pod_of(manifests)["containers"]
        for port in container.get("ports", [])
    }
    assert set(listens) <= named_ports

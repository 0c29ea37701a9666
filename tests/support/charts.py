"""The charts: their values with the comments on them, and what a real Helm makes of both."""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import helm_python
import yaml
from helm_python import _native

from brokkr.work.model import Manifest

BROKER: Final = Path(__file__).parents[2] / "charts" / "brokkr-broker"
AGENT: Final = BROKER.with_name("brokkr-agent")

Values = dict[str, Any]


@dataclass
class Value:
    """One key of `values.yaml`.  What has comments inside is a group, without a default."""

    key: str
    says: str
    default: object
    children: "list[Value]" = field(default_factory=list)


@cache
def the_values(chart: Path) -> list[Value]:
    """Read a chart's `values.yaml` with its comments."""
    text = (chart / "values.yaml").read_text()
    node = yaml.compose(text, Loader=yaml.CSafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return list(_values(node, read_yaml(text), text.splitlines()))


def _values(
    node: yaml.MappingNode, defaults: Mapping[str, Any], lines: list[str]
) -> Iterator[Value]:
    for key, inner in node.value:
        default = defaults[key.value]
        is_table = isinstance(inner, yaml.MappingNode)
        children = list(_values(inner, default, lines)) if is_table else []
        is_group = any(each.says or each.children for each in children)
        says = _comment_above(lines, key.start_mark.line)
        yield Value(key.value, says, default, children if is_group else [])


def _comment_above(lines: list[str], at: int) -> str:
    found: list[str] = []
    while lines[at - 1].lstrip().startswith("# ") and "settings>" not in lines[at - 1]:
        at -= 1
        found.insert(0, lines[at].strip()[2:])
    return " ".join(found)


def the_leaves(values: list[Value], parent: str = "") -> Iterator[tuple[str, Value]]:
    """Yield what is no group, by its path."""
    for each in values:
        path = f"{parent}{each.key}"
        if each.children:
            yield from the_leaves(each.children, f"{path}.")
        else:
            yield path, each


@cache
def value_sets(chart: Path) -> dict[str, Values]:
    """Read the values that the chart is tried with, by the names of their files."""
    return {
        path.name.removesuffix("-values.yaml"): read_yaml(path.read_text())
        for path in sorted((chart / "ci").glob("*-values.yaml"))
    }


def with_value(values: Values, path: str, value: object) -> Values:
    """Return values in which one of them is another."""
    changed = deepcopy(values)
    *parents, last = path.split(".")
    table = changed
    for key in parents:
        table = table.setdefault(key, {})
    table[last] = value
    return changed


@cache
def loaded(chart: Path) -> helm_python.Chart:
    """Return a chart as Helm has it."""
    return helm_python.Chart.load(chart)


def render(
    chart: Path,
    values: Values,
    *,
    name: str | None = None,
    namespace: str = "brokkr-system",
    api_versions: Sequence[str] = (),
) -> list[Manifest]:
    """
    Render a chart without a cluster.

    Args:
        name: The release's; the chart's own if not given.
        api_versions: Served beside those that Helm assumes.

    Raises:
        HelmError: The values are refused, by the schema or by a template.
    """
    options = {
        "name": name or chart.name,
        "namespace": namespace,
        "api_versions": [*api_versions],
    }
    # Not by the method of Chart, which does not pass the versions on.
    text = _native.call_string(
        "helm_render", loaded(chart)._raw(), json.dumps(values), json.dumps(options)
    )
    rendered = sorted(json.loads(text).items())
    return manifests_in("\n---\n".join(text for path, text in rendered if path.endswith(".yaml")))


def agent_permissions(*, namespace: str, agent_namespace: str) -> list[Manifest]:
    """Return what the agent's chart makes for its account, the account included."""
    # Rendered once: some hundred tests ask for it.
    text = _agent_permissions().replace("work-namespace", namespace)
    found: list[Manifest] = json.loads(text.replace("release-namespace", agent_namespace))
    return found


@cache
def _agent_permissions() -> str:
    values = with_value(value_sets(AGENT)["default"], "work.namespace", "work-namespace")
    rendered = render(AGENT, values, namespace="release-namespace")
    return json.dumps([each for each in rendered if is_agent_permission(each)])


def is_agent_permission(manifest: Manifest) -> bool:
    """Say whether an object is the agent's account, a role of it, or a binding."""
    is_builder = manifest["metadata"]["name"] == "builder-sa"
    return manifest["kind"].endswith(("Role", "Binding", "Account")) and not is_builder


def manifests_in(text: str) -> list[Manifest]:
    """Read all documents of a text; what is empty is none."""
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


def read_yaml(text: str) -> Any:
    """Read one document, with libyaml: it is fast, and there is much to read."""
    return yaml.load(text, Loader=yaml.CSafeLoader)


def the_only(manifests: Sequence[Manifest], kind: str) -> dict[str, Any]:
    """Return the one manifest of a kind."""
    (found,) = (each for each in manifests if each["kind"] == kind)
    return dict(found)

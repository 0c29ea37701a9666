"""
What the charts repeat is what the code and their own `values.yaml` say.

``python tests/architecture/test_charts_generated.py``, or ``make charts``, writes it anew: the
definition of Work, the agent's permissions, the settings under ``config``, the schema of the
values, and the table in each README.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

import pytest
import yaml
from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from brokkr import __version__
from brokkr.agent.kube.permissions import CLUSTER_ROLE, Rule, render_role
from brokkr.agent.settings import AgentSettings
from brokkr.broker.settings import BrokerSettings, DatabaseSettings
from support.charts import AGENT, BROKER, Value, the_leaves, the_values

ROOT: Final = Path(__file__).parents[2]
CRD: Final = ROOT / "src" / "brokkr" / "agent" / "kube" / "crd.yaml"


class _Sections(BaseModel):
    model_config = ConfigDict(extra="forbid")


class BrokerFile(_Sections):
    broker: BrokerSettings = BrokerSettings()
    database: DatabaseSettings = DatabaseSettings()


class AgentFile(_Sections):
    agent: AgentSettings = AgentSettings()


FILES: Final[dict[Path, type[BaseModel]]] = {BROKER: BrokerFile, AGENT: AgentFile}

ELSEWHERE: Final = {
    "broker.admin_key": "`adminKey`: a Secret",
    "broker.data_dir": "there is no database in a pod of the broker",
    "database.url": "`database`: a Secret",
    "agent.key": "`key`: a Secret",
    "agent.kubeconfig": "the agent's cluster is the one that its pod runs in",
    "agent.work_crd.namespace": "`work.namespace`, where more is made than the agent's settings",
}
"""Settings that are not under `config`, and why."""

IN_A_POD: Final = {
    "broker.host": "0.0.0.0",
    "agent.broker_url": "",
    "agent.health.host": "0.0.0.0",
    "agent.health.port": 8081,
}
"""Defaults that are others in a pod; an empty one has to be given."""

IN_OTHER_WORDS: Final = {
    "broker.port": "The port to listen on.",
    "agent.broker_url": "Where the broker is, without /api/v1. It has to be given.",
    "agent.health.port": "The port to listen on.",
}
"""Descriptions that do not fit there."""

_PORT: Final = {"type": "integer", "minimum": 1, "maximum": 65535}
_NAME: Final = {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$"}
_KEY: Final = {"type": "string", "pattern": "^[-._a-zA-Z0-9]+$"}
_INTERVAL: Final = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
_OBJECTS: Final = {"type": "array", "items": {"type": "object"}}
_STRINGS: Final = {"type": "object", "additionalProperties": {"type": "string"}}

NARROWER: Final[dict[str, dict[str, Any]]] = {
    "replicas": {"type": "integer", "minimum": 0},
    "image.repository": {"type": "string", "minLength": 1},
    "image.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "fullnameOverride": _NAME,
    "database.secretKey": _KEY,
    "adminKey.secretKey": _KEY,
    "key.secretKey": _KEY,
    "service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "service.port": _PORT,
    "podDisruptionBudget.maxUnavailable": {
        "oneOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": "^[0-9]+%$"},
        ]
    },
    "networkPolicy.databasePorts": {"type": "array", "items": _PORT, "minItems": 1},
    "networkPolicy.apiServerPorts": {"type": "array", "items": _PORT, "minItems": 1},
    "networkPolicy.brokerPorts": {"type": "array", "items": _PORT, "minItems": 1},
    "serviceMonitor.interval": _INTERVAL,
    "serviceMonitor.keySecretKey": _KEY,
    "podMonitor.interval": _INTERVAL,
    "work.namespace": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"},
    "service.annotations": _STRINGS,
    "ingress.annotations": _STRINGS,
    "serviceAccount.annotations": _STRINGS,
    "serviceMonitor.labels": _STRINGS,
    "podMonitor.labels": _STRINGS,
    "podAnnotations": _STRINGS,
    "podLabels": _STRINGS,
    "nodeSelector": _STRINGS,
    "config.broker.port": _PORT,
    "config.agent.health.port": _PORT,
}
"""What a value's default does not say of what else it may be."""


def render_crd() -> str:
    """A copy: Helm follows no links out of a chart."""
    return f"# A copy of src/brokkr/agent/kube/crd.yaml; `make charts` makes it.\n{CRD.read_text()}"


def render_permissions() -> str:
    """The rules as templates; who has them, `rbac.yaml` says."""
    return (
        "{{- /* What src/brokkr/agent/kube/permissions.py says; `make charts` makes this. */ -}}\n"
        + _definition("role", render_role("{{ .Values.work.namespace }}"))
        + "\n"
        + _definition("clusterRole", CLUSTER_ROLE)
    )


def _definition(name: str, rules: tuple[Rule, ...]) -> str:
    return (
        f'{{{{- define "brokkr-agent.{name}" -}}}}\n'
        + "".join(f"# {each.why}\n{_rule(each)}" for each in rules)
        + "{{- end -}}\n"
    )


def _rule(rule: Rule) -> str:
    return yaml.safe_dump([rule.manifest()], default_flow_style=None, sort_keys=False, width=1000)


_SETTINGS: Final = re.compile(r"(?<=  # <settings>\n).*(?=  # </settings>)", re.DOTALL)


def render_values(chart: Path) -> str:
    """`values.yaml` with the settings as they are now."""
    settings = "".join(_settings(FILES[chart]))
    return _SETTINGS.sub(lambda _: settings, (chart / "values.yaml").read_text())


def _settings(model: type[BaseModel], parents: tuple[str, ...] = ()) -> Iterator[str]:
    indent = "  " * (len(parents) + 1)
    for key, found in model.model_fields.items():
        path = ".".join((*parents, key))
        if path in ELSEWHERE:
            continue
        if (inner := _section(found)) is not None:
            yield f"{indent}{key}:\n"
            yield from _settings(inner, (*parents, key))
        else:
            for line in wrap(_description(path, found), 96 - len(indent)):
                yield f"{indent}# {line}\n"
            default = IN_A_POD.get(path, _default(found))
            yield f"{indent}{key}: {json.dumps(default)}\n"


def _section(found: FieldInfo) -> type[BaseModel] | None:
    annotation = found.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _description(path: str, found: FieldInfo) -> str:
    return IN_OTHER_WORDS.get(path, found.description or "")


def _default(found: FieldInfo) -> object:
    if isinstance(found.default, timedelta):
        return _duration(found.default)
    return found.default


def _duration(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    units = (("h", 3600), ("m", 60), ("s", 1))
    return next(f"{seconds // size}{unit}" for unit, size in units if seconds % size == 0)


def render_schema(chart: Path) -> str:
    values = [each for each in the_values(chart) if each.key != "config"]
    schema = _object_schema(values, "")
    schema["properties"]["config"] = _settings_schema(FILES[chart])
    # Helm gives it to charts that others depend on.
    schema["properties"]["global"] = {"type": "object"}
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": chart.name}
    return json.dumps({**head, **schema}, indent=2) + "\n"


def _object_schema(values: list[Value], parent: str) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {each.key: _value_schema(each, f"{parent}{each.key}") for each in values},
    }


def _value_schema(value: Value, path: str) -> dict[str, Any]:
    if value.children:
        return _object_schema(value.children, f"{path}.")
    told = {"description": value.says}
    if path in NARROWER:
        return {**told, **NARROWER[path]}
    match value.default:
        case bool():
            return {**told, "type": "boolean"}
        case str():
            return {**told, "type": "string"}
        case list():
            return {**told, **_OBJECTS}
        case dict():
            return {**told, "type": "object"}
    raise TypeError(f"{path}: what may it be?")


def _settings_schema(model: type[BaseModel], parent: str = "") -> dict[str, Any]:
    whole = model.model_json_schema()
    properties = {}
    for key, found in model.model_fields.items():
        path = f"{parent}{key}"
        if path in ELSEWHERE:
            continue
        inner = _section(found)
        properties[key] = (
            _setting_schema(whole["properties"][key], path, found)
            if inner is None
            else _settings_schema(inner, f"{path}.")
        )
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _setting_schema(schema: dict[str, Any], path: str, found: FieldInfo) -> dict[str, Any]:
    told = {"description": _description(path, found)}
    if f"config.{path}" in NARROWER:
        return {**told, **NARROWER[f"config.{path}"]}
    if isinstance(found.default, timedelta):
        return {**told, "type": "string", "pattern": "^([0-9]+[smhd])+$"}
    return {**told, **{k: v for k, v in schema.items() if k not in ("default", "title", *told)}}


_TABLE: Final = re.compile(r"(?<=<!-- values -->\n).*(?=<!-- end of values -->)", re.DOTALL)


def render_readme(chart: Path) -> str:
    table = "| value | default | |\n|---|---|---|\n" + "".join(
        f"| `{path}` | {_code(each.default)} | {each.says} |\n"
        for path, each in the_leaves(the_values(chart))
    )
    return _TABLE.sub(lambda _: table, (chart / "README.md").read_text())


def _code(default: object) -> str:
    if default in ("", None):
        return ""
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


MADE: Final[dict[Path, Callable[[], str]]] = {
    AGENT / "crds" / "works.brokkr.io.yaml": render_crd,
    AGENT / "templates" / "_permissions.tpl": render_permissions,
    **{chart / "values.yaml": partial(render_values, chart) for chart in FILES},
    # from values.yaml, and so after it
    **{chart / "values.schema.json": partial(render_schema, chart) for chart in FILES},
    **{chart / "README.md": partial(render_readme, chart) for chart in FILES},
}


@pytest.mark.parametrize("path", MADE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_charts_repeat_is_up_to_date(path: Path) -> None:
    assert path.read_text() == MADE[path](), "run: make charts"


@pytest.mark.parametrize("chart", FILES, ids=lambda chart: chart.name)
def test_every_value_says_what_it_is_for(chart: Path) -> None:
    silent = [path for path, each in the_leaves(the_values(chart)) if not each.says]

    assert silent == []


def test_settings_that_are_not_under_config_and_defaults_of_pods_are_still_there() -> None:
    known = {path for model in FILES.values() for path in _paths(model)}

    assert (set(ELSEWHERE) | set(IN_A_POD)) - known == set()


def _paths(model: type[BaseModel], parent: str = "") -> Iterator[str]:
    for key, found in model.model_fields.items():
        inner = _section(found)
        yield from [f"{parent}{key}"] if inner is None else _paths(inner, f"{parent}{key}.")


def test_the_bounds_are_of_values_that_are_there() -> None:
    known = {path for chart in FILES for path, _ in the_leaves(the_values(chart))}

    assert set(NARROWER) - known == set()


@pytest.mark.parametrize("chart", FILES, ids=lambda chart: chart.name)
def test_a_chart_is_of_this_version_of_the_code(chart: Path) -> None:
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text())

    assert metadata["appVersion"] == __version__


def test_both_charts_write_the_same_toml() -> None:
    texts = {(chart / "templates" / "_toml.tpl").read_text() for chart in FILES}

    assert len(texts) == 1


if __name__ == "__main__":
    for made, render in MADE.items():
        made.write_text(render())

"""Dashboards and alerts are about what broker and agents measure; dashboards show all of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from brokkr.agent.metrics import Metrics as AgentMetrics
from brokkr.broker.metrics import Metrics as BrokerMetrics

DEPLOY = Path(__file__).parents[2] / "deploy"
METRICS: dict[str, type[BrokerMetrics] | type[AgentMetrics]] = {
    "broker": BrokerMetrics,
    "agent": AgentMetrics,
}
NAME = re.compile(r"brokkr_(?:broker|agent)_\w+")
SELECTED = re.compile(r"(brokkr_(?:broker|agent)_\w+)\{([^}]*)\}")
GROUPED = re.compile(r"by \(([\w, ]+)\)")
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
}
OF_THE_SCRAPE = {"instance", "le"}


def the_dashboard(of: str) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana" / f"brokkr-{of}.json").read_text())
    return dashboard


def the_alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "brokkr.yaml").read_text())
    return [rule for group in rules["spec"]["groups"] for rule in group["rules"]]


def the_queries(of: str) -> list[str]:
    """Return a dashboard's queries, or those of all alerts."""
    if of == "alerts":
        return [rule["expr"] for rule in the_alerts()]
    return [target["expr"] for panel in the_dashboard(of)["panels"] for target in panel["targets"]]


def the_samples(of: str) -> dict[str, str]:
    """Return the names that samples have, each with that of its metric."""
    return {
        family.name + suffix: family.name
        for family in METRICS[of]().registry.collect()
        for suffix in SUFFIXES[family.type]
    }


def the_labels() -> dict[str, set[str]]:
    return {
        f"{metric._name}{suffix}": {*metric._labelnames, *OF_THE_SCRAPE}
        for of in METRICS.values()
        for metric in vars(of()).values()
        if hasattr(metric, "_labelnames")
        for suffix in SUFFIXES[metric._type]
    }


@pytest.mark.parametrize("of", [*METRICS, "alerts"])
def test_every_query_is_of_a_metric_that_exists(of: str) -> None:
    known = {name for each in METRICS for name in the_samples(each)}
    asked = {name for query in the_queries(of) for name in NAME.findall(query)}

    assert asked
    assert sorted(asked - known) == []


@pytest.mark.parametrize("of", METRICS)
def test_every_metric_is_on_the_dashboard(of: str) -> None:
    samples = the_samples(of)
    shown = {samples[name] for query in the_queries(of) for name in NAME.findall(query)}

    assert sorted(set(samples.values()) - shown) == []


@pytest.mark.parametrize("of", [*METRICS, "alerts"])
def test_queries_ask_for_labels_that_the_metrics_have(of: str) -> None:
    labels = the_labels()
    wrong = []
    for query in the_queries(of):
        known = set.intersection(*(labels[name] for name in NAME.findall(query)))
        asked = {key for group in GROUPED.findall(query) for key in group.split(", ")}
        asked |= {
            re.split(r"[=!]", matcher)[0]
            for _, matchers in SELECTED.findall(query)
            for matcher in re.findall(r"\w+[=!]~?", matchers)
        }
        wrong += [(query, asked - known)] if asked - known else []

    assert wrong == []


@pytest.mark.parametrize("of", METRICS)
def test_panels_do_not_overlap_and_have_ids_of_their_own(of: str) -> None:
    panels = the_dashboard(of)["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_alert_says_what_it_means_and_has_a_name_of_its_own() -> None:
    alerts = the_alerts()

    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    assert [alert["alert"] for alert in alerts if not alert["annotations"]["description"]] == []
    assert {alert["labels"]["severity"] for alert in alerts} <= {"warning", "critical"}

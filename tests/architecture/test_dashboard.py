"""The dashboard shows what the broker measures, all of it, and nothing else."""

import json
import re
from pathlib import Path
from typing import Any

from brokkr.broker.metrics import Metrics

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "brokkr-broker.json"
NAME = re.compile(r"brokkr_broker_\w+")
SELECTED = re.compile(r"(brokkr_broker_\w+)\{([^}]*)\}")
GROUPED = re.compile(r"by \(([\w, ]+)\)")
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
}
OF_THE_SCRAPE = {"instance", "le"}


def the_dashboard() -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return dashboard


def the_queries() -> list[str]:
    return [target["expr"] for panel in the_dashboard()["panels"] for target in panel["targets"]]


def the_samples() -> dict[str, str]:
    """Return the names that samples have, each with that of its metric."""
    return {
        family.name + suffix: family.name
        for family in Metrics().registry.collect()
        for suffix in SUFFIXES[family.type]
    }


def test_every_query_is_of_a_metric_that_exists() -> None:
    asked = {name for query in the_queries() for name in NAME.findall(query)}

    assert sorted(asked - the_samples().keys()) == []


def test_every_metric_is_on_the_dashboard() -> None:
    samples = the_samples()
    shown = {samples[name] for query in the_queries() for name in NAME.findall(query)}

    assert sorted(set(samples.values()) - shown) == []


def test_queries_ask_for_labels_that_the_metrics_have() -> None:
    metrics = Metrics()
    labels = {
        f"{metric._name}{suffix}": {*metric._labelnames, *OF_THE_SCRAPE}
        for metric in vars(metrics).values()
        if hasattr(metric, "_labelnames")
        for suffix in SUFFIXES[metric._type]
    }
    wrong = []
    for query in the_queries():
        known = set.intersection(*(labels[name] for name in NAME.findall(query)))
        asked = {key for group in GROUPED.findall(query) for key in group.split(", ")}
        asked |= {
            re.split(r"[=!]", matcher)[0]
            for _, matchers in SELECTED.findall(query)
            for matcher in re.findall(r"\w+[=!]~?", matchers)
        }
        wrong += [(query, asked - known)] if asked - known else []

    assert wrong == []


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = the_dashboard()["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)

"""
The list of metrics in print is what the broker has.

``python tests/architecture/test_metrics_reference.py`` writes it anew.
"""

from pathlib import Path

from brokkr.broker.metrics import MEASURE_EVERY_SECONDS, Metrics

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"

HEAD = f"""\
# Metrics of the broker

`GET /metrics` answers in Prometheus' text format; with `broker.metrics_open = false` only to
the key of an admin or a viewer. [The dashboard](../../deploy/grafana/brokkr-broker.json) shows
all of them.

Counters and histograms are of one replica: sum them. What is measured in the database is the
same from every replica: take the maximum. It is measured at most every {MEASURE_EVERY_SECONDS}
seconds, however often somebody asks.

| metric | kind | labels | |
|---|---|---|---|
"""


def render() -> str:
    metrics = Metrics()
    labels = {
        metric._name: metric._labelnames
        for metric in vars(metrics).values()
        if hasattr(metric, "_labelnames")
    }
    return HEAD + "".join(
        f"| `{family.name}{'_total' if family.type == 'counter' else ''}` | {family.type} "
        f"| {' '.join(f'`{each}`' for each in labels[family.name])} | {family.documentation} |\n"
        for family in sorted(metrics.registry.collect(), key=lambda family: family.name)
    )


def test_the_list_of_metrics_in_print_is_what_the_broker_has() -> None:
    assert DOCUMENT.read_text() == render(), f"run: python {__file__}"


if __name__ == "__main__":
    DOCUMENT.write_text(render())

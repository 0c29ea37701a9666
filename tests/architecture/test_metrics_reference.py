"""
The lists of metrics in print are what broker and agent have.

``python tests/architecture/test_metrics_reference.py`` writes them anew.
"""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from brokkr.agent.metrics import Metrics as AgentMetrics
from brokkr.broker.metrics import MEASURE_EVERY_SECONDS
from brokkr.broker.metrics import Metrics as BrokerMetrics

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

BROKER_HEAD = f"""\
# Metrics of the broker

`GET /metrics` answers in Prometheus' text format; with `broker.metrics_open = false` only to
the key of an admin or a viewer. [The dashboard](../../deploy/grafana/brokkr-broker.json) shows
all of them.

Counters and histograms are of one replica: sum them. What is measured in the database is the
same from every replica: take the maximum. It is measured at most every {MEASURE_EVERY_SECONDS}
seconds, however often somebody asks.
"""

AGENT_HEAD = """\
# Metrics of an agent

`GET /metrics` at `agent.health.host` and `agent.health.port` answers in Prometheus' text format.
Beside it are `/healthz`, which answers as long as the process does, and `/readyz`, which is 503 and
says why while broker or cluster are away, or a type of work is unavailable.

The failure classes are those of [the table](failures.md).
"""

TABLE_HEAD = """
| metric | kind | labels | |
|---|---|---|---|
"""


def render(head: str, metrics: BrokerMetrics | AgentMetrics) -> str:
    labels = {
        metric._name: metric._labelnames
        for metric in vars(metrics).values()
        if hasattr(metric, "_labelnames")
    }
    registry: CollectorRegistry = metrics.registry
    rows = [
        f"| `{family.name}{'_total' if family.type == 'counter' else ''}` | {family.type} "
        f"| {' '.join(f'`{each}`' for each in labels[family.name])} "
        f"| {family.documentation} |\n"
        for family in sorted(registry.collect(), key=lambda family: family.name)
    ]
    return head + TABLE_HEAD + "".join(rows)


def the_documents() -> dict[str, str]:
    return {
        "metrics.md": render(BROKER_HEAD, BrokerMetrics()),
        "agent-metrics.md": render(AGENT_HEAD, AgentMetrics()),
    }


@pytest.mark.parametrize("name", the_documents())
def test_the_list_of_metrics_in_print_is_what_there_is(name: str) -> None:
    assert (REFERENCE / name).read_text() == the_documents()[name], f"run: python {__file__}"


if __name__ == "__main__":
    for name, text in the_documents().items():
        (REFERENCE / name).write_text(text)

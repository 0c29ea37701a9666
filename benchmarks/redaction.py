"""
How fast is text redacted?

In megabytes of text for a second of CPU: the output of builds as it was recorded, at once, by
lines and in the pieces of a log stream; source code, which is full of words such as "token"; and
the worst texts that somebody could make.  It starts nothing.
"""

import platform
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from time import process_time

from brokkr.work.redaction import SHAPES, Redactor, redact
from machine import QUICK, Report, middle, spread

ROOT = Path(__file__).parents[1]
SIZE = 200_000 if QUICK else 4_000_000
RUNS = 3 if QUICK else 7


def main() -> None:
    """Run everything."""
    machine = {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "quick": QUICK,
        "python": platform.python_version(),
    }
    report = Report(name="redaction", machine=machine)
    logs = _text(sorted((ROOT / "tests/data/buildruns").glob("*/logs.txt")))
    code = _text(sorted((ROOT / "src").rglob("*.py")))
    _measure(report, "output of builds", logs, redact)
    log_lines = logs.splitlines(keepends=True)
    _measure(report, "the same line by line", logs, lambda _: _in_pieces(log_lines))
    pieces = [logs[at : at + 8192] for at in range(0, len(logs), 8192)]
    _measure(report, "the same in pieces of 8 KiB", logs, lambda _: _in_pieces(pieces))
    _measure(report, "source code", code, redact)
    hostile = [each * (SIZE // 20 // len(each)) for each in _anchors()]
    slowest = min(hostile, key=_speed_of)
    _measure(report, f"hostile: {slowest[:12]!r} again and again", slowest, redact)
    report.save()


def _measure(report: Report, what: str, text: str, work: Callable[[str], object]) -> None:
    speeds = [_speed_of(text, work) for _ in range(RUNS)]
    report.add(what=what, mb_per_cpu_second=middle(speeds), spread=spread(speeds))


def _speed_of(text: str, work: Callable[[str], object] = redact) -> float:
    began = process_time()
    work(text)
    return len(text) / 1e6 / (process_time() - began)


def _in_pieces(pieces: Iterable[str]) -> None:
    redactor = Redactor()
    for each in pieces:
        redactor.feed(each)
    redactor.finish()


def _text(files: Iterable[Path]) -> str:
    text = "\n".join(each.read_text() for each in files)
    return (text * (SIZE // len(text) + 1))[:SIZE]


def _anchors() -> set[str]:
    return {anchor for shape in SHAPES for anchor in shape.anchors}


if __name__ == "__main__":
    main()

"""The page on hostile input names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "hostile-input.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_outcome_has_a_test_that_exists() -> None:
    tried, _, _ = PAGE.read_text().partition("## Runs at depth")
    rows = [each for each in tried.splitlines() if each.startswith("| ")]
    shown = {row: TEST.findall(row) for row in rows if not row.startswith("| tried")}
    missing = [
        f"{path}::{name}"
        for tests in shown.values()
        for path, name in tests
        if f"def {name}(" not in (ROOT / path).read_text()
    ]

    assert [row for row, tests in shown.items() if not tests] == []
    assert missing == []

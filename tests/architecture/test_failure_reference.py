"""
The failure table in print is the table in the code.

``python tests/architecture/test_failure_reference.py`` writes it anew.
"""

from pathlib import Path

from brokkr.agent.handlers.build.failures import TABLE, UNLISTED, Row

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "failures.md"

HEAD = """\
# Failed builds: what is retried

When a build fails, the reason that Shipwright, Tekton or a step of the build gave decides
what happens next. The most specific reason counts: a refused Build's own, then the one
that a step wrote, then the `Succeeded` condition's. Where a reason covers several causes,
its message decides; the first row that holds is taken.

* **permanent**: the Work fails at once.
* **retried once**: a first failure with this reason is retried, a second one is not.
* **retryable**: retried until `max_retries` is used up.

| reason | if the message matches | | why |
|---|---|---|---|
"""


def render() -> str:
    rows = "".join(_line(row, " ".join(f"`{each}`" for each in row.reasons)) for row in TABLE)
    return HEAD + rows + _line(UNLISTED, "any other")


def _line(row: Row, reasons: str) -> str:
    saying = "" if row.saying is None else f"`{row.saying.pattern}`".replace("|", r"\|")
    return f"| {reasons} | {saying} | {row.retry.value} | {row.why} |\n"


def test_the_failure_table_in_print_is_the_table_in_the_code() -> None:
    assert DOCUMENT.read_text() == render(), f"run: python {__file__}"


if __name__ == "__main__":
    DOCUMENT.write_text(render())

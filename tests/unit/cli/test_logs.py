"""What the log looks like, and what never reaches it.

Each test runs a process of its own: how a process logs is set once, for all of it.
"""

import json
import os
import pty
import subprocess
import sys

import pytest

SECRET = "hunter2hunter2"

PROGRAM = f"""
import logging, structlog
from brokkr.cli.logs import log_to_stderr

log_to_stderr({{format!r}}, {{level!r}})
log = structlog.get_logger()
structlog.contextvars.bind_contextvars(request_id="r-1")

log.debug("detail seen")
log.info("work claimed", work_id="w-1", round=2)
log.warning("request refused", headers={{{{"authorization": "Bearer {SECRET}"}}}}, token="{SECRET}")
try:
    raise ValueError("postgresql://brokkr:{SECRET}@db/brokkr \\x1b[2J gone")
except ValueError:
    log.exception("job failed", why=["https://x:{SECRET}@git.example/x"])
logging.getLogger("asyncpg.pool").warning("lost %s", "password={SECRET}")
try:
    raise ValueError("-----BEGIN PRIVATE KEY-----\\n{SECRET}\\n-----END PRIVATE KEY-----")
except ValueError:
    logging.getLogger("uvicorn.error").exception("Exception in ASGI application\\n")
logging.getLogger("uvicorn.error").info("Started server process")
"""


def lines_of(log_format: str, level: str = "info") -> list[str]:
    """Return what a process writes that logs into a pipe."""
    program = PROGRAM.format(format=log_format, level=level)
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def on_a_terminal(log_format: str) -> str:
    """Return what a process writes that logs to a terminal."""
    ours, theirs = pty.openpty()
    program = PROGRAM.format(format=log_format, level="info")
    subprocess.run([sys.executable, "-c", program], stderr=theirs, check=True)
    os.close(theirs)
    written = b""
    try:
        while True:
            written += os.read(ours, 65536)
    except OSError:  # how a terminal says that nobody writes to it any more
        os.close(ours)
    return written.decode()


@pytest.mark.parametrize("log_format", ["json", "auto"])
def test_anywhere_but_on_a_terminal_each_line_is_a_json_object(log_format: str) -> None:
    lines = [json.loads(line) for line in lines_of(log_format)]

    assert [line["event"] for line in lines] == [
        "work claimed",
        "request refused",
        "job failed",
        "lost password=***",
        "Exception in ASGI application",
    ]
    assert lines[0] == {
        "event": "work claimed",
        "level": "info",
        "timestamp": lines[0]["timestamp"],
        "request_id": "r-1",
        "work_id": "w-1",
        "round": 2,
    }


def test_a_terminal_gets_lines_for_people() -> None:
    written = on_a_terminal("auto")

    assert "work claimed" in written
    assert '"event"' not in written


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_credential_reaches_the_log_whoever_writes_it(log_format: str) -> None:
    written = "\n".join(lines_of(log_format, "debug"))

    assert "ValueError" in written  # the tracebacks are there
    assert written.count("***") >= 5
    assert SECRET not in written


def test_lines_of_libraries_come_through_the_same_door() -> None:
    lines = {line["event"]: line for line in map(json.loads, lines_of("json"))}

    lost, failed = lines["lost password=***"], lines["Exception in ASGI application"]
    assert (lost["logger"], lost["level"]) == ("asyncpg.pool", "warning")
    assert "Traceback" in failed["exception"]
    assert {each["request_id"] for each in lines.values()} == {"r-1"}


def test_nobody_s_text_can_steer_the_terminal() -> None:
    assert "\x1b" not in "\n".join(lines_of("console"))


def test_details_are_written_when_they_are_asked_for() -> None:
    assert any("detail seen" in line for line in lines_of("json", "debug"))
    assert not any("work claimed" in line for line in lines_of("json", "warning"))


def test_a_line_that_cannot_be_made_is_counted_and_raises_nothing() -> None:
    program = """
import logging, structlog
from brokkr.cli.logs import log_to_stderr
from brokkr.log_output import standard_error

class Odd:
    def __repr__(self):
        raise RuntimeError("no name")

log_to_stderr("json")
structlog.get_logger().info("odd", value=Odd())
logging.getLogger("library").warning("%d things", "many")
structlog.get_logger().info("after", lost=standard_error.lost)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [(line["event"], line.get("lost")) for line in lines] == [
        ("%d things", None),
        ("after", 1),
    ]

"""
What broker and agent write to standard error, and what they never write there.

The one place where log lines are made: every line of the process passes through it, those
of libraries too, so a secret that reaches a message by mistake stops here.
"""

import logging
import os
import re
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TextIO, cast

import structlog
from structlog.typing import Processor

from brokkr.log_output import STANDARD_ERROR, standard_error
from brokkr.work.redaction import redact_all

LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning"]

_FIRST: Final = ("timestamp", "level", "event")
# What others say is repeated in lines, and must not write lines of its own to a terminal.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def log_to_stderr(log_format: LogFormat = "console", level: LogLevel = "info") -> None:
    """
    Keep standard output for what the command was asked for, and log beside it.

    Args:
        log_format: ``auto`` writes for people on a terminal, and JSON anywhere else.
        level: What is less important is not written.
    """
    is_terminal = os.isatty(STANDARD_ERROR)
    is_json = log_format == "json" or (log_format == "auto" and not is_terminal)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", standard_error)),
        processors=[
            _rendering(
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                _tell_of_lost_lines,
                # As text, and without the variables of each frame: they hold keys.
                structlog.processors.format_exc_info,
                redact_line,
                structlog.processors.JSONRenderer()
                if is_json
                else structlog.dev.ConsoleRenderer(colors=is_terminal),
            )
        ],
    )
    # Whoever runs us in their own process has handlers, and keeps them.
    logging.basicConfig(handlers=[_Door()], level=logging.WARNING)


def _rendering(*steps: Processor) -> Processor:
    """Make one step of all: a line that cannot be rendered is counted, and stops nobody."""

    def render(logger: object, method: str, event: Any) -> Any:
        try:
            for step in steps:
                event = step(logger, method, event)
        except Exception:  # noqa: BLE001  (the line's contents are whatever others have said)
            standard_error.count_lost()
            raise structlog.DropEvent from None
        return event

    return render


def _tell_of_lost_lines(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Say in the first line that may be written again how many were not."""
    if lost := standard_error.lately_lost:
        event["lines_lost_before"] = lost
    return event


def redact_line(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Take credentials and control characters out of a log line, however deep they are."""
    ordered = {name: event[name] for name in _FIRST if name in event} | dict(event)
    return {name: _printable(value) for name, value in redact_all(ordered).items()}


def _printable(value: Any) -> Any:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value) if isinstance(value, str) else value


class _Door(logging.Handler):
    """Where the lines of libraries come in, and become lines like ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log it again, with the context of whoever caused it."""
        try:
            message = record.getMessage().strip()
        except Exception:  # noqa: BLE001  (arguments that do not fit the text; a library's mistake)
            message = str(record.msg)
        structlog.get_logger().log(
            min(record.levelno // 10, 5) * 10,
            message,
            logger=record.name,
            exc_info=record.exc_info,
        )

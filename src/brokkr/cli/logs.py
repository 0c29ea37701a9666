"""
What broker and agent write to standard error, and what they never write there.

The one place where log lines are made: every line of the process passes through it, those
of libraries too, so a secret that reaches a message by mistake stops here.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import structlog

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
    is_terminal = sys.stderr.isatty()
    is_json = log_format == "json" or (log_format == "auto" and not is_terminal)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            # As text, and without the variables of each frame: they hold keys.
            structlog.processors.format_exc_info,
            redact_line,
            structlog.processors.JSONRenderer()
            if is_json
            else structlog.dev.ConsoleRenderer(colors=is_terminal),
        ],
    )
    # Whoever runs us in their own process has handlers, and keeps them.
    logging.basicConfig(handlers=[_Door()], level=logging.WARNING)


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
        structlog.get_logger().log(
            min(record.levelno // 10, 5) * 10,
            record.getMessage().strip(),
            logger=record.name,
            exc_info=record.exc_info,
        )

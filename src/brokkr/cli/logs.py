"""
What broker and agent write to standard error, and what they never write there.

The one place where log lines are made: every line of the process passes through
:func:`redact`, so a secret that reaches a message by mistake stops here.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import structlog

LogFormat = Literal["console", "json"]

_SECRETS: Final = (
    # Our own keys, bearer and basic credentials, and user information in URLs.
    (re.compile(r"brokkr_[a-z]{3}[a-z2-7]{10}_[A-Za-z0-9_-]{43}"), "brokkr_***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@]+@"), r"\1***@"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END|\Z)", re.DOTALL), "*** key ***"),
)


def log_to_stderr(log_format: LogFormat = "console") -> None:
    """Keep standard output for what the command was asked for, and log beside it."""
    is_json = log_format == "json"
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            # As text, and without the variables of each frame: they hold keys.
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer()
            if is_json
            else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
    )


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Take credentials out of every text of a log line."""
    for name, value in event.items():
        if isinstance(value, str):
            for pattern, instead in _SECRETS:
                value = pattern.sub(instead, value)  # noqa: PLW2901
            event[name] = value
    return event

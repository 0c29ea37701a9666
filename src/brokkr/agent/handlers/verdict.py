"""What a handler makes of an attempt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from brokkr.work.model import Manifest


class Retry(Enum):
    """Whether trying the same thing again may end differently."""

    NEVER = "permanent"
    ONCE = "retried once"
    ALWAYS = "retryable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incomplete:
    """The attempt still lacks these objects; create them, then look again."""

    create: tuple[Manifest, ...]
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Nothing to do but wait; the watch tells when there is news."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The attempt did what was asked."""

    reason: str
    message: str
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt is over and did not do it."""

    reason: str
    message: str
    retry: Retry
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The attempt was stopped."""

    message: str


Verdict: TypeAlias = Incomplete | Running | Succeeded | Failed | Cancelled

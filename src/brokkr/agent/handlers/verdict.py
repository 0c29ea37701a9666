"""What a handler makes of an attempt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any, TypeAlias

from brokkr.agent.kinds import Resource
from brokkr.work.fault import Fault
from brokkr.work.model import Manifest


class Retry(Enum):
    """How often failures of one class are tried again, within what the Work allows."""

    NEVER = "permanent"
    ONCE = "retried once"
    TWICE = "retried twice"
    ALWAYS = "retryable"

    @property
    def limit(self) -> int | None:
        """Return how many failures of a class are forgiven; None if any number is."""
        return {Retry.NEVER: 0, Retry.ONCE: 1, Retry.TWICE: 2, Retry.ALWAYS: None}[self]


@dataclass(frozen=True, slots=True)
class ObjectLookup:
    """One object, to be read from the API server itself."""

    resource: Resource
    name: str


@dataclass(frozen=True, slots=True)
class LogLookup:
    """The end of what one container has said."""

    pod: str
    container: str


Lookup: TypeAlias = ObjectLookup | LogLookup

Evidence: TypeAlias = Mapping[Lookup, Manifest | str | None]
"""What was found: an object or a text; None if there is nothing, or nothing to be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incomplete:
    """The attempt still lacks these objects; create them, then look again."""

    create: tuple[Manifest, ...]
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Nothing to do but wait; the watch tells when there is news.

    Attributes:
        step: What is being done now, in one word, if that is known.
        limit: How long an attempt may take in all; then it is stopped.
        is_begun: Whether it has begun.  What has not, and is late, is a failure of the
            cluster.
        if_stuck: What to make of it if it was told to stop and does not end: what others
            say who were nearer.  None: nobody knows, so it is deleted.
    """

    message: str
    step: str = ""
    limit: timedelta | None = None
    is_begun: bool = True
    if_stuck: "Succeeded | Failed | Cancelled | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """It is over, and the objects do not say enough; look at these and ask again."""

    look_at: tuple[Lookup, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The attempt did what was asked."""

    reason: str
    message: str
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt is over and did not do it.

    Attributes:
        reason: The most specific word that was found for it.
        failure_class: Which of the classes of failures it is; ``retry`` counts by these.
        fault: Whose failure it is.  Retries of the cluster's and the node's are paid by a
            budget of their own, all others by the Work's.
    """

    reason: str
    message: str
    retry: Retry
    failure_class: str
    fault: Fault = Fault.UNCLEAR
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The attempt was stopped.

    Attributes:
        unasked: What that is if nobody here has asked for it.
    """

    message: str
    unasked: Failed


Verdict: TypeAlias = Incomplete | Running | Succeeded | Failed | Cancelled

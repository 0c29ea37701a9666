"""
Failures that only the controller sees, whatever the type of work, and its policy for them.

What a type's own failures are, its handler knows.  Pure.
"""

from dataclasses import dataclass
from typing import Final

from brokkr.agent.handlers.verdict import Failed, Retry
from brokkr.work.fault import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What to do about one reason, which is a failure class of its own."""

    reason: str
    retry: Retry
    fault: Fault
    why: str


ATTEMPT_MISSING: Final = "AttemptMissing"
DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
NOT_STARTED: Final = "NotStarted"
TEMPLATE_REFUSED: Final = "TemplateRefused"
INVALID_TEMPLATE: Final = "InvalidTemplate"
UNKNOWN_WORK_TYPE: Final = "UnknownWorkType"
AGENT_ERROR: Final = "AgentError"

TABLE: Final = (
    Row(
        reason=ATTEMPT_MISSING,
        retry=Retry.ALWAYS,
        fault=Fault.CLUSTER,
        why="somebody, or a time to live, deleted the attempt before it ended",
    ),
    Row(
        reason=DEADLINE_EXCEEDED,
        retry=Retry.ONCE,
        fault=Fault.UNCLEAR,
        why="it did not end by itself within its timeout and a grace, and was stopped",
    ),
    Row(
        reason=NOT_STARTED,
        retry=Retry.ONCE,
        fault=Fault.CLUSTER,
        why="nothing began it in time: a quota has no room, or a controller is away",
    ),
    Row(
        reason=TEMPLATE_REFUSED,
        retry=Retry.NEVER,
        fault=Fault.USER,
        why="the cluster will not have an object of the template",
    ),
    Row(
        reason=INVALID_TEMPLATE,
        retry=Retry.NEVER,
        fault=Fault.USER,
        why="the agent itself will not have the template",
    ),
    Row(
        reason=UNKNOWN_WORK_TYPE,
        retry=Retry.NEVER,
        fault=Fault.AGENT,
        why="this agent has no handler for such work",
    ),
    Row(
        reason=AGENT_ERROR,
        retry=Retry.NEVER,
        fault=Fault.AGENT,
        why="the agent, or a handler that is installed beside it, has failed again and again",
    ),
)


def own_failure(reason: str, message: str) -> Failed:
    """Return the failure of this reason, which must be one of :data:`TABLE`."""
    row = next(row for row in TABLE if row.reason == reason)
    return Failed(
        reason=reason, message=message, retry=row.retry, failure_class=reason, fault=row.fault
    )

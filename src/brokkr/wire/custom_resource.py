"""
``brokkr.io/v1alpha1`` ``Work`` from and to the model.

The only module that knows the resource's ``camelCase`` and its labels and annotations.
The resource is the agent's journal and its outbox, so the claim's identity is on it.
"""

# Note [Retries in the resource count all]
#
# ``status.retries`` counts every attempt that was forgiven, and ``infrastructureRetries``
# how many of these the cluster is to blame for.  So the current attempt is always
# ``retries + 1``, also for an agent of the version before, which knows ``retries`` alone:
# rolled back in mid-retry, it finds the attempt that runs, and makes none beside it.  In
# the model the two are counted apart.
#
# A cluster whose definition of Work is older drops ``infrastructureRetries``.  Then they
# look like the user's; what is more than ``maxRetries`` cannot have been.

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from brokkr.work.errors import InvalidWork
from brokkr.work.model import (
    Attempt,
    Claim,
    Condition,
    Manifest,
    Phase,
    Work,
    WorkStatus,
)
from brokkr.work.names import work_name
from brokkr.work.trace import TraceContext

API_VERSION: Final = "brokkr.io/v1alpha1"
KIND: Final = "Work"

LABEL_WORK_ID: Final = "brokkr.io/work-id"
LABEL_ROUND: Final = "brokkr.io/round"
LABEL_AGENT: Final = "brokkr.io/agent"
"""The id of the agent whose claim it is."""
LABEL_BROKER: Final = "brokkr.io/broker"
LABEL_WORK: Final = "brokkr.io/work"
"""On the objects of an attempt: the name of the Work resource they belong to."""
LABEL_ATTEMPT: Final = "brokkr.io/attempt"
ANNOTATION_CLAIM_ID: Final = "brokkr.io/claim-id"
ANNOTATION_CANCEL: Final = "brokkr.io/cancel"
"""Why the Work is to stop, in words; its presence is the request."""
ANNOTATION_ACKNOWLEDGED: Final = "brokkr.io/acknowledged-at"
ANNOTATION_TRACEPARENT: Final = "brokkr.io/traceparent"
"""The span that the Work was submitted in; on the objects of an attempt: the attempt's."""
INFRASTRUCTURE_RETRIES_SPENT: Final = "infrastructureRetriesSpent"
"""In the ``spec`` of a claim: how many infrastructure retries earlier claims have spent."""


def render_spec(
    *, work_type: str, max_retries: int, claim_timeout: timedelta, template: Manifest
) -> dict[str, Any]:
    """Render the ``spec`` that a submission means."""
    return {
        "workType": work_type,
        "maxRetries": max_retries,
        "claimTimeout": int(claim_timeout.total_seconds()),
        "template": template,
    }


def render_claimed(
    spec: Manifest, claim: Claim, trace: TraceContext | None = None
) -> dict[str, Any]:
    """Render the Work resource of a claim: named and labelled for it alone."""
    annotations = {ANNOTATION_CLAIM_ID: str(claim.claim_id)}
    if trace is not None:
        annotations[ANNOTATION_TRACEPARENT] = str(trace)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": work_name(claim.work_id, round=claim.round),
            "labels": {
                LABEL_WORK_ID: str(claim.work_id),
                LABEL_ROUND: str(claim.round),
                LABEL_AGENT: str(claim.agent_id),
                LABEL_BROKER: claim.broker,
            },
            "annotations": annotations,
        },
        "spec": dict(spec),
    }


def trace_of(resource: Manifest) -> TraceContext | None:
    """Return the trace that a Work resource names; None if that is none, or not valid."""
    metadata = resource.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    if not isinstance(annotations, Mapping):
        return None
    return TraceContext.parse(annotations.get(ANNOTATION_TRACEPARENT))


def work_from_resource(resource: Manifest) -> Work:
    """
    Read a Work resource.

    Raises:
        InvalidWork: It lacks what a claim put there; somebody else made or changed it.
    """
    metadata = resource.get("metadata") or {}
    spec = resource.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    claim = _claim(metadata)
    if metadata.get("name") != work_name(claim.work_id, round=claim.round):
        raise InvalidWork("metadata.name", "is not the name that its labels make")
    try:
        work = Work(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            generation=metadata.get("generation", 0),
            created_at=_required_time(metadata["creationTimestamp"]),
            is_deleting="deletionTimestamp" in metadata,
            work_type=spec["workType"],
            max_retries=spec["maxRetries"],
            claim_timeout=timedelta(seconds=spec["claimTimeout"]),
            template=spec["template"],
            claim=claim,
            cancel_reason=annotations.get(ANNOTATION_CANCEL, ""),
            acknowledged_at=_time(annotations.get(ANNOTATION_ACKNOWLEDGED)),
            trace=trace_of(resource),
            status=status_from_resource(resource.get("status") or {}),
            infrastructure_retries_before=spec.get(INFRASTRUCTURE_RETRIES_SPENT, 0),
        )
        return replace(work, status=_within(work.max_retries, work.status))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidWork("", f"not a Work resource that Brokkr made: {error!r}") from error


def status_from_resource(status: Mapping[str, Any]) -> WorkStatus:
    """Read the ``status`` of a Work resource; an empty one is that of a new Work."""
    # See Note [Retries in the resource count all].
    retries = status.get("retries", 0)
    infrastructure = min(status.get("infrastructureRetries", 0), retries)
    return WorkStatus(
        phase=Phase(status.get("phase", Phase.PENDING)),
        retries=retries - infrastructure,
        infrastructure_retries=infrastructure,
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        started_at=_time(status.get("startTime")),
        completed_at=_time(status.get("completionTime")),
        retry_at=_time(status.get("retryTime")),
        observed_generation=status.get("observedGeneration"),
        conditions=tuple(_condition(each) for each in status.get("conditions", ())),
        attempts=tuple(_attempt(each) for each in status.get("attempts", ())),
        result=status.get("result", {}),
    )


def render_status(status: WorkStatus) -> dict[str, Any]:
    """Render a ``status``; what is empty is left out."""
    # See Note [Retries in the resource count all].
    retries = status.retries + status.infrastructure_retries
    return _without_empty(
        {
            "phase": status.phase.value,
            "reason": status.reason,
            "message": status.message,
            "startTime": _text(status.started_at),
            "completionTime": _text(status.completed_at),
            "retryTime": _text(status.retry_at),
            "observedGeneration": status.observed_generation,
            "conditions": [_render_condition(each) for each in status.conditions],
            "attempts": [_render_attempt(each) for each in status.attempts],
            "result": dict(status.result),
            "infrastructureRetries": status.infrastructure_retries or None,
        }
    ) | {"retries": retries}


def _within(max_retries: int, status: WorkStatus) -> WorkStatus:
    """See Note [Retries in the resource count all]."""
    excess = status.retries - max_retries
    if excess <= 0:
        return status
    return replace(
        status,
        retries=max_retries,
        infrastructure_retries=status.infrastructure_retries + excess,
    )


def render_attempts(attempts: tuple[Attempt, ...]) -> list[dict[str, Any]]:
    """Render the history of attempts as a completion's ``result`` carries it."""
    return [
        _without_empty(
            {
                "number": each.number,
                "name": each.name,
                "started_at": _text(each.started_at),
                "ended_at": _text(each.ended_at),
                "reason": each.reason,
                "message": each.message,
                "class": each.failure_class,
                "fault": each.fault,
                "retryable": each.retryable,
            }
        )
        for each in attempts
    ]


def _claim(metadata: Mapping[str, Any]) -> Claim:
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    try:
        return Claim(
            work_id=UUID(labels[LABEL_WORK_ID]),
            claim_id=UUID(annotations[ANNOTATION_CLAIM_ID]),
            round=int(labels[LABEL_ROUND]),
            agent_id=UUID(labels[LABEL_AGENT]),
            broker=labels[LABEL_BROKER],
        )
    except (KeyError, ValueError) as error:
        raise InvalidWork("metadata", f"does not name a claim: {error!r}") from error


def _condition(value: Mapping[str, Any]) -> Condition:
    return Condition(
        type=value["type"],
        status={"True": True, "False": False}.get(value["status"]),
        reason=value.get("reason", ""),
        message=value.get("message", ""),
        changed_at=_required_time(value["lastTransitionTime"]),
    )


def _render_condition(condition: Condition) -> dict[str, Any]:
    # What is required is written even if somebody has made it empty: without it the API
    # server would take no status of this Work any more.
    return {
        "type": condition.type,
        "status": {True: "True", False: "False", None: "Unknown"}[condition.status],
        "lastTransitionTime": _text(condition.changed_at),
    } | _without_empty({"reason": condition.reason, "message": condition.message})


def _attempt(value: Mapping[str, Any]) -> Attempt:
    return Attempt(
        number=value["number"],
        name=value["name"],
        uid=value.get("uid"),
        started_at=_time(value.get("startTime")),
        stopping_at=_time(value.get("stoppingTime")),
        ended_at=_time(value.get("endTime")),
        reason=value.get("reason", ""),
        message=value.get("message", ""),
        failure_class=value.get("class", ""),
        fault=value.get("fault", ""),
        retryable=value.get("retryable"),
    )


def _render_attempt(attempt: Attempt) -> dict[str, Any]:
    return {"number": attempt.number, "name": attempt.name} | _without_empty(
        {
            "uid": attempt.uid,
            "startTime": _text(attempt.started_at),
            "stoppingTime": _text(attempt.stopping_at),
            "endTime": _text(attempt.ended_at),
            "reason": attempt.reason,
            "message": attempt.message,
            "class": attempt.failure_class,
            "fault": attempt.fault,
            "retryable": attempt.retryable,
        }
    )


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}


def _time(value: str | None) -> datetime | None:
    return None if value is None else _required_time(value)


def _required_time(value: str) -> datetime:
    return datetime.fromisoformat(value).astimezone(UTC)


def _text(value: datetime | None) -> str | None:
    """Render a time as Kubernetes does: UTC, whole seconds, ``Z``."""
    if value is None:
        return None
    # Not strftime: it writes a year before 1000, which is an edit away, with fewer digits.
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"

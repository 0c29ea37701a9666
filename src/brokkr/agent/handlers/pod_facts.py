"""
What is worth knowing of a Pod: conditions, reasons, exit codes and times.  Pure.

A Pod that is preempted, drained or deleted is gone within a second, so what it said has to
be kept.  It is written by several programs and partly by the build itself: whatever is not
of the kind that is expected counts as absent, and what is kept has a bound.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from brokkr.work.model import Manifest

MAX_FACTS_BYTES: Final = 2048
"""What is kept of one Pod, written as JSON, is no larger."""

_MAX_CONTAINERS: Final = 4
_MAX_TEXT: Final = 120
_CONDITIONS: Final = ("DisruptionTarget", "PodScheduled")


def facts_of_pod(pod: Manifest, before: Manifest | None = None) -> dict[str, Any]:
    """
    Reduce a Pod, as a watch or a read gave it, to its facts.

    ::

        kind, metadata {name, uid, labels}   labels: given ones, see `keep_labels`
        deletionRequestedAt                  when somebody first asked for its deletion
        status {phase, reason, message, conditions, containerStatuses}

    Args:
        before: The facts of an earlier look: the first request to delete it is remembered,
            for the kubelet's last one overwrites the time.
    """
    metadata, status = _part(pod, "metadata"), _part(pod, "status")
    requested = [_deletion_requested_at(metadata), _text((before or {}).get("deletionRequestedAt"))]
    facts = {
        "kind": "Pod",
        "metadata": {key: _text(metadata.get(key)) for key in ("name", "uid")},
        "deletionRequestedAt": min(filter(None, requested), default=""),
        "status": _without_empty(
            {
                **{key: _text(status.get(key)) for key in ("phase", "reason", "message")},
                "conditions": [
                    _texts(each, "type", "status", "reason", "message", "lastTransitionTime")
                    for each in _parts(status, "conditions")
                    if each.get("type") in _CONDITIONS
                ][: len(_CONDITIONS)],
                "containerStatuses": [
                    _container(each) for each in _telling(_parts(status, "containerStatuses"))
                ],
            }
        ),
    }
    return _without_empty(facts)


def _telling(containers: Iterable[Manifest]) -> list[Manifest]:
    """Leave out containers that ended well or just run, if there are too many for all."""
    return sorted(containers, key=_has_little_to_say)[:_MAX_CONTAINERS]


def _has_little_to_say(container: Manifest) -> bool:
    state = _part(container, "state")
    return not (_part(state, "waiting") or _part(state, "terminated").get("exitCode"))


def _container(status: Manifest) -> dict[str, Any]:
    state = _part(status, "state")
    terminated, waiting = _part(state, "terminated"), _part(state, "waiting")
    code = terminated.get("exitCode")
    return _without_empty(
        {
            "name": _text(status.get("name"))[:63],
            "state": _without_empty(
                {
                    "terminated": _texts(terminated, "reason", "finishedAt")
                    | ({"exitCode": code} if isinstance(code, int) else {}),
                    "waiting": _texts(waiting, "reason", "message"),
                }
            ),
        }
    )


def _deletion_requested_at(metadata: Manifest) -> str:
    """Return when the deletion was asked for: its time is when the grace after that ends."""
    try:
        ends = datetime.fromisoformat(metadata["deletionTimestamp"])
        grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds", 0))
        return f"{(ends - grace).replace(tzinfo=None).isoformat(timespec='seconds')}Z"
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""


def _part(value: Manifest, key: str) -> Manifest:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _parts(value: Manifest, key: str) -> list[Manifest]:
    found = value.get(key)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _text(value: object) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _texts(value: Manifest, *keys: str) -> dict[str, Any]:
    return _without_empty({key: _text(value.get(key)) for key in keys})


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in ("", [], {})}

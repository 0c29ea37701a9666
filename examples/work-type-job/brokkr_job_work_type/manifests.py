"""The objects of one attempt: the template's ConfigMaps, and its Job under the attempt's name."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from brokkr.agent.handlers.attempt_objects import attempt_metadata
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest, Work
from brokkr.work.names import attempt_name
from brokkr.work.template import documents

DEFAULT_DEADLINE: Final = timedelta(hours=1)
MAX_DEADLINE: Final = timedelta(days=7)


def render(work: Work, attempt: int) -> tuple[Manifest, ...]:
    """
    Render what an attempt is made of, the Job last: where it exists, all else does.

    Raises:
        InvalidWork: No Job could be made of the template.
    """
    found = documents(work.template)
    jobs = [each for each in found if each["kind"] == "Job"]
    if len(jobs) != 1:
        raise InvalidWork("template", f"needs exactly one Job; it has {len(jobs)}")
    config_maps = [each for each in found if each["kind"] == "ConfigMap"]
    return (
        *(_config_map(each, work, attempt) for each in config_maps),
        _job(jobs[0], work, attempt),
    )


def _config_map(document: Manifest, work: Work, attempt: int) -> Manifest:
    # Under its own name, because the Job's pods refer to it.
    name = document.get("metadata", {}).get("name")
    if not name:
        raise InvalidWork("template", "each ConfigMap needs a metadata.name")
    return {**document, "metadata": attempt_metadata(document, work, attempt, name=name)}


def _job(document: Manifest, work: Work, attempt: int) -> Manifest:
    name = attempt_name(work.name, attempt)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": attempt_metadata(document, work, attempt, name=name),
        "spec": _spec(document.get("spec", {})),
    }


def _spec(given: Manifest) -> dict[str, Any]:
    template = given.get("template")
    pod = template.get("spec") if isinstance(template, Mapping) else None
    if not isinstance(template, Mapping) or not isinstance(pod, Mapping):
        raise InvalidWork("template.spec.template.spec", "a Job must say what its pod is")
    if given.get("suspend"):
        raise InvalidWork("template.spec.suspend", "nobody would resume the Job")
    deadline = given.get("activeDeadlineSeconds")
    if deadline is None:
        deadline = int(DEFAULT_DEADLINE.total_seconds())
    most = int(MAX_DEADLINE.total_seconds())
    if type(deadline) is not int or not 0 < deadline <= most:
        raise InvalidWork("template.spec.activeDeadlineSeconds", f"must be from 1 to {most}")
    # The Work is what lives for a while after its end; the Job goes with it.
    kept = {key: each for key, each in given.items() if key != "ttlSecondsAfterFinished"}
    return {
        **kept,
        "activeDeadlineSeconds": deadline,
        # Retries are Brokkr's: one attempt is one Job whose pods fail once, and are kept.
        "backoffLimit": 0,
        "template": {**template, "spec": {**pod, "restartPolicy": "Never"}},
    }

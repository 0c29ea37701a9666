"""
What every object of an attempt has on it, whatever the work type.

By its labels the controller knows whose an object is; one without them is not seen.
"""

# Note [An owner and no controller]
#
# Owner references to the Work make Kubernetes clean up behind a lost agent.  They are
# not *controller* references: whoever executes the object (Shipwright does) may want to
# set its own.  Nor do they block the owner's deletion, which would need a permission that
# agents do not have.

from collections.abc import Mapping
from typing import Any, Final

from brokkr.wire.custom_resource import (
    ANNOTATION_TRACEPARENT,
    API_VERSION,
    KIND,
    LABEL_ATTEMPT,
    LABEL_ROUND,
    LABEL_WORK,
    LABEL_WORK_ID,
)
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest, Work

_OURS: Final = "brokkr.io/"


def attempt_metadata(document: Manifest, work: Work, attempt: int, *, name: str) -> dict[str, Any]:
    """
    Render the ``metadata`` of an object of an attempt.

    Of the template's document it keeps labels and annotations, unless they pose as ours.

    Raises:
        InvalidWork: The document's labels or annotations are no object.
    """
    annotations = _theirs(document, "annotations")
    if work.span is not None:
        annotations[ANNOTATION_TRACEPARENT] = str(work.span.child(attempt))
    return {
        "name": name,
        "namespace": work.namespace,
        "labels": {
            **_theirs(document, "labels"),
            LABEL_WORK_ID: str(work.claim.work_id),
            LABEL_WORK: work.name,
            LABEL_ROUND: str(work.claim.round),
            LABEL_ATTEMPT: str(attempt),
        },
        "annotations": annotations,
        # See Note [An owner and no controller].
        "ownerReferences": [
            {"apiVersion": API_VERSION, "kind": KIND, "name": work.name, "uid": work.uid}
        ],
    }


def _theirs(document: Manifest, field: str) -> dict[str, Any]:
    """Return the user's labels or annotations, without any that pose as ours."""
    given = document.get("metadata", {}).get(field) or {}
    if not isinstance(given, Mapping):
        raise InvalidWork(f"template.metadata.{field}", "must be an object")
    return {key: value for key, value in given.items() if not key.startswith(_OURS)}

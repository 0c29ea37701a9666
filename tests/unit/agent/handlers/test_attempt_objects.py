from dataclasses import replace

import pytest

from brokkr.agent.handlers.attempt_objects import attempt_metadata
from brokkr.wire.custom_resource import ANNOTATION_TRACEPARENT
from brokkr.work.errors import InvalidWork
from brokkr.work.trace import TraceContext
from support.factories import WORK_ID, a_work
from support.templates import a_config_map


def test_an_object_says_whose_it_is_and_goes_with_its_work() -> None:
    metadata = attempt_metadata(a_config_map(), a_work(), 2, name="settings")

    assert metadata == {
        "name": "settings",
        "namespace": "brokkr-agent",
        "labels": {
            "brokkr.io/work-id": str(WORK_ID),
            "brokkr.io/work": f"work-{WORK_ID}-r1",
            "brokkr.io/round": "1",
            "brokkr.io/attempt": "2",
        },
        "annotations": {},
        "ownerReferences": [
            {
                "apiVersion": "brokkr.io/v1alpha1",
                "kind": "Work",
                "name": f"work-{WORK_ID}-r1",
                "uid": a_work().uid,
            }
        ],
    }


def test_the_users_labels_and_annotations_are_kept_unless_they_pose_as_brokkrs() -> None:
    document = a_config_map(
        metadata={
            "labels": {"team": "ml", "brokkr.io/work-id": "forged", "brokkr.io/new": "forged"},
            "annotations": {"note": "hi", "brokkr.io/cancel": "forged"},
        }
    )

    metadata = attempt_metadata(document, a_work(), 1, name="settings")

    assert metadata["labels"]["team"] == "ml"
    assert metadata["annotations"] == {"note": "hi"}
    assert "forged" not in metadata["labels"].values()


def test_a_traced_attempt_names_its_span() -> None:
    trace = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", is_sampled=True)
    work = replace(a_work(), trace=trace)

    annotations = attempt_metadata({}, work, 3, name="x")["annotations"]

    assert annotations == {ANNOTATION_TRACEPARENT: str(trace.child(work.claim.claim_id).child(3))}


@pytest.mark.parametrize("field", ["labels", "annotations"])
def test_labels_that_are_none_are_refused(field: str) -> None:
    with pytest.raises(InvalidWork) as refusal:
        attempt_metadata({"metadata": {field: ["x"]}}, a_work(), 1, name="x")

    assert refusal.value.field == f"template.metadata.{field}"

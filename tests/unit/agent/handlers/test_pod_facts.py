import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.agent.handlers.pod_facts import MAX_FACTS_BYTES, facts_of_pod
from support.recordings import RECORDINGS

RECORDED = sorted(each.parent.name for each in RECORDINGS.glob("*/pod.json"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


def a_pod(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "uid": "u", **metadata}, "status": {"phase": "Running"}}


@pytest.mark.parametrize("case", RECORDED)
def test_a_recorded_pod_of_thirty_kilobytes_leaves_two(case: str) -> None:
    pod = json.loads((RECORDINGS / case / "pod.json").read_text())

    facts = facts_of_pod(pod)

    assert len(json.dumps(pod)) > 10 * MAX_FACTS_BYTES
    assert len(json.dumps(facts)) <= MAX_FACTS_BYTES
    assert facts["metadata"]["name"] == pod["metadata"]["name"]
    assert "spec" not in facts


def test_a_pod_of_any_size_leaves_two_kilobytes_and_keeps_what_failed() -> None:
    containers = [
        {
            "name": f"step-{n}-{'x' * 300}",
            "state": {"terminated": {"exitCode": int(n == 99), "reason": "r" * 999}},
        }
        for n in range(100)
    ]
    conditions = [{"type": kind, "message": "m" * 9999} for kind in ("DisruptionTarget", "x") * 50]
    pod = {
        "metadata": {"name": "n" * 999, "uid": "u" * 999, "annotations": {"a": "b" * 9999}},
        "status": {
            "reason": "r" * 999,
            "message": "m" * 9999,
            "conditions": conditions,
            "containerStatuses": containers,
        },
    }

    facts = facts_of_pod(pod)

    assert len(json.dumps(facts)) <= MAX_FACTS_BYTES
    assert facts["status"]["containerStatuses"][0]["name"].startswith("step-99-")


def test_the_first_request_to_delete_a_pod_is_remembered() -> None:
    asked = a_pod(deletionTimestamp="2026-03-01T12:00:30Z", deletionGracePeriodSeconds=30)
    ended = a_pod(deletionTimestamp="2026-03-01T12:00:04Z", deletionGracePeriodSeconds=0)

    first = facts_of_pod(asked)

    assert first["deletionRequestedAt"] == "2026-03-01T12:00:00Z"
    assert facts_of_pod(ended, first)["deletionRequestedAt"] == "2026-03-01T12:00:00Z"
    assert "deletionRequestedAt" not in facts_of_pod(a_pod())


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "metadata": json_values,
            "status": json_values
            | st.fixed_dictionaries(
                {}, optional={"conditions": json_values, "containerStatuses": json_values}
            ),
        },
    )
)
def test_whatever_a_pod_looks_like_its_facts_are_plain(pod: dict[str, Any]) -> None:
    assert facts_of_pod(pod)["kind"] == "Pod"

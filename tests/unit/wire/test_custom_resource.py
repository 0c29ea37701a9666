from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.wire.custom_resource import (
    ANNOTATION_TRACEPARENT,
    render_attempts,
    render_claimed,
    render_spec,
    render_status,
    status_from_resource,
    trace_of,
    work_from_resource,
)
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Attempt, Claim, Condition, Phase, WorkStatus
from brokkr.work.trace import TraceContext
from support.factories import AGENT_ID, CLAIM_ID, NOON, WORK_ID
from support.templates import a_build

# Kubernetes keeps whole seconds.
TIMES = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    timezones=st.just(UTC),
).map(lambda time: time.replace(microsecond=0))
ATTEMPTS = st.builds(
    Attempt,
    number=st.integers(1, 20),
    name=st.text(min_size=1),
    uid=st.none() | st.text(min_size=1),
    started_at=st.none() | TIMES,
    ended_at=st.none() | TIMES,
    reason=st.text(),
    message=st.text(),
    failure_class=st.text(),
    fault=st.text(),
    retryable=st.none() | st.booleans(),
)
CONDITIONS = st.builds(
    Condition,
    type=st.text(min_size=1),
    status=st.none() | st.booleans(),
    reason=st.text(),
    message=st.text(),
    changed_at=TIMES,
)
STATUSES = st.builds(
    WorkStatus,
    phase=st.sampled_from(Phase),
    retries=st.integers(0, 20),
    infrastructure_retries=st.integers(0, 20),
    reason=st.text(),
    message=st.text(),
    started_at=st.none() | TIMES,
    completed_at=st.none() | TIMES,
    retry_at=st.none() | TIMES,
    observed_generation=st.none() | st.integers(1, 9),
    conditions=st.lists(CONDITIONS, max_size=2).map(tuple),
    attempts=st.lists(ATTEMPTS, max_size=2).map(tuple),
    result=st.dictionaries(st.text(), st.integers() | st.text(), max_size=3),
)


def a_resource(**metadata: Any) -> dict[str, Any]:
    """A Work resource as the API server would return it right after its creation."""
    resource = render_claimed(
        render_spec(
            work_type="build",
            max_retries=2,
            claim_timeout=timedelta(minutes=5),
            template=a_build(),
        ),
        Claim(work_id=WORK_ID, claim_id=CLAIM_ID, round=2, agent_id=AGENT_ID, broker="broker-1"),
    )
    resource["metadata"] |= {
        "namespace": "brokkr-agent",
        "uid": "u-1",
        "resourceVersion": "7",
        "generation": 1,
        "creationTimestamp": "2026-03-01T12:00:00Z",
        **metadata,
    }
    return resource


@given(STATUSES)
def test_a_status_that_is_written_is_read_back_the_same(status: WorkStatus) -> None:
    assert status_from_resource(render_status(status)) == status


@given(STATUSES)
def test_an_agent_that_knows_retries_alone_finds_the_same_attempt(status: WorkStatus) -> None:
    written = render_status(status)

    assert written["retries"] == status.retries + status.infrastructure_retries


def test_where_the_definition_drops_infrastructure_retries_their_number_has_a_bound() -> None:
    status = {"retries": 5}

    work = work_from_resource({**a_resource(), "status": status})

    assert work.max_retries == 2
    assert (work.status.retries, work.status.infrastructure_retries) == (2, 3)
    assert work.attempt == 6


@pytest.mark.parametrize(
    ("status", "counted"),
    [
        ({}, (0, 0)),
        ({"retries": 1}, (1, 0)),
        ({"retries": 2, "infrastructureRetries": 2}, (0, 2)),
        ({"retries": 1, "infrastructureRetries": 7}, (0, 1)),
    ],
)
def test_retries_are_counted_apart(status: dict[str, int], counted: tuple[int, int]) -> None:
    found = status_from_resource(status)

    assert (found.retries, found.infrastructure_retries) == counted


def test_a_claim_says_what_earlier_claims_have_spent() -> None:
    resource = a_resource()
    resource["spec"]["infrastructureRetriesSpent"] = 2

    assert work_from_resource(resource).infrastructure_retries == 2
    assert work_from_resource(a_resource()).infrastructure_retries == 0


def test_what_a_status_must_have_is_written_even_if_it_was_made_empty() -> None:
    condition = {"type": "", "status": "True", "lastTransitionTime": "2026-03-01T12:00:00Z"}
    attempt = {"number": 1, "name": ""}
    status = status_from_resource({"conditions": [condition], "attempts": [attempt]})

    written = render_status(status)

    assert (written["conditions"], written["attempts"]) == ([condition], [attempt])


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_time_at_the_end_of_the_calendar_is_written_as_it_was_read(time: str) -> None:
    status = status_from_resource({"startTime": time})

    assert render_status(status)["startTime"] == time


def test_a_new_resource_has_the_status_of_a_new_work() -> None:
    assert status_from_resource({}) == WorkStatus()


def test_a_claim_that_is_written_is_read_back_the_same() -> None:
    work = work_from_resource(a_resource())

    assert work.claim == Claim(
        work_id=WORK_ID, claim_id=CLAIM_ID, round=2, agent_id=AGENT_ID, broker="broker-1"
    )
    assert work.name == f"work-{WORK_ID}-r2"
    assert work.created_at == NOON
    assert (work.work_type, work.max_retries) == ("build", 2)
    assert work.claim_timeout == timedelta(minutes=5)
    assert work.template == a_build()
    assert not work.is_deleting
    assert not work.cancel_requested
    assert work.acknowledged_at is None


def test_marks_on_the_resource_are_understood() -> None:
    annotations = a_resource()["metadata"]["annotations"] | {
        "brokkr.io/cancel": "by ann",
        "brokkr.io/acknowledged-at": "2026-03-01T13:00:00+01:00",
    }

    work = work_from_resource(
        a_resource(annotations=annotations, deletionTimestamp="2026-03-01T12:00:00Z")
    )

    assert work.cancel_reason == "by ann"
    assert work.acknowledged_at == NOON
    assert work.is_deleting


@pytest.mark.parametrize(
    "forged",
    [
        {},
        {"metadata": {"name": "mine"}},
        a_resource(name="another"),
        a_resource(labels={}),
        a_resource(annotations={}),
        a_resource(labels=a_resource()["metadata"]["labels"] | {"brokkr.io/work-id": "1"}),
        a_resource(labels=a_resource()["metadata"]["labels"] | {"brokkr.io/round": "3"}),
        a_resource(
            labels=a_resource()["metadata"]["labels"] | {"brokkr.io/work-id": str(UUID(int=1))}
        ),
        a_resource() | {"spec": {}},
        a_resource() | {"status": {"phase": "Done"}},
        a_resource() | {"status": {"conditions": [{"type": "TemplateApplied"}]}},
    ],
)
def test_a_resource_that_no_claim_made_is_refused(forged: dict[str, Any]) -> None:
    with pytest.raises(InvalidWork):
        work_from_resource(forged)


def test_a_claim_timeout_that_no_clock_can_count_is_refused() -> None:
    resource = a_resource()
    resource["spec"]["claimTimeout"] = 10**15

    with pytest.raises(InvalidWork):
        work_from_resource(resource)


def test_a_completions_attempts_are_in_snake_case_and_leave_out_what_is_empty() -> None:
    attempt = Attempt(number=1, name="w-a1", uid="u", started_at=NOON, reason="PodEvicted")

    assert render_attempts((attempt,)) == [
        {
            "number": 1,
            "name": "w-a1",
            "started_at": "2026-03-01T12:00:00Z",
            "reason": "PodEvicted",
        }
    ]


TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", is_sampled=True)


def test_the_trace_of_a_claim_is_on_its_resource() -> None:
    claim = Claim(
        work_id=WORK_ID, claim_id=CLAIM_ID, round=1, agent_id=AGENT_ID, broker="the-broker"
    )

    assert trace_of(render_claimed({}, claim, TRACE)) == TRACE
    assert trace_of(render_claimed({}, claim)) is None


@pytest.mark.parametrize(
    "resource",
    [
        {},
        {"metadata": None},
        {"metadata": []},
        {"metadata": {"annotations": "none"}},
        {"metadata": {"annotations": {ANNOTATION_TRACEPARENT: None}}},
        {"metadata": {"annotations": {ANNOTATION_TRACEPARENT: 7}}},
        {"metadata": {"annotations": {ANNOTATION_TRACEPARENT: f"{TRACE}\nmore"}}},
    ],
)
def test_a_trace_that_is_not_one_is_none_whoever_sent_it(resource: dict[str, Any]) -> None:
    assert trace_of(resource) is None

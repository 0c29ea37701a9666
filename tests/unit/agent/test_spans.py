"""What a finished Work looks like in its trace."""

from dataclasses import replace
from datetime import timedelta

from brokkr.agent.spans import spans_of
from brokkr.work.model import Attempt, Phase, Work, WorkStatus
from brokkr.work.trace import TraceContext
from support.factories import NOON, a_work

SUBMITTED_IN = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", is_sampled=True)
FIRST = Attempt(
    number=1,
    name="w-a1",
    started_at=NOON,
    ended_at=NOON + timedelta(seconds=10),
    reason="PodEvicted",
    retryable=True,
)
SECOND = Attempt(
    number=2,
    name="w-a2",
    started_at=NOON + timedelta(seconds=20),
    ended_at=NOON + timedelta(seconds=50),
    reason="BuildCompleted",
)


def a_finished_work(phase: Phase = Phase.SUCCEEDED, *attempts: Attempt) -> Work:
    status = WorkStatus(
        phase=phase,
        retries=len(attempts) - 1,
        reason="BuildFailed",
        message="a secret may be in it",
        completed_at=NOON + timedelta(seconds=50),
        attempts=attempts,
    )
    return replace(a_work(status=status), trace=SUBMITTED_IN)


def test_a_work_is_a_span_from_its_claim_to_its_end() -> None:
    work = a_finished_work(Phase.SUCCEEDED, FIRST, SECOND)
    execution = spans_of(work)[0]

    assert execution.parent == SUBMITTED_IN
    assert execution.context == work.span
    assert (execution.began_at, execution.ended_at) == (work.created_at, work.status.completed_at)
    assert execution.failure is None
    assert execution.attributes["brokkr.work.id"] == str(work.claim.work_id)


def test_each_attempt_is_a_span_within_it() -> None:
    work = a_finished_work(Phase.SUCCEEDED, FIRST, SECOND)
    _, first, second = spans_of(work)

    assert first.parent == second.parent == work.span
    assert first.context != second.context
    assert (first.began_at, first.ended_at) == (FIRST.started_at, FIRST.ended_at)
    assert (first.failure, second.failure) == ("PodEvicted", None)


def test_a_failure_is_named_by_its_reason_and_not_by_what_was_said() -> None:
    spans = spans_of(a_finished_work(Phase.FAILED, replace(SECOND, retryable=False)))

    assert spans[0].failure == "BuildFailed"
    assert "secret" not in repr(spans)


def test_a_cancelled_work_has_not_failed() -> None:
    assert [each.failure for each in spans_of(a_finished_work(Phase.CANCELLED))] == [None]


def test_a_restarted_agent_tells_of_the_same_spans() -> None:
    work = a_finished_work(Phase.SUCCEEDED, FIRST, SECOND)

    assert spans_of(work) == spans_of(replace(work, resource_version="8"))


def test_what_is_no_part_of_a_trace_has_no_spans() -> None:
    work = a_finished_work(Phase.SUCCEEDED, FIRST)

    assert spans_of(replace(work, trace=None)) == []


def test_no_span_ends_before_it_began() -> None:
    never_started = Attempt(number=1, name="w-a1", reason="Refused", retryable=False)
    late = replace(FIRST, ended_at=None, started_at=NOON + timedelta(hours=1))
    spans = spans_of(a_finished_work(Phase.FAILED, never_started, late))

    assert all(each.began_at <= each.ended_at for each in spans)

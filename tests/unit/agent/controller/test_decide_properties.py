"""What holds of every history, however verdicts, time and restarts follow each other."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from brokkr.agent.controller.decide import Policy, Seen, decide
from brokkr.agent.controller.plan import CreateObjects
from brokkr.agent.handlers.verdict import (
    Cancelled,
    Failed,
    Incomplete,
    Retry,
    Running,
    Succeeded,
    Verdict,
)
from brokkr.wire.custom_resource import render_status, status_from_resource
from brokkr.work.backoff import Backoff
from brokkr.work.fault import Fault
from brokkr.work.model import Phase, WorkStatus
from support.factories import NOON, a_work, with_status

POLICY = Policy(
    backoff=Backoff(), keep_succeeded=timedelta(hours=1), keep_failed=timedelta(hours=24)
)

SUCCESS = Succeeded(reason="BuildCompleted", message="built")
FAILURE = Failed(
    reason="BuildRunCanceled", message="", retry=Retry.NEVER, failure_class="CancelledElsewhere"
)

verdicts = st.one_of(
    st.just(Incomplete(create=({"kind": "Build"},))),
    st.just(Running(message="building")),
    st.just(Running(message="building", limit=timedelta(minutes=30))),
    st.just(Running(message="stuck", limit=timedelta(minutes=30), if_stuck=SUCCESS)),
    st.just(Cancelled(message="stopped", unasked=FAILURE)),
    st.just(SUCCESS),
    st.builds(
        Failed,
        reason=st.sampled_from(["PodEvicted", "GitError", "DockerfileNotFound"]),
        message=st.text(max_size=20),
        retry=st.sampled_from(Retry),
        failure_class=st.sampled_from(["Infrastructure", "Source"]),
        fault=st.sampled_from(Fault),
    ),
)
steps = st.lists(
    st.tuples(
        verdicts,
        st.booleans(),  # is the executor there?
        st.booleans(),  # is the status written, or is the agent killed first?
        st.integers(min_value=0, max_value=7200),  # seconds that pass
    ),
    max_size=30,
)


def play(steps: list[tuple[Verdict, bool, bool, int]], max_retries: int) -> list[WorkStatus]:
    now, work, history = NOON, a_work(max_retries=max_retries), []
    for verdict, is_there, is_written, seconds in steps:
        now += timedelta(seconds=seconds)
        seen = Seen(
            work=work,
            verdict=verdict,
            executor_uid=f"uid-{work.attempt}" if is_there else None,
        )
        plan = decide(seen, now=now, policy=POLICY)
        due = work.status.retry_at
        if any(isinstance(action, CreateObjects) for action in plan.actions):
            assert due is None or due <= now
            assert not work.status.phase.is_terminal
        if is_written:
            # Through the resource's own form: what is not stored there is forgotten.
            work = with_status(work, status_from_resource(render_status(plan.status)))
            history.append(work.status)
    return history


@given(steps, st.integers(min_value=0, max_value=4))
def test_retries_never_pass_the_maximum_and_never_go_down(
    steps: list[tuple[Verdict, bool, bool, int]], max_retries: int
) -> None:
    counts = [status.retries for status in play(steps, max_retries)]

    assert counts == sorted(counts)
    assert all(count <= max_retries for count in counts)


@given(steps)
def test_the_first_terminal_status_is_final(
    steps: list[tuple[Verdict, bool, bool, int]],
) -> None:
    history = play(steps, 2)
    ends = [status for status in history if status.phase.is_terminal]

    assert all(status == ends[0] for status in ends)
    assert (
        all(status.phase.is_terminal for status in history[history.index(ends[0]) :])
        if (ends)
        else True
    )


@given(steps)
def test_attempts_are_numbered_without_gaps_and_all_but_the_last_have_ended(
    steps: list[tuple[Verdict, bool, bool, int]],
) -> None:
    for status in play(steps, 3):
        numbers = [each.number for each in status.attempts]
        assert numbers == list(range(1, len(numbers) + 1))
        assert all(each.ended_at is not None for each in status.attempts[:-1])
        assert len(numbers) <= status.retries + status.infrastructure_retries + 1


@given(steps, st.integers(min_value=0, max_value=4))
def test_infrastructure_retries_never_pass_their_budget_and_never_go_down(
    steps: list[tuple[Verdict, bool, bool, int]], max_retries: int
) -> None:
    counts = [status.infrastructure_retries for status in play(steps, max_retries)]

    assert counts == sorted(counts)
    assert all(count <= POLICY.infrastructure_retries for count in counts)


@given(steps)
def test_a_pending_work_with_retries_has_a_due_time_in_its_status(
    steps: list[tuple[Verdict, bool, bool, int]],
) -> None:
    for status in play(steps, 3):
        if status.phase is Phase.PENDING and status.retries:
            assert status.retry_at is not None

"""Each situation that a reconcile may find, and what is to be done about it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from brokkr.agent.controller.conditions import (
    TEMPLATE_APPLIED,
    TEMPLATE_SUCCEEDED,
    find_condition,
    with_condition,
)
from brokkr.agent.controller.decide import Policy, Seen, decide
from brokkr.agent.controller.plan import (
    CancelAttempt,
    CreateObjects,
    DeleteAttempt,
    DeleteWork,
    Plan,
)
from brokkr.agent.controller.record import MAX_MESSAGE, cut
from brokkr.agent.handlers.protocol import Cancellation
from brokkr.agent.handlers.verdict import (
    Cancelled,
    Failed,
    Incomplete,
    Retry,
    Running,
    Succeeded,
    Verdict,
)
from brokkr.work.backoff import Backoff
from brokkr.work.fault import Fault
from brokkr.work.model import Attempt, Phase, Work, WorkStatus
from support.factories import NOON, a_work, with_status

POLICY = Policy(
    backoff=Backoff(base=timedelta(seconds=60), cap=timedelta(hours=1)),
    keep_succeeded=timedelta(hours=1),
    keep_failed=timedelta(hours=24),
)
BUILD = {"kind": "Build", "metadata": {"name": "b"}}
NEEDS_BUILD = Incomplete(create=(BUILD,), message="creating the Build")
RUNNING = Running(message="building")
SLOW = Running(message="building", limit=timedelta(minutes=5))


def a_failure(reason: str, retry: Retry, *, failure_class: str = "") -> Failed:
    return Failed(
        reason=reason,
        message="it said why",
        retry=retry,
        failure_class=failure_class or f"ClassOf{reason}",
    )


EVICTED = a_failure("PodEvicted", Retry.ALWAYS)
LOST = replace(EVICTED, reason="NodeLost", fault=Fault.NODE)
REFUSED_HERE = replace(LOST, retry=Retry.NEVER, fault=Fault.CLUSTER)
BAD_DOCKERFILE = a_failure("DockerfileNotFound", Retry.NEVER)
PERHAPS = a_failure("GitError", Retry.ONCE)
STOPPED = Cancelled(message="stopped", unasked=a_failure("BuildRunCanceled", Retry.NEVER))
DONE = Succeeded(reason="BuildCompleted", message="built", result={"digest": "sha256:1"})
STOP = Cancellation(
    kind="BuildRun",
    name="r",
    resource_version="9",
    patch={"spec": {"state": "BuildRunCanceled"}},
)


def look(work: Work, verdict: Verdict, *, uid: str | None = None) -> Plan:
    seen = Seen(work=work, verdict=verdict, executor_uid=uid, cancellation=STOP if uid else None)
    return decide(seen, now=NOON, policy=POLICY)


def running_work(*, stopping_for: timedelta | None = None, **changes: object) -> Work:
    attempt = Attempt(
        number=1,
        name="w-a1",
        uid="u1",
        started_at=NOON - timedelta(minutes=5),
        stopping_at=None if stopping_for is None else NOON - stopping_for,
    )
    status = WorkStatus(
        phase=Phase.RUNNING, attempts=(attempt,), started_at=NOON - timedelta(minutes=5)
    )
    return a_work(status=status, **changes)  # type: ignore[arg-type]


def test_a_new_work_is_given_what_its_first_attempt_needs() -> None:
    plan = look(a_work(), NEEDS_BUILD)

    assert plan.actions == (CreateObjects((BUILD,)),)
    assert plan.status.phase is Phase.RUNNING
    assert plan.status.started_at == NOON
    assert [each.number for each in plan.status.attempts] == [1]
    assert plan.status.retries == 0


def test_starting_is_noted_once_though_an_attempt_is_created_in_two_steps() -> None:
    first = look(a_work(), NEEDS_BUILD)
    second = look(with_status(a_work(), first.status), NEEDS_BUILD)

    assert [note.reason for note in first.notes] == ["AttemptStarted"]
    assert second.notes == ()


@pytest.mark.parametrize("max_retries", [0, 3])
def test_an_attempt_that_the_infrastructure_lost_is_repeated_and_costs_no_retry(
    max_retries: int,
) -> None:
    work = running_work(max_retries=max_retries)

    plan = look(work, LOST, uid="u1")

    assert plan.status.phase is Phase.PENDING
    assert (plan.status.retries, plan.status.infrastructure_retries) == (0, 1)
    assert plan.status.attempts[0].fault == "node"
    assert with_status(work, plan.status).attempt == 2
    assert "infrastructure retry 1 of 3" in plan.notes[0].message


def test_the_infrastructure_budget_is_one_for_all_claims_of_a_work() -> None:
    def after(before: int, here: int) -> Plan:
        work = running_work(max_retries=5)
        work = replace(
            work,
            infrastructure_retries_before=before,
            status=replace(work.status, infrastructure_retries=here),
        )
        return look(work, LOST, uid="u1")

    for before, here in ((0, 2), (2, 0), (1, 1)):
        assert after(before, here).status.phase is Phase.PENDING
    for before, here in ((0, 3), (3, 0), (1, 2), (9, 9)):
        plan = after(before, here)
        assert plan.status.phase is Phase.FAILED
        assert "infrastructure retries exhausted" in plan.status.message
        # Another agent may be luckier.
        assert plan.status.attempts[-1].retryable is True


def test_neither_budget_pays_for_the_other() -> None:
    work = running_work(max_retries=1)
    used_up = replace(work, status=replace(work.status, retries=1, infrastructure_retries=0))
    lost_often = replace(work, status=replace(work.status, infrastructure_retries=3))

    assert look(used_up, LOST, uid="u1").status.phase is Phase.PENDING
    assert look(used_up, EVICTED, uid="u1").status.phase is Phase.FAILED
    assert look(lost_often, EVICTED, uid="u1").status.retries == 1


def test_what_a_cluster_refuses_for_good_may_be_taken_by_another() -> None:
    plan = look(running_work(), REFUSED_HERE, uid="u1")

    assert plan.status.phase is Phase.FAILED
    assert plan.status.attempts[-1].retryable is True
    assert "exhausted" not in plan.status.message


def test_an_attempt_is_counted_among_those_that_there_may_be() -> None:
    work = running_work(max_retries=2)
    work = replace(work, status=replace(work.status, infrastructure_retries=1, attempts=()))

    assert look(work, RUNNING, uid="u2").status.message == "attempt 2 of 4: building"


def test_a_cancelled_work_that_is_lost_is_not_repeated() -> None:
    assert look(running_work(cancel_reason="no more"), LOST, uid="u1").status.phase is Phase.FAILED


def test_an_attempt_found_running_is_recorded_although_its_start_was_not() -> None:
    plan = look(a_work(), RUNNING, uid="u1")

    assert plan.actions == ()
    assert plan.status.phase is Phase.RUNNING
    assert plan.status.attempts[0].uid == "u1"


def test_success_carries_the_result_and_both_conditions() -> None:
    plan = look(running_work(), DONE, uid="u1")

    assert plan.status.phase is Phase.SUCCEEDED
    assert plan.status.result == {"digest": "sha256:1"}
    assert plan.status.completed_at == NOON
    succeeded = find_condition(plan.status.conditions, TEMPLATE_SUCCEEDED)
    assert succeeded is not None
    assert succeeded.status is True


@pytest.mark.parametrize(("retries", "seconds"), [(0, 120), (1, 240), (2, 480)])
def test_a_retryable_failure_waits_base_times_two_to_the_retries(
    retries: int, seconds: int
) -> None:
    work = a_work(status=WorkStatus(phase=Phase.RUNNING, retries=retries))
    plan = look(work, EVICTED, uid="u")

    assert plan.status.phase is Phase.PENDING
    assert plan.status.retries == retries + 1
    assert plan.status.retry_at == NOON + timedelta(seconds=seconds)
    assert plan.requeue_after == timedelta(seconds=seconds)


def test_the_delay_is_capped() -> None:
    work = a_work(max_retries=20, status=WorkStatus(retries=15))

    assert look(work, EVICTED, uid="u").requeue_after == timedelta(hours=1)


def test_retries_end_at_the_maximum_and_the_last_failure_says_so() -> None:
    work = a_work(max_retries=2, status=WorkStatus(phase=Phase.RUNNING, retries=2))
    plan = look(work, EVICTED, uid="u")

    assert plan.status.phase is Phase.FAILED
    assert plan.status.retries == 2
    assert "after 3 attempts" in plan.status.message
    assert plan.status.attempts[-1].retryable is True


def test_without_retries_the_first_failure_is_final() -> None:
    plan = look(a_work(max_retries=0), EVICTED, uid="u")

    assert (plan.status.phase, plan.status.retries) == (Phase.FAILED, 0)


def test_a_permanent_failure_spends_no_retry() -> None:
    plan = look(running_work(), BAD_DOCKERFILE, uid="u1")

    assert (plan.status.phase, plan.status.retries) == (Phase.FAILED, 0)
    assert plan.status.reason == "DockerfileNotFound"
    assert plan.status.attempts[-1].retryable is False


def test_what_is_retried_once_is_permanent_the_second_time() -> None:
    first = look(a_work(max_retries=5), PERHAPS, uid="u")
    second = look(with_status(a_work(max_retries=5), first.status), PERHAPS, uid="u2")

    assert first.status.phase is Phase.PENDING
    assert second.status.phase is Phase.FAILED


def test_the_one_retry_is_that_of_the_class_whatever_the_reason() -> None:
    other = a_failure("GitAuthInvalidKey", Retry.ONCE, failure_class=PERHAPS.failure_class)
    first = look(a_work(max_retries=5), PERHAPS, uid="u")
    second = look(with_status(a_work(max_retries=5), first.status), other, uid="u2")

    assert first.status.attempts[0].failure_class == PERHAPS.failure_class
    assert second.status.phase is Phase.FAILED


def test_what_is_retried_twice_is_permanent_the_third_time() -> None:
    work, phases = a_work(max_retries=5), []
    for _ in range(3):
        plan = look(work, a_failure("BuildNotFound", Retry.TWICE), uid=f"u{work.attempt}")
        phases.append(plan.status.phase)
        work = with_status(work, plan.status)

    assert phases == [Phase.PENDING, Phase.PENDING, Phase.FAILED]


def test_another_reason_in_between_does_not_use_up_the_one_retry() -> None:
    first = look(a_work(max_retries=5), EVICTED, uid="u")
    second = look(with_status(a_work(max_retries=5), first.status), PERHAPS, uid="u2")

    assert second.status.phase is Phase.PENDING


def test_nothing_is_started_before_its_time() -> None:
    waiting = a_work(status=WorkStatus(retries=1, retry_at=NOON + timedelta(seconds=30)))
    plan = look(waiting, NEEDS_BUILD)

    assert plan.actions == ()
    assert plan.status == waiting.status
    assert plan.requeue_after == timedelta(seconds=30)


def test_a_retry_that_is_due_is_the_next_attempt_under_the_next_number() -> None:
    due = a_work(status=WorkStatus(retries=1, retry_at=NOON))
    plan = look(due, NEEDS_BUILD)

    assert plan.status.attempts[-1].number == 2
    assert plan.status.attempts[-1].name.endswith("-a2")
    assert plan.status.retry_at is None


def test_an_attempt_that_vanished_is_a_failure_and_not_a_fresh_start() -> None:
    plan = look(running_work(), NEEDS_BUILD, uid=None)

    assert plan.actions == ()
    assert plan.status.attempts[0].reason == "AttemptMissing"
    assert plan.status.attempts[0].fault == "cluster"
    assert (plan.status.retries, plan.status.infrastructure_retries) == (0, 1)


def test_an_attempt_replaced_by_another_object_of_its_name_has_vanished() -> None:
    plan = look(running_work(), RUNNING, uid="somebody-elses")

    assert plan.status.attempts[0].reason == "AttemptMissing"


def test_an_attempt_that_ended_and_then_vanished_has_ended() -> None:
    plan = look(running_work(), DONE, uid=None)

    assert plan.status.phase is Phase.SUCCEEDED


def test_a_refused_template_is_a_permanent_failure_with_the_servers_words() -> None:
    refused = with_condition(
        (),
        TEMPLATE_APPLIED,
        status=False,
        reason="Refused",
        message="Build x: spec.output: Required value",
        now=NOON,
    )
    plan = look(a_work(status=WorkStatus(conditions=refused)), NEEDS_BUILD)

    assert plan.status.phase is Phase.FAILED
    assert plan.status.reason == "TemplateRefused"
    assert "Required value" in plan.status.message
    applied = find_condition(plan.status.conditions, TEMPLATE_APPLIED)
    assert applied is not None
    assert applied.status is False


def test_cancel_before_anything_runs_ends_it_without_starting() -> None:
    plan = look(a_work(cancel_reason="cancelled on request"), NEEDS_BUILD)

    assert plan.actions == ()
    assert plan.status.phase is Phase.CANCELLED


def test_cancel_while_waiting_for_a_retry_ends_the_wait() -> None:
    waiting = WorkStatus(retries=1, retry_at=NOON + timedelta(hours=1))
    plan = look(a_work(cancel_reason="enough", status=waiting), NEEDS_BUILD)

    assert plan.status.phase is Phase.CANCELLED
    assert plan.status.retry_at is None


def test_cancel_of_a_running_attempt_asks_it_to_stop_and_waits_for_the_end() -> None:
    plan = look(running_work(cancel_reason="enough"), RUNNING, uid="u1")

    assert plan.actions == (CancelAttempt(STOP),)
    assert plan.status.phase is Phase.RUNNING


def test_an_attempt_that_was_asked_to_stop_is_not_asked_again() -> None:
    seen = Seen(work=running_work(cancel_reason="enough"), verdict=RUNNING, executor_uid="u1")

    assert decide(seen, now=NOON, policy=POLICY).actions == ()


def test_when_it_was_told_to_stop_is_recorded_once() -> None:
    first = look(running_work(cancel_reason="enough"), RUNNING, uid="u1")
    again = look(
        running_work(cancel_reason="enough", stopping_for=timedelta(seconds=9)), RUNNING, uid="u1"
    )

    assert first.status.attempts[0].stopping_at == NOON
    assert again.status.attempts[0].stopping_at == NOON - timedelta(seconds=9)
    assert again.requeue_after == timedelta(seconds=21)
    assert again.notes == ()


def test_an_attempt_that_does_not_stop_in_time_is_deleted_before_it_is_judged() -> None:
    work = running_work(cancel_reason="enough", stopping_for=POLICY.stop_grace)
    plan = look(work, RUNNING, uid="u1")
    gone = look(with_status(work, plan.status), NEEDS_BUILD, uid=None)

    assert plan.actions == (DeleteAttempt(),)
    assert plan.status.phase is Phase.RUNNING
    assert gone.status.phase is Phase.CANCELLED


def test_if_it_does_not_stop_those_who_were_nearer_know_how_it_ended() -> None:
    """Shipwright may never hear that its TaskRun succeeded just before it was cancelled."""
    stuck = Running(message="stopping", if_stuck=DONE)
    early = running_work(cancel_reason="enough", stopping_for=timedelta(seconds=1))
    late = running_work(cancel_reason="enough", stopping_for=POLICY.stop_grace)

    assert look(early, stuck, uid="u1").status.phase is Phase.RUNNING
    assert look(late, stuck, uid="u1").status.phase is Phase.SUCCEEDED


def test_an_attempt_within_its_time_is_looked_at_again_when_that_is_over() -> None:
    within = Running(message="building", limit=timedelta(minutes=6))

    assert look(running_work(), within, uid="u1").requeue_after == timedelta(minutes=1)


def test_an_attempt_over_its_time_is_told_to_stop() -> None:
    plan = look(running_work(), SLOW, uid="u1")

    assert plan.actions == (CancelAttempt(STOP),)
    assert plan.status.attempts[0].stopping_at == NOON
    assert plan.status.reason == "DeadlineExceeded"
    assert plan.notes[0].is_warning


@pytest.mark.parametrize("end", [STOPPED, NEEDS_BUILD], ids=["stopped", "deleted"])
def test_an_attempt_stopped_for_its_deadline_failed_by_that_and_is_retried_once(
    end: Verdict,
) -> None:
    stopping = running_work(stopping_for=timedelta(seconds=3))
    plan = look(stopping, end, uid="u1" if end is STOPPED else None)
    second = replace(
        plan.status,
        phase=Phase.RUNNING,
        attempts=(
            *plan.status.attempts,
            Attempt(number=2, name="w-a2", uid="u2", started_at=NOON, stopping_at=NOON),
        ),
    )
    again = look(with_status(stopping, second), end, uid="u2" if end is STOPPED else None)

    assert plan.status.attempts[0].reason == "DeadlineExceeded"
    assert plan.status.phase is Phase.PENDING
    assert again.status.phase is Phase.FAILED


def test_an_attempt_that_succeeds_while_it_is_stopped_for_its_deadline_has_succeeded() -> None:
    plan = look(running_work(stopping_for=timedelta(seconds=3)), DONE, uid="u1")

    assert plan.status.phase is Phase.SUCCEEDED


def test_an_attempt_that_never_began_to_run_has_a_deadline_too() -> None:
    attempt = Attempt(number=1, name="w-a1", started_at=NOON - timedelta(minutes=5))
    waiting = a_work(status=WorkStatus(phase=Phase.RUNNING, attempts=(attempt,)))
    plan = look(waiting, SLOW, uid=None)

    # One that is not seen yet must not run beside the next attempt.
    assert plan.actions == (DeleteAttempt(),)
    assert plan.status.attempts[0].reason == "DeadlineExceeded"
    assert plan.status.retries == 1


def test_an_attempt_that_somebody_else_stopped_is_what_its_handler_makes_of_that() -> None:
    plan = look(running_work(), STOPPED, uid="u1")

    assert plan.status.phase is Phase.FAILED
    assert plan.status.reason == "BuildRunCanceled"


def test_a_cancel_that_comes_too_late_does_not_undo_a_success() -> None:
    plan = look(running_work(cancel_reason="enough"), DONE, uid="u1")

    assert plan.status.phase is Phase.SUCCEEDED


def test_a_cancelled_attempt_cancels_the_work() -> None:
    plan = look(running_work(cancel_reason="enough"), STOPPED, uid="u1")

    assert plan.status.phase is Phase.CANCELLED
    assert plan.status.message == "enough"


def test_a_failure_after_a_cancel_request_is_not_retried() -> None:
    plan = look(running_work(cancel_reason="enough"), EVICTED, uid="u1")

    assert plan.status.phase is Phase.FAILED


@pytest.mark.parametrize("phase", [each for each in Phase if each.is_terminal])
@pytest.mark.parametrize("verdict", [NEEDS_BUILD, RUNNING, EVICTED, DONE], ids=repr)
def test_a_terminal_work_stays_as_it_is_whatever_is_seen(phase: Phase, verdict: Verdict) -> None:
    work = a_work(status=WorkStatus(phase=phase, completed_at=NOON))
    plan = look(work, verdict)

    assert plan == Plan(status=work.status)


@pytest.mark.parametrize(
    ("phase", "hours"), [(Phase.SUCCEEDED, 1), (Phase.FAILED, 24), (Phase.CANCELLED, 24)]
)
def test_a_reported_work_is_deleted_when_its_time_is_over(phase: Phase, hours: int) -> None:
    status = WorkStatus(phase=phase)
    reported = a_work(status=status, acknowledged_at=NOON - timedelta(hours=hours))
    still_kept = replace(reported, acknowledged_at=NOON - timedelta(hours=hours, minutes=-1))

    assert look(reported, NEEDS_BUILD).actions == (DeleteWork(),)
    assert look(still_kept, NEEDS_BUILD).actions == ()
    assert look(still_kept, NEEDS_BUILD).requeue_after == timedelta(minutes=1)


def test_an_unreported_result_is_never_deleted() -> None:
    old = a_work(status=WorkStatus(phase=Phase.FAILED, completed_at=NOON - timedelta(days=400)))

    assert look(old, NEEDS_BUILD).actions == ()


def test_a_work_that_is_being_deleted_is_left_alone() -> None:
    work = a_work(is_deleting=True)

    assert look(work, NEEDS_BUILD) == Plan(status=work.status)


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    first = look(a_work(), NEEDS_BUILD).status
    later = decide(
        Seen(work=with_status(a_work(), first), verdict=RUNNING, executor_uid="u1"),
        now=NOON + timedelta(minutes=3),
        policy=POLICY,
    ).status

    assert find_condition(later.conditions, TEMPLATE_APPLIED) == find_condition(
        first.conditions, TEMPLATE_APPLIED
    )


def test_the_message_of_a_status_holds_no_credential_not_even_where_it_is_cut() -> None:
    token = "ghp_q7Zk2Xw9Rt4Vb6Nm1Hs8Jd3Lf5Gp0CyQ7zK2"
    for room in range(60):
        said = cut("x" * (MAX_MESSAGE - room) + f" {token} {'y' * 100}")
        assert "q7Zk" not in said
        assert len(said) <= MAX_MESSAGE


QUOTA = Running(message="no room: exceeded quota: team", limit=timedelta(minutes=5), is_begun=False)


def test_what_does_not_begin_in_time_is_the_clusters_failure_and_says_what_it_waited_for() -> None:
    told = look(running_work(), QUOTA, uid="u1")
    stopping = with_status(running_work(), told.status)
    # Meanwhile it says that it is being cancelled, which is no news.
    meanwhile = look(stopping, replace(SLOW, message="the build is being cancelled"), uid="u1")
    over = look(with_status(stopping, meanwhile.status), STOPPED, uid="u1")

    assert told.status.reason == meanwhile.status.reason == "NotStarted"
    for plan in (told, meanwhile, over):
        assert "exceeded quota: team" in plan.status.message
    assert over.status.attempts[0].failure_class == "NotStarted"
    assert (over.status.retries, over.status.infrastructure_retries) == (0, 1)


def test_a_deadline_that_passed_keeps_the_reason_that_was_known() -> None:
    told = look(running_work(), replace(SLOW, message="an image cannot be pulled"), uid="u1")

    over = look(with_status(running_work(), told.status), STOPPED, uid="u1")

    assert over.status.attempts[0].reason == "DeadlineExceeded"
    assert "an image cannot be pulled" in over.status.attempts[0].message

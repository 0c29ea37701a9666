"""The invariants can fail: each is shown what must not be."""

from dataclasses import replace
from typing import Any

import pytest

from chaos import invariants
from chaos.invariants import ClaimRow, Event, Execution, History


def told(*kinds: tuple[str, dict[str, Any]]) -> list[Event]:
    return [Event(number=n, kind=kind, detail=d) for n, (kind, d) in enumerate(kinds, 1)]


LOST_AND_DONE = History(
    work_id="w",
    key="k",
    places=1,
    status="SUCCEEDED",
    round=2,
    claim_id="b",
    lost_claims=1,
    events_counted=5,
    events=told(
        ("submitted", {}),
        ("claimed", {"claim_id": "a"}),
        ("lease_lost", {"claim_id": "a"}),
        ("claimed", {"claim_id": "b"}),
        ("completed", {"claim_id": "b", "outcome": "succeeded"}),
    ),
    claims=[
        ClaimRow(claim_id="a", round=1, ended_as="lease_lost"),
        ClaimRow(claim_id="b", round=2, ended_as="completed"),
    ],
)
"""A Work whose first lease was lost, and which its second holder completed."""


@pytest.mark.parametrize("kind", ["completed", "handed_off"])
def test_a_loss_that_was_paid_for_by_the_user_is_seen(kind: str) -> None:
    lost, fine = (
        replace(LOST_AND_DONE, events=told((kind, {"retries": retries}))) for retries in (1, 0)
    )

    assert invariants.retries_for_losses(lost)
    assert not invariants.retries_for_losses(fine)


def test_a_whole_history_is_not_broken() -> None:
    assert invariants.broken_history(LOST_AND_DONE) == []
    assert invariants.wrong_end(LOST_AND_DONE, "plain") == []


def test_a_lapsed_claim_that_nobody_took_may_be_revived_or_complete_the_work() -> None:
    first = LOST_AND_DONE.events[:3]
    late = Event(number=4, kind="completed", detail={"claim_id": "a", "outcome": "succeeded"})
    revived = Event(number=4, kind="lease_revived", detail={"claim_id": "a"})
    claims = [ClaimRow(claim_id="a", round=1, ended_as="completed")]
    once = replace(LOST_AND_DONE, round=1, claim_id="a", claims=claims)

    completed_late = replace(once, events=[*first, late], events_counted=4)
    completed_after_revival = replace(once, events=[*first, revived, replace(late, number=5)])

    assert invariants.broken_history(completed_late) == []
    assert invariants.broken_history(completed_after_revival) == []


def test_a_claim_that_is_held_must_not_be_given_up() -> None:
    held = [ClaimRow(claim_id="b", round=2, ended_as=None)]
    going_on = replace(LOST_AND_DONE, status="CLAIMED", claims=[LOST_AND_DONE.claims[0], *held])
    both = {"a": ("w", "stopped as lost"), "b": ("w", "acknowledged")}

    assert invariants.given_up_too_early(both, {"w": LOST_AND_DONE}) == []
    assert invariants.given_up_too_early(both, {"w": going_on}) == [
        "Work w was acknowledged in its cluster, and b is held"
    ]
    # What the database does not know, `lost_completions` complains about.
    assert invariants.given_up_too_early(both, {}) == []


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (replace(LOST_AND_DONE, places=2), "is in 2 places"),
        (replace(LOST_AND_DONE, status="PENDING"), "has ended 1 times"),
        (replace(LOST_AND_DONE, status="FAILED"), "its events make it SUCCEEDED"),
        (replace(LOST_AND_DONE, events_counted=6), "counts 6 events"),
        (replace(LOST_AND_DONE, round=3), "its events count 2"),
        (replace(LOST_AND_DONE, claims=LOST_AND_DONE.claims[:1]), "claims of rounds [1]"),
        (
            replace(
                LOST_AND_DONE,
                claims=[replace(each, ended_as="completed") for each in LOST_AND_DONE.claims],
            ),
            "2 claims that completed it",
        ),
        (
            replace(
                LOST_AND_DONE,
                claims=[replace(each, ended_as=None) for each in LOST_AND_DONE.claims],
            ),
            "these claims are not ended: ['a', 'b']",
        ),
        (
            replace(
                LOST_AND_DONE,
                events=[
                    *LOST_AND_DONE.events,
                    replace(LOST_AND_DONE.events[-1], number=6),
                ],
                events_counted=6,
            ),
            "has ended 2 times",
        ),
        (
            replace(
                LOST_AND_DONE,
                events=[
                    *LOST_AND_DONE.events[:4],
                    Event(number=5, kind="completed", detail={"claim_id": "a"}),
                ],
            ),
            "completed cannot come after",
        ),
        (
            replace(
                LOST_AND_DONE,
                events=[
                    *LOST_AND_DONE.events[:2],
                    replace(LOST_AND_DONE.events[3], number=3),
                    replace(LOST_AND_DONE.events[2], number=4),
                    LOST_AND_DONE.events[4],
                ],
            ),
            "claimed cannot come after",
        ),
    ],
)
def test_a_broken_history_is_seen(broken: History, complaint: str) -> None:
    assert complaint in "; ".join(invariants.broken_history(broken))


def test_an_end_that_its_sort_does_not_allow_is_seen() -> None:
    failed = replace(LOST_AND_DONE, status="FAILED")
    quarantined = replace(LOST_AND_DONE, status="QUARANTINED")

    assert "has ended as failed" in invariants.wrong_end(failed, "plain")[0]
    assert "quarantined after 1 lost leases" in invariants.wrong_end(quarantined, "plain")[0]
    assert "has not ended" in invariants.wrong_end(replace(failed, status="PENDING"), "plain")[0]


def test_what_was_accepted_twice_or_is_not_there_is_seen() -> None:
    assert invariants.twice_accepted(["k", "l", "k"]) == ["key k has 2 Works"]
    assert invariants.lost_submissions({"k": "w"}, {"k": "w"}) == []
    assert "has None" in invariants.lost_submissions({"k": "w"}, {})[0]


def execution(round: int, attempt: int = 1) -> Execution:
    return Execution(name=f"work-w-r{round}-a{attempt}", work_id="w", round=round)


def test_two_executions_are_allowed_only_after_a_lost_lease() -> None:
    histories = {"w": LOST_AND_DONE}
    handed_on = replace(
        LOST_AND_DONE,
        claims=[replace(LOST_AND_DONE.claims[0], ended_as="handed_off"), LOST_AND_DONE.claims[1]],
    )

    def overlaps(*executions: Execution, of: History = LOST_AND_DONE) -> list[str]:
        return invariants.forbidden_overlaps(executions, {**histories, "w": of})

    assert overlaps(execution(1), execution(2)) == []
    assert "for one claim" in overlaps(execution(1), execution(1, attempt=2))[0]
    assert "has ended as handed_off" in overlaps(execution(1), execution(2), of=handed_on)[0]


def test_an_execution_that_goes_on_for_a_claim_that_is_over_is_seen() -> None:
    held = replace(LOST_AND_DONE, status="CLAIMED")

    assert invariants.unfenced([execution(2)], {"w": held}) == []
    assert "its Work is CLAIMED" in invariants.unfenced([execution(1)], {"w": held})[0]
    assert "its Work is SUCCEEDED" in invariants.unfenced([execution(2)], {"w": LOST_AND_DONE})[0]
    assert "its Work is unknown" in invariants.unfenced([execution(2)], {})[0]


def test_a_completion_that_was_lost_or_changed_is_seen() -> None:
    histories = {"w": LOST_AND_DONE}

    def lost(claim_id: str, phase: str, work_id: str = "w") -> list[str]:
        return invariants.lost_completions({claim_id: (work_id, phase)}, histories)

    assert lost("b", "Succeeded") == lost("a", "Failed") == []
    assert "is SUCCEEDED" in lost("b", "Failed")[0]
    assert "is no claim" in lost("c", "Succeeded")[0]
    assert "is unknown" in lost("b", "Succeeded", "v")[0]


def test_an_image_that_the_registry_does_not_have_is_seen() -> None:
    built = replace(LOST_AND_DONE, digest="sha256:a")

    assert invariants.missing_images([built], {("k", "sha256:a"): True}) == []
    assert invariants.missing_images([replace(built, status="QUARANTINED", digest=None)], {}) == []
    assert "no sha256:a of it" in invariants.missing_images([built], {("k", "sha256:a"): False})[0]
    assert "no sha256:a of it" in invariants.missing_images([built], {("l", "sha256:a"): True})[0]
    assert "no image of it" in invariants.missing_images([replace(built, digest=None)], {})[0]


def test_a_predecessor_that_goes_on_beside_its_successor_is_seen() -> None:
    assert invariants.not_superseded({"agent-0": 1, "agent-1": 0}) == []
    assert invariants.not_superseded({"agent-0": 2}) == ["there are 2 processes of agent-0"]


def test_a_process_that_is_still_there_in_the_end_is_seen() -> None:
    assert invariants.left_running(["sleep 1", "buildah --root /elsewhere"], "/tmp/c") == []
    assert invariants.left_running(["buildah --root /tmp/c/d"], "/tmp/c") == [
        "still runs: buildah --root /tmp/c/d"
    ]


def test_a_traceback_in_a_log_is_seen() -> None:
    assert invariants.complaints(['{"event": "fine"}']) == []
    assert len(invariants.complaints(["Traceback (most recent call last):"])) == 1
    assert len(invariants.complaints(['{"event": "job failed", "exception": "..."}'])) == 1

"""Which Work resources the broker's word covers, and whose word it is."""

import math
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from brokkr.agent.claims import CONFIRMED_SECONDS, HeldClaim, HeldClaims, sensible_lease
from brokkr.wire.bodies import PROBLEM_BROKER, HeartbeatAnswer
from brokkr.wire.problem import CODES, problem_of, read_problem
from brokkr.work.errors import BrokkrError, ClaimLost
from brokkr.work.model import Work
from support.factories import a_work


def held_claims(work: Work, *, broker: str = "the-broker") -> HeldClaims:
    held = HeldClaims()
    held.broker = broker
    claim = work.claim
    held.confirm(claim.work_id, claim.claim_id, round=claim.round, broker=broker, lease_seconds=60)
    return held


def test_a_confirmed_claim_is_held() -> None:
    work = a_work()

    assert held_claims(work).holds(work)


def test_a_claim_nobody_confirmed_is_not_held() -> None:
    held = HeldClaims()
    held.broker = "the-broker"

    assert not held.holds(a_work())


def test_a_resource_of_another_name_cannot_borrow_a_claim() -> None:
    """Somebody copies the annotation of a real Work onto one that he has made."""
    work = a_work()
    planted = replace(work, name=work.name.replace("-r1", "-r2"))

    assert not held_claims(work).holds(planted)


def test_a_claim_of_another_broker_is_not_held() -> None:
    work = a_work()
    held = held_claims(work, broker="a-restored-one")

    assert not held.holds(work)
    assert held.is_from_elsewhere(work)


def test_a_dropped_claim_is_not_held_and_dropping_it_again_is_harmless() -> None:
    work = a_work()
    held = held_claims(work)
    held.drop(work.claim.claim_id)
    held.drop(uuid4())

    assert not held.holds(work)


def test_confirming_again_keeps_what_is_yet_to_be_written() -> None:
    work = a_work()
    held = held_claims(work)
    (first,) = held
    again = held.confirm(
        work.claim.work_id,
        work.claim.claim_id,
        round=work.claim.round,
        broker="the-broker",
        lease_seconds=5,
    )

    assert again is first
    assert again.lease_seconds == 5


# -- leases


@pytest.mark.parametrize(
    ("said", "lived_by"),
    [(0.0, 1.0), (-5.0, 1.0), (math.nan, 1.0), (60.0, 60.0), (math.inf, 7 * 86400.0)],
)
def test_a_lease_is_one_that_can_be_lived_by(said: float, lived_by: float) -> None:
    assert sensible_lease(said) == lived_by


def test_a_lease_runs_from_when_it_was_confirmed_last() -> None:
    work, clock = a_work(), Clock()
    claims, claim = HeldClaims(clock), work.claim

    def confirm() -> HeldClaim:
        return claims.confirm(
            claim.work_id, claim.claim_id, round=1, broker=claim.broker, lease_seconds=60
        )

    confirm()
    clock.now = 50
    held = confirm()
    clock.now = 110
    assert not claims.is_lapsed(held)
    clock.now = 110.1
    assert claims.is_lapsed(held)


# -- whose word it is


class Clock:
    """Seconds, as a test sets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def heard(work: Work, *, is_new: bool, clock: Clock | None = None) -> HeldClaims:
    """Return what is known after a heartbeat that a new broker has answered, or an old one."""
    held = HeldClaims(clock or Clock())
    features = [PROBLEM_BROKER] if is_new else []
    held.note_answer(
        HeartbeatAnswer(broker=work.claim.broker, renewed=[], lost=[], features=features)
    )
    return held


def said(error: BrokkrError, *, broker: str | None, **changes: Any) -> BrokkrError:
    """Return what a client makes of an error that a broker, new or old, has sent."""
    document = {**problem_of(error, broker=broker), **changes}
    if broker is None:
        del document["family"]
    received = read_problem(document["status"], document)
    assert received is not None
    return received


def ends(held: HeldClaims, error: BrokkrError, work: Work) -> bool:
    return held.ends(error, work.claim.work_id, work.claim.broker)


@pytest.mark.parametrize("heartbeat_is_new", [True, False])
@pytest.mark.parametrize("problem_is_new", [True, False])
def test_agents_and_brokers_of_two_versions(heartbeat_is_new: bool, problem_is_new: bool) -> None:
    """In a rolling update one replica may answer the heartbeat, and another one the rest."""
    work = a_work()
    held = heard(work, is_new=heartbeat_is_new)
    broker = work.claim.broker if problem_is_new else None

    ended = ends(held, said(ClaimLost(work.claim.work_id), broker=broker), work)

    # Only where the broker could have named itself and has not, it may be somebody else.
    assert ended is (problem_is_new or not heartbeat_is_new)


@pytest.mark.parametrize("code", CODES)
def test_four_codes_end_a_claim_and_no_other_does(code: str) -> None:
    work = a_work()
    kind = CODES[code]
    error = kind.__new__(kind)
    vars(error).update(work_id=str(work.claim.work_id), broker=work.claim.broker)

    is_end = code in ("claim_lost", "work_not_found", "work_finished", "work_not_held")
    assert ends(heard(work, is_new=True), error, work) is is_end


@pytest.mark.parametrize("is_new", [True, False])
def test_what_is_about_another_work_or_about_none_ends_nothing(is_new: bool) -> None:
    work = a_work()
    held = heard(work, is_new=is_new)
    broker = work.claim.broker if is_new else None

    assert not ends(held, said(ClaimLost(uuid4()), broker=broker), work)
    assert not ends(held, said(ClaimLost(""), broker=broker, work_id=None), work)


@pytest.mark.parametrize("is_new", [True, False])
def test_another_broker_ends_nothing(is_new: bool) -> None:
    work = a_work()
    lost = ClaimLost(work.claim.work_id)

    assert not ends(heard(work, is_new=is_new), said(lost, broker="a-second-one"), work)


@pytest.mark.parametrize("is_new", [True, False])
def test_the_broker_of_now_ends_no_claim_of_another_one(is_new: bool) -> None:
    """It may have come between the request and the answer."""
    work = a_work()
    held = heard(work, is_new=is_new)
    held.note_answer(
        HeartbeatAnswer(
            broker="the-broker-of-now",
            renewed=[],
            lost=[],
            features=[PROBLEM_BROKER] if is_new else [],
        )
    )
    lost = said(ClaimLost(work.claim.work_id), broker="the-broker-of-now" if is_new else None)

    assert not ends(held, lost, work)


def test_an_old_broker_is_trusted_for_a_minute_after_a_heartbeat() -> None:
    work, clock = a_work(), Clock()
    held = heard(work, is_new=False, clock=clock)
    lost = said(ClaimLost(work.claim.work_id), broker=None)

    clock.now = CONFIRMED_SECONDS
    assert ends(held, lost, work)
    clock.now += 1
    assert not ends(held, lost, work)


def test_before_the_first_heartbeat_nobody_ends_anything() -> None:
    work = a_work()
    lost = said(ClaimLost(work.claim.work_id), broker=None)

    assert not ends(HeldClaims(), lost, work)
    assert not HeldClaims().has_said(said(ClaimLost("w"), broker="b"), None)

"""Which Work resources the broker's word covers."""

from dataclasses import replace
from uuid import uuid4

from brokkr.agent.claims import HeldClaims
from brokkr.work.model import Work
from support.factories import a_work


def held_claims(work: Work, *, broker: str = "the-broker") -> HeldClaims:
    held = HeldClaims()
    held.broker = broker
    claim = work.claim
    held.confirm(claim.work_id, claim.claim_id, round=claim.round, lease_seconds=60)
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
        work.claim.work_id, work.claim.claim_id, round=work.claim.round, lease_seconds=5
    )

    assert again is first
    assert again.lease_seconds == 5

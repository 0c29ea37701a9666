"""What an agent makes of a broker that does not take a result."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from brokkr.agent.claims import HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.workqueue import Workqueue
from brokkr.agent.metrics import Metrics
from brokkr.agent.reporting import Reporting
from brokkr.agent.resources import CLAIM_LOST, CUT_OFF
from brokkr.wire.bodies import (
    PROBLEM_BROKER,
    CompleteWork,
    HeartbeatAnswer,
    ReleaseWork,
    ReportProgress,
)
from brokkr.wire.custom_resource import ANNOTATION_CANCEL
from brokkr.work.errors import (
    BodyTooLarge,
    BrokkrError,
    ClaimLost,
    Conflict,
    InvalidInput,
    MalformedBody,
)
from brokkr.work.model import Attempt, Phase, Work, WorkStatus
from support.factories import NOON, a_work

DETAILS = {"digest": "sha256:abc"}
NOT_TAKEN = [BodyTooLarge(1024), MalformedBody("not JSON"), InvalidInput("result", "is odd")]


class Played:
    """A broker that refuses at first, and an API server that takes every note."""

    def __init__(self, refusal: BrokkrError, *, of: str, times: int) -> None:
        refusal.broker = of
        self._refusal, self._left = refusal, times
        self.sent: list[CompleteWork] = []
        self.given_back: list[ReleaseWork] = []
        self.told: list[ReportProgress] = []
        self.notes: list[Mapping[str, Any]] = []
        self.noted = asyncio.Event()

    async def complete_work(self, work_id: UUID, body: CompleteWork, *, trace: Any) -> None:
        self.sent.append(body)
        if DETAILS.items() <= body.result.items():
            self._refuse()

    async def release_work(self, work_id: UUID, body: ReleaseWork) -> None:
        self.given_back.append(body)
        self._refuse()

    async def report_progress(self, work_id: UUID, body: ReportProgress, *, trace: Any) -> None:
        self.told.append(body)
        self._refuse()
        self.noted.set()

    def _refuse(self) -> None:
        if self._left > 0:
            self._left -= 1
            raise self._refusal

    async def merge_patch(self, *patch: Any) -> None:
        self.notes.append(patch[-1]["metadata"]["annotations"])
        self.noted.set()


async def reported(
    work: Work, played: Any, *, broker: str = "the-broker", within: float = 3
) -> HeldClaims:
    """Report a Work that this broker holds, until there is no more to do for now."""
    queue, held, claim = Workqueue(jitter=lambda: 0.01), HeldClaims(), work.claim
    features = [PROBLEM_BROKER]
    held.note_answer(HeartbeatAnswer(broker=broker, renewed=[], lost=[], features=features))
    held.confirm(claim.work_id, claim.claim_id, round=1, broker=broker, lease_seconds=60)
    caches = Caches(
        played, "any", agent_id=work.claim.agent_id, handlers=(), on_change=lambda _: None
    )
    caches.works[work.name] = work
    reporting = Reporting(
        client=played,
        kube=played,
        caches=caches,
        held=held,
        clock=lambda: NOON,
        workqueue=queue,
        step_of=lambda _: "",
        export=None,
        metrics=Metrics(),
    )
    queue.add(work.name)
    running = asyncio.create_task(reporting.run())
    try:
        async with asyncio.timeout(within):
            await played.noted.wait()
    finally:
        running.cancel()
        await asyncio.wait([running])
    return held


def that_has_ended() -> Work:
    return a_work(status=WorkStatus(phase=Phase.SUCCEEDED, message="built", result=DETAILS))


@pytest.mark.parametrize("error", NOT_TAKEN, ids=lambda error: error.code)
async def test_details_that_its_broker_never_takes_are_left_out(error: BrokkrError) -> None:
    work = that_has_ended()
    played = Played(error, of=work.claim.broker, times=1000)
    await reported(work, played)
    whole, short = played.sent

    assert (whole.outcome, whole.message, whole.result["digest"]) == (
        "succeeded",
        "built",
        "sha256:abc",
    )
    assert (short.outcome, short.message, short.result) == ("succeeded", "built", {})


@pytest.mark.parametrize("error", NOT_TAKEN, ids=lambda error: error.code)
async def test_nobody_else_makes_an_agent_leave_details_out(error: BrokkrError) -> None:
    played = Played(error, of="a-second-one", times=2)
    await reported(that_has_ended(), played)

    assert [each.result["digest"] for each in played.sent] == ["sha256:abc"] * 3


async def test_what_its_broker_takes_as_it_is_may_be_refused_for_another_reason_first() -> None:
    work = that_has_ended()
    played = Played(Conflict("not now"), of=work.claim.broker, times=2)
    await reported(work, played)

    assert [each.result["digest"] for each in played.sent] == ["sha256:abc"] * 3


async def test_a_result_is_not_told_to_a_broker_that_never_asked_for_it() -> None:
    played = Played(Conflict("not now"), of="a-second-one", times=0)
    with pytest.raises(TimeoutError):
        await reported(that_has_ended(), played, broker="a-second-one", within=0.1)

    assert played.sent == []


def strangers(work: Work) -> list[tuple[BrokkrError, str]]:
    """Return what ends no claim, and who says it."""
    return [
        (ClaimLost(work.claim.work_id), "a-second-one"),
        (ClaimLost("another work"), work.claim.broker),
        (Conflict("not now"), work.claim.broker),
    ]


async def test_what_was_cut_off_is_given_back_until_its_own_broker_has_heard() -> None:
    status = WorkStatus(phase=Phase.CANCELLED)
    work = a_work(status=status, cancel_reason=CUT_OFF)
    for error, of in strangers(work):
        played = Played(error, of=of, times=2)
        await reported(work, played)
        assert (len(played.given_back), played.sent) == (3, [])

    played = Played(ClaimLost(work.claim.work_id), of=work.claim.broker, times=1000)
    await reported(work, played)
    assert len(played.given_back) == 1


async def test_what_runs_is_stopped_if_its_own_broker_says_that_the_claim_is_over() -> None:
    attempts = (Attempt(number=1, name="a-1"),)
    work = a_work(status=WorkStatus(phase=Phase.RUNNING, attempts=attempts))
    for error, of in strangers(work):
        played = Played(error, of=of, times=2)
        held = await reported(work, played)
        assert (len(played.told), played.notes, held.holds(work)) == (3, [], True)

    played = Played(ClaimLost(work.claim.work_id), of=work.claim.broker, times=1000)
    held = await reported(work, played)
    assert (len(played.told), held.holds(work)) == (1, False)
    assert played.notes == [{ANNOTATION_CANCEL: CLAIM_LOST}]


async def test_a_claim_that_its_broker_says_is_over_is_not_reported_again() -> None:
    work = that_has_ended()
    played = Played(ClaimLost(work.claim.work_id), of=work.claim.broker, times=1000)
    await reported(work, played)

    assert len(played.sent) == 1

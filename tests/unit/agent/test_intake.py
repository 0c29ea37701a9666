"""What becomes of claims that an agent does not want, while its broker is hard to reach."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from brokkr.agent.access import Access, Timing
from brokkr.agent.claims import HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.intake import Intake
from brokkr.agent.kube.errors import KubeUnavailable
from brokkr.agent.metrics import Metrics
from brokkr.agent.settings import WorkQueueSettings
from brokkr.wire.bodies import PROBLEM_BROKER, ClaimBody, CompleteWork, HeartbeatAnswer, ReleaseWork
from brokkr.work.errors import BrokerUnavailable, BrokkrError, ClaimLost, Conflict
from support.factories import a_work
from support.hostile_broker import a_claim
from support.signals import eventually


class Played:
    """A broker that answers as told, and an API server that deletes nothing."""

    def __init__(self, *answers: BrokkrError | None, ends_meanwhile: bool = False) -> None:
        self._answers, self._ends_meanwhile = list(answers), ends_meanwhile
        self.asked: list[UUID] = []
        self.held = HeldClaims()
        features = [PROBLEM_BROKER]
        self.held.note_answer(
            HeartbeatAnswer(broker="the-broker", renewed=[], lost=[], features=features)
        )

    async def release_work(self, work_id: UUID, body: ReleaseWork) -> None:
        assert body.claim_id in {each.claim_id for each in self.held}  # until it is heard
        self.asked.append(work_id)
        if self._ends_meanwhile and body.claim_id is not None:
            self.held.drop(body.claim_id)  # as a heartbeat does
        if error := self._answers.pop(0):
            raise error

    async def complete_work(self, work_id: UUID, body: CompleteWork, *, trace: Any) -> None:
        assert body.ended_as == "failed"
        await self.release_work(work_id, ReleaseWork(claim_id=body.claim_id))

    async def delete(self, *_: Any, **__: Any) -> None:
        raise KubeUnavailable("no answer")


def an_intake(played: Any) -> Intake:
    return Intake(
        agent=SimpleNamespace(id=uuid4()),  # type: ignore[arg-type]
        client=played,
        kube=played,
        caches=Caches(played, "any", agent_id=uuid4(), handlers=(), on_change=lambda _: None),
        held=played.held,
        namespace="any",
        prerequisites=SimpleNamespace(lacking_since={}),  # type: ignore[arg-type]
        access=Access(
            [], namespace="any", clock=time.monotonic, timing=Timing(), on_change=lambda: None
        ),
        clock=time.monotonic,
        settings=WorkQueueSettings(enabled=False, max_concurrent=4),
        news=asyncio.Event(),
        jitter=lambda: 0.01,
        metrics=Metrics(),
    )


@asynccontextmanager
async def running(intake: Intake) -> AsyncIterator[None]:
    task = asyncio.create_task(intake.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def said(error: BrokkrError, broker: str) -> BrokkrError:
    error.broker = broker
    return error


async def is_let_go(
    claim: ClaimBody, *answers: BrokkrError | None, ends_meanwhile: bool = False
) -> int:
    """Have a claim given up that is not wanted; return how often that was said."""
    played = Played(*answers, ends_meanwhile=ends_meanwhile)
    intake = an_intake(played)
    async with running(intake):
        held = intake.take_in(claim)
        assert held is not None

        async def is_so() -> bool:
            return played.held.find(claim.claim_id) is None and held.unwritten is None

        await eventually(is_so, within=5)
    assert set(played.asked) == {claim.id}
    return len(played.asked)


def of_a_second_broker() -> ClaimBody:
    return ClaimBody.model_validate(a_claim(broker="a-second-one"))


async def test_what_is_given_back_is_kept_until_the_broker_has_heard_of_it() -> None:
    claim = of_a_second_broker()

    times = await is_let_go(
        claim,
        BrokerUnavailable("a page"),
        said(Conflict("not now"), "the-broker"),
        said(ClaimLost(claim.id), "a-third-one"),
        said(ClaimLost(uuid4()), "the-broker"),
        None,
    )

    assert times == 5


async def test_what_the_broker_has_heard_of_or_ended_is_given_back_once() -> None:
    heard, ended = of_a_second_broker(), of_a_second_broker()

    assert await is_let_go(heard, None) == 1
    assert await is_let_go(ended, said(ClaimLost(ended.id), "the-broker")) == 1


async def test_what_can_never_be_written_is_reported_until_the_broker_has_heard_of_it() -> None:
    claim = ClaimBody.model_validate(a_claim(spec={"claimTimeout": 0}))

    times = await is_let_go(
        claim, BrokerUnavailable("a page"), said(ClaimLost(claim.id), "a-second-one"), None
    )

    assert times == 3
    assert await is_let_go(claim, said(ClaimLost(claim.id), "the-broker")) == 1


async def test_a_claim_that_is_over_meanwhile_is_not_given_back_any_more() -> None:
    claim = of_a_second_broker()

    assert await is_let_go(claim, BrokerUnavailable("a page"), ends_meanwhile=True) == 1


async def test_when_an_agent_stops_one_release_that_fails_is_no_reason_to_leave_others_out() -> (
    None
):
    played = Played(BrokerUnavailable("a page"), None, said(ClaimLost("w"), "the-broker"), None)
    intake = an_intake(played)
    claims = [ClaimBody.model_validate(a_claim()) for _ in range(4)]
    for each in claims:
        assert intake.take_in(each) is not None

    await intake.release_untouched()

    assert played.asked == [each.id for each in claims]


async def test_when_an_agent_stops_an_api_server_that_is_away_keeps_nothing_but_its_own() -> None:
    """What has a Work resource is given back only if that could be deleted untouched."""
    work, played = a_work(), Played(None)
    intake = an_intake(played)
    intake._caches.works[work.name] = work
    written = played.held.confirm(
        work.claim.work_id, work.claim.claim_id, round=1, broker="the-broker", lease_seconds=60
    )
    unwritten = ClaimBody.model_validate(a_claim())
    assert intake.take_in(unwritten) is not None

    await intake.release_untouched()

    assert played.asked == [unwritten.id]
    assert not written.is_given_back

"""The queue against a model of it in Python: any sequence of steps, the same answers."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from brokkr.broker.db.claims import ClaimedWork
from brokkr.broker.db.pool import open_pool
from brokkr.wire.bodies import AgentBody, WorkBody, WorkState
from brokkr.work.errors import ClaimLost, WorkFinished, WorkNotClaimable
from support.queue import Queue

MAX_LOST = 3
Answer = TypeVar("Answer")

agents = st.integers(0, 1)
choices = st.integers(0, 1000)


@dataclass
class Modelled:
    """What the model knows of a Work.

    Attributes:
        newest: The claim that may still report; None before the first.
        answers: What completed claims were told.
    """

    id: UUID
    state: WorkState = WorkState.PENDING
    newest: UUID | None = None
    lost: int = 0
    rounds: int = 0
    cancelled: bool = False
    claims: list[tuple[int, ClaimedWork]] = field(default_factory=list)
    answers: dict[UUID, WorkBody] = field(default_factory=dict)


class QueueMachine(RuleBasedStateMachine):
    """Two agents and a user do what they can, in any order."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.opened = open_pool(url)
        self.queue = Queue(self.run(self.opened.__aenter__()), max_lost_claims=MAX_LOST)
        self.works: list[Modelled] = []
        self.agents: list[AgentBody] = []

    def run(self, step: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(step)

    def teardown(self) -> None:
        self.run(self.opened.__aexit__(None, None, None))
        self.runner.close()

    @initialize()
    def start(self) -> None:
        async def clear() -> None:
            await self.queue.pool.execute("TRUNCATE agents, selectors, work_claims CASCADE")

        self.run(clear())
        self.agents = [self.run(self.queue.an_agent()) for _ in range(2)]

    @rule()
    def submit(self) -> None:
        self.works.append(Modelled(self.run(self.queue.submit())))

    @precondition(lambda self: self.works)
    @rule(which=choices, agent=agents)
    def claim(self, which: int, agent: int) -> None:
        work = self.works[which % len(self.works)]
        step = self.queue.claim(work.id, by=self.agents[agent])
        if work.state is not WorkState.PENDING:
            with pytest.raises(WorkNotClaimable):
                self.run(step)
            return
        claimed = self.run(step)
        work.rounds += 1
        assert claimed.round == work.rounds
        work.state, work.newest = WorkState.CLAIMED, claimed.claim_id
        work.claims.append((agent, claimed))

    @precondition(lambda self: any(each.claims for each in self.works))
    @rule(which=choices, outcome=st.sampled_from(["succeeded", "failed", "cancelled"]))
    def complete(self, which: int, outcome: str) -> None:
        work, agent, claimed = self.any_claim(which)
        step = self.queue.complete(claimed, by=self.agents[agent], success=None, outcome=outcome)
        if claimed.claim_id in work.answers:
            assert self.run(step) == work.answers[claimed.claim_id]
        elif claimed.claim_id == work.newest and not work.state.is_finished:
            work.answers[claimed.claim_id] = self.run(step)
            work.state = WorkState(outcome.upper())
        else:
            with pytest.raises(ClaimLost):
                self.run(step)

    @precondition(lambda self: any(each.claims for each in self.works))
    @rule(which=choices)
    def renew(self, which: int) -> None:
        work, agent, claimed = self.any_claim(which)

        renewed = self.run(self.queue.renew(claimed, by=self.agents[agent]))

        holds = claimed.claim_id == work.newest and not work.state.is_finished
        assert bool(renewed) is holds
        if holds and work.state is WorkState.PENDING:
            work.state, work.lost = WorkState.CLAIMED, work.lost - 1

    @precondition(lambda self: any(each.claims for each in self.works))
    @rule(which=choices)
    def lose(self, which: int) -> None:
        work, _, claimed = self.any_claim(which)
        self.run(self.queue.lose(claimed))
        if claimed.claim_id != work.newest or work.state is not WorkState.CLAIMED:
            return
        work.lost += 1
        if work.cancelled:
            work.state = WorkState.CANCELLED
        elif work.lost >= MAX_LOST:
            work.state = WorkState.QUARANTINED
        else:
            work.state = WorkState.PENDING

    @precondition(lambda self: self.works)
    @rule(which=choices)
    def cancel(self, which: int) -> None:
        work = self.works[which % len(self.works)]
        step = self.queue.cancel(work.id)
        if work.state.is_finished:
            with pytest.raises(WorkFinished):
                self.run(step)
            return
        is_over = self.run(step)
        assert is_over is (work.state is WorkState.PENDING)
        work.cancelled = True
        if is_over:
            work.state = WorkState.CANCELLED

    @invariant()
    def the_database_agrees(self) -> None:
        for work in self.works:
            seen = self.run(self.queue.look(work.id))
            assert (seen.status, seen.lost_claims, seen.round) == (
                work.state,
                work.lost,
                work.rounds,
            )

    def any_claim(self, which: int) -> tuple[Modelled, int, ClaimedWork]:
        claims = [(work, agent, claim) for work in self.works for agent, claim in work.claims]
        return claims[which % len(claims)]


def test_the_queue_answers_as_its_model_does(database_url: str) -> None:
    run_state_machine_as_test(
        lambda: QueueMachine(database_url),  # type: ignore[arg-type]  # it calls it
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""
The queue against a model of it in Python: any sequence of steps, the same answers.

After each step all that the database holds is compared with the model, and the events of
each Work, read from the first to the last, must lead to where it is.
"""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, Final, TypeVar
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
from brokkr.broker.db.submissions import Submitted
from brokkr.broker.db.work_queue import HandOffPolicy
from brokkr.wire.bodies import AgentBody, WorkBody, WorkState
from brokkr.work.errors import (
    AgentDrained,
    ClaimLost,
    IdempotencyKeyReused,
    WorkFinished,
    WorkNotClaimable,
    WorkNotFinished,
    WorkNotFound,
    WorkNotHeld,
)
from support.queue import Queue, a_submission, is_known

MAX_LOST: Final = 3
KEY_LIFETIME: Final = 24
POLICY: Final = HandOffPolicy(base=timedelta(hours=1), cap=timedelta(hours=3))
TARGETS: Final[dict[str, dict[str, Any]]] = {
    "any": {"match_labels": {"any": "yes"}},
    "zone 1": {"match_labels": {"zone": "1"}},
    "not zone 1": {"match_expressions": [{"key": "zone", "operator": "NotIn", "values": ["1"]}]},
}
Answer = TypeVar("Answer")

AGENTS = st.integers(0, 2)
CHOICES = st.integers(0, 1000)
HOURS = st.sampled_from([1, 1, 1, 2, 25])


@dataclass(eq=False)
class ModelledAgent:
    """What the model knows of an agent; ``heard_at`` in hours."""

    body: AgentBody
    zone: str | None = None
    is_drained: bool = False
    is_deleted: bool = False
    heard_at: int | None = None

    def is_selected_by(self, target: str) -> bool:
        return (
            not self.is_deleted
            and {
                "any": True,
                "zone 1": self.zone == "1",
                "not zone 1": self.zone != "1",
            }[target]
        )


@dataclass(eq=False)
class ModelledClaim:
    """A claim, whose it was, how it ended and what was answered then."""

    work: "ModelledWork"
    agent: ModelledAgent
    claimed: ClaimedWork
    queued: int
    ended_as: str | None = None
    is_unable: bool = False
    answer: WorkBody | None = None


@dataclass(eq=False)
class ModelledWork:
    """What the model knows of a Work.

    Attributes:
        lane: Its target, and the agents that are left out of it if there are others.
        newest: The claim that may still report; None if there is none.
        queued: How often it was put into the queue.
        starts_at: In hours; likewise the others.
    """

    id: UUID
    target: str
    priority: int
    place: int
    max_handoffs: int
    starts_at: int
    deadline_at: int | None
    is_due: bool
    state: WorkState = WorkState.PENDING
    left_out: frozenset[UUID] = frozenset()
    newest: ModelledClaim | None = None
    lease_until: int = 0
    lost: int = 0
    handoffs: int = 0
    queued: int = 1
    is_cancelled: bool = False
    claims: list[ModelledClaim] = field(default_factory=list)

    @property
    def lane(self) -> tuple[str, frozenset[UUID]]:
        return self.target, self.left_out

    def tried(self) -> frozenset[UUID]:
        """Who has had it since it was last queued, and given it back."""
        return frozenset(
            each.agent.body.id
            for each in self.claims
            if each.queued == self.queued and each.ended_as in ("handed_off", "released")
        )


class QueueMachine(RuleBasedStateMachine):
    """Agents, users, operators and time do what they can, in any order."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.opened = open_pool(url)
        self.queue = Queue(self.run(self.opened.__aenter__()), max_lost_claims=MAX_LOST)
        self.queue.policy = POLICY
        self.now = 0
        self.places = 0
        self.works: list[ModelledWork] = []
        self.claims: list[ModelledClaim] = []
        self.agents: list[ModelledAgent] = []
        self.keys: dict[str, tuple[int, Any, UUID]] = {}
        self.narrow: dict[tuple[str, frozenset[UUID]], set[UUID]] = {}

    def run(self, step: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(step)

    def teardown(self) -> None:
        self.run(self.opened.__aexit__(None, None, None))
        self.runner.close()

    @initialize()
    def start(self) -> None:
        async def clear() -> None:
            await self.queue.pool.execute(
                "TRUNCATE agents, selectors, work_queue, work_execution_log, work_claims,"
                " work_events, work_labels, idempotency_keys CASCADE"
            )

        self.run(clear())
        self.agents = [ModelledAgent(self.run(self.queue.an_agent())) for _ in range(3)]
        for aim in TARGETS:
            self.submit(aim=aim, priority=0, delay=0, start_within=None, max_handoffs=2)

    # -- users -------------------------------------------------------------------------

    @rule(
        aim=st.sampled_from(list(TARGETS)),
        priority=st.sampled_from([-100, 0, 0, 0, 100]),
        delay=st.sampled_from([0, 0, 0, 1]),
        start_within=st.sampled_from([None, None, None, 1, 2]),
        max_handoffs=st.integers(0, 2),
    )
    def submit(
        self, aim: str, priority: int, delay: int, start_within: int | None, max_handoffs: int
    ) -> None:
        due = datetime.now(UTC) + timedelta(hours=delay)
        work_id = self.run(
            self.queue.submit(
                TARGETS[aim],
                priority=priority,
                max_handoffs=max_handoffs,
                not_before=due.isoformat() if delay else None,
                start_within_seconds=start_within and start_within * 3600,
            )
        )
        self.works.append(
            ModelledWork(
                id=work_id,
                target=aim,
                priority=priority,
                place=self.next_place(),
                max_handoffs=max_handoffs,
                starts_at=self.now + delay,
                deadline_at=start_within and self.now + delay + start_within,
                is_due=delay == 0,
            )
        )

    @rule(key=st.sampled_from("kl"), priority=st.integers(0, 1))
    def submit_with_key(self, key: str, priority: int) -> None:
        submission = a_submission(TARGETS["any"], priority=priority, idempotency_key=key)
        [answer] = self.run(self.queue.submit_all(submission))
        known = self.keys.get(key)
        if known is None or known[0] <= self.now:
            assert isinstance(answer, Submitted)
            assert answer.is_new
            self.keys[key] = (self.now + KEY_LIFETIME, priority, answer.work_id)
            self.works.append(
                ModelledWork(
                    id=answer.work_id,
                    target="any",
                    priority=priority,
                    place=self.next_place(),
                    max_handoffs=0,
                    starts_at=self.now,
                    deadline_at=None,
                    is_due=True,
                )
            )
        elif known[1] == priority:
            assert is_known(answer, known[2])
        else:
            assert isinstance(answer, IdempotencyKeyReused)

    @precondition(lambda self: self.works)
    @rule(which=CHOICES)
    def cancel(self, which: int) -> None:
        work = self.any_work(which)
        step = self.queue.cancel(work.id)
        if work.state.is_finished:
            with pytest.raises(WorkFinished):
                self.run(step)
            return
        assert self.run(step) is (work.state is WorkState.PENDING)
        work.is_cancelled = True
        if work.state is WorkState.PENDING:
            work.state = WorkState.CANCELLED

    # -- agents at work ----------------------------------------------------------------

    @precondition(lambda self: self.works)
    @rule(which=CHOICES, agent=AGENTS)
    def claim(self, which: int, agent: int) -> None:
        claimant = self.agents[agent]
        work = likely(self.claimable(claimant), self.works, which)
        step = self.queue.claim(work.id, by=claimant.body)
        if work in self.claimable(claimant):
            self.take(work, claimant, self.run(step))
            return
        is_known = claimant.body.id in self.members(work) or any(
            each.agent is claimant for each in work.claims
        )
        expected = (
            WorkNotFound
            if not is_known
            else AgentDrained
            if claimant.is_drained
            else WorkNotClaimable
        )
        with pytest.raises(expected):
            self.run(step)

    @rule(agent=AGENTS, limit=st.integers(1, 3))
    def claim_some(self, agent: int, limit: int) -> None:
        claimant = self.agents[agent]
        best = self.claimable(claimant)[:limit]

        claimed = self.run(self.queue.claim_some(claimant.body, limit=limit))

        assert [each.work_id for each in claimed] == [each.id for each in best]
        for work, one in zip(best, claimed, strict=True):
            self.take(work, claimant, one)

    @precondition(lambda self: self.claims)
    @rule(
        which=CHOICES,
        report=st.sampled_from(
            [
                "renewed",
                "progress",
                "succeeded",
                "failed",
                "cancelled",
                "released",
                "released later",
                "unworkable",
                "unworkable",
            ]
            + ["may pass"] * 3
        ),
    )
    def report(self, which: int, report: str) -> None:
        claim = self.any_claim(which)
        match report:
            case "renewed":
                self.renew(claim)
            case "progress":
                self.progress(claim)
            case "released" | "released later":
                self.release(claim, delay=int(report == "released later"))
            case "unworkable":
                self.unworkable(claim)
            case _:
                self.complete(claim, report)

    def renew(self, claim: ModelledClaim) -> None:
        renewed = self.run(self.queue.renew(claim.claimed, by=claim.agent.body))

        assert bool(renewed) is self.may_renew(claim)
        if renewed:
            assert renewed[0].cancel_requested is claim.work.is_cancelled
            self.renewed(claim)

    def progress(self, claim: ModelledClaim) -> None:
        step = self.queue.progress(claim.claimed, by=claim.agent.body)
        if not self.may_renew(claim):
            with pytest.raises(ClaimLost):
                self.run(step)
            return
        self.run(step)
        self.renewed(claim)

    def complete(self, claim: ModelledClaim, outcome: str) -> None:
        work = claim.work
        may_pass = outcome == "may pass"
        said = "failed" if may_pass else outcome
        step = self.queue.complete(
            claim.claimed, by=claim.agent.body, success=None, outcome=said, retryable=may_pass
        )
        if claim.answer is not None:
            assert self.run(step) == claim.answer
            return
        if not self.may_report(claim):
            with pytest.raises(ClaimLost):
                self.run(step)
            return
        claim.answer = self.run(step)
        if may_pass and work.handoffs < work.max_handoffs:
            if work.is_cancelled:
                self.end(claim, "completed", WorkState.CANCELLED)
            else:
                delay = min(3, 2**work.handoffs)
                work.handoffs += 1
                self.give_back(claim, "handed_off", delay=delay)
                self.prefer_others(work)
        else:
            self.end(claim, "completed", WorkState(said.upper()))

    def release(self, claim: ModelledClaim, *, delay: int) -> None:
        step = self.queue.release(claim.claimed, by=claim.agent.body, delay_seconds=delay * 3600)
        if not self.may_report(claim):
            with pytest.raises(ClaimLost):
                self.run(step)
            return
        self.run(step)
        if claim.work.is_cancelled:
            self.end(claim, "released", WorkState.CANCELLED)
        else:
            self.give_back(claim, "released", delay=delay)
            self.prefer_others(claim.work)

    def unworkable(self, claim: ModelledClaim) -> None:
        self.run(self.queue.unworkable(claim.claimed, by=claim.agent.body))
        work = claim.work
        if work.newest is not claim or work.state is not WorkState.CLAIMED:
            return
        if work.is_cancelled:
            self.end(claim, "released", WorkState.CANCELLED)
            return
        before = takewhile(
            lambda each: each.is_unable and each.queued == work.queued, reversed(work.claims[:-1])
        )
        agents = sum(each.is_selected_by(work.target) for each in self.agents)
        delay = POLICY.rest(1 + len(list(before)), agents=agents) // timedelta(hours=1)
        self.give_back(claim, "released", delay=delay)
        work.newest, claim.is_unable = claim, True
        self.prefer_others(work)

    # -- operators ---------------------------------------------------------------------

    @precondition(lambda self: self.works)
    @rule(which=CHOICES, order=st.sampled_from(["release", "requeue", "requeue"]))
    def order(self, which: int, order: str) -> None:
        if order == "release":
            self.order_release(self.any_work(which))
        else:
            finished = [each for each in self.works if each.state.is_finished]
            self.requeue(likely(finished, self.works, which))

    def order_release(self, work: ModelledWork) -> None:
        step = self.queue.order_release(work.id)
        if work.state is WorkState.CLAIMED:
            self.run(step)
            assert work.newest is not None
            self.back_from(work.newest)
            if not work.is_cancelled:
                self.prefer_others(work)
            return
        with pytest.raises(WorkFinished if work.state.is_finished else WorkNotHeld):
            self.run(step)

    def requeue(self, work: ModelledWork) -> None:
        step = self.queue.requeue(work.id)
        if not work.state.is_finished:
            with pytest.raises(WorkNotFinished):
                self.run(step)
            return
        self.run(step)
        work.state, work.newest, work.is_cancelled = WorkState.PENDING, None, False
        work.lost = work.handoffs = 0
        work.left_out, work.queued, work.place = frozenset(), work.queued + 1, self.next_place()
        work.is_due, work.deadline_at = True, None

    @rule(
        agent=AGENTS,
        change=st.sampled_from(
            ["zone 1", "zone 2", "no zone", "drained", "undrained", "undrained", "replaced"]
            + ["heard of"] * 3
        ),
    )
    def change_agent(self, agent: int, change: str) -> None:
        changed = self.agents[agent]
        match change:
            case "zone 1" | "zone 2" | "no zone":
                changed.zone = None if change == "no zone" else change[-1]
                self.run(self.queue.relabel(changed.body, zone=changed.zone))
                self.refresh()
            case "drained" | "undrained":
                changed.is_drained = change == "drained"
                self.run(self.queue.drain(changed.body, is_drained=changed.is_drained))
                self.refresh()
            case "heard of":
                changed.heard_at = self.now
                self.run(self.queue.touch(changed.body))
            case "replaced":
                self.replace(agent)

    def replace(self, agent: int) -> None:
        """Delete an agent, and register another one in its place."""
        gone = self.agents[agent]
        self.run(self.queue.delete_agent(gone.body))
        gone.is_deleted = True
        self.refresh()
        for work in self.works:
            if work.state is WorkState.CLAIMED and work.newest and work.newest.agent is gone:
                self.back_from(work.newest)
        self.agents[agent] = ModelledAgent(self.run(self.queue.an_agent()))
        self.refresh()

    # -- time --------------------------------------------------------------------------

    @rule(hours=HOURS, then=st.sampled_from(["nothing", "sweep", "sweep", "move"]))
    def later(self, hours: int, then: str) -> None:
        self.run(self.queue.later(timedelta(hours=hours)))
        self.now += hours
        if then == "sweep":
            self.sweep()
        if then == "move":
            self.move_due()

    @rule()
    def sweep(self) -> None:
        swept = {each.work_id for each in self.run(self.queue.sweep())}
        stale = [
            work
            for work in self.works
            if work.state is WorkState.CLAIMED and work.lease_until <= self.now
        ]
        assert swept == {each.id for each in stale}
        for work in stale:
            assert work.newest is not None
            work.lost += 1
            if work.is_cancelled:
                self.end(work.newest, "lease_lost", WorkState.CANCELLED)
            elif work.lost >= MAX_LOST:
                self.end(work.newest, "lease_lost", WorkState.QUARANTINED)
            else:
                newest = work.newest
                self.give_back(newest, "lease_lost", delay=0)
                work.newest = newest

    @rule()
    def move_due(self) -> None:
        expired = self.run(self.queue.move_due())
        for work in self.pending():
            work.is_due = work.is_due or work.starts_at <= self.now
        late = [each for each in self.pending() if self.is_late(each)]
        assert expired == len(late)
        for work in late:
            work.state = WorkState.EXPIRED

    # -- what the model makes of it ----------------------------------------------------

    def next_place(self) -> int:
        self.places += 1
        return self.places

    def any_work(self, which: int) -> ModelledWork:
        return self.works[which % len(self.works)]

    def any_claim(self, which: int) -> ModelledClaim:
        return likely([each for each in self.claims if self.may_report(each)], self.claims, which)

    def pending(self) -> list[ModelledWork]:
        return [each for each in self.works if each.state is WorkState.PENDING]

    def is_late(self, work: ModelledWork) -> bool:
        return work.deadline_at is not None and work.deadline_at <= self.now and not work.claims

    def members(self, work: ModelledWork) -> set[UUID]:
        if work.left_out:
            return self.narrow[work.lane]
        return {each.body.id for each in self.agents if each.is_selected_by(work.target)}

    def claimable(self, agent: ModelledAgent) -> list[ModelledWork]:
        found = [
            work
            for work in self.pending()
            if work.is_due
            and not self.is_late(work)
            and not agent.is_drained
            and agent.body.id in self.members(work)
        ]
        return sorted(found, key=lambda work: (-work.priority, work.place))

    def take(self, work: ModelledWork, agent: ModelledAgent, claimed: ClaimedWork) -> None:
        claim = ModelledClaim(work, agent, claimed, work.queued)
        work.claims.append(claim)
        self.claims.append(claim)
        assert claimed.round == len(work.claims)
        work.state, work.newest, work.lease_until = WorkState.CLAIMED, claim, self.now + 1

    def may_report(self, claim: ModelledClaim) -> bool:
        return claim.work.newest is claim and not claim.work.state.is_finished

    def may_renew(self, claim: ModelledClaim) -> bool:
        is_gone = claim.agent.is_deleted and claim.work.state is WorkState.PENDING
        return self.may_report(claim) and not is_gone

    def renewed(self, claim: ModelledClaim) -> None:
        work = claim.work
        if work.state is WorkState.PENDING:
            work.state, work.lost = WorkState.CLAIMED, work.lost - (not claim.is_unable)
            claim.ended_as, claim.is_unable = None, False
        work.lease_until = self.now + 1

    def end(self, claim: ModelledClaim, ended_as: str, state: WorkState) -> None:
        claim.work.state, claim.ended_as = state, ended_as

    def give_back(self, claim: ModelledClaim, ended_as: str, *, delay: int) -> None:
        work = claim.work
        work.state, work.newest, claim.ended_as = WorkState.PENDING, None, ended_as
        work.starts_at, work.is_due = self.now + delay, delay == 0

    def back_from(self, claim: ModelledClaim) -> None:
        """Give a Work back that its holder did not give back itself."""
        if claim.work.is_cancelled:
            self.end(claim, "released", WorkState.CANCELLED)
        else:
            self.give_back(claim, "released", delay=0)

    def prefer_others(self, work: ModelledWork) -> None:
        work.left_out = work.tried()
        if work.lane not in self.narrow:
            self.narrow[work.lane] = self.members_of_narrow(*work.lane)

    def refresh(self) -> None:
        for lane in self.narrow:
            self.narrow[lane] = self.members_of_narrow(*lane)

    def members_of_narrow(self, target: str, left_out: frozenset[UUID]) -> set[UUID]:
        whole = [each for each in self.agents if each.is_selected_by(target)]
        others = {
            each.body.id
            for each in whole
            if each.body.id not in left_out and not each.is_drained and each.heard_at == self.now
        }
        return others or {each.body.id for each in whole}

    # -- what must hold ----------------------------------------------------------------

    @invariant()
    def the_database_agrees(self) -> None:
        kept = self.run(self.queue.everything())
        queued = {row["id"]: row for row in kept["work_queue"]}
        logged = {row["id"]: row for row in kept["work_execution_log"]}
        assert not queued.keys() & logged.keys()
        assert queued.keys() | logged.keys() == {str(each.id) for each in self.works}

        claims: dict[str, list[Any]] = defaultdict(list)
        for row in sorted(kept["work_claims"], key=lambda row: row["round"]):
            claims[row["work_id"]].append(row)
        events: dict[str, list[Any]] = defaultdict(list)
        for row in sorted(kept["work_events"], key=lambda row: row["number"]):
            events[row["work_id"]].append(row)
        for work in self.works:
            row = queued.get(str(work.id)) or logged[str(work.id)]
            self.is_as_modelled(work, row)
            self.claims_are_as_modelled(work, claims[str(work.id)])
            assert [each["number"] for each in events[str(work.id)]] == list(
                range(1, row["events"] + 1)
            )
            replay = Replay()
            for each in events[str(work.id)]:
                replay.follow(each["kind"], each["actor"], each["detail"])
            assert (replay.state, replay.claim, replay.lost) == (
                work.state,
                row["claim_id"],
                work.lost,
            )
            if work.state is WorkState.CLAIMED:
                assert replay.is_cancelled is work.is_cancelled

    @invariant()
    def every_work_is_for_the_agents_that_it_should_be_for(self) -> None:
        found: dict[UUID, set[UUID]] = defaultdict(set)
        for row in self.run(self.fetch("SELECT work_id, agent_id FROM work_targets")):
            found[row["work_id"]].add(row["agent_id"])

        assert found == {each.id: self.members(each) for each in self.works if self.members(each)}

    async def fetch(self, query: str) -> list[Any]:
        return await self.queue.pool.fetch(query)

    def is_as_modelled(self, work: ModelledWork, row: dict[str, Any]) -> None:
        state = row.get("status") or row["outcome"].upper()
        newest = work.newest and str(work.newest.claimed.claim_id)
        assert (state, row["round"], row["lost_claims"], row["handoffs"], row["claim_id"]) == (
            work.state,
            len(work.claims),
            work.lost,
            work.handoffs,
            newest,
        )
        if work.state is WorkState.CLAIMED:
            assert work.newest is not None
            assert row["claimed_by"] == str(work.newest.agent.body.id)
            assert bool(row["cancel_requested_at"]) is work.is_cancelled
            assert row["lease_check_at"] <= row["lease_expires_at"]
        if work.state is WorkState.PENDING:
            assert row["is_due"] is work.is_due
            assert row["cancel_requested_at"] is None

    def claims_are_as_modelled(self, work: ModelledWork, rows: list[dict[str, Any]]) -> None:
        assert [
            (row["round"], row["claim_id"], row["agent_id"], row["ended_as"]) for row in rows
        ] == [
            (number, str(each.claimed.claim_id), str(each.agent.body.id), each.ended_as)
            for number, each in enumerate(work.claims, start=1)
        ]
        is_open = [row["ended_as"] is None for row in rows]
        assert is_open.count(True) == (work.state is WorkState.CLAIMED)
        assert all(
            (row["answer"] is not None) == (each.answer is not None)
            for row, each in zip(rows, work.claims, strict=True)
        )


def likely(some: Sequence[Answer], everything: Sequence[Answer], which: int) -> Answer:
    """Choose one of some, three times of four if there are any; else one of all."""
    chosen = some if some and which % 4 else everything
    return chosen[which // 4 % len(chosen)]


QUEUED: Final = {WorkState.PENDING, WorkState.CLAIMED}
FINISHED: Final = set(WorkState) - QUEUED
STEPS: Final[dict[str, tuple[set[WorkState], WorkState | None]]] = {
    "submitted": (set(), WorkState.PENDING),
    "claimed": ({WorkState.PENDING}, WorkState.CLAIMED),
    "lease_lost": ({WorkState.CLAIMED}, WorkState.PENDING),
    "lease_revived": ({WorkState.PENDING}, WorkState.CLAIMED),
    "released": (QUEUED, WorkState.PENDING),
    "unworkable": ({WorkState.CLAIMED}, WorkState.PENDING),
    "handed_off": (QUEUED, WorkState.PENDING),
    "progress": ({WorkState.CLAIMED}, WorkState.CLAIMED),
    "cancel_requested": ({WorkState.CLAIMED}, WorkState.CLAIMED),
    "requeued": (FINISHED, WorkState.PENDING),
    "completed": (QUEUED, None),
    "cancelled": (QUEUED, None),
    "expired": ({WorkState.PENDING}, None),
    "quarantined": ({WorkState.CLAIMED}, None),
}
"""By the kind of event: where it can happen, and where it leads; if that is not the outcome."""


@dataclass
class Replay:
    """A Work, followed through its events: each must be possible where it happens."""

    state: WorkState | None = None
    claim: str | None = None
    is_cancelled: bool = False
    was_counted: bool = False
    lost: int = 0

    def follow(self, kind: str, actor: str, detail: dict[str, Any]) -> None:
        possible, following = STEPS[kind]
        assert self.state in possible or (self.state is None and kind == "submitted")
        if kind == "claimed":
            self.claim = detail["claim_id"]
        elif kind == "requeued":
            self.claim, self.is_cancelled, self.lost = None, False, 0
        elif "claim_id" in detail:
            assert detail["claim_id"] == self.claim
        was_swept = actor == "broker" and self.state is WorkState.CLAIMED
        self.lost += was_swept - (kind == "lease_revived" and self.was_counted)
        if self.state is WorkState.CLAIMED:
            self.was_counted = was_swept
        self.is_cancelled |= kind == "cancel_requested"
        if kind in ("released", "handed_off"):
            self.claim = None
        self.state = following or WorkState(detail["outcome"].upper())


def test_the_queue_answers_as_its_model_does(database_url: str) -> None:
    """A step is a transaction or two: half the examples that a pure test gets."""
    run_state_machine_as_test(
        lambda: QueueMachine(database_url),  # type: ignore[arg-type]  # it calls it
        settings=settings(
            max_examples=max(1, settings().max_examples // 2),
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

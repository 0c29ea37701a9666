"""
Why a Work is where it is: the facts for :mod:`brokkr.work.explain`, and what it makes of them.

Every agent is looked at, a page at a time, so that others are served meanwhile; the answer
holds a few of them.  The caller owns the transaction.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from brokkr.broker.db.execution_log import get_work
from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_all, fetch_one, fetch_value
from brokkr.wire.bodies import UNABLE_PREFIX, TargetBody, WorkBody, WorkState
from brokkr.wire.explain import AgentStanding, Counted, Explanation, UnmetTermBody, Waiting
from brokkr.work.errors import AgentNotFound
from brokkr.work.explain import (
    Candidate,
    Rule,
    Standing,
    could_ever,
    render_time,
    standing_of,
    summary_of,
)
from brokkr.work.fault import Fault
from brokkr.work.selectors import Selectable

SHOWN: Final = 20
"""How many agents are told one by one; of all others only how many."""
_COUNTED_AHEAD: Final = 1000
_SHOWN_AHEAD: Final = 10
_PAGE: Final = 500
_NEARNESS: Final = {rule: place for place, rule in enumerate(reversed(Rule))}


async def explain_work(
    db: Connection, work: WorkBody, *, agent: str | None = None, for_tenant: bool = False
) -> Explanation:
    """
    Say why a Work is where it is.

    Args:
        agent: The one agent to look at, by name or id; else those nearest to claiming.
        for_tenant: Speak only of agents that the target selects.  Of others not even the number
            is told: a tenant could find out by guessing what agents there are.

    Raises:
        AgentNotFound: There is none such.
    """
    work = work.model_copy(update={"resource": None})
    place = None
    if work.status is WorkState.PENDING:
        place = await fetch_one(
            db,
            "find_pending_work",
            work_id=work.id,
            limit=_COUNTED_AHEAD,
            prefix=UNABLE_PREFIX,
        )
        if place is None:  # it was claimed, or ended, since it was read
            work = (await get_work(db, work.id)).model_copy(update={"resource": None})
    if place is None:
        return Explanation(work=work, summary=await _summary_of(db, work))
    survey = await _survey(db, place, work_type=work.work_type, agent=agent, for_tenant=for_tenant)
    if agent is not None and not survey.shown:
        raise AgentNotFound(agent)
    not_due = None if place["is_due"] else place["not_before"]
    because = None if not_due is None else "delay" if place["round"] == 0 else "backoff"
    why = _last_holder(place["unable"]) or because
    ahead = _counted(place["ahead"])
    return Explanation(
        work=work,
        summary=summary_of(
            survey.counts,
            work_type=work.work_type,
            not_due=not_due and f"until {render_time(not_due)} ({why})",
            ahead=_words(ahead),
            unmet=() if survey.nearest is None else survey.nearest.unmet,
            for_tenant=for_tenant,
        ),
        could_ever=could_ever(survey.counts),
        waiting=Waiting(
            not_due_until=not_due,
            not_due_because=because,
            start_deadline=place["start_deadline"] if place["round"] == 0 else None,
            ahead=ahead,
            counts=dict(survey.counts),
            unmet=[] if survey.nearest is None else _unmet(survey.nearest),
            agents=await _render(db, survey.shown, place),
        ),
    )


@dataclass(slots=True)
class _Survey:
    """How all agents stand, and how some of them do.

    Attributes:
        nearest: Of agents that do not match, the nearest; None if one matches.
    """

    counts: Counter[Rule] = field(default_factory=Counter)
    shown: list[tuple[Selectable, Standing]] = field(default_factory=list)
    nearest: Standing | None = None

    def forget_strangers(self) -> None:
        """Say nothing of agents that do not match."""
        del self.counts[Rule.DOES_NOT_MATCH]
        self.shown = [each for each in self.shown if each[1].rule is not Rule.DOES_NOT_MATCH]


async def _survey(
    db: Connection, place: asyncpg.Record, *, work_type: str, agent: str | None, for_tenant: bool
) -> _Survey:
    """Look at every agent, and keep the nearest ones, or the one that is asked for."""
    targets = [TargetBody.model_validate(each).to_target() for each in place["targets"]]
    survey, after = _Survey(), None
    while True:
        rows = await fetch_all(
            db, "list_candidates", selector_id=place["selector_id"], after=after, limit=_PAGE
        )
        looked_at = [
            (
                each.agent,
                standing_of(
                    each, targets, work_type=work_type, now=place["now"], for_tenant=for_tenant
                ),
            )
            for each in (_candidate(row, place["excluded"]) for row in rows)
        ]
        survey.counts.update(standing.rule for _, standing in looked_at)
        wanted = [each for each in looked_at if agent in (None, each[0].name, str(each[0].id))]
        survey.shown = heapq.nsmallest(SHOWN, [*survey.shown, *wanted], key=_nearness)
        if len(rows) < _PAGE:
            break
        after = rows[-1]["name"]
    if survey.shown and survey.counts.keys() == {Rule.DOES_NOT_MATCH}:
        survey.nearest = survey.shown[0][1]
    if for_tenant:
        survey.forget_strangers()
    return survey


def _candidate(row: asyncpg.Record, excluded: Iterable[UUID]) -> Candidate:
    capabilities = row["capabilities"] or {}
    types = capabilities.get("types")
    return Candidate(
        agent=Selectable(
            id=row["id"], name=row["name"], labels=row["labels"], annotations=row["annotations"]
        ),
        types=None if types is None else frozenset(types),
        unavailable=capabilities.get("unavailable", {}),
        unable=(capabilities.get("unable") or {}).get("cause"),
        free=(row["capacity"] or {}).get("free"),
        drained_at=row["drained_at"],
        last_seen_at=row["last_seen_at"],
        is_left_out=row["id"] in excluded and not row["is_in_lane"],
    )


def _nearness(looked_at: tuple[Selectable, Standing]) -> tuple[int, int, str]:
    agent, standing = looked_at
    return _NEARNESS[standing.rule], len(standing.unmet), agent.name


async def _render(
    db: Connection, shown: Iterable[tuple[Selectable, Standing]], place: asyncpg.Record
) -> list[AgentStanding]:
    shown = list(shown)
    may = [agent.id for agent, standing in shown if standing.rule is Rule.MAY_CLAIM]
    rows = await fetch_all(
        db,
        "count_ahead",
        agent_ids=may[:_SHOWN_AHEAD],
        priority=place["priority"],
        seq=place["seq"],
        limit=_COUNTED_AHEAD,
    )
    ahead = {row["agent_id"]: _counted(row["works"]) for row in rows}
    return [
        AgentStanding(
            id=agent.id,
            name=agent.name,
            rule=standing.rule,
            sentence=standing.sentence,
            unmet=_unmet(standing),
            ahead=ahead.get(agent.id),
        )
        for agent, standing in shown
    ]


def _unmet(standing: Standing) -> list[UnmetTermBody]:
    return [
        UnmetTermBody(
            target=standing.target, term=each.term, wanted=each.wanted, actual=each.actual
        )
        for each in standing.unmet
    ]


def _counted(count: int) -> Counted:
    return Counted(count=count, is_exact=count < _COUNTED_AHEAD)


def _last_holder(unable: str | None) -> str | None:
    return unable and f"its last agent could not work: {unable.removeprefix(UNABLE_PREFIX)}"


def _words(ahead: Counted) -> str | None:
    if not ahead.is_exact:
        return f"{ahead.count} or more"
    return str(ahead.count) if ahead.count else None


async def _summary_of(db: Connection, work: WorkBody) -> str:
    """Sum up where a Work is that is not pending, or was claimed this moment."""
    message = f": {work.result_message}" if work.result_message else ""
    if work.status.is_finished:
        where = f" on {work.agent}" if work.agent else ""
        fault = Fault.find_in(work.result) if work.status is WorkState.FAILED else None
        whose = "" if fault is None else f"; fault: {fault}"
        since = _time(work.completed_at)
        return f"It is {work.status.lower()} since {since}{where}{message}{whose}."
    parts = [f"{work.agent} has held it since {_time(work.claimed_at)}"]
    if work.lease_seconds is not None:
        parts.append(f"{work.lease_seconds:.0f} s of its lease are left")
    if work.progress is not None:
        said = f": {work.progress.message}" if work.progress.message else ""
        step = f", step {work.progress.step}" if work.progress.step else ""
        doing = f"{work.progress.phase.lower()}{step}"
        parts.append(f"attempt {work.progress.attempt} is {doing}{said}")
        if lost := work.progress.infrastructure_retries:
            attempts = "1 attempt was" if lost == 1 else f"{lost} attempts were"
            parts.append(f"{attempts} lost to the cluster and repeated")
    unable = await fetch_value(db, "find_cause_of_inability", agent_id=work.claimed_by)
    if unable is not None:
        parts.append(f"the agent cannot work in its cluster: {unable}")
    if work.cancel_requested_at is not None:
        parts.append("its cancel was requested")
    return "; ".join(parts) + "."


def _time(at: datetime | None) -> str:
    return "a time that is not known" if at is None else render_time(at)

"""
Why does an agent not claim a pending Work?

Each agent is kept from it by one rule, or by none.  The rules stand in the order in which
they count: what would have to change first comes first.  :mod:`brokkr.broker.db.explain`
brings the facts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from brokkr.work.selectors import Operator, Selectable, Target

SEEN_WITHIN: Final = timedelta(minutes=2)
"""Who was not heard of for so long is not there."""

_SHOWN_VALUES: Final = 5


class Rule(StrEnum):
    """What keeps an agent from claiming, in the order in which it counts; or nothing."""

    DOES_NOT_MATCH = "does_not_match"
    TYPE_NOT_SUPPORTED = "type_not_supported"
    TRIED_BEFORE = "tried_before"
    DRAINED = "drained"
    NOT_SEEN = "not_seen"
    TYPE_UNAVAILABLE = "type_unavailable"
    NO_FREE_SLOT = "no_free_slot"
    MAY_CLAIM = "may_claim"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmetTerm:
    """One thing that a target asks for and an agent is not.

    Attributes:
        term: Where in the target, as a path.
        actual: What the agent has there; None if nothing, and for a tenant.
    """

    term: str
    wanted: str
    actual: str | None

    def __str__(self) -> str:
        kind, dot, key = self.term.partition(".")
        if not dot:
            return f"its name is {self.actual}, wanted {self.wanted}"
        noun = "annotation" if kind == "match_annotations" else "label"
        has = f"has no {noun} {key}" if self.actual is None else f"{noun} {key} is {self.actual!r}"
        return f"{has}, wanted {self.wanted}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An agent, and what is known of how it works.

    Attributes:
        types: The work types that it can execute; None if it did not say.
        unavailable: Those that it supports and cannot execute now, and why.
        unable: Why it cannot work in its cluster at all; None if it can.
        free: How many more Works it would take; None if it did not say.
        is_left_out: Whether it has had the Work, and others are to have it now.
    """

    agent: Selectable
    types: frozenset[str] | None = None
    unavailable: Mapping[str, str] = field(default_factory=dict)
    unable: str | None = None
    free: int | None = None
    drained_at: datetime | None = None
    last_seen_at: datetime | None = None
    is_left_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one agent stands to one Work.

    Attributes:
        unmet: What the nearest of the targets asks for and the agent is not.
        target: Which of the targets that is, from 0.
    """

    rule: Rule
    sentence: str
    unmet: tuple[UnmetTerm, ...] = ()
    target: int = 0


def standing_of(
    candidate: Candidate,
    targets: Sequence[Target],
    *,
    work_type: str,
    now: datetime,
    for_tenant: bool = False,
) -> Standing:
    """
    Say which rule keeps an agent from claiming a Work, if any does.

    Args:
        for_tenant: Say nothing of the agent that is not about this Work: which labels and
            annotations it has, and which other types it supports.
    """
    nearest, unmet = unmet_by(targets, candidate.agent)
    if unmet:
        if for_tenant:
            unmet = tuple(replace(each, actual=None) for each in unmet)
        return Standing(
            rule=Rule.DOES_NOT_MATCH,
            sentence="does not match its target" if for_tenant else "; ".join(map(str, unmet)),
            unmet=unmet,
            target=nearest,
        )
    supported = None if candidate.types is None else candidate.types | {*candidate.unavailable}
    if supported is not None and work_type not in supported:
        known = ", ".join(sorted(supported)) or "none"
        others = "" if for_tenant else f"; it supports {known}"
        return Standing(
            rule=Rule.TYPE_NOT_SUPPORTED,
            sentence=f"does not support work of type {work_type}{others}",
        )
    if candidate.is_left_out:
        return Standing(
            rule=Rule.TRIED_BEFORE, sentence="has tried it already, while others have not"
        )
    if candidate.drained_at is not None:
        return Standing(
            rule=Rule.DRAINED, sentence=f"is drained since {render_time(candidate.drained_at)}"
        )
    seen = candidate.last_seen_at
    if seen is None or now - seen > SEEN_WITHIN:
        since = (
            "was never heard of" if seen is None else f"was not heard of since {render_time(seen)}"
        )
        return Standing(rule=Rule.NOT_SEEN, sentence=since)
    if candidate.unable is not None:
        return Standing(
            rule=Rule.TYPE_UNAVAILABLE,
            sentence=f"cannot work in its cluster: {candidate.unable}",
        )
    if work_type in candidate.unavailable:
        why = candidate.unavailable[work_type]
        return Standing(
            rule=Rule.TYPE_UNAVAILABLE, sentence=f"cannot execute {work_type} now: {why}"
        )
    if candidate.free is not None and candidate.free <= 0:
        return Standing(rule=Rule.NO_FREE_SLOT, sentence="is busy: it has no free slot")
    return Standing(rule=Rule.MAY_CLAIM, sentence="may claim it")


def unmet_by(targets: Sequence[Target], agent: Selectable) -> tuple[int, tuple[UnmetTerm, ...]]:
    """
    Say what keeps an agent from being selected: nothing, if any target selects it.

    Returns:
        Of the target that is nearest, its place and what it asks for that the agent is not.
    """
    unmet = [tuple(_unmet(each, agent)) for each in targets]
    nearest = min(range(len(unmet)), key=lambda index: len(unmet[index]))
    return nearest, unmet[nearest]


def _unmet(target: Target, agent: Selectable) -> Iterator[UnmetTerm]:
    if target.agents and agent.name not in target.agents and str(agent.id) not in target.agents:
        yield UnmetTerm(term="agents", wanted=_one_of(target.agents), actual=agent.name)
    for key, value in target.match_labels.items():
        if agent.labels.get(key) != value:
            yield UnmetTerm(
                term=f"match_labels.{key}", wanted=repr(value), actual=agent.labels.get(key)
            )
    for each in target.match_expressions:
        if not each.holds(agent.labels):
            values = f" {_one_of(each.values)}" if each.values else ""
            wanted = _WORDS[each.operator] + values
            yield UnmetTerm(
                term=f"match_expressions.{each.key}",
                wanted=wanted,
                actual=agent.labels.get(each.key),
            )
    for key, value in target.match_annotations.items():
        if agent.annotations.get(key) != value:
            yield UnmetTerm(
                term=f"match_annotations.{key}",
                wanted=repr(value),
                actual=agent.annotations.get(key),
            )


_WORDS: Final = {
    Operator.IN: "one of",
    Operator.NOT_IN: "none of",
    Operator.EXISTS: "any value",
    Operator.DOES_NOT_EXIST: "no such label",
}


def _one_of(values: frozenset[str]) -> str:
    shown = ", ".join(each or repr(each) for each in sorted(values)[:_SHOWN_VALUES])
    more = len(values) - _SHOWN_VALUES
    return f"{shown} and {more} more" if more > 0 else shown


def summary_of(
    counts: Mapping[Rule, int],
    *,
    work_type: str,
    not_due: str | None,
    ahead: str | None,
    unmet: Sequence[UnmetTerm] = (),
    for_tenant: bool = False,
) -> str:
    """
    Sum up what a pending Work waits for, in one sentence.

    Args:
        not_due: Until when it waits and why, in words; None if it is time.
        ahead: How many Works of its lane go first, in words; None if none does.
        unmet: If no agent matches, what the nearest one is not.
        for_tenant: Do not say how many agents there are that do not match.
    """
    total = sum(counts.values())
    matching = total - counts.get(Rule.DOES_NOT_MATCH, 0)
    able = matching - counts.get(Rule.TYPE_NOT_SUPPORTED, 0)
    may = counts.get(Rule.MAY_CLAIM, 0)
    if not matching and for_tenant:
        terms = ", ".join(f"{each.term} ({each.wanted})" for each in unmet)
        nearest = f"; the nearest one does not meet {terms}" if terms else ""
        return f"Nobody could claim it: no agent matches its target{nearest}."
    if not total:
        return "Nobody could claim it: no agent is registered."
    if not matching:
        return f"Nobody could claim it: no agent of {total} matches its target."
    if not able:
        return f"Nobody could claim it: no agent that matches its target supports {work_type}."
    if not_due is not None:
        return f"It waits {not_due}; after that, {_agents(able)} may claim it."
    if may:
        place = "it is the first of its lane" if ahead is None else f"{ahead} of its lane go first"
        return f"{_agents(may)} may claim it now; {place}."
    reasons = [f"{counts[rule]} {words}" for rule, words in _REASONS.items() if counts.get(rule)]
    return f"Nobody can claim it now: of {_agents(able)} for it, {', '.join(reasons)}."


def could_ever(counts: Mapping[Rule, int]) -> bool:
    """
    Say whether any agent matches the target and supports the type, as things stand.

    One that cannot execute the type now may recover, so it counts.
    """
    never = (Rule.DOES_NOT_MATCH, Rule.TYPE_NOT_SUPPORTED)
    return any(count for rule, count in counts.items() if rule not in never)


_REASONS: Final = {
    Rule.TRIED_BEFORE: "had it before",
    Rule.DRAINED: "drained",
    Rule.NOT_SEEN: "not heard of",
    Rule.TYPE_UNAVAILABLE: "unable to execute its type now",
    Rule.NO_FREE_SLOT: "busy",
}


def _agents(count: int) -> str:
    return "1 agent" if count == 1 else f"{count} agents"


def render_time(at: datetime) -> str:
    """Render a time as it stands in a sentence."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"

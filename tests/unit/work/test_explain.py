"""Which rule keeps an agent from claiming, and what is said of it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.work.explain import (
    Candidate,
    Rule,
    Standing,
    could_ever,
    standing_of,
    summary_of,
    unmet_by,
)
from brokkr.work.selectors import MatchExpression, Operator, Selectable, Target, selects
from support.factories import NOON
from support.targets import AGENTS, TARGETS

EDGE = Selectable(
    id=UUID("5d8ad5a3-6c83-4b7c-b7f3-2a6ef0a6b7b1"),
    name="edge-7",
    labels={"gpu": "true", "zone": "us-1"},
    annotations={"team": "ml"},
)
READY = Candidate(
    agent=EDGE, types=frozenset({"build"}), free=1, last_seen_at=NOON - timedelta(seconds=119)
)
GPU = Target(match_labels={"gpu": "true"})


def expression(key: str, operator: Operator, *values: str) -> Target:
    one = MatchExpression(key=key, operator=operator, values=frozenset(values))
    return Target(match_expressions=(one,))


def standing(candidate: Candidate, *targets: Target) -> Standing:
    return standing_of(candidate, targets or [GPU], work_type="build", now=NOON)


@given(targets=st.lists(TARGETS, min_size=1, max_size=3), agent=AGENTS)
def test_what_is_explained_is_what_is_selected(targets: list[Target], agent: Selectable) -> None:
    _, unmet = unmet_by(targets, agent)

    assert (not unmet) == selects(targets, agent)


@given(target=TARGETS, agent=AGENTS)
def test_who_is_given_all_that_is_unmet_is_selected(target: Target, agent: Selectable) -> None:
    """No term is named that holds, and none is left out that does not."""
    unmet = {each.term for each in unmet_by([target], agent)[1]}
    rest = Target(
        agents=frozenset() if "agents" in unmet else target.agents,
        match_labels={
            key: value
            for key, value in target.match_labels.items()
            if f"match_labels.{key}" not in unmet
        },
        match_expressions=tuple(
            each
            for each in target.match_expressions
            if f"match_expressions.{each.key}" not in unmet
        ),
        match_annotations={
            key: value
            for key, value in target.match_annotations.items()
            if f"match_annotations.{key}" not in unmet
        },
    )

    assert selects([rest], agent)
    assert bool(unmet) == (rest != target)


@pytest.mark.parametrize(
    ("target", "term", "sentence"),
    [
        (Target(agents=frozenset({"a", "b"})), "agents", "its name is edge-7, wanted a, b"),
        (
            Target(match_labels={"zone": "eu-1"}),
            "match_labels.zone",
            "label zone is 'us-1', wanted 'eu-1'",
        ),
        (
            Target(match_labels={"disk": ""}),
            "match_labels.disk",
            "has no label disk, wanted ''",
        ),
        (
            Target(match_annotations={"team": "web"}),
            "match_annotations.team",
            "annotation team is 'ml', wanted 'web'",
        ),
        (
            expression("zone", Operator.IN, "eu-1", "eu-2"),
            "match_expressions.zone",
            "label zone is 'us-1', wanted one of eu-1, eu-2",
        ),
        (
            expression("zone", Operator.IN, *"abcdefg"),
            "match_expressions.zone",
            "label zone is 'us-1', wanted one of a, b, c, d, e and 2 more",
        ),
        (
            expression("zone", Operator.NOT_IN, "us-1"),
            "match_expressions.zone",
            "label zone is 'us-1', wanted none of us-1",
        ),
        (
            expression("disk", Operator.EXISTS),
            "match_expressions.disk",
            "has no label disk, wanted any value",
        ),
        (
            expression("gpu", Operator.DOES_NOT_EXIST),
            "match_expressions.gpu",
            "label gpu is 'true', wanted no such label",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_term_that_is_not_met_is_said_with_what_the_agent_has(
    target: Target, term: str, sentence: str
) -> None:
    found = standing(READY, target)

    assert (found.rule, found.sentence) == (Rule.DOES_NOT_MATCH, sentence)
    assert [each.term for each in found.unmet] == [term]


def test_of_several_targets_the_nearest_is_told() -> None:
    far = Target(agents=frozenset({"x"}), match_labels={"gpu": "false"})
    near = Target(match_labels={"gpu": "true", "zone": "eu-1"})

    found = standing(READY, far, near)

    assert found.target == 1
    assert [each.term for each in found.unmet] == ["match_labels.zone"]


def test_an_agent_that_nothing_keeps_may_claim() -> None:
    assert standing(READY) == Standing(rule=Rule.MAY_CLAIM, sentence="may claim it")


def test_what_an_agent_did_not_say_does_not_count_against_it() -> None:
    silent = replace(READY, types=None, free=None)

    assert standing(silent).rule is Rule.MAY_CLAIM


KEPT_BY: list[tuple[Rule, dict[str, Any], str]] = [
    (Rule.NO_FREE_SLOT, {"free": 0}, "is busy: it has no free slot"),
    (
        Rule.TYPE_UNAVAILABLE,
        {"types": frozenset(), "unavailable": {"build": "Shipwright is not installed"}},
        "cannot execute build now: Shipwright is not installed",
    ),
    (
        Rule.NOT_SEEN,
        {"last_seen_at": NOON - timedelta(seconds=121)},
        "was not heard of since 2026-03-01 11:57:59 UTC",
    ),
    (Rule.DRAINED, {"drained_at": NOON}, "is drained since 2026-03-01 12:00:00 UTC"),
    (Rule.TRIED_BEFORE, {"is_left_out": True}, "has tried it already, while others have not"),
    (
        Rule.TYPE_NOT_SUPPORTED,
        {"types": frozenset({"backup"}), "unavailable": {"test": "no runner"}},
        "does not support work of type build; it supports backup, test",
    ),
]


def test_each_rule_counts_more_than_those_before() -> None:
    candidate = READY
    for rule, facts, sentence in KEPT_BY:
        candidate = replace(candidate, **facts)

        found = standing(candidate)

        assert (found.rule, found.sentence) == (rule, sentence)
    assert standing(candidate, Target(agents=frozenset({"x"}))).rule is Rule.DOES_NOT_MATCH


def test_who_says_both_that_it_can_and_that_it_cannot_is_taken_to_be_unable() -> None:
    both = replace(READY, unavailable={"build": "no disk"})

    assert standing(both).rule is Rule.TYPE_UNAVAILABLE


def test_another_type_that_is_unavailable_keeps_nobody() -> None:
    assert standing(replace(READY, unavailable={"test": "no runner"})).rule is Rule.MAY_CLAIM


def test_an_agent_that_was_never_heard_of_is_not_there() -> None:
    assert standing(replace(READY, last_seen_at=None)).sentence == "was never heard of"


@pytest.mark.parametrize(
    ("counts", "not_due", "summary", "ever"),
    [
        ({}, None, "Nobody could claim it: no agent is registered.", False),
        (
            {Rule.DOES_NOT_MATCH: 3},
            None,
            "Nobody could claim it: no agent of 3 matches its target.",
            False,
        ),
        (
            {Rule.DOES_NOT_MATCH: 3, Rule.TYPE_NOT_SUPPORTED: 1},
            None,
            "Nobody could claim it: no agent that matches its target supports build.",
            False,
        ),
        (
            {Rule.MAY_CLAIM: 1, Rule.DRAINED: 1},
            "until noon (backoff)",
            "It waits until noon (backoff); after that, 2 agents may claim it.",
            True,
        ),
        (
            {Rule.MAY_CLAIM: 2, Rule.DRAINED: 1},
            None,
            "2 agents may claim it now; 14 of its lane go first.",
            True,
        ),
        (
            {Rule.DRAINED: 1, Rule.NOT_SEEN: 2, Rule.DOES_NOT_MATCH: 4},
            None,
            "Nobody can claim it now: of 3 agents for it, 1 drained, 2 not heard of.",
            True,
        ),
        (
            {Rule.TYPE_UNAVAILABLE: 2, Rule.TYPE_NOT_SUPPORTED: 1},
            None,
            "Nobody can claim it now: of 2 agents for it, 2 unable to execute its type now.",
            True,
        ),
    ],
)
def test_all_of_it_is_summed_up_in_a_sentence(
    counts: dict[Rule, int], not_due: str | None, summary: str, *, ever: bool
) -> None:
    said = summary_of(counts, work_type="build", not_due=not_due, ahead="14")

    assert said == summary
    assert could_ever(counts) is ever


def test_the_first_of_a_lane_is_said_to_be_that() -> None:
    said = summary_of({Rule.MAY_CLAIM: 1}, work_type="build", not_due=None, ahead=None)

    assert said == "1 agent may claim it now; it is the first of its lane."

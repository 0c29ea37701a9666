from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.work.selectors import MatchExpression, Operator, Selectable, Target, selects

EDGE = Selectable(
    id=UUID("5d8ad5a3-6c83-4b7c-b7f3-2a6ef0a6b7b1"),
    name="edge-7",
    labels={"gpu": "true", "zone": "eu-1", "empty": ""},
    annotations={"team": "ml"},
)


def expression(key: str, operator: Operator, *values: str) -> MatchExpression:
    return MatchExpression(key=key, operator=operator, values=frozenset(values))


@pytest.mark.parametrize(
    ("target", "holds"),
    [
        (Target(agents=frozenset({"edge-7"})), True),
        (Target(agents=frozenset({str(EDGE.id)})), True),
        (Target(agents=frozenset({"edge-7", "edge-8"})), True),
        (Target(agents=frozenset({"edge-8"})), False),
        (Target(match_labels={"gpu": "true"}), True),
        (Target(match_labels={"gpu": "true", "zone": "eu-1"}), True),
        (Target(match_labels={"gpu": "true", "zone": "eu-2"}), False),
        (Target(match_labels={"absent": ""}), False),
        (Target(match_labels={"empty": ""}), True),
        (Target(match_annotations={"team": "ml"}), True),
        (Target(match_annotations={"team": "web"}), False),
        # An annotation is no label, and the reverse.
        (Target(match_labels={"team": "ml"}), False),
        (Target(match_annotations={"gpu": "true"}), False),
    ],
)
def test_a_target_selects_by_name_id_label_and_annotation(target: Target, holds: bool) -> None:
    assert selects([target], EDGE) is holds


@pytest.mark.parametrize(
    ("requirement", "holds"),
    [
        (expression("zone", Operator.IN, "eu-1", "eu-2"), True),
        (expression("zone", Operator.IN, "us-1"), False),
        (expression("absent", Operator.IN, "eu-1"), False),
        (expression("zone", Operator.NOT_IN, "us-1"), True),
        (expression("zone", Operator.NOT_IN, "eu-1"), False),
        (expression("absent", Operator.NOT_IN, "eu-1"), True),
        (expression("empty", Operator.EXISTS), True),
        (expression("absent", Operator.EXISTS), False),
        (expression("absent", Operator.DOES_NOT_EXIST), True),
        (expression("empty", Operator.DOES_NOT_EXIST), False),
    ],
)
def test_expressions_mean_what_they_mean_in_kubernetes(
    requirement: MatchExpression, holds: bool
) -> None:
    assert selects([Target(match_expressions=(requirement,))], EDGE) is holds


def test_within_one_target_everything_must_hold() -> None:
    target = Target(
        agents=frozenset({"edge-7"}),
        match_labels={"gpu": "true"},
        match_annotations={"team": "web"},
    )

    assert not selects([target], EDGE)


def test_of_several_targets_one_is_enough_and_none_select_nothing() -> None:
    wrong, right = Target(match_labels={"gpu": "false"}), Target(match_labels={"gpu": "true"})

    assert selects([wrong, right], EDGE)
    assert not selects([wrong, wrong], EDGE)
    assert not selects([], EDGE)


# Few enough that agents and targets meet.
KEYS, VALUES, NAMES = st.sampled_from("abc"), st.sampled_from(["", "1", "2"]), ["x", "y", "z"]
PAIRS = st.dictionaries(KEYS, VALUES, max_size=3)
EXPRESSIONS = st.builds(
    MatchExpression, key=KEYS, operator=st.sampled_from(Operator), values=st.frozensets(VALUES)
)
TARGETS = st.builds(
    Target,
    agents=st.frozensets(st.sampled_from(NAMES), max_size=2),
    match_labels=PAIRS,
    match_expressions=st.lists(EXPRESSIONS, max_size=2).map(tuple),
    match_annotations=PAIRS,
)
AGENTS = st.builds(
    Selectable, id=st.uuids(), name=st.sampled_from(NAMES), labels=PAIRS, annotations=PAIRS
)


def oracle(target: Target, agent: Selectable) -> bool:
    """The same in the words of the documentation, one requirement after the other."""
    if target.agents and not target.agents & {agent.name, str(agent.id)}:
        return False
    for key in target.match_labels:
        if key not in agent.labels or agent.labels[key] != target.match_labels[key]:
            return False
    for key in target.match_annotations:
        if key not in agent.annotations or agent.annotations[key] != target.match_annotations[key]:
            return False
    for each in target.match_expressions:
        present = each.key in agent.labels
        listed = present and agent.labels[each.key] in each.values
        if not {"In": listed, "NotIn": not listed, "Exists": present, "DoesNotExist": not present}[
            each.operator
        ]:
            return False
    return True


@given(targets=st.lists(TARGETS, max_size=3), agent=AGENTS)
def test_selection_is_what_the_documentation_says(targets: list[Target], agent: Selectable) -> None:
    assert selects(targets, agent) == any(oracle(target, agent) for target in targets)

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.work.selectors import MatchExpression, Operator, Selectable, Target, selects
from support.targets import AGENTS, TARGETS

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


# The objects of the examples in Kubernetes' documentation, "Labels and Selectors".
DOCUMENTED = {
    "web": {"environment": "production", "tier": "frontend"},
    "web-qa": {"environment": "qa", "tier": "frontend", "partition": "customerA"},
    "api": {"environment": "production", "tier": "backend", "partition": ""},
    "cache": {"environment": "production", "tier": "cache"},
    "dev": {"environment": "dev"},
    "bare": {},
}


def selected(*targets: Target) -> set[str]:
    return {
        name
        for name, labels in DOCUMENTED.items()
        if selects(targets, Selectable(id=EDGE.id, name=name, labels=labels, annotations={}))
    }


@pytest.mark.parametrize(
    ("requirements", "names"),
    [
        pytest.param(
            [expression("environment", Operator.IN, "production", "qa")],
            {"web", "web-qa", "api", "cache"},
            id="environment in (production, qa)",
        ),
        pytest.param(
            [expression("tier", Operator.NOT_IN, "frontend", "backend")],
            {"cache", "dev", "bare"},
            id="tier notin (frontend, backend): also what has no tier",
        ),
        pytest.param(
            [expression("partition", Operator.EXISTS)],
            {"web-qa", "api"},
            id="partition: whatever its value",
        ),
        pytest.param(
            [expression("partition", Operator.DOES_NOT_EXIST)],
            {"web", "cache", "dev", "bare"},
            id="!partition",
        ),
        pytest.param(
            [
                expression("partition", Operator.EXISTS),
                expression("environment", Operator.NOT_IN, "qa"),
            ],
            {"api"},
            id="partition,environment notin (qa)",
        ),
        pytest.param(
            [
                expression("environment", Operator.IN, "production"),
                expression("tier", Operator.NOT_IN, "frontend"),
            ],
            {"api", "cache"},
            id="environment=production,tier!=frontend",
        ),
        pytest.param(
            [expression("tier", Operator.NOT_IN, "frontend")],
            {"api", "cache", "dev", "bare"},
            id="tier!=frontend: also what has no tier",
        ),
        pytest.param(
            [
                expression("environment", Operator.IN, "production"),
                expression("tier", Operator.IN, "frontend"),
            ],
            {"web"},
            id="environment in (production),tier in (frontend)",
        ),
        pytest.param(
            [expression("partition", Operator.IN, "")],
            {"api"},
            id="partition=: an empty value is a value",
        ),
        pytest.param(
            [expression("partition", Operator.NOT_IN, "")],
            {"web", "web-qa", "cache", "dev", "bare"},
            id="partition!=",
        ),
        pytest.param(
            [
                expression("partition", Operator.EXISTS),
                expression("partition", Operator.DOES_NOT_EXIST),
            ],
            set(),
            id="partition,!partition: nothing",
        ),
    ],
)
def test_the_documented_examples_select_what_they_are_documented_to_select(
    requirements: list[MatchExpression], names: set[str]
) -> None:
    assert selected(Target(match_expressions=tuple(requirements))) == names


def test_labels_and_expressions_of_one_target_must_all_hold() -> None:
    """The documented selector: component=redis, tier in (cache), environment notin (dev)."""
    redis = Target(
        match_labels={"component": "redis"},
        match_expressions=(
            expression("tier", Operator.IN, "cache"),
            expression("environment", Operator.NOT_IN, "dev"),
        ),
    )

    def is_selected(**labels: str) -> bool:
        agent = Selectable(id=EDGE.id, name="redis", labels=labels, annotations={})
        return selects([redis], agent)

    assert is_selected(component="redis", tier="cache")
    assert is_selected(component="redis", tier="cache", environment="production")
    assert not is_selected(component="redis", tier="cache", environment="dev")
    assert not is_selected(component="redis", environment="production")
    assert not is_selected(tier="cache")


def chosen(target: Target, population: list[Selectable]) -> set[UUID]:
    """
    The documentation as sets: each requirement selects some of a population, all of them what
    is in each.
    """
    everybody = {each.id for each in population}

    def having(key: str, *, of: str = "labels") -> set[UUID]:
        return {each.id for each in population if key in getattr(each, of)}

    def valued(key: str, value: str, *, of: str = "labels") -> set[UUID]:
        return {each.id for each in population if (key, value) in getattr(each, of).items()}

    # A pair in matchLabels is an expression with the operator In and this one value.
    pairs = [("In", key, {value}) for key, value in target.match_labels.items()]
    expressions = [
        (each.operator.value, each.key, each.values) for each in target.match_expressions
    ]
    sets = []
    for operator, key, values in [*pairs, *expressions]:
        of_values = set().union(*(valued(key, value) for value in values))
        match operator:
            case "In":
                sets.append(of_values)
            case "NotIn":
                sets.append((having(key) - of_values) | (everybody - having(key)))
            case "Exists":
                sets.append(having(key))
            case "DoesNotExist":
                sets.append(everybody - having(key))
    sets += [
        valued(key, value, of="annotations") for key, value in target.match_annotations.items()
    ]
    if target.agents:
        sets.append({each.id for each in population if {each.name, str(each.id)} & target.agents})
    return everybody.intersection(*sets)


POPULATIONS = st.lists(AGENTS, max_size=6, unique_by=lambda each: each.id)


@given(targets=st.lists(TARGETS, max_size=3), population=POPULATIONS)
def test_selection_is_what_the_documentation_says(
    targets: list[Target], population: list[Selectable]
) -> None:
    documented = set().union(*(chosen(target, population) for target in targets))

    assert {each.id for each in population if selects(targets, each)} == documented


@given(target=TARGETS, agent=AGENTS)
def test_an_id_selects_as_a_name_does(target: Target, agent: Selectable) -> None:
    by_id = replace(target, agents=frozenset({str(agent.id)}))
    by_name = replace(target, agents=frozenset({agent.name}))
    by_both = replace(target, agents=by_id.agents | {"somebody-else"})

    assert selects([by_id], agent) == selects([by_name], agent) == selects([by_both], agent)


@given(agent=AGENTS, key=st.sampled_from("abc"), values=st.frozensets(st.sampled_from("12")))
def test_of_an_operator_and_its_opposite_one_holds(
    agent: Selectable, key: str, values: frozenset[str]
) -> None:
    for one, other in (
        (Operator.IN, Operator.NOT_IN),
        (Operator.EXISTS, Operator.DOES_NOT_EXIST),
    ):
        holds = [
            MatchExpression(key=key, operator=each, values=values).holds(agent.labels)
            for each in (one, other)
        ]
        assert sorted(holds) == [False, True]

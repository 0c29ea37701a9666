"""
Which agents does a target select?

A target is what a user wrote; within one, everything given must hold, and a list of
targets is an OR.  Label matching is Kubernetes' (documentation, "Labels and
Selectors"): ``NotIn`` and ``DoesNotExist`` also hold for an agent without the key.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


class Operator(StrEnum):
    """What a match expression asks of one label."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchExpression:
    """One requirement on one label."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Say whether an agent with these labels meets the requirement."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an agent must be and carry to be selected.

    Attributes:
        agents: Names or ids, any of which will do; empty means any agent.
    """

    agents: frozenset[str] = frozenset()
    match_labels: Mapping[str, str] = field(default_factory=dict)
    match_expressions: tuple[MatchExpression, ...] = ()
    match_annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectable:
    """As much of an agent as a target looks at."""

    id: UUID
    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def selects(targets: Iterable[Target], agent: Selectable) -> bool:
    """Say whether any of the targets selects the agent."""
    return any(_all_hold(target, agent) for target in targets)


def _all_hold(target: Target, agent: Selectable) -> bool:
    return (
        (not target.agents or agent.name in target.agents or str(agent.id) in target.agents)
        and target.match_labels.items() <= agent.labels.items()
        and all(each.holds(agent.labels) for each in target.match_expressions)
        and target.match_annotations.items() <= agent.annotations.items()
    )

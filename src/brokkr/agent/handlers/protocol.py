"""The seam for work types: what one of them means, without doing any of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from brokkr.agent.handlers.verdict import Evidence, Unclear, Verdict
from brokkr.agent.kinds import Resource
from brokkr.work.model import Manifest, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """How to ask for one object to stop: a merge patch, or None to delete it.

    Attributes:
        resource_version: That of the object that was looked at; another one is left alone,
            for it may have ended.
    """

    kind: str
    name: str
    resource_version: str
    patch: Manifest | None


@dataclass(frozen=True, slots=True)
class Related:
    """Objects that others make for an attempt; they are looked at, if there are any.

    Attributes:
        label: The label of theirs whose value is the name of the attempt.
    """

    resource: Resource
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prerequisite:
    """A definition that a cluster must have for a work type.

    Attributes:
        definition: The CustomResourceDefinition's name: ``buildruns.shipwright.io``.
        version: Which version it has to serve.
        field: A path in that version's schema that only a new enough definition has.
        release_label: The label of the definition that names its release, if it has one.
        oldest_release: The oldest one that will do, as in ``v0.59.0``.
        cure: What to do if it is missing, as an imperative.
    """

    definition: str
    version: str
    field: tuple[str, ...] = ()
    release_label: str = ""
    oldest_release: str = ""
    cure: str


@runtime_checkable
class WatchesPods(Protocol):
    """
    A handler that wants to know what becomes of the Pods of its attempts.

    What :func:`~brokkr.agent.handlers.pod_facts.facts_of_pod` makes of them is among what
    ``assess`` gets as seen, also of those that are gone.  Without the permission to watch
    Pods there are none.

    Attributes:
        pods_label: The label of the Pods whose value is the name of the attempt.
    """

    pods_label: str


class Handler(Protocol):
    """What one work type means.  Pure: the controller reads and writes for it.

    Attributes:
        executor: The kind of the object that *is* the attempt; its uid is recorded, and
            once recorded, its disappearance is a failure and not a reason to start over.
        kinds: All that it makes; the controller makes nothing else, and watches these.
        related: What others make for its attempts.
        template_kinds: The ``apiVersion`` and ``kind`` of what a template may bring.
        prerequisites: What the cluster must have before such Work is claimed.
    """

    executor: str
    kinds: tuple[Resource, ...]
    related: tuple[Related, ...]
    template_kinds: frozenset[tuple[str, str]]
    prerequisites: tuple[Prerequisite, ...]

    def assess(
        self, work: Work, attempt: int, seen: Sequence[Manifest], evidence: Evidence
    ) -> Verdict | Unclear:
        """
        Say what the objects of this attempt, as read from the cluster, have come to.

        ``seen`` holds those objects of the handler's kinds that exist and are this
        attempt's own, and those related to it.  With nothing seen, the answer says what
        to create first; the template was checked for its type before.

        Args:
            evidence: What was found of all that an :class:`Unclear` answer asked for;
                empty at first.

        Raises:
            InvalidWork: No attempt could ever be made from this template.
        """

    def cancel(self, seen: Sequence[Manifest]) -> Cancellation | None:
        """Return what stops the attempt; None if nothing runs or it was asked already."""

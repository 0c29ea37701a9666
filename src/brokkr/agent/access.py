"""
Can this agent work in its cluster?  A state, fed with how real requests went; it sends none.

Not: whether one request went well, but whether work can be done.  Who cannot claims nothing,
gives back what is not begun, and says why.
"""

# Note [Unable, and able again]
#
# - A verb that is needed must fail twice, at least `confirm` apart, with no success between.
#   An API server that has just started refuses everything for some seconds, and knows no kinds.
# - Slow is not unable: a late answer is an answer.  Neither a 429 nor one slow list, while other
#   reads of the same resource go well, is a failure.
# - One success of the same verb ends it.  A write that goes well also ends what was a matter of
#   connection or credentials for all verbs of the resource.  What is not confirmed any more is
#   forgotten after `forget`: then one Work shows how it is.
# - After that one Work at a time is claimed, until one has been written: `is_proven`.
# - What was told stands for `announce` at least, so that a cluster that comes and goes does not
#   become a stream of announcements.  Claims stop at once, and begin when both say so.

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from brokkr.agent.handlers.protocol import Handler
from brokkr.agent.kinds import WORKS, Resource
from brokkr.agent.kube.errors import (
    KubeBusy,
    KubeConfigInvalid,
    KubeError,
    KubeExpired,
    KubeKindUnknown,
    KubeNamespaceMissing,
    KubeNotPermitted,
    KubeQuotaExceeded,
    KubeTerminating,
    KubeUnauthorized,
    KubeUnavailable,
)
from brokkr.agent.kube.permissions import Rule


class Reason(StrEnum):
    """Why it cannot; the first of several is the one that is told."""

    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"
    NAMESPACE_MISSING = "namespace_missing"
    NAMESPACE_TERMINATING = "namespace_terminating"
    DEFINITION_MISSING = "definition_missing"
    FORBIDDEN = "forbidden"
    QUOTA = "quota"
    STARTING = "starting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """
    How sure and how quick it is, in seconds: Note [Unable, and able again].

    Attributes:
        probe: Between two looks while nothing else is asked of the API server.
    """

    probe: float = 10.0
    confirm: float = 10.0
    forget: float = 120.0
    announce: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """
    A verb on a resource, as roles name them.

    Attributes:
        work_type: For which type it is needed; None: for all.
        is_for_begun: Whether Work that has begun cannot go on without it.
    """

    verb: str
    resource: str
    work_type: str | None = None
    is_for_begun: bool = True


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps the agent from working, since when in seconds of the clock."""

    reason: Reason
    cause: str
    since: float


@dataclass(slots=True)
class _Failing:
    reason: Reason
    words: str
    first_at: float
    last_at: float


@dataclass(frozen=True, slots=True)
class _Told:
    """By work type, and for all of them under None."""

    obstacles: Mapping[str | None, Obstacle] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str | None, Reason]:
        return {work_type: each.reason for work_type, each in self.obstacles.items()}


_READS: Final = frozenset({"get", "list", "watch"})
_PASSING: Final = frozenset({Reason.UNREACHABLE, Reason.UNAUTHORIZED})
_LEAST_VERBS: Final = ("list", "watch", "create")


class Access:
    """
    What is known of the agent's access to its cluster.

    Attributes:
        warnings: What is not permitted, and can be done without; by resource.
        is_proven: Whether a Work resource has been written since it last was unable.
    """

    def __init__(
        self,
        needs: Iterable[Need],
        *,
        namespace: str,
        clock: Callable[[], float],
        timing: Timing,
        on_change: Callable[[], None],
    ) -> None:
        """
        Know of no trouble yet.

        Args:
            clock: In seconds; it only goes on.
            on_change: Called when there is something else to tell.
        """
        self.needs = {(each.verb, each.resource): each for each in needs}
        self.warnings: dict[str, str] = {}
        self.is_proven = True
        self._namespace = namespace
        self._clock = clock
        self._timing = timing
        self._on_change = on_change
        self._failing: dict[tuple[str, str], _Failing] = {}
        self._was_unable = False
        self._told = _Told()
        self._told_at = float("-inf")

    def note(self, verb: str, resource: str, error: KubeError | None) -> None:
        """Take in how a request went; an error that is an answer counts as a success."""
        if isinstance(error, KubeNotPermitted):
            verb, resource = error.verb, error.resource
        if isinstance(error, KubeBusy | KubeExpired) or (verb, resource) not in self.needs:
            return
        reason = None if error is None else _reason_of(error, resource)
        if reason is None:
            self._note_success(verb, resource)
        else:
            self._note_failure(verb, resource, reason, str(error))
        self.refresh()

    def note_permission(self, verb: str, resource: str, *, is_given: bool) -> None:
        """Take in what the API server says of one's own roles; unlike a request it is no proof."""
        if not is_given:
            self._note_failure(verb, resource, Reason.FORBIDDEN, "")
        elif (known := self._failing.get((verb, resource))) and known.reason in (
            Reason.FORBIDDEN,
            Reason.UNAUTHORIZED,
        ):
            del self._failing[verb, resource]

    def refresh(self) -> None:
        """Forget what nothing confirms any more, and tell what is new if it is time."""
        now = self._clock()
        for key, each in list(self._failing.items()):
            if now - each.last_at > self._timing.forget:
                del self._failing[key]
        found = self._obstacles()
        if self._was_unable and None not in found:
            # What began with the trouble of all ends with it; what does not is found again.
            for key in [key for key, each in self._failing.items() if each.reason in _PASSING]:
                del self._failing[key]
            found = self._obstacles()
        self._was_unable = None in found
        if None in found:
            self.is_proven = False
        elif found and self._may_be_all():
            return  # a moment later it is all types, and that is to be told
        current = _Told({None: found[None]} if None in found else found)
        is_new = current.kinds != self._told.kinds
        if is_new and now - self._told_at < self._timing.announce:
            return
        self._told = current
        if is_new:
            self._told_at = now
            self._on_change()

    @property
    def unable(self) -> Obstacle | None:
        """Return why no work at all can be done, as it is told."""
        return self._told.obstacles.get(None)

    @property
    def unavailable(self) -> dict[str, Obstacle]:
        """Return by type why it cannot be done, as it is told."""
        return {key: each for key, each in self._told.obstacles.items() if key is not None}

    def obstacle_to(self, work_type: str, *, begun: bool = False) -> Obstacle | None:
        """
        Return what keeps from work of a type now, or from going on with what has begun.

        As long as an obstacle is told, no new work is taken, whatever is true now.
        """
        now = self._obstacles(begun=begun)
        found = now.get(None) or now.get(work_type)
        if found is None and not begun:
            return self.unable or self._told.obstacles.get(work_type)
        return found

    def _note_success(self, verb: str, resource: str) -> None:
        self._failing.pop((verb, resource), None)
        whole = resource.partition("/")[0]
        for (other, of), each in list(self._failing.items()):
            is_of_the_same_sort = verb not in _READS or other in _READS
            if of.partition("/")[0] == whole and each.reason in _PASSING and is_of_the_same_sort:
                del self._failing[other, of]

    def _note_failure(self, verb: str, resource: str, reason: Reason, words: str) -> None:
        now = self._clock()
        known = self._failing.get((verb, resource))
        if known is None:
            self._failing[verb, resource] = _Failing(reason, words, now, now)
        else:
            known.reason, known.words, known.last_at = reason, words, now

    def _obstacles(self, *, begun: bool = False) -> dict[str | None, Obstacle]:
        """Return what is confirmed, by work type."""
        found: dict[str | None, list[tuple[Need, _Failing]]] = {}
        for key, each in self._failing.items():
            need = self.needs[key]
            is_sure = each.last_at - each.first_at >= self._timing.confirm
            if is_sure and (need.is_for_begun or not begun):
                found.setdefault(need.work_type, []).append((need, each))
        return {work_type: self._obstacle(several) for work_type, several in found.items()}

    def _may_be_all(self) -> bool:
        """Say whether something fails, not surely yet, that all types need."""
        return any(self.needs[key].work_type is None for key in self._failing)

    def _obstacle(self, several: list[tuple[Need, _Failing]]) -> Obstacle:
        order = list(Reason)
        reason = min((each.reason for _, each in several), key=order.index)
        same = [(need, each) for need, each in several if each.reason is reason]
        verbs: dict[str, list[str]] = {}
        for need, _ in sorted(same, key=lambda one: (one[0].resource, one[0].verb)):
            verbs.setdefault(need.resource, []).append(need.verb)
        what = "; ".join(f"{', '.join(some)} {resource}" for resource, some in verbs.items())
        cause = _CAUSES[reason].format(
            namespace=self._namespace, what=what, words=same[-1][1].words, works=WORKS
        )
        return Obstacle(reason, cause, min(each.first_at for _, each in several))


_CAUSES: Final[Mapping[Reason, str]] = {
    Reason.UNREACHABLE: "the API server does not answer or fails: {words}",
    Reason.UNAUTHORIZED: "the API server does not accept the agent's credentials ({words}): "
    "renew the token, or the kubeconfig",
    Reason.NAMESPACE_MISSING: "there is no namespace {namespace}: kubectl create namespace "
    "{namespace}, or set agent.work_crd.namespace",
    Reason.NAMESPACE_TERMINATING: "namespace {namespace} is being deleted",
    Reason.DEFINITION_MISSING: "the cluster does not know {works}: "
    "brokkr agent crd | kubectl apply -f -",
    Reason.FORBIDDEN: "no role allows the agent to {what} in namespace {namespace}: "
    "brokkr agent rbac --namespace {namespace} | kubectl apply -f - (is the namespace there?)",
    Reason.QUOTA: "a quota of namespace {namespace} is used up: {words}",
}


def _reason_of(error: KubeError, resource: str) -> Reason | None:
    """Return what a failure means; None if it is an answer that says nothing of the access."""
    match error:
        case KubeUnavailable():
            return Reason.UNREACHABLE
        case KubeUnauthorized() | KubeConfigInvalid():
            return Reason.UNAUTHORIZED
        case KubeNamespaceMissing():
            return Reason.NAMESPACE_MISSING
        case KubeTerminating():
            return Reason.NAMESPACE_TERMINATING
        case KubeKindUnknown() if resource == str(WORKS):
            return Reason.DEFINITION_MISSING
        case KubeNotPermitted():
            return Reason.FORBIDDEN
        case KubeQuotaExceeded():
            return Reason.QUOTA
        case _:
            return None


def needs_of(handlers: Mapping[str, Handler], rules: Iterable[Rule]) -> list[Need]:
    """
    Return what must be permitted for any work, and for each type.

    Args:
        rules: What the agent is given for its own types; of others' kinds the least is wanted.
    """
    verbs = {
        _name(rule.group, resource): rule.verbs
        for rule in rules
        for resource in rule.resources
        if not rule.names
    }
    found = [
        Need(verb=verb, resource=resource, is_for_begun=verb not in ("create", "delete"))
        for resource in (str(WORKS), f"{WORKS}/status")
        for verb in verbs[resource]
    ]
    found += [
        Need(verb=verb, resource=str(kind), work_type=work_type, is_for_begun=verb != "delete")
        for work_type, handler in handlers.items()
        for kind in handler.kinds
        for verb in verbs.get(str(kind), _LEAST_VERBS)
    ]
    return found


def optional_of(needs: Iterable[Need], rules: Iterable[Rule]) -> list[tuple[Rule, str, str]]:
    """Return the verbs and resources of the rules that nothing needs, each with its rule."""
    needed = {(each.verb, each.resource) for each in needs}
    return [
        (rule, verb, _name(rule.group, resource))
        for rule in rules
        for resource in rule.resources
        for verb in rule.verbs
        if (verb, _name(rule.group, resource)) not in needed
    ]


def attributes_of(resource: str) -> dict[str, str]:
    """Return a resource as an access review names it."""
    whole, _, part = resource.partition("/")
    plural, _, group = whole.partition(".")
    return {"group": group, "resource": plural, **({"subresource": part} if part else {})}


def allows(rules: Iterable[Mapping[str, list[str]]], verb: str, resource: str, name: str) -> bool:
    """Say whether one of the rules of an access review allows this; ``name`` may be empty."""
    wanted = attributes_of(resource)
    parts = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
    return any(
        {verb, "*"} & {*(rule.get("verbs") or ())}
        and {wanted["group"], "*"} & {*(rule.get("apiGroups") or ())}
        and {parts, "*"} & {*(rule.get("resources") or ())}
        and (not rule.get("resourceNames") or name in rule["resourceNames"])
        for rule in rules
    )


def _name(group: str, resource: str) -> str:
    """Write a role's resource as :class:`~brokkr.agent.kinds.Resource` does."""
    plural, _, part = resource.partition("/")
    return str(Resource(group, "", "", plural)) + (f"/{part}" if part else "")

"""
The work types that this agent can run: its own, and those that are installed beside it.

A package brings a work type with an entry point of the group ``brokkr.work_handlers``: its
name is the type's, its value is called without arguments and returns the
:class:`~brokkr.agent.handlers.protocol.Handler`.
"""

# Note [What is installed is trusted, and checked]
#
# A package that is installed beside the agent runs in its process and could do anything
# there.  The checks are not against that: they find mistakes when the agent starts and
# not when Work fails, and they hold a promise about what the agent writes, whoever's the
# work type: nothing outside of its namespace, no Work, no Secret, and nothing that gives
# permissions away.

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final

from brokkr.agent.handlers.build.handler import BuildHandler
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.build.policy import ANYTHING_GOES, BuildPolicy
from brokkr.agent.handlers.protocol import Handler, Prerequisite, Related
from brokkr.agent.kinds import ROLES, SECRETS, SERVICE_ACCOUNTS, WORKS, Resource

GROUP: Final = "brokkr.work_handlers"
BUILT_IN: Final = frozenset({"build"})

_TYPE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,48}[A-Za-z0-9])?")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_GROUPS_REFUSED: Final = frozenset({WORKS.group, ROLES.group})
_CORE_REFUSED: Final = frozenset(
    name.lower() for each in (SECRETS, SERVICE_ACCOUNTS) for name in (each.kind, each.plural)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """An entry point that is not used, and why."""

    work_type: str
    distribution: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What packages beside the agent bring: work types by name, and what is no use."""

    handlers: Mapping[str, Handler]
    left_out: tuple[LeftOut, ...]


def handlers(
    build: BuildDefaults,
    policy: BuildPolicy = ANYTHING_GOES,
    installed: Mapping[str, Handler] = MappingProxyType({}),
) -> dict[str, Handler]:
    """Return each work type's handler."""
    return {**installed, "build": BuildHandler(build, policy)}


def find_installed(entry_points: Iterable[metadata.EntryPoint] | None = None) -> Installed:
    """
    Load the work types of installed packages.

    Args:
        entry_points: By default those of the group :data:`GROUP`.
    """
    if entry_points is None:
        entry_points = metadata.entry_points(group=GROUP)
    found: dict[str, Handler] = {}
    left_out: list[LeftOut] = []
    ordered = sorted(entry_points, key=lambda each: (each.name, _distribution_of(each)))
    for work_type, group in groupby(ordered, key=lambda each: each.name):
        same = list(group)
        handler, problem = None, _problem_with_name(work_type, same)
        if not problem:
            handler, problem = _load(same[0])
        if handler is None:
            left_out += [
                LeftOut(work_type=work_type, distribution=_distribution_of(each), problem=problem)
                for each in same
            ]
        else:
            found[work_type] = handler
    return Installed(handlers=found, left_out=tuple(left_out))


def _distribution_of(entry_point: metadata.EntryPoint) -> str:
    return "unknown" if entry_point.dist is None else str(entry_point.dist.name)


def _problem_with_name(work_type: str, same: list[metadata.EntryPoint]) -> str:
    if work_type in BUILT_IN:
        return "the type is built in and cannot be replaced"
    if not _TYPE_NAME.fullmatch(work_type):
        return (
            "no work type can have this name: at most 50 of A-Z, a-z, 0-9, '-', '_' and '.', "
            "with a letter or digit at both ends"
        )
    if len(same) > 1:
        rivals = ", ".join(_distribution_of(each) for each in same)
        return f"brought more than once, so none of them is used: {rivals}"
    return ""


def _load(entry_point: metadata.EntryPoint) -> tuple[Handler | None, str]:
    """Return a handler, or what is wrong with it."""
    try:
        handler = entry_point.load()()
        problem = _problem_with(handler)
    # Anything can go wrong in code that nobody here has read; the others go on.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return None, f"{entry_point.value} cannot be loaded: {type(error).__name__}: {error}"
    if problem:
        return None, f"{entry_point.value} returns no handler: {problem}"
    return handler, ""


def _problem_with(handler: Any) -> str:
    """Say what keeps this from being a handler; nothing if it is one."""
    if isinstance(handler, type):
        return f"{handler.__name__} is a class; an object of it is needed"
    for name, check in _CHECKS.items():
        if not hasattr(handler, name):
            return f"it has no {name}"
        if problem := check(getattr(handler, name)):
            return f"{name} {problem}"
    names = [each.kind for each in handler.kinds]
    if len(names) != len(set(names)):
        return "kinds has two of one name"
    if handler.executor not in names:
        return f"executor {handler.executor!r} is none of its kinds"
    return ""


def _problem_with_kinds(kinds: Any) -> str:
    if not isinstance(kinds, tuple) or not kinds:
        return "must be a tuple of Resource, at least one"
    return next(filter(None, map(_problem_with_resource, kinds)), "")


def _problem_with_related(related: Any) -> str:
    if not isinstance(related, tuple) or not all(isinstance(each, Related) for each in related):
        return "must be a tuple of Related"
    if not all(isinstance(each.label, str) and each.label for each in related):
        return "must name a label each"
    return next(filter(None, (_problem_with_resource(each.resource) for each in related)), "")


def _problem_with_resource(resource: Any) -> str:
    if not isinstance(resource, Resource):
        return f"has {resource!r}, which is no Resource"
    if not all(
        isinstance(each, str) and _WORD.fullmatch(each) for each in (resource.kind, resource.plural)
    ):
        return f"has {resource!r}, whose kind or plural is no word"
    if resource.namespaced is not True:
        return f"has {resource}, which are in no namespace; an agent keeps to its own"
    if _is_refused(resource.group, resource.kind, resource.plural):
        return f"has {resource}, which no work type may touch"
    return ""


def _problem_with_template_kinds(kinds: Any) -> str:
    if not isinstance(kinds, frozenset) or not kinds:
        return "must be a frozenset of apiVersion and kind, at least one"
    for each in kinds:
        if not (
            isinstance(each, tuple)
            and len(each) == 2
            and all(isinstance(part, str) and part for part in each)
        ):
            return f"has {each!r}, which is no pair of apiVersion and kind"
        api_version, kind = each
        if _is_refused(api_version.rpartition("/")[0], kind):
            return f"has {kind} ({api_version}), which no template may bring"
    return ""


def _is_refused(group: str, *names: str) -> bool:
    """See Note [What is installed is trusted, and checked]."""
    return group in _GROUPS_REFUSED or (
        not group and any(name.lower() in _CORE_REFUSED for name in names)
    )


def _problem_with_prerequisites(prerequisites: Any) -> str:
    if isinstance(prerequisites, tuple) and all(
        isinstance(each, Prerequisite) for each in prerequisites
    ):
        return ""
    return "must be a tuple of Prerequisite"


def _problem_with_executor(executor: Any) -> str:
    return "" if isinstance(executor, str) else "must be the name of a kind"


def _problem_with_method(method: Any, *, arguments: int) -> str:
    if not callable(method):
        return "must be a method"
    if inspect.iscoroutinefunction(method):
        return "must not be async: a handler is pure"
    try:
        inspect.signature(method).bind(*range(arguments))
    except TypeError as error:
        return f"must take {arguments} arguments by their places: {error}"
    return ""


_CHECKS: Final[Mapping[str, Callable[[Any], str]]] = MappingProxyType(
    {
        "executor": _problem_with_executor,
        "kinds": _problem_with_kinds,
        "related": _problem_with_related,
        "template_kinds": _problem_with_template_kinds,
        "prerequisites": _problem_with_prerequisites,
        "assess": lambda method: _problem_with_method(method, arguments=4),
        "cancel": lambda method: _problem_with_method(method, arguments=1),
    }
)
"""What each attribute must be; each returns what is wrong, or nothing."""

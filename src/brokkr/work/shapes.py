"""
The shape of a JSON object: which fields it has, of which types.

One description serves two readers.  :func:`find_misfit` compares what a user wrote with it and
says what is wrong in the user's words; local mode makes the schemas of its resource definitions
of it.
"""

# Note [Unknown fields are the cluster's business]
#
# A newer cluster may know fields that this project does not.  So a field that is unknown here
# is left to the cluster, which refuses it if it does not know it either.  Two kinds are
# refused here, because they are mistakes for sure, or nearly so: one that is spelled almost
# like a field of the same object, and one whose name only a field of another object has.

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, partial
from itertools import chain
from typing import Any, Final, TypeAlias

_ALIKE: Final = 0.82
"""How alike two names are, from 0 to 1, when one is a misspelling of the other."""


@dataclass(frozen=True, slots=True)
class Text:
    """
    A string.

    Attributes:
        format: ``duration``, for readers who check it; empty for none.
        choices: What it may be; empty for anything.
        is_closed: Whether a schema refuses everything else.  Here only misspellings are.
    """

    format: str = ""
    choices: tuple[str, ...] = ()
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class Number:
    """An integer; the bounds are inclusive."""

    least: int = -(2**63)
    most: int = 2**63 - 1
    format: str = ""


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount as Kubernetes writes it (``500m``, ``4Gi``, 2); which one is not looked at."""


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list; if `keys` are given, no two items may have the same values there."""

    item: "Shape"
    at_least: int = 0
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with names of the user's own."""

    item: "Shape"


@dataclass(frozen=True)
class Fields:
    """An object with names of the API's."""

    known: Mapping[str, "Shape"]
    required: tuple[str, ...] = ()

    @cached_property
    def fits(self) -> "Fits":
        """Say whether a value has this shape, and no unknown field."""
        return _fits_fields(self)


Shape: TypeAlias = Text | Number | Flag | Quantity | ListOf | MapOf | Fields
Fits: TypeAlias = Callable[[Any], bool]


def fields(described: Mapping[str, Any]) -> Fields:
    """
    Make a shape of a description: a name that ends in ``!`` is required.

    A dict is an object with these fields, a list of one shape is a list of it, and anything
    else is a shape already.
    """
    return Fields(
        {name.rstrip("!"): _shape(each) for name, each in described.items()},
        tuple(name.rstrip("!") for name in described if name.endswith("!")),
    )


def _shape(described: Any) -> Shape:
    if isinstance(described, dict):
        return fields(described)
    if isinstance(described, list):
        (item,) = described
        return ListOf(_shape(item))
    shape: Shape = described
    return shape


# A submission waits for this: so the common types are compared here, without a call for each.
def _fits_fields(shape: Fields) -> Fits:
    table = {name: _type_and_rest(each) for name, each in shape.known.items()}
    required = frozenset(shape.required)

    def fits(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for name, each in value.items():
            if name not in table:
                return False
            kind, rest = table[name]
            if type(each) is not kind or (rest is not None and not rest(each)):
                return False
        return required <= value.keys()

    return fits


def _type_and_rest(shape: Shape) -> tuple[type, Fits | None]:
    """Return the type that a value must have, and what else must hold."""
    match shape:
        case Text(choices=choices):
            return str, choices.__contains__ if choices else None
        case Number(least, most):
            return int, lambda value: least <= value <= most
        case Flag():
            return bool, None
        case Quantity():
            return str, None  # a number is looked at again, and let pass
        case ListOf(item, at_least):
            kind, rest = _type_and_rest(item)
            return list, partial(_all_fit, kind, rest, at_least)
        case MapOf(item):
            kind, rest = _type_and_rest(item)
            return dict, lambda value: _all_fit(kind, rest, 0, value.values())
        case Fields():
            return dict, shape.fits


def _all_fit(kind: type, rest: Fits | None, at_least: int, values: Collection[Any]) -> bool:
    for each in values:
        if type(each) is not kind or (rest is not None and not rest(each)):
            return False
    return len(values) >= at_least


def find_misfit(shape: Fields, value: object, path: str) -> tuple[str, str] | None:
    """
    Find the first thing that is wrong with a value.

    Unknown fields are not, but see Note [Unknown fields are the cluster's business].

    Returns:
        The path of the field, and what is wrong there; None if nothing is.
    """
    if shape.fits(value):
        return None
    return next(_misfits(shape, value, path, _homes(shape, path)), None)


def _misfits(
    shape: Shape, value: Any, path: str, homes: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    match shape, value:
        case Fields(), Mapping():
            yield from _misfits_of_fields(shape, value, path, homes)
        case MapOf(item), Mapping():
            items = {f"{path}.{n}": each for n, each in value.items() if each is not None}
            yield from chain.from_iterable(
                _misfits(item, each, place, homes) for place, each in items.items()
            )
        case ListOf(item, at_least), list():
            if len(value) < at_least:
                yield path, "must not be empty"
            yield from chain.from_iterable(
                _misfits(item, each, f"{path}[{n}]", homes) for n, each in enumerate(value)
            )
        case Fields() | MapOf(), _:
            yield path, f"must be an object, not {_kind_of(value)}"
        case ListOf(), _:
            yield path, f"must be a list, not {_kind_of(value)}"
        case _:
            problem = _problem_with_scalar(shape, value)
            if problem is not None:
                yield path, problem


def _misfits_of_fields(
    shape: Fields, value: Mapping[Any, Any], path: str, homes: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for name in value:
        if name not in shape.known:
            meant = closest(name, shape.known)
            if meant is not None:
                yield f"{path}.{name}", f"is not a field here; did you mean {meant}?"
            elif name in homes:
                yield f"{path}.{name}", f"is not a field here; it belongs under {homes[name]}"
    for name in shape.required:
        if value.get(name) is None:
            yield f"{path}.{name}", "is missing"
    for name, each in value.items():
        # An API server takes null for a field that is not there.
        if name in shape.known and each is not None:
            yield from _misfits(shape.known[name], each, f"{path}.{name}", homes)


def closest(name: str, known: Mapping[str, Any] | tuple[str, ...]) -> str | None:
    """Return the name that this is a misspelling of; None if there is none."""
    given, plain = _plain(name), {_plain(each): each for each in known}
    same_letters = (each for each in plain if sorted(each) == sorted(given))
    found = next(same_letters, None) or next(
        iter(get_close_matches(given, plain, n=1, cutoff=_ALIKE)), None
    )
    return None if found is None else plain[found]


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _problem_with_scalar(shape: Text | Number | Flag | Quantity, value: object) -> str | None:
    match shape:
        case Text(choices=choices):
            if not isinstance(value, str):
                hint = "; write it in quotes" if isinstance(value, int | float) else ""
                return f"must be a string, not {_kind_of(value)}{hint}"
            meant = None if value in choices else closest(value, choices)
            return None if meant is None else f"{value!r} is unknown; did you mean {meant}?"
        case Number(least, most):
            if not isinstance(value, int) or isinstance(value, bool):
                return f"must be a whole number, not {_kind_of(value)}"
            return None if least <= value <= most else f"must be from {least} to {most}"
        case Flag():
            if isinstance(value, bool):
                return None
            return f"must be true or false, without quotes, not {_kind_of(value)}"
        case Quantity():
            if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
                return None
            return f"must be an amount such as 500m or 4Gi, not {_kind_of(value)}"


def _kind_of(value: object) -> str:
    """Name a value as a user sees it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value[:40]!r}"
        case list():
            return "a list"
        case _:
            return "an object"


def _homes(shape: Fields, path: str) -> dict[str, str]:
    """Say where each field belongs whose name no other field has; lists are not looked into."""
    found: dict[str, list[str]] = {}

    def collect(shape: Shape, path: str) -> None:
        if isinstance(shape, Fields):
            for name, each in shape.known.items():
                found.setdefault(name, []).append(path)
                collect(each, f"{path}.{name}")

    collect(shape, path)
    return {name: places[0] for name, places in found.items() if len(places) == 1}

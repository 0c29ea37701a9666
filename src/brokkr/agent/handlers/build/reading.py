"""
Read what a cluster says without trusting its shape.

A status is written by several programs, and parts of it by the build itself.  What is
not of the kind that was asked for counts as absent.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from brokkr.work.model import Manifest


def part_of(value: object, *path: str) -> Manifest:
    """Return the object at this path; empty if there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def parts_of(value: object, *path: str) -> list[Manifest]:
    """Return the objects in the list at this path; what is none is left out."""
    *above, last = path
    found: Any = part_of(value, *above).get(last)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def text_of(value: object, *path: str) -> str:
    """Return the text at this path; empty if there is none."""
    *above, last = path
    found = part_of(value, *above).get(last)
    return found if isinstance(found, str) else ""


def condition_of(seen: Manifest) -> Manifest:
    """Return the ``Succeeded`` condition of a run of any kind; empty before it has one."""
    found: Iterable[Manifest] = parts_of(seen, "status", "conditions")
    return next((each for each in found if each.get("type") == "Succeeded"), {})


def has_ended(seen: Manifest) -> bool:
    """Say whether a run of any kind is over."""
    # Times say nothing: there are failures without a completionTime, and the reverse.
    return condition_of(seen).get("status") in ("True", "False")

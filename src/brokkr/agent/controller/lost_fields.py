"""
What an API server has dropped of an object that it was given.

Newer ones refuse an object with a field that they do not know, if they are asked to.  Those
before Kubernetes 1.25 drop the field and say nothing.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

from brokkr.work.model import Manifest

# An API server adds to its metadata; a status is written on its own.
_NOT_COMPARED: Final = ("metadata", "status")


def find_lost_field(given: Manifest, kept: Manifest) -> str | None:
    """Return the path of something that the API server has dropped; None if it kept all."""
    return next(
        chain.from_iterable(
            _lost(value, kept.get(name), name)
            for name, value in given.items()
            if name not in _NOT_COMPARED
        ),
        None,
    )


def _lost(given: Any, kept: Any, path: str) -> Iterator[str]:
    if isinstance(given, Mapping):
        if not isinstance(kept, Mapping):
            if given:
                yield path
            return
        for key, value in given.items():
            if value is not None:
                yield from _lost(value, kept.get(key), f"{path}.{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, value in enumerate(given):
            yield from _lost(value, kept[index], f"{path}[{index}]")
    elif kept is None:
        yield path

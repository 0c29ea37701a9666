"""What a JSON value is made of, found by one walk through it, whatever is asked of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Survey:
    """
    What was seen of a value.

    Attributes:
        depth: Of its nesting; a string alone has 1.
        values: How many there are, keys not among them.
        keys: How many members all its objects have.
        widest: How many members one of its objects has at most.
        texts: All its strings, and all keys of its objects.
        numbers: All else but true, false and null.
    """

    depth: int = 0
    values: int = 0
    keys: int = 0
    widest: int = 0
    texts: list[Any] = field(default_factory=list)
    numbers: list[Any] = field(default_factory=list)

    def together(self) -> str:
        """
        Return all strings as one, to look for what may be in none of them.

        Raises:
            TypeError: A key is not a string.
        """
        return "\n".join(self.texts)


def survey(value: Any, *, enough: int) -> Survey:
    """
    Walk through a value, level by level.

    Args:
        enough: Values; only what holds more of them is not looked at to its end.
    """
    seen = Survey()
    level = [value]
    while level:
        seen.depth += 1
        seen.values += len(level)
        if seen.values > enough:
            break
        below: list[Any] = []
        for each in level:
            kind = each.__class__
            if kind is str:
                seen.texts.append(each)
            elif kind is list:
                below += each
            elif kind is dict or isinstance(each, Mapping):
                seen.keys += len(each)
                seen.widest = max(seen.widest, len(each))
                seen.texts += each
                below += each.values()
            elif each is not None and kind is not bool:
                (seen.texts if isinstance(each, str) else seen.numbers).append(each)
        level = below
    return seen


def is_small(text: bytes, *, values: int, depth: int) -> bool:
    """
    Say whether a JSON text surely means no more values than that, and is nested no deeper.

    It counts signs, in strings too, which costs next to nothing.  What is not small by this
    has to be looked at.
    """
    objects = text.count(b"{") + text.count(b"[")
    return objects < depth and objects + text.count(b",") < values


def is_ascii(text: bytes) -> bool:
    """Say whether all strings of a JSON text are ASCII, and surely without a NUL."""
    return text.isascii() and b"\\u" not in text

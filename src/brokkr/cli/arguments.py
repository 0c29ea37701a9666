"""Read what is written on the command line in more than one word."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brokkr.client import submission
from brokkr.client.submission import parse_template
from brokkr.work.errors import InvalidInput


def parse_pairs(pairs: Sequence[str], *, option: str) -> dict[str, str]:
    """
    Read ``KEY=VALUE`` words.

    Raises:
        InvalidInput: A word has no ``=``, or a key comes twice with two values.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInput(option, f"{pair!r} must be written KEY=VALUE")
        if found.setdefault(key, value) != value:
            raise InvalidInput(option, f"{key} is given twice, as {found[key]!r} and {value!r}")
    return found


def parse_changes(words: Sequence[str]) -> dict[str, str | None]:
    """
    Read ``KEY=VALUE`` to set and ``KEY-`` to remove, as ``kubectl label`` writes them.

    Raises:
        InvalidInput: A word is neither, or a key comes twice.
    """
    removed = [word[:-1] for word in words if "=" not in word and word.endswith("-")]
    given = [word for word in words if "=" in word or not word.endswith("-")]
    changes: dict[str, str | None] = dict(parse_pairs(given, option="label"))
    for key in removed:
        if changes.setdefault(key, None) is not None:
            raise InvalidInput("label", f"{key} is both set and removed")
    return changes


def read_template(file: Path) -> dict[str, Any]:
    """
    Read the objects of a YAML or JSON file; ``-`` is standard input.

    Raises:
        InvalidInput: It cannot be read, is empty, or holds something else than objects.
        MalformedBody: It is not YAML.
    """
    if str(file) == "-":
        return parse_template(sys.stdin.buffer.read(), name="-")
    return submission.read_template(file)

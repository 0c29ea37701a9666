"""
Read what an API server sends, also of an object that somebody has nested beyond reason.

Of kinds that have no schema it stores ten thousand levels.  No reader here follows those, and
one such object in a list would stand in the way of all others.
"""

import json
import re
from typing import Any, Final

MAX_DEPTH: Final = 100
"""As deep as anything is meant seriously: templates are refused at less."""

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]')


def read_json(text: bytes) -> Any:
    """
    Return what a text holds; where that cannot be followed, null for all below MAX_DEPTH.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(_without_depths(text.decode()))


def _without_depths(text: str) -> str:
    kept: list[str] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "[" | "{":
                depth += 1
                if depth == MAX_DEPTH + 1:
                    kept += text[start : token.start()], "null"
            case "]" | "}":
                if depth == MAX_DEPTH + 1:
                    start = token.end()
                depth -= 1
    return "".join((*kept, text[start:]))

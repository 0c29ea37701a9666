"""
Take credentials out of text that is written down: log lines, reports, errors, build logs.

Whatever leaves through one of these goes through here.  :mod:`brokkr.work.credentials` says what a
credential looks like, and why looking for it takes linear time.
"""

# Note [A key block ends somewhere]
#
# A key block has no shape inside.  So from its BEGIN line on everything is taken out until its END
# line, the first line that is neither base64 nor a header, or KEY_LIMIT characters.  All its lines
# may stand in one, with "\n" written out or with spaces; a log may put a time before each.

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from brokkr.work.credentials import CONTEXT, REACH, SHAPES_BY_FORM, Shape
from brokkr.work.secret_names import NAMED_SHAPES

SHAPES: Final = (*SHAPES_BY_FORM, *NAMED_SHAPES)
"""All of them.  Where two begin at one place, the first that matches counts."""

HELD: Final = 2 * REACH
"""A :class:`Redactor` holds back at most so many characters."""
KEY_LIMIT: Final = 32 * 1024
"""The longest key block, in characters."""

_KEY_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,60}-----")
_KEY_BREAK: Final = re.compile(r"[\r\n]|\\{1,4}[nr]")
_KEY_MARGIN: Final = re.compile(
    r"[ \t]{1,64}+|\d{4}-\d\d-\d\dT[0-9:.+Z-]{8,30}+ |#\d{1,6} \d{1,6}\.\d{1,6} "
)
_KEY_HEADER: Final = re.compile(
    r"(?:Proc-Type|DEK-Info|Comment|Version|Hash|Charset|MessageID|X-[A-Za-z-]{1,40})"
    r":(?:(?!\\{1,4}[nr])[^\r\n]){0,200}"
)
_KEY_RUN: Final = re.compile(r"[A-Za-z0-9+/=]{1,512}")
_KEY_GOES_ON: Final = frozenset("\r\n\\\"'-<")
_SURELY_KEY: Final = 16
"""A shorter run of base64 belongs to a key only if it ends like a line of one."""

_SECRET_KEY: Final = re.compile(
    r"(?i)(?:^|[_-])(?:passw(?:or)?d|token|secret|authorization|cookie|api[-_]?key|private[-_]?key)$"
)


class Redactor:
    """
    Redact a text that comes in pieces.

    What it returns, put together, is what :func:`redact` returns of the whole text, wherever that
    was cut.  Whole lines are returned at once; of an unfinished one at most ``HELD`` characters are
    held back, however long nothing comes.
    """

    def __init__(self) -> None:
        """Begin a text."""
        self._text = ""  # some context, which has been returned, and what is held back
        self._place = 0  # where that begins
        self._rest: re.Pattern[str] | None = None  # how the secret goes on that we are in
        self._key_left: int | None = None  # how long the key block may be that we are in
        self._is_in_run = False
        self._gap = ""  # what has come since the last line of the key block

    def feed(self, piece: str) -> str:
        """Take the next piece, and return what is decided by now."""
        self._text += piece
        if "\n" not in piece and "\r" not in piece and len(self._text) - self._place <= HELD:
            return ""
        end_of_line = max(self._text.rfind("\n"), self._text.rfind("\r")) + 1
        return self._redact(max(end_of_line, len(self._text) - REACH), is_last=False)

    def finish(self) -> str:
        """Return the rest: nothing more comes."""
        return self._redact(len(self._text), is_last=True)

    def _redact(self, decided: int, *, is_last: bool) -> str:
        """Return what begins before a place in the text."""
        text, lowered, place = self._text, _lower(self._text), self._place
        out: list[str] = []
        while place < decided:
            if self._key_left is not None:
                place = self._pass_key(place, out)
            elif self._rest is not None:
                found = self._rest.match(text, place)
                place = place if found is None else found.end()
                if place == len(text) and not is_last:
                    break  # the secret may go on in the next piece
                self._rest = None
            elif (credential := _ANY.next(text, lowered, place, decided)) is not None:
                shape, match = credential
                out += text[place : match.start()], _visible(shape, match), "***"
                place = match.end()
                self._rest = shape.rest
                if shape.is_key_block:
                    out.append(" key ***")
                    self._key_left, self._is_in_run, self._gap = KEY_LIMIT, False, ""
            else:
                out.append(text[place:decided])
                place = decided
        context = max(0, place - CONTEXT)
        self._text, self._place = text[context:], place - context
        return "".join(out)

    def _pass_key(self, place: int, out: list[str]) -> int:
        """Return where the key block has its next part; note if it has ended."""
        assert self._key_left is not None
        text = self._text
        if (end := _KEY_END.match(text, place)) is not None:
            self._key_left = None
            return end.end()
        if (part := _KEY_BREAK.match(text, place) or _KEY_MARGIN.match(text, place)) is not None:
            self._is_in_run = False
            self._gap += part[0]
        elif (part := _KEY_HEADER.match(text, place)) is None:
            run = _KEY_RUN.match(text, place)
            end_of_run = place if run is None else run.end()
            is_key = (
                self._is_in_run
                or end_of_run - place >= _SURELY_KEY
                or text[end_of_run : end_of_run + 1] in _KEY_GOES_ON
                or end_of_run == len(text)
            )
            part = run if is_key else None
            self._is_in_run = is_key
        if part is None:
            out.append(self._gap)
            self._key_left = None
            return place
        if part.re in (_KEY_RUN, _KEY_HEADER):
            self._gap = ""
        passed = min(part.end() - place, self._key_left)
        self._key_left = self._key_left - passed or None
        return place + passed


def redact(text: str) -> str:
    """Return the text without what looks like a credential."""
    if _ANY.next(text, _lower(text), 0, len(text)) is None:
        return text
    redactor = Redactor()
    return redactor.feed(text) + redactor.finish()


def redact_all(value: Any) -> Any:
    """Redact every text in a value of JSON's types; whatever else there is becomes text."""
    match value:
        case str():
            return redact(value)
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {
                redact(str(name)): "***" if _names_a_secret(name, each) else redact_all(each)
                for name, each in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [redact_all(each) for each in value]
        case _:
            return redact(str(value))


def find_credential(text: str) -> Shape | None:
    """Return the shape of the first credential in a text of which there is no doubt, if any."""
    found = _CERTAIN.next(text, _lower(text), 0, len(text))
    return None if found is None else found[0]


def carried(name: str) -> str:
    """Say of a text that must not hold a credential that it does, without repeating it."""
    return (
        f"holds a credential ({name}); put it into a Secret in the cluster and name that here "
        "(cloneSecret, pushSecret, secretKeyRef)"
    )


class _Finder:
    """Finds credentials of some shapes.

    Patterns are compiled when they are needed: all of them take a tenth of a second, and most
    commands need none.
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self._shapes = shapes
        self._anchors = {anchor for shape in shapes for anchor in shape.anchors}
        self._longest = max(map(len, self._anchors))
        self._by_anchor: dict[str, _Candidates] = {}

    @cached_property
    def _anchor(self) -> re.Pattern[str]:
        return re.compile(_any_of(self._anchors))

    def _at(self, anchor: str) -> "_Candidates":
        """Return what may begin at an anchor that begins with no other one."""
        if anchor not in self._by_anchor:
            self._by_anchor[anchor] = _together(
                [s for s in self._shapes if any(a.startswith(anchor) for a in s.anchors)]
            )
        return self._by_anchor[anchor]

    def next(
        self, text: str, lowered: str, place: int, end: int
    ) -> tuple[Shape, re.Match[str]] | None:
        """Return the first credential that begins at a place or after it, and before the end."""
        while (anchor := self._anchor.search(lowered, place, end + self._longest)) is not None:
            place = anchor.start()
            if place >= end:
                return None
            there = self._at(anchor[0])
            if (not there.needs or text.find(there.needs, place, place + REACH) >= 0) and (
                match := there.pattern.match(text, place)
            ) is not None:
                assert match.lastindex is not None
                return there.by_group[match.lastindex], match
            place += 1
        return None


def _visible(shape: Shape, match: re.Match[str]) -> str:
    """Return what of a match is no secret."""
    assert match.lastindex is not None
    return match[match.lastindex + 1] if shape.head.groups else ""


def _lower(text: str) -> str:
    """Return a text in lower case, each character where it was."""
    lowered = text.lower()
    # One letter becomes two: the capital I with a dot.
    return (
        lowered
        if len(lowered) == len(text)
        else text.replace("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "i").lower()
    )


def _names_a_secret(name: object, value: object) -> bool:
    """Say whether a value is one by its name alone; that there is none is no secret."""
    return value not in (None, "") and _SECRET_KEY.search(str(name)) is not None


def _any_of(words: set[str]) -> str:
    """Return a pattern of literals that branches by letters: faster than one after another."""
    if "" in words:
        return ""  # the shortest of those that begin alike stands for all
    letters = sorted({word[0] for word in words})
    branches = [
        re.escape(letter) + _any_of({word[1:] for word in words if word[0] == letter})
        for letter in letters
    ]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


@dataclass(frozen=True, slots=True)
class _Candidates:
    """One pattern for all shapes that may begin at an anchor.

    Attributes:
        by_group: Which shape has matched, by the last group that has.
        needs: A literal that all of them must meet; empty if there is no such.
    """

    pattern: re.Pattern[str]
    by_group: Mapping[int, Shape]
    needs: str


def _together(shapes: list[Shape]) -> _Candidates:
    by_group, groups = {}, 1
    for shape in shapes:
        by_group[groups] = shape
        groups += 1 + shape.head.groups
    gates = dict.fromkeys(shape.gate for shape in shapes)
    gate = f"(?={'|'.join(gates)})" if all(gates) else ""
    pattern = re.compile(f"{gate}(?:{'|'.join(f'({shape.pattern})' for shape in shapes)})")
    needs = {shape.needs for shape in shapes}
    return _Candidates(pattern, by_group, needs.pop() if len(needs) == 1 else "")


_ANY: Final = _Finder(SHAPES)
_CERTAIN: Final = _Finder([shape for shape in SHAPES if shape.is_certain])

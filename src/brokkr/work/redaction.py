"""
Take credentials out of text that is written down: log lines, reports, errors.

Nothing here knows where a text comes from.  What looks like a credential is taken for one:
a word too many that is lost costs less than a key that is kept.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

# No pattern may take more than linear time: the texts are other people's.
_CREDENTIALS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # Key material first, for it contains anything: PEM, and PEM in base64 as kubeconfigs have it.
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----"
            r".*?(?:-----END [A-Z0-9 ]{0,60}-----|\Z)",
            re.DOTALL,
        ),
        "*** key ***",
    ),
    (re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/=_-]+"), "*** key ***"),
    # Our own keys, even if cut off, and JSON web tokens, which service accounts have.
    (re.compile(r"(brokkr_[a-z]{3})[a-z2-7]{10}_[A-Za-z0-9_-]+"), r"\1***"),
    (
        re.compile(r"eyJ[A-Za-z0-9_-]{8,512}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?"),
        "***",
    ),
    (re.compile(r"(?i)(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
    # User information in URLs.  The first form has a slash in its password; what it leaves of
    # one that has an @ as well, the second takes.
    (re.compile(r"://[^/\s@:]{1,64}:(?!\d{1,5}[/?#])[^\s@]{1,256}@"), "://***@"),
    (re.compile(r"://[^/\s]*@"), "://***@"),
    # password=..., 'token': '...' and "secret":"...", quoted once more or not.
    (
        re.compile(
            r"""(?i)((?:passw(?:or)?d|secret|token|auth|api[-_]?key|access[-_]?key)"""
            r"""(?:=|\\?["']\s?[:=]\s?)\\?["']?)"""
            r"""[^\s"'\\&,;]+"""
        ),
        r"\1***",
    ),
)
_SECRET_NAME: Final = re.compile(
    r"(?i)(?:^|[_-])(?:passw(?:or)?d|token|secret|authorization|cookie|api[-_]?key|private[-_]?key)$"
)


def redact(text: str) -> str:
    """Return the text without what looks like a credential."""
    for pattern, instead in _CREDENTIALS:
        text = pattern.sub(instead, text)
    return text


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


def _names_a_secret(name: object, value: object) -> bool:
    """Say whether a value is one by its name alone; that there is none is no secret."""
    return value not in (None, "") and _SECRET_NAME.search(str(name)) is not None

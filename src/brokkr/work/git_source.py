"""
What names a git source: the repository's URL, and a revision in it.

Sources: git's documentation, "GIT URLS" of ``git-clone`` and ``git-check-ref-format``, and the
git step of Shipwright, which passes a revision to ``git clone --branch`` or ``git checkout``.
"""

import re
from typing import Final

_NOT_PRINTABLE = re.compile(r"[\0-\x20\x7f]")
_SCHEMES: Final = ("https", "http", "ssh", "git")
_WITH_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(?:/.*)?")
_SCP_LIKE = re.compile(r"(?:[^\s/@:]+@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?!:|/{0,2}\Z)\S+")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::\d{0,5})?")
# Printable ASCII and all beyond it; what git refuses in the name of a branch or tag.
_NO_REVISION = re.compile(r"[\0-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\A[-/.]|[/.]\Z|\.lock(?:/|\Z)")

EXAMPLES: Final = "https://git.example.com/team/app.git or git@git.example.com:team/app.git"


def problem_with_url(url: str) -> str | None:
    """Say why no build could clone this URL; None if one could."""
    if not url or _NOT_PRINTABLE.search(url) or url.startswith("-"):
        return f"must be the URL of a git repository without spaces, such as {EXAMPLES}"
    found = _WITH_SCHEME.fullmatch(url)
    if found is None:
        if _SCP_LIKE.fullmatch(url) and url.partition(":")[0] not in _SCHEMES:
            return None
        return f"is not the URL of a git repository that a build can reach, such as {EXAMPLES}"
    scheme, host = found[1], found[2].rpartition("@")[2]
    if scheme not in _SCHEMES:
        meant = scheme.lower()
        hint = f"write {meant}" if meant in _SCHEMES else f"a build can clone {EXAMPLES}"
        return f"has the scheme {scheme!r}; {hint}"
    if not host.partition(":")[0]:
        return f"names no host; write it such as {EXAMPLES}"
    if not _HOST.fullmatch(host):
        return f"has the host {host[:80]!r}, which is not a name with an optional port"
    return None


def problem_with_revision(revision: str) -> str | None:
    """Say why this names no branch, tag or commit; None if it may, or if it is empty."""
    if revision and _NO_REVISION.search(revision):
        return f"{revision[:80]!r} cannot be the name of a branch or tag, nor the id of a commit"
    return None


def leaves_source(folder: str) -> bool:
    """Say whether a path, seen from the root of the sources, leads out of them."""
    depth = 0
    for part in folder.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False

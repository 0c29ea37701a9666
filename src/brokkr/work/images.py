"""
The names of images: ``registry.example.com/team/app:1.0``.

Source: the OCI Distribution Specification v1.1 ("Pulling manifests": names, tags and digests)
and the reference grammar of container tools, which adds the registry's host in front.
"""

import re
from typing import Final

_MAX_NAME: Final = 255
_MAX_PORT: Final = 65_535

_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_PATH = rf"{_PART}(?:/{_PART})*"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::(\d{{1,5}}))?")
_REPOSITORY = re.compile(_PATH)
_SPACE = re.compile(r"\s")

EXAMPLE: Final = "registry.example.com/team/app:1.0"


def problem_with_image(name: str, *, with_digest: bool = True) -> str | None:
    """
    Say what is wrong with the name of an image; None if nothing is.

    Args:
        with_digest: Whether it may have a digest: an image that is yet to be built has none.
    """
    if not name or _SPACE.search(name):
        return f"must name an image, such as {EXAMPLE}, without spaces"
    if "://" in name:
        return f"must be the name alone, such as {EXAMPLE}, without a scheme"
    rest, at, digest = name.partition("@")
    if at and not with_digest:
        return "must have no digest: the image is not built yet; give it a tag, or nothing"
    if at and not _DIGEST.fullmatch(digest):
        return f"has the digest {digest[:80]!r}; a digest is sha256: and 64 hexadecimal digits"
    host, path = _split(rest)
    path, colon, tag = path.rpartition(":") if ":" in path else (path, "", "")
    if colon and not _TAG.fullmatch(tag):
        return (
            f"has the tag {tag[:150]!r}; a tag is 1 to 128 letters, digits, '_', '.' or '-', and "
            "begins with a letter, a digit or '_'"
        )
    return _problem_with_host(host) or _problem_with_repository(host, path)


def _split(name: str) -> tuple[str, str]:
    """Split off the host: what a repository's first part could not be, or what has a port."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return first, rest
    return "", name


def _problem_with_host(host: str) -> str | None:
    if not host:
        return None
    found = _HOST.fullmatch(host)
    if found is None:
        return f"has the registry {host[:80]!r}, which is not a host name with an optional port"
    if found[1] and not 0 < int(found[1]) <= _MAX_PORT:
        return f"has the port {found[1]}; a port is 1 to {_MAX_PORT}"
    return None


def _problem_with_repository(host: str, path: str) -> str | None:
    if not host and "/" not in path and ("." in path or path == "localhost"):
        return f"names a registry and no repository; write it such as {EXAMPLE}"
    if not path:
        return f"names no repository in the registry {host}; write it such as {EXAMPLE}"
    if path != path.lower():
        return (
            f"has upper-case letters in the repository {path[:80]!r}; write {path.lower()[:80]!r}"
        )
    if not _REPOSITORY.fullmatch(path):
        return (
            f"has the repository {path[:80]!r}; its parts are lower-case letters and digits, with "
            "'.', '_', '__' or '-' between them"
        )
    if len(host) + len(path) + 1 > _MAX_NAME:
        return f"is longer than {_MAX_NAME} characters without its tag"
    return None

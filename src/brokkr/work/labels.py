"""
The syntax of labels and annotations: Kubernetes' own, so that they can be copied.

Source: Kubernetes documentation, "Labels and Selectors" (syntax and character set) and
"Annotations".
"""

import re
from collections.abc import Mapping

from brokkr.work.errors import InvalidAgent
from brokkr.work.redaction import find_credential

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_AGENT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_ID = re.compile(r"[0-9a-f]{32}")

MAX_PAIRS = 64
MAX_ANNOTATION = 4096
_SHORTEST_CREDENTIAL = 16


def problem_with_key(key: str) -> str | None:
    """Say what is wrong with a label's or annotation's key; None if nothing is."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        return f"the prefix of key {key!r} must be a DNS subdomain of at most 253 characters"
    if len(name) > 63 or not _NAME.fullmatch(name):
        return (
            f"the name in key {key!r} must be 1 to 63 letters, digits, '-', '_' or '.', "
            "and begin and end with a letter or digit"
        )
    return None


def problem_with_value(value: str) -> str | None:
    """Say what is wrong with a label's value; None if nothing is."""
    if value and (len(value) > 63 or not _NAME.fullmatch(value)):
        return (
            f"the value {value!r} must be at most 63 letters, digits, '-', '_' or '.', "
            "and begin and end with a letter or digit"
        )
    return problem_with_content(value)


def problem_with_content(value: str) -> str | None:
    """Say that a label or an annotation holds a credential, which many may read; None if not."""
    shape = find_credential(value) if len(value) >= _SHORTEST_CREDENTIAL else None
    return None if shape is None else f"holds a credential ({shape.name}); many may read it here"


def is_dns_name(name: str) -> bool:
    """Say whether this can be the name of an object in Kubernetes."""
    return len(name) <= 253 and _SUBDOMAIN.fullmatch(name) is not None


def problem_with_name(name: str) -> str | None:
    """Say what is wrong with an agent's or a generator's name; None if nothing is."""
    if len(name) > 63 or not _AGENT_NAME.fullmatch(name):
        return (
            f"{name!r} must be 1 to 63 lower-case letters, digits, '-' or '.', "
            "and begin and end with a letter or digit"
        )
    if _ID.fullmatch(name.replace("-", "")):
        return f"{name!r} looks like an id; who asks for it would not know which is meant"
    return None


def check_labels(labels: Mapping[str, str], *, field: str) -> None:
    """
    Refuse labels that Kubernetes would refuse.

    Raises:
        InvalidAgent: Names the label and what is wrong with it.
    """
    _check_count(labels, field=field)
    for key, value in labels.items():
        problem = problem_with_key(key) or problem_with_value(value)
        if problem is not None:
            raise InvalidAgent(f"{field}.{key}", problem)


def check_annotations(annotations: Mapping[str, str], *, field: str) -> None:
    """
    Refuse annotations whose keys are no label keys, or whose values are too long.

    Raises:
        InvalidAgent: Names the annotation and what is wrong with it.
    """
    _check_count(annotations, field=field)
    for key, value in annotations.items():
        problem = problem_with_key(key)
        if problem is None and len(value) > MAX_ANNOTATION:
            problem = f"is longer than {MAX_ANNOTATION} characters"
        if problem is None and "\0" in value:
            problem = "contains a NUL character"
        problem = problem or problem_with_content(value)
        if problem is not None:
            raise InvalidAgent(f"{field}.{key}", problem)


def check_agent_name(name: str, *, field: str = "name") -> None:
    """
    Refuse a name that could not stand in a label or a host name.

    Raises:
        InvalidAgent: Says what a name looks like.
    """
    problem = problem_with_name(name)
    if problem is not None:
        raise InvalidAgent(field, problem)


def _check_count(pairs: Mapping[str, str], *, field: str) -> None:
    if len(pairs) > MAX_PAIRS:
        raise InvalidAgent(field, f"holds {len(pairs)} entries; at most {MAX_PAIRS} are kept")

"""
What a template may contain.

The broker checks it on submit, and the agent checks it again before it applies
anything: neither trusts the other.  A work type's allow-list is closed: a kind that is
not on it is refused by name.
"""

# Note [Secrets are referenced, never carried]
#
# A template travels through the queue, the log table and the Work resource, and all of
# them can be read by more people than a credential should be.  So a ``Secret`` is
# refused, and so is any string with a credential of which there is no doubt, wherever it
# stands: what redaction knows by its form (:mod:`brokkr.work.credentials`), and in `env` and
# `paramValues` a value that looks random and has the name of a secret.  A Build names its
# secrets (``cloneSecret``, ``pushSecret``, ``secretKeyRef``), and they live in the cluster.
# The error never repeats the value.

import json
import re
import reprlib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import orjson

from brokkr.work.build_template import check_build
from brokkr.work.errors import InvalidWork
from brokkr.work.labels import is_dns_name
from brokkr.work.model import Manifest
from brokkr.work.redaction import carried, find_credential
from brokkr.work.secret_names import is_secret
from brokkr.work.survey import is_ascii, is_small, survey

Kinds: TypeAlias = Mapping[str, AbstractSet[tuple[str, str]]]
"""By work type, the ``apiVersion`` and ``kind`` of what a template may bring."""

ALLOWED_KINDS: Final[Mapping[str, frozenset[tuple[str, str]]]] = MappingProxyType(
    {
        "build": frozenset(
            {
                ("shipwright.io/v1beta1", "Build"),
                ("shipwright.io/v1beta1", "BuildRun"),
                ("v1", "ConfigMap"),
            }
        )
    }
)
"""Of the built-in work types."""

MAX_DEPTH = 64
MAX_DOCUMENTS = 20
MAX_VALUES = 10_000
MAX_BYTES = 512 * 1024
"""As JSON: etcd takes 1.5 MiB, and what is made of a template carries more than it."""

# As git and scp write it; app:v1@sha256:… is an image.
_PASSWORD_FOR_SSH = re.compile(
    r"[^\s/:@]{1,64}:[^\s/@]{1,256}@(?!sha\d{3}:)[A-Za-z0-9._-]{1,253}:.*"
)
# JSON can write both, and no database can store them.
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_REFUSED_METADATA = ("ownerReferences", "finalizers", "generateName", "managedFields", "uid")


def documents(template: Manifest) -> list[Manifest]:
    """
    Return the objects of a template: itself, or the items of a ``List``.

    Raises:
        InvalidWork: It is neither.
    """
    if template.get("kind") == "List" and template.get("apiVersion") == "v1":
        items = template.get("items")
        if not isinstance(items, list) or not items:
            raise InvalidWork("template.items", "a List needs at least one item")
        if not all(isinstance(item, Mapping) for item in items):
            raise InvalidWork("template.items", "each item must be an object")
        return items
    return [template]


def check_template(
    work_type: str,
    template: Manifest,
    *,
    kinds: Kinds = ALLOWED_KINDS,
    namespace: str | None = None,
) -> None:
    """
    Refuse a template that no agent would, or should, run.

    Args:
        kinds: By work type, the ``apiVersion`` and ``kind`` of what a template may bring.
        namespace: The one that the objects will be made in, which is the only one that
            a template may name.  The broker does not know it, the agent does.

    Raises:
        InvalidWork: Names the field, what is wrong with it and what would be right.
    """
    allowed = kinds.get(work_type)
    if allowed is None:
        known = ", ".join(sorted(kinds))
        raise InvalidWork("work_type", f"{work_type!r} is not known; known types: {known}")

    is_plain = check_size(template)
    found = documents(template)
    if len(found) > MAX_DOCUMENTS:
        raise InvalidWork("template", f"has {len(found)} documents; at most {MAX_DOCUMENTS}")
    paths = [
        ("template" if each is template else f"template.items[{index}]", each)
        for index, each in enumerate(found)
    ]
    for path, document in paths:
        _check_document(document, allowed, path)
        if not is_plain:
            _check_strings(document, path)
        given = document.get("metadata", {}).get("namespace")
        if namespace is not None and given not in (None, namespace):
            raise InvalidWork(
                f"{path}.metadata.namespace",
                f"{given!r} is not where this agent runs work ({namespace!r}); leave it out",
            )
    if work_type == "build":
        check_build(paths)
        for path, document in paths:
            _check_values(document, path)
    _check_names(paths)


def check_size(template: Manifest) -> bool:
    """
    Refuse a template that is too large or too deep, whatever it is.

    Returns:
        Whether it is plain: no string in it can have anything wrong with it.

    Raises:
        InvalidWork: Says which, and what the limit is.
    """
    text = _json_of(template)
    if text is None or not is_small(text, values=MAX_VALUES, depth=MAX_DEPTH):
        _check_extent(template)
    size = len(json.dumps(template) if text is None else text)
    if size > MAX_BYTES:
        raise InvalidWork("template", f"is {size} bytes of JSON; at most {MAX_BYTES} are taken")
    return (
        text is not None
        and is_ascii(text)
        and b"@" not in text
        and find_credential(text.decode()) is None
    )


def _json_of(template: Manifest) -> bytes | None:
    """Return it as JSON, unless it is far too deep, or holds what is no text."""
    try:
        return orjson.dumps(template)
    except TypeError:
        return None  # whoever looks at the values names the place


def _check_extent(template: Manifest) -> None:
    seen = survey(template, enough=MAX_VALUES)
    if seen.depth > MAX_DEPTH:
        raise InvalidWork("template", f"is nested deeper than {MAX_DEPTH} levels")
    if seen.values > MAX_VALUES:
        raise InvalidWork("template", f"holds more than {MAX_VALUES} values")


def _check_document(document: Manifest, allowed: AbstractSet[tuple[str, str]], path: str) -> None:
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if kind == "Secret":
        raise InvalidWork(
            f"{path}.kind",
            "a Secret is never sent through Brokkr; create it in the cluster and name it here",
        )
    # Compared one by one: what was sent may be a list, which no set can look up.
    if not any((api_version, kind) == each for each in allowed):
        kinds = ", ".join(sorted(f"{k} ({v})" for v, k in allowed))
        raise InvalidWork(
            f"{path}.kind",
            f"{reprlib.repr(kind)} ({reprlib.repr(api_version)}) is not allowed here; "
            f"allowed: {kinds}",
        )
    metadata = document.get("metadata", {})
    if not isinstance(metadata, Mapping):
        raise InvalidWork(f"{path}.metadata", "must be an object")
    if not isinstance(document.get("spec", {}), Mapping):
        raise InvalidWork(f"{path}.spec", "must be an object")
    for refused in _REFUSED_METADATA:
        # An attempt names its own BuildRun, so a pattern may well carry generateName.
        if refused in metadata and not (refused == "generateName" and kind == "BuildRun"):
            raise InvalidWork(f"{path}.metadata.{refused}", "must not be given: the agent sets it")
    _check_name(metadata.get("name"), path)


def _check_strings(document: Manifest, path: str) -> None:
    for where, value in _strings(document, path):
        shape = find_credential(value)
        if shape is not None:
            raise InvalidWork(where, carried(shape.name))
        if _PASSWORD_FOR_SSH.fullmatch(value):
            raise InvalidWork(where, carried("password before a host"))
        if _NOT_TEXT.search(value):
            raise InvalidWork(where, "contains a NUL character or half a surrogate pair")


def _check_values(document: Manifest, path: str) -> None:
    """Refuse what a Build or BuildRun sets that is secret by its name; see the note above."""
    spec = document.get("spec") or {}
    for field in ("env", "paramValues"):
        for index, entry in enumerate(spec.get(field) or ()):
            for name, value in _values_of(entry):
                if isinstance(name, str) and isinstance(value, str) and is_secret(name, value):
                    raise InvalidWork(f"{path}.spec.{field}[{index}]", carried("secret value"))


def _values_of(entry: Manifest) -> Iterator[tuple[object, object]]:
    """Return the names that an entry gives to values: its own, and those of build arguments."""
    name, value = entry.get("name"), entry.get("value")
    yield name, value
    for each in (value, *(item.get("value") for item in entry.get("values") or ())):
        if isinstance(each, str) and "=" in each:
            inner, _, given = each.partition("=")
            yield inner, given


def _check_names(paths: list[tuple[str, Manifest]]) -> None:
    """Refuse two objects of one kind and name: the second would not be made, or be the first."""
    seen: dict[object, str] = {}
    for path, document in paths:
        name = document.get("metadata", {}).get("name")
        if name is None:
            continue
        group = str(document["apiVersion"]).rpartition("/")[0]
        first = seen.setdefault((group, document["kind"], name), path)
        if first != path:
            raise InvalidWork(
                f"{path}.metadata.name",
                f"{first} is a {document['kind']} named {name!r} already",
            )


def _check_name(name: object, path: str) -> None:
    if name is not None and not (isinstance(name, str) and len(name) <= 63 and is_dns_name(name)):
        raise InvalidWork(
            f"{path}.metadata.name",
            f"{reprlib.repr(name)} is not a Kubernetes name of at most 63 characters",
        )


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Walk all strings, keys included, with the path to each."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str):
                raise InvalidWork(path, f"has a key that is not a string: {key!r}")
            yield path, key
            yield from _strings(each, f"{path}.{key}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _strings(each, f"{path}[{index}]")

"""
JSON and YAML from outside, as plain objects, without the ways to exhaust the reader.

``yaml.safe_load`` is safe against code, not against size: a few hundred bytes of
aliases or merge keys cost seconds or gigabytes.  So the event stream is looked through
first, which costs nothing that grows, and aliases, depth and number are refused there.

Both are UTF-8 and nothing else, and no object says the same key twice: of two readers
one would take the first and one the last.
"""

import json
import math
import re
from typing import Any

import yaml

from brokkr.work.errors import InvalidWork, MalformedBody
from brokkr.work.model import Manifest

MAX_DEPTH = 64
MAX_YAML_VALUES = 10_000
"""Reading one costs some microseconds, ten times what it does in JSON."""


def parse_json(text: str | bytes) -> Any:
    """
    Parse JSON.

    Raises:
        MalformedBody: It is not JSON, or nested too deep to be meant seriously.
    """
    try:
        return json.loads(
            _decoded(text), parse_constant=_refuse_constant, object_pairs_hook=_json_object_of
        )
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"not valid JSON: {error}") from error


def parse_yaml(text: str | bytes) -> list[Any]:
    """
    Parse YAML of any number of documents; empty ones are dropped.

    Raises:
        MalformedBody: It is not YAML, uses aliases, or is nested too deep.
    """
    try:
        text = _decoded(text)
        _look_through(text)
        return [each for each in yaml.load_all(text, Loader=_Loader) if each is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MalformedBody(f"not valid YAML: {_one_line(error)}") from error


def template_of(documents: list[Any]) -> Manifest:
    """
    Make one template of the documents of a file: the one, or a ``List`` of them.

    Raises:
        InvalidWork: There are none, or one is not an object.
    """
    if not documents:
        raise InvalidWork("template", "is empty")
    if not all(isinstance(each, dict) for each in documents):
        raise InvalidWork("template", "each document must be an object")
    if len(documents) == 1:
        return dict(documents[0])
    return {"apiVersion": "v1", "kind": "List", "items": documents}


class _Loader(yaml.CSafeLoader):
    """Loads only what JSON has too: times stay strings, sets and binaries are refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make an object; its keys are strings, as in JSON, and each is there once."""
        return _object_of(
            [
                (self.construct_object(key, deep=True), self.construct_object(value, deep=deep))
                for key, value in node.value
            ]
        )


def _without_base_60(construct: Any) -> Any:
    """Read numbers as Kubernetes does, to which 22:22 is none; to read it costs n²."""

    def construct_number(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> float:
        if ":" in node.value:
            _refuse_constant(node.value)
        value: float = construct(loader, node)
        if isinstance(value, float) and not math.isfinite(value):
            _refuse_constant(node.value)
        return value

    return construct_number


_JSON_TYPES = ("null", "bool", "str", "seq", "map")
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.CSafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _JSON_TYPES
} | {
    "tag:yaml.org,2002:int": _without_base_60(yaml.CSafeLoader.construct_yaml_int),
    "tag:yaml.org,2002:float": _without_base_60(yaml.CSafeLoader.construct_yaml_float),
}

_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_NUMBERS = {"tag:yaml.org,2002:int": _INT, "tag:yaml.org,2002:float": _FLOAT}
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, _NUMBERS.get(tag, regexp))
        for tag, regexp in resolvers
        if tag != "tag:yaml.org,2002:timestamp"
    ]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _json_object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        _refuse_keys([key for key, _ in pairs])
    return made


def _object_of(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    made = {key: value for key, value in pairs if isinstance(key, str)}
    if len(made) < len(pairs):
        _refuse_keys([key for key, _ in pairs])
    return made


def _refuse_keys(keys: list[Any]) -> None:
    seen = set()
    for key in keys:
        if not isinstance(key, str):
            raise ValueError("a key is not a string; quote it")  # noqa: TRY004  (it is content)
        if key in seen:
            raise ValueError(f"the key {key[:100]!r} is there twice in one object")
        seen.add(key)


def _decoded(text: str | bytes) -> str:
    if isinstance(text, bytes):
        text = text.decode()
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark; send UTF-8 without one")
    return text


def _look_through(text: str) -> None:
    depth = values = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise MalformedBody(
                f"YAML aliases (*{event.anchor}) are not accepted; write the value out"
            )
        if isinstance(event, yaml.NodeEvent | yaml.DocumentStartEvent):
            values += 1
            if values > MAX_YAML_VALUES:
                raise MalformedBody(f"holds more than {MAX_YAML_VALUES} values")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedBody(f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name[:100]} is not a JSON number")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

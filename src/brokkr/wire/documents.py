"""
JSON and YAML from outside, as plain objects, without the ways to exhaust the reader.

``yaml.safe_load`` is safe against code, not against size: a few hundred bytes of
aliases or merge keys cost seconds or gigabytes.  So the event stream is looked through
first, which costs nothing that grows, and aliases and depth are refused there.
"""

import json
import math
from typing import Any

import yaml

from brokkr.work.errors import InvalidWork, MalformedBody
from brokkr.work.model import Manifest

MAX_DEPTH = 64


def parse_json(text: str | bytes) -> Any:
    """
    Parse JSON.

    Raises:
        MalformedBody: It is not JSON, or nested too deep to be meant seriously.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"not valid JSON: {error}") from error


def parse_yaml(text: str | bytes) -> list[Any]:
    """
    Parse YAML of any number of documents; empty ones are dropped.

    Raises:
        MalformedBody: It is not YAML, uses aliases, or is nested too deep.
    """
    try:
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


def _finite(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> float:
    value = loader.construct_yaml_float(node)
    if not math.isfinite(value):
        _refuse_constant(node.value)
    return value


_JSON_TYPES = ("null", "bool", "int", "str", "seq", "map")
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.CSafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _JSON_TYPES
} | {"tag:yaml.org,2002:float": _finite}

_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _look_through(text: str | bytes) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise MalformedBody(
                f"YAML aliases (*{event.anchor}) are not accepted; write the value out"
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedBody(f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

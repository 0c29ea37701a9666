"""
Shipwright's own resource definitions as the judge of what local mode's take.

``tests/data/shipwright/verdicts.json`` has inputs made of Shipwright's definitions, and what
these say of each.  Make it anew when there is a newer Shipwright::

    PYTHONPATH=tests python tests/support/definitions.py FOLDER

FOLDER has Shipwright's definitions, as its releases bring them (``shipwright.io_builds.yaml`` and
``shipwright.io_buildruns.yaml``).  The table holds no text of theirs: field names and types only.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

VERDICTS: Final = Path(__file__).parents[1] / "data" / "shipwright" / "verdicts.json"
FILES: Final = {"Build": "shipwright.io_builds.yaml", "BuildRun": "shipwright.io_buildruns.yaml"}

Json = dict[str, Any]

_BESIDE: Final[dict[str, list[Any]]] = {
    "string": ["", 1],
    "integer": [-1, "1", True],
    "boolean": ["true"],
    "array": [[], {}],
    "object": [[]],
}

# What Go's durations and Kubernetes' validator of the format "duration" both take or refuse.
_DURATION = re.compile(r"-?(\d+(\.\d+)?(ns|us|ms|s|m|h))+")


def schema_of(kind: str, folder: Path) -> Json:
    """Read the schema of a spec."""
    definition = yaml.safe_load((folder / FILES[kind]).read_text())
    (version,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1beta1"]
    schema: Json = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def without_words(schema: Any) -> Any:
    """Leave out of a schema what decides nothing about an input: descriptions, defaults, order."""
    if isinstance(schema, list):
        return [without_words(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        k: v
        for k, v in schema.items()
        if k not in ("description", "default", "pattern", "nullable")
    }
    # How an apply merges, and no matter to what is refused.
    for key, value in (("x-kubernetes-map-type", "atomic"), ("x-kubernetes-list-type", "atomic")):
        if kept.get(key) == value:
            del kept[key]
    if "required" in kept:
        kept["required"] = sorted(kept["required"])
    if "properties" in kept:
        kept["properties"] = {k: without_words(v) for k, v in sorted(kept["properties"].items())}
    return {k: v if k == "properties" else without_words(v) for k, v in sorted(kept.items())}


def accepts(schema: Json, value: Any) -> bool:
    """Say whether an API server takes a value under this schema, if it takes no unknown field."""
    if schema.get("x-kubernetes-int-or-string"):
        is_one = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
        return is_one and bool(re.search(str(schema["pattern"]), str(value)))
    match schema["type"]:
        case "string":
            if not isinstance(value, str) or value not in schema.get("enum", [value]):
                return False
            is_duration = schema.get("format") == "duration"
            return not is_duration or _DURATION.fullmatch(value) is not None
        case "integer":
            if not isinstance(value, int) or isinstance(value, bool):
                return False
            return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return _accepts_list(schema, value)
        case "object":
            return _accepts_object(schema, value)
    raise AssertionError(schema)


def _accepts_list(schema: Json, value: Any) -> bool:
    if not isinstance(value, list) or len(value) < schema.get("minItems", 0):
        return False
    if not all(accepts(schema["items"], each) for each in value):
        return False
    keys = schema.get("x-kubernetes-list-map-keys")
    return not keys or len({tuple(each[k] for k in keys) for each in value}) == len(value)


def _accepts_object(schema: Json, value: Any) -> bool:
    if not isinstance(value, dict) or not set(schema.get("required", [])) <= value.keys():
        return False
    if "additionalProperties" in schema:
        return all(accepts(schema["additionalProperties"], each) for each in value.values())
    known = schema.get("properties", {})
    return all(name in known and accepts(known[name], each) for name, each in value.items())


def example(schema: Json) -> Any:
    """Make the smallest value that a schema takes, and that has something in it."""
    if schema.get("x-kubernetes-int-or-string"):
        return "1Gi"
    match schema["type"]:
        case "string":
            return schema.get("enum", ["10m" if schema.get("format") == "duration" else "a"])[0]
        case "integer":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return [example(schema["items"])]
        case "object":
            if "additionalProperties" in schema:
                return {"a": example(schema["additionalProperties"])}
            required = schema.get("required", [])
            return {name: example(schema["properties"][name]) for name in required}
    raise AssertionError(schema)


def inputs(schema: Json) -> Iterator[Any]:
    """Make values for all fields of a schema: one that is right for each, and some that are not."""
    whole = example(schema)
    yield whole
    yield from _beside(schema)
    if "type" not in schema:
        return
    if schema["type"] == "array" and schema.get("x-kubernetes-list-map-keys"):
        yield whole * 2
    if schema["type"] == "object" and "additionalProperties" not in schema:
        for name in schema.get("required", []):
            yield {k: v for k, v in whole.items() if k != name}
        for name, inner in schema.get("properties", {}).items():
            for each in inputs(inner):
                yield {**whole, name: each}
        yield {**whole, "unknownField": "a"}
    if schema["type"] == "array":
        yield from ([each] for each in inputs(schema["items"]))


def _beside(schema: Json) -> Iterator[Any]:
    """Make values that are nearly right."""
    if "type" not in schema:
        yield from (2, "500m", "1.5e3", "-1", "a lot", "", 1.5, True, [])
        return
    match schema:
        case {"format": "duration"}:
            yield from ("1h30m", "0s", "10x", "", 10)
        case {"enum": [_, *more]}:
            yield from (*more, "other", 1)
        case {"minimum": least, "maximum": most}:
            yield from (most, least - 1, most + 1, "1")
        case _:
            yield from _BESIDE[schema["type"]]
            yield from [{"a": [1]}] if "additionalProperties" in schema else []


def main(folder: Path) -> None:
    """Write the table."""
    table: dict[str, dict[str, list[Any]]] = {}
    for kind in FILES:
        schema = schema_of(kind, folder)
        if kind == "BuildRun":
            # The embedded Build is the Build's own again.
            schema["properties"]["build"]["properties"].pop("spec")
            schema["properties"].pop("volumes")
        seen = {json.dumps(each, sort_keys=True): each for each in inputs(schema)}
        verdicts: dict[bool, list[Any]] = {True: [], False: []}
        for each in seen.values():
            verdicts[accepts(schema, each)].append(each)
        table[kind] = {"accepted": verdicts[True], "refused": verdicts[False]}
    VERDICTS.parent.mkdir(exist_ok=True)
    lines = [
        f' "{kind}": {{\n'
        + ",\n".join(
            f'  "{verdict}": [\n' + ",\n".join(f"   {json.dumps(each)}" for each in cases) + "\n  ]"
            for verdict, cases in verdicts.items()
        )
        + "\n }"
        for kind, verdicts in table.items()
    ]
    VERDICTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""
The Work resource in print is its definition.

``python tests/architecture/test_work_resource_reference.py`` writes it anew.
"""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from brokkr.wire import custom_resource

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "work-resource.md"

HEAD = """\
# The Work resource

One unit of work in the cluster of the agent that claimed it: `{kind}`, `{api_version}`. The agent
makes it, keeps in it what it knows, and deletes it when the broker has acknowledged the result and
its retention is over. People read it (`kubectl get works`, `kubectl describe work NAME`) and submit
Work at the broker instead of here: a Work resource whose claim the broker does not confirm is not
run.

`brokkr agent crd` prints the definition. [The phases](../explanation/states.md#in-the-cluster) are
explained elsewhere.

## Columns of `kubectl get works`

| column | field | |
|---|---|---|
"""


def the_definition() -> dict[str, Any]:
    text = files("brokkr.agent.kube").joinpath("crd.yaml").read_text()
    definition: dict[str, Any] = yaml.safe_load(text)
    return definition["spec"]  # type: ignore[no-any-return]


def render() -> str:
    spec = the_definition()
    (version,) = spec["versions"]
    head = HEAD.format(kind=spec["names"]["kind"], api_version=f"{spec['group']}/{version['name']}")
    columns = "".join(
        f"| {column['name']} | `{column['jsonPath'].removeprefix('.')}` "
        f"| {'only with `-o wide`' if column.get('priority') else ''} |\n"
        for column in version["additionalPrinterColumns"]
    )
    fields = version["schema"]["openAPIV3Schema"]["properties"]
    sections = "".join(
        f"\n## {name}\n\n| field | type | |\n|---|---|---|\n{''.join(the_rows(schema, name))}"
        for name, schema in fields.items()
    )
    return f"{head}{columns}{sections}{the_marks()}"


def the_rows(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        required = ", required" if name in schema.get("required", ()) else ""
        inner = field.get("items", field)
        here = f"{path}.{name}" + ("[]" if "items" in field else "")
        yield f"| `{here}` | {the_type(field)}{required} | {field.get('description', '')} |\n"
        yield from the_rows(inner, here)


def the_type(field: Mapping[str, Any]) -> str:
    kind = "time" if field.get("format") == "date-time" else str(field["type"])
    if values := field.get("enum"):
        return " or ".join(f"`{value}`" for value in values)
    match field.get("minimum"), field.get("maximum"):
        case None, None:
            return kind
        case low, None:
            return f"{kind}, from {low}"
        case low, high:
            return f"{kind}, {low} to {high}"


def the_marks() -> str:
    """Return which labels and annotations the broker's answer to a claim brings."""
    marks = {
        kind: sorted(
            value
            for name, value in vars(custom_resource).items()
            if name.startswith(prefix) and isinstance(value, str)
        )
        for kind, prefix in (("label", "LABEL_"), ("annotation", "ANNOTATION_"))
    }
    rows = "".join(
        f"| `{value}` | {kind} |\n" for kind, values in marks.items() for value in values
    )
    return f"\n## Labels and annotations\n\n| name | |\n|---|---|\n{rows}"


def test_the_work_resource_in_print_is_its_definition() -> None:
    assert REFERENCE.read_text() == render(), f"run: python {__file__}"


if __name__ == "__main__":
    REFERENCE.write_text(render())

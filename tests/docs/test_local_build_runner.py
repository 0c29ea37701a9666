"""The page on the local build runner names each field that a Build and a BuildRun have."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokkr.work.shapes import Fields, Shape
from brokkr.work.shipwright import BUILD_RUN_SPEC, BUILD_SPEC

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "local-build-runner.md"
ROW = re.compile(r"^\| `([\w.]+)` \| (done|refused|noted) \|", re.MULTILINE)


def paths(shape: Shape, path: str = "") -> Iterator[str]:
    """Name the fields of an object, and of the objects in it; what is in lists is one of them."""
    if isinstance(shape, Fields):
        for name, each in shape.known.items():
            yield from paths(each, f"{path}.{name}" if path else name)
    else:
        yield path


@pytest.mark.parametrize(
    ("section", "shape"), [("Build", BUILD_SPEC), ("BuildRun", BUILD_RUN_SPEC)]
)
def test_each_field_has_its_row_and_each_row_its_field(section: str, shape: Fields) -> None:
    text = PAGE.read_text()
    (_, body) = text.split(f"\n## {section}\n")
    rows = [name for name, _ in ROW.findall(body.split("\n## ")[0])]
    fields = set(paths(shape))
    if section == "BuildRun":
        same = set(paths(BUILD_SPEC))
        fields = {each for each in fields if each not in same}
        fields = {"build.spec" if each.startswith("build.spec.") else each for each in fields}
        fields = {"source" if each.startswith("source.") else each for each in fields} | {"source"}
    else:
        fields |= {"source"}

    assert len(rows) == len(set(rows))
    assert set(rows) == fields

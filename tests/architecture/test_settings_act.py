"""
Every setting does something: a test shows what, and says so by the marker ``setting``.

The marker is read from the source, so that what needs servers counts without them.  A test
that has it has to give the setting a value: the setting's key stands in the test's file beside
the marker, in the ``conftest.py`` beside that, or in what the file takes from `tests/support`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from brokkr.cli.settings import Settings

TESTS = Path(__file__).parents[1]
SOURCES = sorted(TESTS.rglob("test_*.py"))


def the_settings(model: type[BaseModel], section: str = "") -> Iterator[str]:
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from the_settings(field.annotation, f"{section}{key}.")
        else:
            yield f"{section}{key}"


def markers_in(path: Path) -> list[ast.Call]:
    return [
        decorator
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.setting"
    ]


def named_by(marker: ast.Call) -> list[str]:
    texts = [node for each in marker.args for node in ast.walk(each)]
    return [str(each.value) for each in texts if isinstance(each, ast.Constant)]


MARKERS = {path: found for path in SOURCES if (found := markers_in(path))}
NAMED = {
    path: [name for each in found for name in named_by(each)] for path, found in MARKERS.items()
}


def test_every_setting_is_seen_to_act_by_a_test() -> None:
    shown = {name for names in NAMED.values() for name in names}

    assert sorted(shown) == sorted(the_settings(Settings))


def test_a_test_that_shows_what_a_setting_does_gives_it_a_value() -> None:
    never_given = [
        f"{path.relative_to(TESTS)}: {name}"
        for path, names in NAMED.items()
        for name in names
        if name.rpartition(".")[2] not in where_it_could_be(path).lower()
    ]

    assert never_given == []


def where_it_could_be(path: Path) -> str:
    """Return the text of a file without its markers, and of what it is given its values by."""
    lines = path.read_text().splitlines()
    for marker in MARKERS[path]:
        lines[marker.lineno - 1 : marker.end_lineno] = [""] * (
            (marker.end_lineno or marker.lineno) - marker.lineno + 1
        )
    imported = {
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("support.")
    }
    beside = [path.with_name("conftest.py")] if path.with_name("conftest.py").exists() else []
    files = [*beside, *(TESTS / f"{each.replace('.', '/')}.py" for each in imported if each)]
    return "\n".join([*lines, *(each.read_text() for each in files)])

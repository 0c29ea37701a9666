"""One concept, one word: names that say nothing, or say another thing, are not used."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ROOT / "src" / "brokkr"

SAY_NOTHING = {"base", "common", "core", "helpers", "manager", "misc", "services", "util", "utils"}

SYNONYMS = {
    "ack": "acknowledge or complete",
    "dequeue": "claim",
    "enqueue": "submit",
    "helper": "the name of what it does",
    "job": "Work",
    "manager": "the name of what it does",
    "reap": "release",
    "task": "Work",
    "try": "attempt",
    "util": "the name of what it does",
    "zombie": "stale",
}
"""What is not said, and what is said instead."""

# Local mode runs and stands in for programs that have words of their own: TaskRuns, a
# controller manager, the job of building one image.
SPEAKS_FOR_OTHERS = CODE / "local"


def names_in(path: Path) -> Iterator[str]:
    """Yield what the module defines: classes, functions, and the fields of classes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                    yield each.target.id


def words_of(name: str) -> list[str]:
    return re.findall(r"[a-z]+|[A-Z][a-z]*", name.replace("_", " "))


def test_no_file_has_a_name_that_says_nothing() -> None:
    paths = [*CODE.rglob("*"), *(ROOT / "tests").rglob("*.py")]

    assert [path for path in paths if path.stem in SAY_NOTHING] == []


def test_what_is_defined_is_called_by_the_project_s_words() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}; say {SYNONYMS[word.lower()]}"
        for path in sorted(CODE.rglob("*.py"))
        if not path.is_relative_to(SPEAKS_FOR_OTHERS)
        for name in names_in(path)
        for word in words_of(name)
        if word.lower() in SYNONYMS
    ]

    assert wrong == []


def test_no_package_s_name_returns_in_its_modules() -> None:
    modules = sorted(CODE.rglob("*.py"))

    assert [path for path in modules if path.stem.startswith(f"{path.parent.name}_")] == []

"""Each requirement names tests that exist, and the guide the versions that the agent asks for."""

import ast
import re
from pathlib import Path

import pytest

from brokkr.agent.handlers.build.handler import BuildHandler

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "requirements.md"
GUIDE = ROOT / "docs" / "how-to" / "install-shipwright-and-tekton.md"
EXPECTED = [f"REQ-{n:03}" for n in range(1, 9)] + [f"NFR-{n:03}" for n in range(1, 7)]

ROW = re.compile(r"^\| ((?:REQ|NFR)-\d+) \|(.*)\|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
ROWS = dict(ROW.findall(PAGE.read_text()))


def test_all_requirements_are_there() -> None:
    assert list(ROWS) == EXPECTED


@pytest.mark.parametrize("requirement", EXPECTED)
def test_a_requirement_names_tests_that_exist(requirement: str) -> None:
    named = TEST.findall(ROWS[requirement])
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or (name and name not in the_tests_in(ROOT / file))
    ]

    assert named
    assert missing == []


def the_tests_in(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_guide_names_the_oldest_versions_that_the_agent_accepts() -> None:
    guide = GUIDE.read_text()
    asked = {
        version
        for each in BuildHandler.prerequisites
        for version in re.findall(r"v\d+\.\d+(?:\.\d+)?", each.cure)
    }

    assert asked == {"v0.17.0", "v0.59.0"}
    assert all(f"**{version.removesuffix('.0')}" in guide for version in asked)

"""One statement, one file, and somebody who runs it with the parameters it names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokkr.broker.db.statements import parse, statement

BROKER = Path(__file__).parents[2] / "src" / "brokkr" / "broker"
DB = BROKER / "db"
QUERIES = sorted(path.stem for path in (DB / "queries").glob("*.sql"))
RUNNERS = {"fetch_all", "fetch_one", "fetch_value"}
QUOTED = re.compile(r"'[^']*'")


def the_calls() -> Iterator[tuple[str, set[str]]]:
    """Yield the name of each statement that is run, and the parameters it is given."""
    for path in sorted(BROKER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in RUNNERS
            ):
                name = node.args[1]
                assert isinstance(name, ast.Constant), f"{path}: names its statement elsewhere"
                yield str(name.value), {str(each.arg) for each in node.keywords}


def test_every_statement_that_is_run_has_its_file_and_every_file_is_run() -> None:
    assert sorted({name for name, _ in the_calls()}) == QUERIES


def test_every_call_gives_the_parameters_that_the_statement_names() -> None:
    wrong = [
        (name, given) for name, given in the_calls() if given != set(statement(name).parameters)
    ]

    assert wrong == []


@pytest.mark.parametrize("name", QUERIES)
def test_a_file_holds_one_statement_and_says_why(name: str) -> None:
    text = (DB / "queries" / f"{name}.sql").read_text()

    assert text.startswith("-- ")
    assert ";" not in QUOTED.sub("", parse(text).sql)

"""A log line's event is a constant, so that it can be searched for; what varies is a field."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

CODE = Path(__file__).parents[2] / "src" / "brokkr"
LOGGERS = {"log", "_log"}
LEVELS = {"debug", "info", "warning", "error", "exception"}
EVENT = re.compile(r"[a-z][a-zA-Z ]+")


def the_calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield each call that logs, with its place."""
    for path in sorted(CODE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _logs(node.func):
                yield f"{path.relative_to(CODE)}:{node.lineno}", node


def _logs(method: ast.expr) -> bool:
    match method:
        case ast.Attribute(value=ast.Name(id=name), attr=level):
            return name in LOGGERS and level in LEVELS
        case ast.IfExp(body=one, orelse=other):  # at a level that depends
            return _logs(one) and _logs(other)
    return False


def is_constant(event: ast.expr) -> bool:
    return (
        isinstance(event, ast.Constant)
        and isinstance(event.value, str)
        and EVENT.fullmatch(event.value) is not None
    )


def test_every_event_is_a_constant_of_plain_words() -> None:
    calls = list(the_calls())
    wrong = [place for place, call in calls if len(call.args) != 1 or not is_constant(call.args[0])]

    assert len(calls) > 30
    assert wrong == []

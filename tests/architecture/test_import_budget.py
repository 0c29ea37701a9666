"""
What each command and process imports has a budget.

Imports are what a command costs before it does anything.  Modules are counted, and not
seconds, so that a busy machine changes nothing; `benchmarks/start_up.py` says what they cost:
some 1.5 ms each.
"""

import subprocess
import sys

import pytest

AGENT = {"brokkr.agent"}
SERVER = {"asyncpg", "fastapi", "starlette", "uvicorn"}
BROKER = {"brokkr.broker"} | SERVER
COMMANDS = {"brokkr.cli", "brokkr.local", "typer"}
EXPORT = {"brokkr.otlp"}
"""Of who exports spans, alone."""
HEAVY = {"aiohttp", "orjson", "pydantic", "yaml"}

BUDGETS = {
    "brokkr.cli.main": (130, AGENT | BROKER | EXPORT | HEAVY),
    "brokkr.cli.work": (450, {"brokkr.agent.app", "brokkr.broker.app"} | SERVER | EXPORT),
    "brokkr.broker.app": (720, {"aiohttp"} | AGENT | COMMANDS | EXPORT),
    "brokkr.agent.app": (600, BROKER | COMMANDS | EXPORT),
}
"""By entry: how many modules it may bring, and what none of them may be or belong to."""


@pytest.mark.parametrize("entry", BUDGETS)
def test_an_entry_imports_what_it_may_and_nothing_of_the_others(entry: str) -> None:
    most, foreign = BUDGETS[entry]
    code = (
        "import sys; before = set(sys.modules);"
        f"import {entry};"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.split()

    assert entry in modules
    assert not [
        each for each in modules if any(f"{each}.".startswith(f"{name}.") for name in foreign)
    ]
    assert len(modules) <= most

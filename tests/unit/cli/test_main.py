"""The tree of commands."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from brokkr import __version__
from brokkr.cli.main import NOUNS, tree


def test_help_names_every_noun_and_every_exit_code() -> None:
    shown = CliRunner().invoke(tree(None), ["--help"]).output

    assert [noun for noun in NOUNS if noun not in shown] == []
    assert [
        code for code in ("0", "1", "2", "3", "4", "5", "130") if f"\n    {code} " not in shown
    ] == []


@pytest.mark.parametrize(
    ("noun", "commands"),
    [
        ("broker", ["serve", "migrate", "create-admin-key"]),
        ("agent", ["run", "create", "list", "label", "crd"]),
        ("work", ["submit", "list", "get", "cancel"]),
        ("local", ["up"]),
    ],
)
def test_each_noun_has_its_commands(noun: str, commands: list[str]) -> None:
    shown = CliRunner().invoke(tree(noun), [noun, "--help"])

    assert shown.exit_code == 0
    assert [each for each in commands if f"\n  {each} " not in shown.output] == []


def test_the_version_is_printed_alone() -> None:
    assert CliRunner().invoke(tree(None), ["--version"]).output == f"{__version__}\n"


def test_an_unknown_noun_is_a_usage_error() -> None:
    assert CliRunner().invoke(tree("wrok"), ["wrok"]).exit_code == 2


def test_help_loads_no_heavy_library() -> None:
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from brokkr.cli.main import tree\n"
        "CliRunner().invoke(tree(None), ['--help'])\n"
        "print([m for m in ('pydantic', 'aiohttp', 'fastapi', 'asyncpg') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"

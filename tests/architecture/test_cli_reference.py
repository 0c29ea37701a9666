"""
The command line in print is the command line.

``python tests/architecture/test_cli_reference.py`` writes it anew.
"""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer.main

from brokkr.cli.main import EXIT_CODES, NOUNS, tree

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"

HEAD = """\
# The command line

`brokkr NOUN VERB`. Each command says the same with `--help`, and `brokkr --version` prints the
version. Answers go to standard output, everything else to standard error.

"""

# What typer calls commands and parameters are click's, and not part of what it publishes.
Command = Any

KINDS = {str: "TEXT", int: "N", float: "N", Path: "PATH", list[Path]: "PATH"}


def render() -> str:
    codes = "".join(
        f"| {code} | {meaning} |\n" for code, meaning in re.findall(r"  (\d+) +(.+)", EXIT_CODES)
    )
    nouns = "".join("\n" + the_noun(name) for name in NOUNS)
    return f"{HEAD}| exit code | |\n|---|---|\n{codes}{nouns}"


def the_noun(name: str) -> str:
    root: Command = typer.main.get_command(tree(name))
    branch = root.commands[name]
    commands = "".join("\n" + the_command(name, each) for each in branch.commands.values())
    return f"## brokkr {name}\n\n{text(branch.help)}\n{commands}"


def the_command(noun: str, command: Command) -> str:
    usage = " ".join([f"brokkr {noun} {command.name}", *the_usage(command)])
    rows = "".join(the_rows(command))
    table = f"\n| | default | |\n|---|---|---|\n{rows}" if rows else ""
    return f"### {noun} {command.name}\n\n```text\n{usage}\n```\n\n{text(command.help)}\n{table}"


def the_usage(command: Command) -> Iterator[str]:
    if any(each.param_type_name == "option" for each in command.params):
        yield "[OPTIONS]"
    for each in command.params:
        if each.param_type_name == "argument":
            name = the_metavar(each) + ("..." if each.nargs == -1 else "")
            yield name if each.required else f"[{name}]"


def the_rows(command: Command) -> Iterator[str]:
    for each in command.params:
        names = ", ".join(f"`{name}`" for name in each.opts)
        if each.param_type_name == "argument":
            names = the_metavar(each).replace("|", "\\|")
        elif not is_a_switch(each):
            names += f" {the_metavar(each)}"
        yield f"| {names} | {the_default(each)} | {text(each.help)}{the_variable(each)} |\n"


def the_metavar(parameter: Command) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    kind = parameter.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "\\|".join(str(each.value) for each in kind)
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    return KINDS[kind]


def is_a_switch(parameter: Command) -> bool:
    return bool(parameter.type_descriptor.annotation is bool)


def the_default(parameter: Command) -> str:
    default = getattr(parameter.default, "value", parameter.default)
    silent = default in (None, False, "", []) or parameter.required
    return "" if silent or not isinstance(default, str | int | Path) else f"`{default}`"


def the_variable(parameter: Command) -> str:
    return f" Environment: `{parameter.envvar}`." if getattr(parameter, "envvar", None) else ""


def text(words: str | None) -> str:
    """Return one line for each paragraph."""
    paragraphs = re.split(r"\n\s*\n", (words or "").strip())
    return "\n\n".join(" ".join(each.split()) for each in paragraphs)


def test_the_command_line_in_print_is_what_there_is() -> None:
    assert REFERENCE.read_text() == render(), f"run: python {__file__}"


def test_every_option_says_what_it_is_for() -> None:
    assert [row for row in render().splitlines() if row.endswith("|  |")] == []


if __name__ == "__main__":
    REFERENCE.write_text(render())

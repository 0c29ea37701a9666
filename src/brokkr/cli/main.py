"""
The command tree, and nothing else.

Only the noun that was asked for is imported: ``brokkr --help`` needs none of them.
"""

import sys
from importlib import import_module
from typing import Annotated, Final

import typer

from brokkr import __version__

NOUNS: Final = {
    "broker": "Run the broker, and what its database needs.",
    "agent": "Run an agent; register agents, label them, drain them.",
    "work": "Submit Work, follow it, explain it, cancel it.",
    "generator": "Create tenants and limit what they submit.",
    "key": "Make, list and revoke API keys.",
    "local": "Run the whole system on this machine.",
}

EXIT_CODES: Final = """
Exit codes:

\b
  0    done; with --follow: the Work succeeded
  1    the Work failed or was cancelled; the change came too late; a limit is reached
  2    the command, its input or the configuration is wrong
  3    the broker cannot be reached, or cannot answer
  4    the key is missing, unknown, or good for something else
  5    there is no such Work, agent, generator or key
  130  Ctrl-C
"""


def main() -> None:
    """Run the command that this process was started for."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    tree(words[0] if words else None)()


def tree(noun: str | None) -> typer.Typer:
    """Make the tree, with the commands of one noun; of the others only their names."""
    app = typer.Typer(
        name="brokkr",
        help="Submit one-off work once; exactly one agent in the right cluster runs it.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, text in NOUNS.items():
        if name == noun:
            branch = import_module(f"brokkr.cli.{name}").app
        else:
            branch = typer.Typer()
            branch.callback()(_nothing)
        app.add_typer(branch, name=name, help=text)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_print_version,
            help="Print the version and stop.",
        ),
    ] = False,
) -> None:
    """Take what stands before the noun."""


def _nothing() -> None:
    """Stand where commands would be."""

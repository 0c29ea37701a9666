"""
The command tree, and nothing else.

Only the noun that was asked for is imported: ``brokkr --help`` needs none of them.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, Final, TextIO, cast

import typer

from brokkr import __version__
from brokkr.log_output import STANDARD_ERROR, standard_error
from brokkr.work.redaction import redact

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
  6    the output cannot be written: the disk is full, for instance
  130  Ctrl-C
  141  whoever read the output has stopped reading
"""
_NOT_WRITTEN: Final = 6
_NOT_READ: Final = 141
"""What a shell says of a program that a closed pipe has ended."""


def main() -> None:
    """Run the command that this process was started for."""
    _hold_standard_files()
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    output = _Output(sys.stdout)
    sys.stdout = cast("TextIO", output)
    code: int | str | None = 0
    try:
        tree(words[0] if words else None)()
    except SystemExit as end:
        code = end.code
    except Exception as error:  # noqa: BLE001  (Python would print it, with what is in its text)
        if not (isinstance(error, OSError) and output.problem is not None):
            standard_error.write(redact(traceback.format_exc()))
            code = 1
    output.finish()
    sys.exit(code if output.problem is None else _code_of(output.problem))


class _Output:
    """
    Standard output, which remembers why it could not be written.

    Attributes:
        problem: The first error; None as long as all went well.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.problem: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        """Be the stream in all else."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, and remember an error."""
        with self._remembering():
            return self._stream.write(text)

    def flush(self) -> None:
        """Flush, and remember an error."""
        with self._remembering():
            self._stream.flush()

    def finish(self) -> None:
        """Write the rest, or forget it: the interpreter would complain about it at its end."""
        for stream in (self, sys.stderr):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problem = self.problem or error
            raise


def _hold_standard_files() -> None:
    """Put something where a standard file is closed, lest a file opened later stands for it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(STANDARD_ERROR, "w")


def _code_of(problem: OSError) -> int:
    if isinstance(problem, BrokenPipeError):
        return _NOT_READ
    standard_error.write(f"error: the output cannot be written: {problem.strerror or problem}\n")
    return _NOT_WRITTEN


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

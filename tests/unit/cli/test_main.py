"""The tree of commands."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from brokkr import __version__
from brokkr.cli.main import NOUNS, main, tree


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


def brokkr(command: str) -> tuple[int, str]:
    """Run a line of a shell in which `brokkr` is the command; return its code and complaints."""
    program = f'brokkr() {{ {sys.executable} -m brokkr "$@"; }}; set -o pipefail; {command}'
    done = subprocess.run(
        ["bash", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", ["--version", "agent crd", "--help"])
def test_output_that_nobody_reads_ends_the_command_quietly(words: str) -> None:
    assert brokkr(f"(sleep 0.1; brokkr {words}) | true") == (141, "")


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    assert brokkr("for each in 1 2 3 4; do brokkr agent crd; done | head -n 1") in [
        (0, ""),
        (141, ""),
    ]


@pytest.mark.parametrize("words", ["--version", "agent crd"])
def test_output_that_cannot_be_written_is_said(words: str) -> None:
    assert brokkr(f"brokkr {words} > /dev/full") == (
        6,
        "error: the output cannot be written: No space left on device\n",
    )


def test_complaints_that_cannot_be_written_change_no_exit_code() -> None:
    assert brokkr("BROKKR_URL=http://127.0.0.1:1 BROKKR_KEY=k brokkr work list 2> /dev/full") == (
        3,
        "",
    )


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_standard_file_that_is_closed_stops_nothing(closed: str) -> None:
    assert brokkr(f"brokkr agent rbac {closed}")[0] == 0


def test_an_exception_that_nobody_foresaw_is_printed_without_credentials(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def surprise() -> None:
        raise RuntimeError("cannot reach postgresql://brokkr:hunter2@db/brokkr")

    monkeypatch.setattr("brokkr.cli.main.tree", lambda _: surprise)
    monkeypatch.setattr("sys.argv", ["brokkr"])
    monkeypatch.setattr("sys.stdout", sys.stdout)

    with pytest.raises(SystemExit) as end:
        main()

    said = capfd.readouterr().err
    assert end.value.code == 1
    assert said.startswith("Traceback")
    assert said.endswith("RuntimeError: cannot reach postgresql://***@db/brokkr\n")

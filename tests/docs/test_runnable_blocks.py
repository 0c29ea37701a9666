"""
What the guides tell readers to run is run, and prints what they show.

In ``docs/tutorials`` and ``docs/how-to`` a block of shell is executed if its title is ``run``, or
``run and leave running``; a block with the title ``output`` after it is what it prints.  A
page's blocks share one shell.  A line ``...`` stands for any lines, and ``...`` within a line for
any words; ids, keys, digests, times and numbers of bytes may be others.

``brokkr local up`` is started once for all pages, as the first tutorial starts it.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from urllib.parse import quote

import pytest

from brokkr.broker.db.postgres_programs import find_programs

pytestmark = [
    pytest.mark.build,
    pytest.mark.kube,
    pytest.mark.postgres,
    pytest.mark.timeout(180),
]

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r'^```(?:sh|text) title="(run|run and leave running|output)"\n(.*?)^```$',
    re.DOTALL | re.MULTILINE,
)
LOCAL_UP = "brokkr local up\n"
END_OF_BLOCK = "\x1e"
USUAL = ("http://127.0.0.1:3000", "http://127.0.0.1:3080", "127.0.0.1:5000")

VARIES = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"brokkr_[a-z]{3}[a-z2-7]{10}_[\w-]{43}", "KEY"),
    (r"(admin|viewer):[a-z2-7]{10}", "PERSON"),
    (r"sha256:[0-9a-f]{64}", "DIGEST"),
    (r"\b[0-9a-f]{40}\b", "COMMIT"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| UTC)", "TIME"),
    (r"\b\d+\.\d+ s\b", "SECONDS"),
    (r"\b\d+m?s\b", "AGE"),
    (r"\d+ bytes", "BYTES"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"[ \t]+", " "),
]


@dataclass(frozen=True)
class Block:
    """One block to run, and what it prints if the page says so."""

    command: str
    stays: bool
    output: str | None


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    for title, text in BLOCK.findall(page.read_text()):
        if title == "output":
            found[-1] = Block(found[-1].command, found[-1].stays, text)
        else:
            found.append(Block(text, title != "run", None))
    return found


# The first tutorial comes first: what it shows is a system that nobody has used.
FIRST = ROOT / "docs" / "tutorials" / "first-build-on-one-machine.md"
PAGES = {
    str(path.relative_to(ROOT / "docs")): blocks
    for folder in ("tutorials", "how-to")
    for path in sorted((ROOT / "docs" / folder).glob("*.md"), key=lambda path: path != FIRST)
    if (blocks := blocks_of(path))
}


def plain(text: str) -> list[str]:
    for pattern, name in VARIES:
        text = re.sub(pattern, name, text)
    return [line.strip() for line in text.strip().splitlines()]


def assert_printed(printed: str, expected: str) -> None:
    """Compare what was printed with what a page shows."""
    lines = (
        r"(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in plain(expected)
    )
    found = "".join(f"{line}\n" for line in plain(printed))
    assert re.fullmatch("".join(lines), found), f"printed:\n{found}\nexpected:\n{expected}"


@dataclass(frozen=True)
class Terminal:
    """Where blocks are run: a folder with the examples, and what was exported."""

    folder: Path
    environment: Mapping[str, str]
    addresses: Mapping[str, str]

    def at_hand(self, text: str) -> str:
        """Write the addresses of this run instead of the usual ones."""
        for usual, here in self.addresses.items():
            text = text.replace(usual, here)
        return text


@contextmanager
def left_running(command: str, folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Run a command in a session of its own for the length of the block; yield its log."""
    log = folder / "left-running.log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            ["env", "--default-signal=INT", "bash", "-c", f"exec {command}"],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield log
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    folder = tmp_path_factory.mktemp("guides")
    shutil.copytree(ROOT / "examples", folder / "examples")
    programs = folder / "bin"
    programs.mkdir()
    brokkr = programs / "brokkr"
    brokkr.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m brokkr "$@"\n')
    brokkr.chmod(0o755)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("BROKKR", "KUBE"))}
    path = f"{programs}:{find_programs()}:{Path(sys.executable).parent}:{inherited['PATH']}"
    environment = {**inherited, "PATH": path}

    (start,) = [each for each in blocks_of(FIRST) if each.command == LOCAL_UP]
    assert start.output
    with left_running(LOCAL_UP, folder, environment) as log:
        wait_for_line(log, start.output.splitlines()[-1])
        said = log.read_text()
        assert_printed(said, start.output)
        exported = dict(re.findall(r"^  export (\w+)=(\S+)$", said, re.MULTILINE))
        facts = dict(re.findall(r"^  (\w+) +(\S+)", said, re.MULTILINE))
        here = (facts["broker"], facts["git"], facts["registry"])
        database = str(Path(facts["logs"]).parent / "broker" / "postgres")
        exported["DATABASE_URL"] = f"postgresql://brokkr@/postgres?host={quote(database, safe='')}"
        terminal = Terminal(
            folder, {**environment, **exported}, dict(zip(USUAL, here, strict=True))
        )
        work = folder / "examples" / "hello-image" / "work.yaml"
        work.write_text(terminal.at_hand(work.read_text()))
        yield terminal


def wait_for_line(log: Path, line: str) -> None:
    (wanted,) = plain(line)
    end = monotonic() + 150
    while wanted not in plain(log.read_text()):
        assert monotonic() < end, log.read_text()
        subprocess.run(["sleep", "0.1"], check=True)


def the_script(blocks: list[Block], terminal: Terminal) -> str:
    """Put a page's blocks into one script, which marks where each one ends."""
    parts = ["exec 2>&1", "set -euo pipefail"]
    for number, block in enumerate(blocks):
        command = terminal.at_hand(block.command)
        if block.stays:
            log = f"left-{number}.log"
            lines = len((block.output or "").splitlines())
            command = (
                f": > {log}; {command.rstrip()} > {log} 2>&1 &\n"
                f'until [ "$(wc -l < {log})" -ge {lines} ]; do sleep 0.1; done\ncat {log}\n'
            )
        parts.append(f"{command}printf '{END_OF_BLOCK}'")
    return "\n".join(parts)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_tells_to_run_prints_what_it_shows(page: str, terminal: Terminal) -> None:
    blocks = [each for each in PAGES[page] if each.command != LOCAL_UP]
    if any("kubectl create token" in each.command for each in blocks) and not tokens_are_made():
        pytest.skip("there is no kubectl 1.24 or newer")

    with subprocess.Popen(
        ["bash", "-c", the_script(blocks, terminal)],
        cwd=terminal.folder,
        env=terminal.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        printed = ""
        while printed.count(END_OF_BLOCK) < len(blocks) and (more := process.stdout.read(1)):
            printed += more
        with suppress(ProcessLookupError):  # it is over, and so is all that it left running
            os.killpg(process.pid, signal.SIGTERM)

    assert printed.count(END_OF_BLOCK) == len(blocks), printed
    for block, text in zip(blocks, printed.split(END_OF_BLOCK), strict=False):
        if block.output is not None:
            assert_printed(text, block.output)


def tokens_are_made() -> bool:
    if shutil.which("kubectl") is None:
        return False
    asked = subprocess.run(
        ["kubectl", "create", "token", "--help"], capture_output=True, text=True, check=False
    )
    return "Request a service account token" in asked.stdout


def test_every_guide_that_is_a_tutorial_is_run() -> None:
    tutorials = {f"tutorials/{each.name}" for each in (ROOT / "docs" / "tutorials").glob("*.md")}

    assert sorted(tutorials - PAGES.keys()) == []

"""A long reason stands once, under a title; whoever cites the title finds it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("src", "tests")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".sql", ".sh", ".yaml"} and path != Path(__file__)
]

MENTIONED = re.compile(r"Note \[([^\]]+)\]")
WRITTEN = re.compile(r"^(?:#|--) Note \[([^\]]+)\]$", re.MULTILINE)


def notes_in(path: Path) -> list[str]:
    return WRITTEN.findall(path.read_text())


def test_every_note_that_is_cited_is_written_in_the_same_file() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {title}"
        for path in SOURCES
        for title in MENTIONED.findall(path.read_text())
        if title not in notes_in(path)
    ]

    assert missing == []


def test_no_file_has_two_notes_of_one_title() -> None:
    twice = [path for path in SOURCES if len(notes_in(path)) != len(set(notes_in(path)))]

    assert any(notes_in(path) for path in SOURCES)
    assert twice == []

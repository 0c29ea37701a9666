"""A link in a document leads to a file that is there, and to a heading that it has."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "charts", "examples")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(each for one in FOLDERS for each in (ROOT / one).rglob("*.md"))]
)

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```", re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MENTIONED_FILE = re.compile(r"`((?:src|tests|docs|examples)/[\w./-]+)`")


def anchors(document: Path) -> set[str]:
    titles = HEADING.findall(CODE.sub("", document.read_text()))
    return {re.sub(r"[^\w -]", "", each.lower()).strip().replace(" ", "-") for each in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(CODE.sub("", document.read_text())):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_by_its_whole_path_exists(document: Path) -> None:
    named = MENTIONED_FILE.findall(document.read_text())

    assert [each for each in named if not (ROOT / each).exists()] == []

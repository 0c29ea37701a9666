"""
The site builds without a warning, and all that its pages lead to is there.

What is looked at is what a reader gets: the HTML.  Nothing of it is fetched from elsewhere
when a page is opened.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("tutorials", "how-to", "reference", "explanation", "adr")
LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src")}
ONLY_NAMED = {"canonical", "prev", "next", "alternate"}
FETCHED_BY_CSS = re.compile(r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')]+)""")
FETCHED_BY_SCRIPTS = re.compile(r"""["'`]https?://[^"'`]*/([^"'`/]+(?:\.js|-polyfill))["'`]""")


@dataclass
class Html(HTMLParser):
    """What a page has: ids, links, and what a browser loads for it."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        for name, value in given.items():
            if (tag, name) in LOADED and given.get("rel") not in ONLY_NAMED:
                self.loaded.append(value)


def parse(path: Path) -> Html:
    page = Html()
    page.feed(path.read_text())
    return page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    return {path: parse(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_document_is_a_page_and_in_the_navigation(
    site: Path, pages: dict[Path, Html]
) -> None:
    documents = [path for folder in FOLDERS for path in (ROOT / "docs" / folder).glob("*.md")]
    expected = {(site / path.relative_to(ROOT / "docs")).with_suffix(".html") for path in documents}
    reached = {
        (path.parent / urlsplit(link).path).resolve()
        for path in expected & pages.keys()
        for link in pages[path].links
    }

    assert sorted(expected - pages.keys()) == []
    assert sorted(expected - reached) == []


def test_every_link_leads_to_a_page_and_to_an_anchor_of_it(
    site: Path, pages: dict[Path, Html]
) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            is_there = target.is_relative_to(site) and target.is_file()
            known = pages[target].ids if target in pages else set()
            if not is_there or (parts.fragment and unquote(parts.fragment) not in known):
                broken.append(f"{path.relative_to(site)}: {link}")

    assert broken == []


def test_a_page_loads_nothing_from_elsewhere(site: Path, pages: dict[Path, Html]) -> None:
    foreign = [
        f"{path.relative_to(site)}: {each}"
        for path, page in pages.items()
        for each in page.loaded
        if urlsplit(each).netloc
    ]

    assert foreign == []


def test_a_style_loads_nothing_from_elsewhere(site: Path) -> None:
    styles = [*site.rglob("*.css")]

    assert styles
    assert [found for path in styles for found in FETCHED_BY_CSS.findall(path.read_text())] == []


def test_what_the_theme_would_fetch_from_elsewhere_is_there_already(
    site: Path, pages: dict[Path, Html]
) -> None:
    fetched = {
        name
        for path in (site / "assets" / "javascripts").rglob("*.js")
        for name in FETCHED_BY_SCRIPTS.findall(path.read_text())
    }
    with_diagrams = {path for path in pages if 'class="mermaid"' in path.read_text()}
    that_bring_it = {
        path
        for path, page in pages.items()
        for each in page.loaded
        if each.endswith("assets/mermaid.js") and (path.parent / each).resolve().is_file()
    }

    # The second is for browsers of before 2020.
    assert fetched == {"mermaid.min.js", "resize-observer-polyfill"}
    assert with_diagrams == that_bring_it
    assert {path.stem for path in with_diagrams} == {"architecture", "states"}

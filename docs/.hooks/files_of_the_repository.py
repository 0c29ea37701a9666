"""
Publish what pages link to outside of ``docs``, as it is.

On the pages of the repository such a link leads to the file.  In the site it leads to a copy
of it below ``files``; Markdown is copied as text.
"""

import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()\.\.?/[^)#\s]*")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files that pages link to."""
    docs = Path(config.docs_dir)
    for page in files.documentation_pages():
        for link in LINK.findall(page.content_string):
            target = (docs / page.src_uri).parent.joinpath(link).resolve()
            if (uri := _uri(target, docs)) and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Lead the links to the copies."""
    docs = Path(config.docs_dir)
    here = docs / page.file.src_uri

    def lead(match: re.Match[str]) -> str:
        uri = _uri(here.parent.joinpath(match[0]).resolve(), docs)
        up = "../" * (len(PurePosixPath(page.file.src_uri).parts) - 1)
        return f"{up}{uri}" if uri else match[0]

    return LINK.sub(lead, markdown)


def _uri(target: Path, docs: Path) -> str | None:
    """Return where the copy of a file goes, or None if it needs none."""
    if target.is_relative_to(docs) or not target.is_file():
        return None
    name = str(target.relative_to(docs.parent))
    return f"files/{name}.txt" if target.suffix == ".md" else f"files/{name}"

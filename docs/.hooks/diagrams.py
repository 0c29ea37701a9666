"""
Give pages with diagrams the program that draws them, out of a package that carries it.

The theme would fetch it from elsewhere when such a page is opened.  It does so only if the page
has not brought it.
"""

from pathlib import Path

import mermaidx
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

URI = "assets/mermaid.js"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the program."""
    source = Path(mermaidx.__file__).with_name("assets") / "mermaid.js"
    files.append(File.generated(config, URI, abs_src_path=str(source)))
    return files


def on_page_content(html: str, *, page: Page, **_: object) -> str:
    """Load it in pages that need it, and in no others: it is large."""
    if '<pre class="mermaid">' not in html:
        return html
    return f'{html}\n<script src="{get_relative_url(URI, page.url)}"></script>'

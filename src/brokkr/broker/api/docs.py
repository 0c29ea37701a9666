"""The API's documentation as one page that loads nothing: rendered from its description."""

import json
from html import escape
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
        padding: 0 1rem; }}
summary {{ cursor: pointer; padding: .3rem 0; }}
code, pre {{ font: 14px/1.4 ui-monospace, monospace; }}
pre {{ background: #8882; padding: 1rem; overflow: auto; }}
b {{ display: inline-block; min-width: 4.5rem; }}
</style>
<h1>{title} {version}</h1>
<p>Send an API key as <code>Authorization: Bearer</code>. Errors are
<code>application/problem+json</code> with a stable <code>code</code>.
For machines: <a href="/api/v1/openapi.json">openapi.json</a>.</p>
<h2>Operations</h2>
{operations}
<h2>Bodies</h2>
{schemas}
</html>
"""


async def show_docs(request: Request) -> HTMLResponse:
    """Show what ``openapi.json`` says for people."""
    # Nobody needs a key for it, and to render it takes as long as twenty other requests.
    state = request.app.state
    if not hasattr(state, "docs"):
        state.docs = _render(request.app.openapi())
    return HTMLResponse(state.docs)


def _render(description: dict[str, Any]) -> str:
    operations = [
        _details(f"<b>{method.upper()}</b> <code>{escape(path)}</code>", operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [
        _details(f"<code>{escape(name)}</code>", schema)
        for name, schema in description["components"]["schemas"].items()
    ]
    return _PAGE.format(
        title=escape(description["info"]["title"]),
        version=escape(description["info"]["version"]),
        operations="\n".join(operations),
        schemas="\n".join(schemas),
    )


def _details(heading: str, content: dict[str, Any]) -> str:
    words = escape(content.get("description", ""))
    text = escape(json.dumps(content, indent=2))
    return f"<details><summary>{heading} {words}</summary><pre>{text}</pre></details>"

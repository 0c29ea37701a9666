"""
The REST API in print is what the broker describes, and its examples are real.

A broker is asked each example anew; the answers are compared with those in print.  Ids, keys
and times are replaced by others of their kind, which stay the same.

``WRITE_API_REFERENCE=1 python -m pytest tests/docs/test_api_reference.py`` writes the page anew.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from brokkr.broker.app import create_app
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.settings import BrokerSettings
from brokkr.wire.problem import CODES, problem_of, status_of
from support.broker import serving

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "rest-api.md"
WRITE = "WRITE_API_REFERENCE"

HEAD = """\
# REST API

Below `/api/v1`, in JSON. The broker shows the same at `/docs`, and for machines at
`/api/v1/openapi.json`.

- **Keys.** `Authorization: Bearer KEY`. A key is an admin's, a viewer's, a generator's or an
  agent's; at each operation stands whose key opens it. What a generator sees is its own.
- **Errors** are [problem documents](#problems) (`application/problem+json`, RFC 9457).
  `code` says which problem it is and never changes its meaning; `field` names the field that is
  wrong.
- **Unknown fields** in a request are an error, so that a misspelt one is not a default.
- **Lists** come in pages: `next_cursor` of one is `cursor` of the next.
- `X-Request-ID` is taken, or made, and is in the answer and in the broker's log.

`/healthz`, `/readyz` and `/metrics` stand beside it, without `/api/v1`.

The examples were executed. Ids, keys and times are made up; `…` stands for what was left out.
"""

PROBLEMS = """
## Problems

```json
{
  "type": "about:blank",
  "title": "Conflict",
  "status": 409,
  "code": "claim_lost",
  "family": ["conflict"],
  "detail": "the claim on work 01a20a77-7632-72f8-8020-000000000003 is lost; …",
  "work_id": "01a20a77-7632-72f8-8020-000000000003",
  "state": "PENDING",
  "broker": "01a20a77-7632-72f8-8020-000000000001",
  "request_id": "0f8fad5bd9cb469fa16570867728950e"
}
```

- `code` decides. A client that does not know it takes the first code in `family` that it knows.
- `broker` is the id of the broker's database, the same as in claims and heartbeats. It is missing
  only until the broker has reached its database.
- `work_id` is in each answer to a request about a Work.
- Anything else is not the broker's answer: a page, another status than the code has, an
  unknown code. Treat it as 503: a proxy answered, and nobody knows what became of the request.

| code | status | a case of | |
|---|---|---|---|
"""

TEMPLATE = {
    "apiVersion": "shipwright.io/v1beta1",
    "kind": "Build",
    "metadata": {"name": "hello"},
    "spec": {
        "source": {"type": "Git", "git": {"url": "https://git.example.com/hello.git"}},
        "strategy": {"kind": "ClusterBuildStrategy", "name": "buildah"},
        "output": {"image": "registry.example.com/hello:1.0", "pushSecret": "registry"},
    },
}

Example = tuple[str, str, str, Any, str]
"""Operation, key, path, body, and what to remember of the answer."""

# One life of a Work, and of all who have to do with it.  {name} is something remembered.
SCENARIO: list[Example] = [
    (
        "POST /api/v1/agents",
        "admin",
        "/agents",
        {"name": "edge-7", "cluster_name": "edge", "labels": {"gpu": "true"}},
        "agent=key",
    ),
    (
        "POST /api/v1/generators",
        "admin",
        "/generators",
        {"name": "ci", "max_pending": 1000},
        "generator=key",
    ),
    (
        "POST /api/v1/work",
        "generator",
        "/work",
        {
            "work_type": "build",
            "template": TEMPLATE,
            "target": {"match_labels": {"gpu": "true"}},
            "max_retries": 2,
            "labels": {"team": "ml"},
        },
        "work=id",
    ),
    ("GET /api/v1/work/{work_id}/explain", "generator", "/work/{work}/explain", None, ""),
    (
        "POST /api/v1/agents/{ref}/heartbeat",
        "agent",
        "/agents/edge-7/heartbeat",
        {
            "incarnation": "b0c2be2c-0155-4b2e-a725-d0b4825ae6e1",
            "capacity": {"max_concurrent": 4, "free": 4},
            "capabilities": {"types": ["build"], "version": "0.1.0"},
        },
        "",
    ),
    ("GET /api/v1/agents/{ref}/work/pending", "agent", "/agents/edge-7/work/pending", None, ""),
    (
        "POST /api/v1/agents/{ref}/work/claim",
        "agent",
        "/agents/edge-7/work/claim",
        {"max": 1, "wait": 30},
        "claim=claims.0.claim_id",
    ),
    (
        "POST /api/v1/work/{work_id}/progress",
        "agent",
        "/work/{work}/progress",
        {
            "claim_id": "{claim}",
            "phase": "Running",
            "attempt": 1,
            "step": "build",
            "message": "the build is running",
        },
        "",
    ),
    (
        "POST /api/v1/work/{work_id}/complete",
        "agent",
        "/work/{work}/complete",
        {
            "claim_id": "{claim}",
            "success": True,
            "message": "the image is pushed",
            "result": {"image": "registry.example.com/hello:1.0"},
        },
        "",
    ),
    ("GET /api/v1/work/{work_id}", "generator", "/work/{work}", None, ""),
    ("GET /api/v1/work", "generator", "/work?label=team=ml&outcome=succeeded", None, ""),
    ("GET /api/v1/work/{work_id}/events", "generator", "/work/{work}/events", None, ""),
    (
        "POST /api/v1/work/{work_id}/requeue",
        "admin",
        "/work/{work}/requeue",
        {"reason": "the base image has changed"},
        "",
    ),
    ("DELETE /api/v1/work/{work_id}", "generator", "/work/{work}", None, ""),
    (
        "PATCH /api/v1/agents/{ref}",
        "admin",
        "/agents/edge-7",
        {"labels": {"gpu": "true", "region": "eu"}},
        "",
    ),
    ("POST /api/v1/agents/{ref}/drain", "admin", "/agents/edge-7/drain", None, ""),
    ("POST /api/v1/keys", "admin", "/keys", {"role": "viewer", "name": "dashboard"}, ""),
    ("POST /api/v1/agents/{ref}/rotate-key", "admin", "/agents/edge-7/rotate-key", None, ""),
]

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
KEY = re.compile(r"brokkr_([a-z]{3})[a-z2-7]{10}_[\w-]{43}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
SHORT_ID = re.compile(r'("(?:short_id|actor)": "(?:\w+:)?)[a-z2-7]{10}"')
SECONDS = re.compile(r'("\w*(?:_seconds|uptime)": )\d+\.\d+')
PRINTED_LINES = 40


class Plain:
    """Replaces what differs from run to run by what does not."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        text = UUID.sub(self._an_id, text)
        text = KEY.sub(r"brokkr_\1…", text)
        text = TIME.sub("2026-01-31T12:00:00Z", text)
        text = SHORT_ID.sub(r'\g<1>abcdefghij"', text)
        return SECONDS.sub(r"\g<1>0.5", text)

    def _an_id(self, found: re.Match[str]) -> str:
        number = len(self._ids) + 1
        return self._ids.setdefault(found[0], f"01a20a77-7632-72f8-8020-{number:012d}")


async def the_examples(url: str, admin_key: str) -> dict[str, str]:
    """Play the scenario; return the examples by operation."""
    known = {"admin": admin_key}
    plain = Plain()
    examples = {}
    async with aiohttp.ClientSession() as session:
        for operation, who, path, body, remember in SCENARIO:
            sent = None if body is None else filled(json.dumps(body), known)
            async with session.request(
                operation.split(" ")[0],
                f"{url}/api/v1{filled(path, known)}",
                data=sent,
                headers={
                    "Authorization": f"Bearer {known[who]}",
                    **({"Content-Type": "application/json"} if sent else {}),
                },
            ) as answer:
                text = await answer.text()
                assert answer.status < 300, f"{operation}: {text}"
                content = json.loads(text) if text else None
            if remember:
                name, _, where = remember.partition("=")
                known[name] = str(looked_up(content, where))
            head = f"{operation.split(' ')[0]} /api/v1{filled(path, known)}"
            request = f"{head}\n\n{indented(sent)}" if sent else head
            examples[operation] = plain(
                f"\n```http\n{request}\n```\n\n"
                f"```http\nHTTP/1.1 {answer.status} {answer.reason}\n"
                + (f"\n{indented(text)}\n" if text else "")
                + "```\n"
            )
    return examples


def filled(text: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        text = text.replace("{" + name + "}", value)
    return text


def looked_up(content: Any, where: str) -> Any:
    for part in where.split("."):
        content = content[int(part) if part.isdigit() else part]
    return content


def indented(text: str) -> str:
    """Return JSON for people; what is empty, or long and known, is left out."""
    content = json.loads(text)
    lines = json.dumps(shortened(content), indent=2, ensure_ascii=False).splitlines()
    return "\n".join(lines[:PRINTED_LINES] + (["  …"] if len(lines) > PRINTED_LINES else []))


def shortened(content: Any) -> Any:
    if isinstance(content, dict):
        return {
            key: "…" if key == "resource" else shortened(value)
            for key, value in content.items()
            if value is not None
        }
    return [shortened(each) for each in content] if isinstance(content, list) else content


def render(examples: Mapping[str, str]) -> str:
    description = create_app(BrokerSettings(), database_url="").openapi()
    sections: dict[str, list[str]] = {}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            name = f"{method.upper()} {path}"
            sections.setdefault(operation["tags"][0], []).append(
                f"\n### {name}\n\n{the_operation(operation)}{examples.get(name, '')}"
            )
    operations = "".join(f"\n## {tag.title()}\n{''.join(each)}" for tag, each in sections.items())
    schemas = description["components"]["schemas"]
    bodies = "".join(
        f"\n### {name}\n\n{the_text(schema)}{''.join(the_fields(schema))}"
        for name, schema in sorted(schemas.items())
        if "properties" in schema or "enum" in schema
    )
    return f"{HEAD}{operations}\n## Bodies\n{bodies}{PROBLEMS}{''.join(the_codes())}"


def the_codes() -> Iterator[str]:
    for code, kind in CODES.items():
        error = kind.__new__(kind)
        family = ", ".join(f"`{each}`" for each in problem_of(error)["family"])
        words = " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
        yield f"| `{code}` | {int(status_of(error))} | {family} | {words} |\n"


def the_operation(operation: Mapping[str, Any]) -> str:
    keys = ", ".join(operation["x-roles"])
    lines = [f"{' '.join(operation['description'].split())}\n\n*Keys:* {keys}.\n"]
    if parameters := [each for each in operation.get("parameters", ()) if each["in"] != "path"]:
        lines.append("\n| parameter | in | type | |\n|---|---|---|---|\n")
        lines += [
            f"| `{each['name']}` | {each['in']} | {the_type(each['schema'])} "
            f"| {each.get('description', '')} |\n"
            for each in parameters
        ]
    if body := operation.get("requestBody"):
        kinds = body["content"]
        schema = kinds["application/json"]["schema"]
        lines.append(f"\n*Body:* {the_type(schema)}, as {' or '.join(f'`{k}`' for k in kinds)}.\n")
    lines.append("\n| answer | body | |\n|---|---|---|\n")
    lines += [
        f"| {status} | {the_answer(answer)} | {the_words(status, answer)} |\n"
        for status, answer in sorted(operation["responses"].items())
        if status not in ("4XX", "5XX")
    ]
    return "".join(lines)


def the_answer(answer: Mapping[str, Any]) -> str:
    return ", ".join(
        the_type(content["schema"]) if "schema" in content else f"`{kind}`"
        for kind, content in answer.get("content", {}).items()
    )


def the_words(status: str, answer: Mapping[str, Any]) -> str:
    words: str = answer["description"]
    known = {"Successful Response": "", "Validation Error": "what was sent is wrong"}
    return known.get(words, words)


def the_type(schema: Mapping[str, Any]) -> str:
    match schema:
        case {"$ref": ref}:
            name = ref.rsplit("/", 1)[1]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": choices}:
            named = [the_type(each) for each in choices if each.get("type") != "null"]
            return " or ".join(named)
        case {"enum": values} | {"const": values}:
            values = values if isinstance(values, list) else [values]
            return " or ".join(f"`{value}`" for value in values)
        case {"type": "array", "items": items}:
            return f"list of {the_type(items)}"
        case {"format": kind}:
            return {"date-time": "time"}.get(kind, str(kind))
        case {"type": kind}:
            return f"{kind}{the_bounds(schema)}"
        case _:
            return "anything"


def the_bounds(schema: Mapping[str, Any]) -> str:
    low = schema.get("minimum", schema.get("minLength"))
    high = schema.get("maximum", schema.get("maxLength"))
    unit = " characters" if schema["type"] == "string" else ""
    match low, high:
        case None, None:
            return ""
        case None, _:
            return f", at most {high}{unit}"
        case _, None:
            return f", at least {low}{unit}"
        case _:
            return f", {low} to {high}{unit}"


def the_text(schema: Mapping[str, Any]) -> str:
    words = " ".join(schema.get("description", "").split()).replace("``", "`")
    return f"{words}\n\n" if words else ""


def the_fields(schema: Mapping[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield " ".join(f"`{value}`" for value in schema["enum"]) + "\n"
        return
    yield "| field | type | default | |\n|---|---|---|---|\n"
    for name, field in schema["properties"].items():
        default = field.get("default")
        shown = "" if default is None else f"`{json.dumps(default)}`"
        if name in schema.get("required", ()):
            shown = "required"
        yield f"| `{name}` | {the_type(field)} | {shown} | {field.get('description', '')} |\n"


async def test_the_api_in_print_is_what_the_broker_describes_and_answers(
    database_url: str,
) -> None:
    key = await create_admin_key(database_url)
    async with serving(BrokerSettings(), database_url) as app:
        page = render(await the_examples(app.url, key))
    if os.environ.get(WRITE):
        REFERENCE.write_text(page)

    assert REFERENCE.read_text() == page, f"run: {WRITE}=1 python -m pytest {__file__}"

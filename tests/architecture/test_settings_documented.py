"""
The table of settings in print is what the code takes, and the README names none that it does not.

``python tests/architecture/test_settings_documented.py`` writes it anew.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from brokkr.cli.settings import Settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "settings.md"
NAMED = re.compile(r"`((?:broker|database|agent|client)\.[a-z_.]+)`")

HEAD = """\
# Settings

What `--config` names, else `brokkr.toml` in the working folder, else in `~/.config/brokkr/`;
environment over file, flags over environment. A key from elsewhere is
[not sent where `./brokkr.toml` says](../explanation/security.md#keys).
A setting's variable is its path: `broker.port` is
`BROKKR__BROKER__PORT`, `agent.work_crd.namespace` is `BROKKR__AGENT__WORK_CRD__NAMESPACE`.
`client.url` and `client.key` may also be given as `BROKKR_URL` and `BROKKR_KEY`. Durations are
written as `90s`, `15m` or `1h30m`.

```toml
[agent]
broker_url = "https://brokkr.example.com"

[agent.work_crd]
namespace = "builds"
```

A name that is not in this table is refused, and so is a value that is out of bounds: the program
ends with exit code 2 and says which.

| setting | default | |
|---|---|---|
"""


def render() -> str:
    return HEAD + "".join(the_rows(Settings))


def the_rows(model: type[BaseModel], section: str = "") -> Iterator[str]:
    for key, field in model.model_fields.items():
        path = f"{section}{key}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from the_rows(field.annotation, f"{path}.")
        else:
            yield f"| `{path}` | {the_default(field)} | {field.description or ''} |\n"


def the_default(field: FieldInfo) -> str:
    match field.default:
        case None:
            return ""
        case bool(value):
            return f"`{value}`".lower()
        case timedelta() as value:
            seconds = int(value.total_seconds())
            unit, size = next(
                (unit, size)
                for unit, size in (("h", 3600), ("m", 60), ("s", 1))
                if seconds % size == 0
            )
            return f"`{seconds // size}{unit}`"
        case value:
            return f"`{value}`"


def test_the_table_in_print_names_every_setting_with_its_default() -> None:
    assert REFERENCE.read_text() == render(), f"run: python {__file__}"


def test_no_document_names_a_setting_that_is_none() -> None:
    known = {row.split("`")[1] for row in the_rows(Settings)}
    sections = {path.rpartition(".")[0] for path in known}
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    wrong = [
        f"{document.relative_to(ROOT)}: {name}"
        for document in documents
        for name in NAMED.findall(document.read_text())
        if name not in known | sections
    ]

    assert wrong == []


def test_every_setting_says_what_it_is_for() -> None:
    silent = [row for row in render().splitlines() if row.endswith("|  |")]

    assert silent == []


if __name__ == "__main__":
    REFERENCE.write_text(render())

"""
The table of settings in the README is what the code takes.

``python tests/architecture/test_settings_documented.py`` writes it anew.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from brokkr.cli.settings import Settings

README = Path(__file__).parents[2] / "README.md"
HEAD = "| setting | default | |\n|---|---|---|\n"
TABLE = re.compile(r"(?<=<!-- settings -->\n).*(?=<!-- end of settings -->)", re.DOTALL)


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


def test_the_table_in_the_readme_names_every_setting_with_its_default() -> None:
    found = TABLE.search(README.read_text())

    assert found is not None
    assert found[0] == render(), f"run: python {__file__}"


def test_every_setting_says_what_it_is_for() -> None:
    silent = [row for row in render().splitlines() if row.endswith("|  |")]

    assert silent == []


if __name__ == "__main__":
    README.write_text(TABLE.sub(lambda _: render(), README.read_text()))

"""
The SQL of this project: one statement in one file of ``queries/``, read once.

A file names its parameters (``:work_id``); the driver wants numbers (``$1``).
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import asyncpg

from brokkr.broker.db.pool import Connection

_COMMENT = re.compile(r"--[^\n]*")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as PostgreSQL takes it, and the order of its parameters."""

    sql: str
    parameters: tuple[str, ...]

    def values(self, given: dict[str, Any]) -> list[Any]:
        """Put the parameters in order; one too many or too few is our own mistake."""
        if given.keys() != set(self.parameters):
            raise TypeError(f"expected {self.parameters}, given {tuple(given)}")
        return [given[name] for name in self.parameters]


@cache
def statement(name: str) -> Statement:
    """Read ``queries/{name}.sql``."""
    return parse((files(__package__) / "queries" / f"{name}.sql").read_text())


def parse(text: str) -> Statement:
    """Number the named parameters of a statement, and drop its comments."""
    text = _COMMENT.sub("", text)
    names = tuple(dict.fromkeys(_PARAMETER.findall(text)))
    sql = _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", text)
    return Statement(sql=sql.strip(), parameters=names)


async def fetch_all(db: Connection, name: str, /, **parameters: Any) -> list[asyncpg.Record]:
    """Run a statement and return its rows."""
    one = statement(name)
    return await db.fetch(one.sql, *one.values(parameters))


async def fetch_one(db: Connection, name: str, /, **parameters: Any) -> asyncpg.Record | None:
    """Run a statement and return its first row, or None."""
    one = statement(name)
    return await db.fetchrow(one.sql, *one.values(parameters))


async def fetch_value(db: Connection, name: str, /, **parameters: Any) -> Any:
    """Run a statement and return the first column of its first row, or None."""
    one = statement(name)
    return await db.fetchval(one.sql, *one.values(parameters))

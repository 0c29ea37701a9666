"""
The SQL of this project: one statement in one file of ``queries/``, read once.

A file names its parameters (``:work_id``); the driver wants numbers (``$1``).  A line with an
optional one (``:type?``) is left out when its value is None: each combination is a statement
of its own, and is planned for what it asks.
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
_OPTIONAL = re.compile(_PARAMETER.pattern + r"\?")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as PostgreSQL takes it, and the order of its parameters."""

    sql: str
    parameters: tuple[str, ...]
    optional: frozenset[str] = frozenset()

    def values(self, given: dict[str, Any]) -> list[Any]:
        """Put the parameters in order; one too many or too few is our own mistake."""
        if given.keys() != set(self.parameters):
            raise TypeError(f"expected {self.parameters}, given {tuple(given)}")
        return [given[name] for name in self.parameters]


@cache
def statement(name: str, *, absent: frozenset[str] = frozenset()) -> Statement:
    """Read ``queries/{name}.sql``, without the lines of optional parameters that are absent."""
    return parse((files(__package__) / "queries" / f"{name}.sql").read_text(), absent=absent)


def parse(text: str, *, absent: frozenset[str] = frozenset()) -> Statement:
    """Number the named parameters of a statement, and drop its comments."""
    text = _COMMENT.sub("", text)
    optional = frozenset(_OPTIONAL.findall(text))
    lines = [line for line in text.splitlines() if absent.isdisjoint(_OPTIONAL.findall(line))]
    text = _OPTIONAL.sub(r":\1", "\n".join(lines))
    names = tuple(dict.fromkeys(_PARAMETER.findall(text)))
    sql = _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", text)
    return Statement(sql=sql.strip(), parameters=names, optional=optional)


def bind(name: str, given: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return a statement's text for what is given, and its values in their order."""
    whole = statement(name)
    values = whole.values(given)
    if not whole.optional:
        return whole.sql, values
    absent = frozenset(each for each in whole.optional if given[each] is None)
    one = statement(name, absent=absent)
    return one.sql, [given[each] for each in one.parameters]


async def fetch_all(db: Connection, name: str, /, **parameters: Any) -> list[asyncpg.Record]:
    """Run a statement and return its rows."""
    sql, values = bind(name, parameters)
    return await db.fetch(sql, *values)


async def fetch_one(db: Connection, name: str, /, **parameters: Any) -> asyncpg.Record | None:
    """Run a statement and return its first row, or None."""
    sql, values = bind(name, parameters)
    return await db.fetchrow(sql, *values)


async def fetch_value(db: Connection, name: str, /, **parameters: Any) -> Any:
    """Run a statement and return the first column of its first row, or None."""
    sql, values = bind(name, parameters)
    return await db.fetchval(sql, *values)

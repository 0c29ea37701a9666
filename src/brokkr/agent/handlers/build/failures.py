"""
Why a build failed, and whether the same build may end differently next time.

The policy is one table, :data:`~brokkr.agent.handlers.build.failure_table.TABLE`; this finds
the row that holds.  What is looked up in it, :mod:`.signs` gathers.
"""

# Note [Evidence is asked for by the row that needs it]
#
# Rows are tried in order, and the first that holds is taken.  A row that depends on a log
# or on another object is reached only if nothing before it holds; so what it asks for
# can change the answer, and nothing else is asked for.  What was asked for and cannot be
# had counts as not being there, and the next row is tried: the question always ends.

from collections.abc import Mapping
from typing import Final

from brokkr.agent.handlers.build.failure_table import TABLE, UNLISTED, Row
from brokkr.agent.handlers.build.phrases import last_words, printable, without_dumps
from brokkr.agent.handlers.build.signs import Signs
from brokkr.agent.handlers.verdict import Evidence, Failed, Lookup, Unclear
from brokkr.work.model import Manifest

MAX_MESSAGE: Final = 800


def judge(signs: Signs, evidence: Evidence) -> Failed | Unclear:
    """Find the row that holds, or what has to be looked at to find it."""
    for row in TABLE:
        if not _may_hold(row, signs):
            continue
        needed = signs.missing if row.is_there else signs.log if _needs_log(row) else None
        if needed is not None and needed not in evidence:
            return Unclear(look_at=(needed,))
        if _is_borne_out(row, None if needed is None else evidence[needed]):
            return _failed(row, signs, evidence)
    return _failed(UNLISTED, signs, evidence)


def judge_now(signs: Signs, evidence: Evidence) -> Failed:
    """Judge by what there is; what could still be looked at counts as not being there."""
    known: dict[Lookup, Manifest | str | None] = dict(evidence)
    while isinstance(verdict := judge(signs, known), Unclear):
        known |= dict.fromkeys(verdict.look_at)
    return verdict


def _may_hold(row: Row, signs: Signs) -> bool:
    """Say whether the row holds but for what has to be looked at."""
    return (
        signs.reason in row.reasons
        and row.container in ("", signs.container)
        and row.exit_code in (None, signs.exit_code)
        and (row.saying is None or row.saying.find_in(signs.message) is not None)
    )


def _needs_log(row: Row) -> bool:
    return row.quotes_log or row.log is not None or row.ending is not None


def _is_borne_out(row: Row, found: Manifest | str | None) -> bool:
    """Say whether what was looked at says what the row wants it to say."""
    if row.is_there:
        return isinstance(found, Mapping)
    if row.log is None and row.ending is None:
        return True
    return isinstance(found, str) and _deciding_line(row, found) is not None


def _deciding_line(row: Row, log: str) -> str | None:
    if row.ending is not None:
        return row.ending.find_at_end(log)
    return None if row.log is None else row.log.find_in(log)


def _failed(row: Row, signs: Signs, evidence: Evidence) -> Failed:
    said = printable(without_dumps(_what_is_known(row, signs, evidence))[:MAX_MESSAGE])
    why = f"{row.why}; {signs.note}" if signs.note else row.why
    return Failed(
        reason=signs.reason,
        message=f"{said} ({why})" if said else why,
        retry=row.retry,
        failure_class=row.name,
        fault=row.fault,
    )


def _what_is_known(row: Row, signs: Signs, evidence: Evidence) -> str:
    """Return the line that decided, and what the step said of itself; else the best guess."""
    log = evidence.get(signs.log) if signs.log is not None else None
    log = log if isinstance(log, str) else ""
    told = signs.message if signs.is_told else ""
    line = _deciding_line(row, log)
    if line is None and (row.quotes_log or not told):
        line = last_words(log)
    if not line:
        return signs.message
    decided = f"{signs.container}: {line}"
    return f"{decided}; {told}" if told and told not in line else decided

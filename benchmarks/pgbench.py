"""
The broker's own statements, run by pgbench: what the database alone can do.

A script is made of ``queries/*.sql`` as the broker runs them, each a transaction of its own.
Only what pgbench cannot carry is put differently: it has no NULL and no arrays, so these
stand in the statement; ids of new Works are made by the server; and a completion looks up
what its agent holds, which costs pgbench one more index scan.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from uuid import UUID

from brokkr.broker.db.pool import SESSION
from brokkr.broker.db.postgres_programs import find_programs
from brokkr.broker.db.statements import statement

WORKS = (
    "(SELECT jsonb_agg(each || jsonb_build_object('id', uuidv7()))"
    " FROM jsonb_array_elements(:works::jsonb) AS each)"
)
REPORTS = (
    "(SELECT jsonb_agg(jsonb_build_object('work_id', id, 'claim_id', claim_id,"
    " 'outcome', 'succeeded', 'ended_as', 'completed', 'retries', 0, 'retryable', false,"
    " 'message', 'done', 'result', '{}'::jsonb))"
    " FROM work_queue WHERE status = 'CLAIMED' AND claimed_by = :agent_id)"
)
DEPTH = "(:limit + 16 * least(:limit, 16))"
A_REQUEST = "(SELECT gen_random_uuid())"
"""As a sub-select it is one value for the whole statement, like a parameter."""

_OPTIONS = " ".join(f"-c {name}={value}" for name, value in SESSION.items())

# Variables live as long as their client, so each client asks for its agent once.
WHO = """
\\if :known
\\else
SELECT id AS agent_id FROM agents WHERE name = 'agent-' || (:client_id + 1) \\gset
SELECT works FROM bench_input WHERE size = :limit \\gset
\\set known 1
\\endif
"""


def one(name: str, **instead: str) -> str:
    """Return a statement as a line of a script; ``instead`` replaces parameters."""
    found = statement(name)

    def put(match: re.Match[str]) -> str:
        parameter = found.parameters[int(match[1]) - 1]
        return instead.get(parameter, f":{parameter}")

    return " ".join(re.sub(r"\$(\d+)", put, found.sql).split()) + ";"


def submit() -> str:
    """Return what a submission of Works with one target runs."""
    return one(
        "insert_work",
        works=WORKS,
        is_alone="true",
        owner=f"'{UUID(int=0)}'",
        key_lifetime="'1 day'",
        generator_id="NULL",
        traceparent="NULL",
    )


def claim() -> str:
    """Return what an agent's claim runs."""
    return one("claim_some_work", request_id=A_REQUEST, types="NULL", depth=DEPTH, waited="0")


def complete() -> str:
    """Return what a completion runs."""
    return one("finish_work", reports=REPORTS, kind="'completed'")


async def run_pgbench(
    url: str, script: str, *, clients: int, seconds: int, variables: Mapping[str, object]
) -> float:
    """Run a script by so many clients, again and again, and return how many seconds it took."""
    command = [str(find_programs() / "pgbench"), "-n", "-M", "prepared", "-f", "-"]
    command += ["-c", str(clients), "-j", str(min(clients, os.cpu_count() or 1))]
    command += ["-T", str(seconds)]
    for name, value in {"known": 0, "actor": "agent:bench", **variables}.items():
        command += ["-D", f"{name}={value}"]
    process = await asyncio.create_subprocess_exec(
        *command,
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PGOPTIONS": _OPTIONS},
    )
    output, errors = await process.communicate((WHO + script).encode())
    done = re.search(rb"actually processed: (\d+)", output)
    each_second = re.search(rb"tps = ([\d.]+) \(without", output)
    if process.returncode != 0 or done is None or each_second is None:
        raise RuntimeError(f"pgbench failed: {errors.decode()[-2000:]}")
    return float(done[1]) / float(each_second[1])

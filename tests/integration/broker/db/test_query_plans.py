"""
What statements read does not grow with the queue and the log.

Each is run on a thousand Works and on a hundred thousand (``-m scale``: a million), pending
and as many finished: no big table is read from one end to the other, and about as much is
read in both.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import pytest

from brokkr.broker.db import statements
from brokkr.broker.db.claims import renew_claims
from brokkr.broker.db.pool import open_pool, transaction
from brokkr.broker.db.statements import bind, parse, statement
from brokkr.broker.db.work_ids import first_work_id_at
from support.depth import Deep, explain, fill
from support.postgres import fresh_database
from support.queue import Queue, holder

DEPTH: Final = 100_000
SCALE: Final = 1_000_000
SMALL: Final = 1000
ALLOWANCE: Final = 800
"""Pages: a page of a list is not full in the small database, and batches are not."""
BIG_TABLES: Final = (
    "idempotency_keys",
    "work_claims",
    "work_events",
    "generator_labels",
    "work_execution_log",
    "work_labels",
    "work_queue",
)
VIEWS_OF_THEM: Final = ("idle_lanes", "unused_selectors", "work_targets", "works")

Parameters: TypeAlias = dict[str, Any]
Case: TypeAlias = Callable[[Deep], Parameters]

NOBODY = UUID(int=0)
DAY = timedelta(days=1)


def a_work() -> Parameters:
    return {
        "id": str(uuid4()),
        "work_type": "build",
        "crd_spec": "{}",
        "target_sha256": "00",
        "priority": 0,
        "max_retries": 3,
        "max_handoffs": 0,
        "claim_timeout_seconds": 60,
        "labels": {"team": "few"},
    }


def a_report(deep: Deep) -> Parameters:
    return {
        "work_id": str(deep.claimed[0]),
        "claim_id": str(deep.claims[0]),
        "outcome": "succeeded",
        "ended_as": "completed",
    }


def a_list(**wanted: Any) -> Case:
    everything = {
        **dict.fromkeys(("pending", "claimed", "finished"), True),
        **dict.fromkeys(("outcome", "outcomes", "label", "own_label", "labels", "type")),
        **dict.fromkeys(("agent_id", "generator_id")),
        **dict.fromkeys(("since", "since_id", "before_id")),
        "limit": 50,
    }
    return lambda _: everything | wanted


def labelled(team: str) -> Parameters:
    return {"label": f"team={team}", "labels": {"team": team}}


def a_labelled_list(team: str) -> Case:
    rest = ("type", "agent_id", "generator_id", "since", "since_id", "before_id")
    return lambda _: labelled(team) | dict.fromkeys(rest) | {"limit": 50}


def a_list_of_ones_own(team: str, generator: UUID) -> Case:
    rest = ("type", "agent_id", "since", "since_id", "before_id")
    return lambda _: labelled(team) | dict.fromkeys(rest) | {"limit": 50, "generator_id": generator}


MUCH: Final = UUID("00000000-0000-0000-0000-000000000002")
"""A generator that has much."""
FINISHED_ONLY = {"pending": False, "claimed": False}
LATELY = datetime(2020, 9, 14, tzinfo=UTC)  # by the ids that the database was filled with

BOUNDED: Final[dict[str, dict[str, Case]]] = {
    "claim_some_work": {
        "one": lambda deep: {
            "agent_id": deep.agent,
            "types": None,
            "limit": 1,
            "depth": 1,
            "request_id": None,
            "waited": 0.0,
            "actor": "",
        },
        "ten of a type": lambda deep: {
            "agent_id": deep.agent,
            "types": ["build"],
            "limit": 10,
            "depth": 10,
            "request_id": uuid4(),
            "waited": 30.0,
            "actor": "",
        },
    },
    "claim_work": {
        "": lambda deep: {
            "work_id": deep.pending[0],
            "agent_id": deep.agent,
            "request_id": None,
            "actor": "",
        }
    },
    "list_pending_work": {
        "": lambda deep: {"agent_id": deep.agent, "types": None, "limit": 20},
        "of a type": lambda deep: {"agent_id": deep.agent, "types": ["build"], "limit": 20},
    },
    "renew_claims": {
        "": lambda deep: {"claim_ids": deep.claims, "agent_id": deep.agent, "actor": ""}
    },
    "record_progress": {
        "": lambda deep: {
            "work_id": deep.claimed[0],
            "claim_id": deep.claims[0],
            "agent_id": deep.agent,
            "actor": "",
            "progress": {"phase": "Running", "attempt": 1, "retries": 0},
            "max_events": 100,
        }
    },
    "list_held_claims": {"": lambda deep: {"agent_id": deep.agent}},
    "list_requested_claims": {
        "": lambda deep: {"agent_id": deep.agent, "request_id": deep.claimed[0]}
    },
    "lock_stale_claims": {"": lambda _: {"limit": 500}},
    "postpone_lease_checks": {"": lambda _: {"limit": 500}},
    "enter_lanes": {"": lambda _: {"limit": 500}},
    "lock_expired_work": {"": lambda _: {"limit": 500}},
    "lock_work": {"": lambda deep: {"work_id": deep.claimed[0]}},
    "lock_claimed_work": {
        "": lambda deep: {
            "work_ids": deep.claimed[:1],
            "claim_ids": deep.claims[:1],
            "agent_id": deep.agent,
        }
    },
    "lock_held_work": {"": lambda deep: {"agent_id": deep.agent}},
    "finish_work": {
        "as its holder reports": lambda deep: {
            "reports": [a_report(deep)],
            "actor": "",
            "kind": "completed",
            "agent_id": deep.agent,
        },
        "as the broker decides": lambda deep: {
            "reports": [a_report(deep)],
            "actor": "",
            "kind": "",
            "agent_id": None,
        },
    },
    "give_back_work": {
        "": lambda deep: {
            "work_ids": deep.claimed[:1],
            "ended_as": "released",
            "delay": timedelta(),
            "actor": "",
            "retries": None,
            "message": None,
            "kind": "released",
            "is_revivable": False,
            "infrastructure_retries": None,
        }
    },
    "lock_listed_claims": {"": lambda deep: {"agent_id": deep.agent, "claim_ids": deep.claims}},
    "count_unable_releases": {"": lambda deep: {"work_id": deep.claimed[0], "prefix": "unable"}},
    "request_cancel": {"": lambda deep: {"work_id": deep.claimed[0], "actor": ""}},
    "requeue_work": {"": lambda deep: {"work_id": deep.finished[0], "actor": "", "reason": ""}},
    "record_handoff_answer": {"": lambda deep: {"claim_id": deep.claims[0]}},
    "list_tried_agents": {"": lambda deep: {"work_id": deep.claimed[0]}},
    "insert_narrower_selector": {
        "": lambda deep: {"work_id": deep.claimed[0], "excluded": [deep.agent]}
    },
    "find_narrower_selector": {
        "": lambda deep: {"work_id": deep.claimed[0], "excluded": [deep.agent]}
    },
    "move_to_selector": {"": lambda deep: {"work_id": deep.claimed[0], "selector_id": 2}},
    "explain_refusal": {
        "": lambda deep: {
            "work_id": deep.finished[0],
            "agent_id": deep.agent,
            "claim_id": deep.claims[0],
        }
    },
    "insert_work": {
        "": lambda deep: {
            "works": [a_work(), a_work()],
            "is_alone": True,
            "owner": deep.generator,
            "key_lifetime": DAY,
            "generator_id": deep.generator,
            "actor": "",
            "traceparent": None,
        }
    },
    "keep_idempotency_key": {
        "": lambda _: {
            "owner": NOBODY,
            "key": "7",
            "body_sha256": b"",
            "work_id": uuid4(),
            "lifetime": DAY,
        }
    },
    "find_idempotency_key": {"": lambda _: {"owner": NOBODY, "key": "7"}},
    "count_ahead": {
        "": lambda deep: {"agent_ids": [deep.agent], "priority": 0, "seq": 1000, "limit": 100}
    },
    "find_pending_work": {
        "": lambda deep: {"work_id": deep.pending[8], "limit": 100, "prefix": "unable"}
    },
    "count_pending_work": {"": lambda deep: {"generator_id": deep.generator, "enough": 1000}},
    "find_agent": {"": lambda deep: {"id": deep.agent, "name": ""}},
    "list_agents": {"": lambda _: {"after": None, "limit": 20}},
    "find_work_state": {
        "queued": lambda deep: {"work_id": deep.pending[0]},
        "finished": lambda deep: {"work_id": deep.finished[0]},
    },
    "get_work": {"": lambda deep: {"work_ids": [*deep.pending, *deep.finished]}},
    "list_work": {
        "all": a_list(),
        "a later page": lambda deep: a_list(before_id=deep.finished[8])(deep),
        "since": a_list(since=LATELY, since_id=first_work_id_at(LATELY)),
        "pending": a_list(claimed=False, finished=False),
        "claimed": a_list(pending=False, finished=False),
        "failed": a_list(**FINISHED_ONLY, outcome="failed"),
        "what few ended as": a_list(**FINISHED_ONLY, outcome="quarantined"),
        "several outcomes": a_list(**FINISHED_ONLY, outcomes=["failed", "quarantined"]),
        "of a type": a_list(type="build"),
        "of a rare type": a_list(type="rare"),
        "of an agent": lambda deep: a_list(pending=False, agent_id=deep.agent)(deep),
        "of a generator that has little": lambda deep: a_list(generator_id=deep.generator)(deep),
        "of a generator that has much": a_list(generator_id=MUCH),
        "of a generator's own label": lambda deep: a_list(
            **FINISHED_ONLY,
            outcome="failed",
            generator_id=deep.generator,
            own_label="team=many",
            labels={"team": "many"},
        )(deep),
        "claimed with a label": a_list(pending=False, finished=False, **labelled("many")),
        "pending with a label": a_list(claimed=False, finished=False, **labelled("many")),
        "pending with a rare label": a_list(claimed=False, finished=False, **labelled("few")),
        "failed with a label": a_list(**FINISHED_ONLY, outcome="failed", **labelled("many")),
        "failed with a rare label": a_list(**FINISHED_ONLY, outcome="failed", **labelled("few")),
        "of a rare type with a label": a_list(
            **FINISHED_ONLY, outcome="quarantined", type="rare", **labelled("many")
        ),
    },
    "list_labelled_work": {
        "that many have": a_labelled_list("many"),
        "that few have": a_labelled_list("few"),
        "that none has": a_labelled_list("none"),
    },
    "list_own_labelled_work": {
        "that many of its own have": a_list_of_ones_own("many", MUCH),
        "that only others have": lambda deep: a_list_of_ones_own("many", deep.generator)(deep),
        "that only its own have": lambda deep: a_list_of_ones_own("few", deep.generator)(deep),
    },
    "find_rarest_own_label": {
        "": lambda _: {"labels": ["team=many", "any=yes"], "generator_id": MUCH}
    },
    "copy_labels": {"": lambda _: {"limit": 100}},
    "find_resting_target": {"": lambda deep: {"work_id": deep.finished[0]}},
    "list_lost_lanes": {"": lambda _: {"limit": 100}},
    "wake_narrower_selector": {
        "": lambda deep: {"work_id": deep.claimed[0], "excluded": [deep.agent]}
    },
    "find_rarest_label": {"": lambda _: {"labels": ["team=many", "team=few"]}},
    "find_longest_wait": {"": lambda _: {}},
    "prune_log": {"": lambda _: {"outcome": "succeeded", "age": 190 * DAY, "limit": 20}},
    "prune_payloads": {
        "": lambda _: {"outcome": "succeeded", "age": 190 * DAY, "limit": 20},
        "nothing": lambda _: {"outcome": "succeeded", "age": 400 * DAY, "limit": 20},
    },
    "prune_events": {"": lambda _: {"outcome": "failed", "age": 190 * DAY, "limit": 20}},
    "prune_idempotency_keys": {"": lambda _: {"limit": 20}},
    "list_news": {"": lambda deep: {"work_ids": deep.claimed, "afters": [0] * 9, "limit": 100}},
    "list_narrower_lanes": {"": lambda _: {"after": 0, "limit": 100}},
}
"""What reads as much from a large database as from a small one."""

COUNTING: Final[dict[str, dict[str, Case]]] = {
    "count_queue": {"": lambda _: {}},
    "extend_leases": {"": lambda _: {"longest_pause_seconds": 0.0}},
    "find_generator": {"": lambda deep: {"id": deep.generator, "name": ""}},
    "list_generators": {"": lambda _: {"after": None, "limit": 10}},
    # These look at all that is claimed or delayed: it has no index by selector.
    "list_old_selectors": {"": lambda _: {"after": 0, "age": DAY, "limit": 1000}},
    "note_idle_lanes": {"": lambda _: {"after": 0, "age": DAY, "limit": 1000}},
    "rest_lanes": {"": lambda _: {"ids": [1, 2, 999, 1000]}},
    "shorten_leases": {"": lambda _: {}},
    "prune_selectors": {"": lambda _: {"ids": [1, 2, 999, 1000]}},
}
"""What reads as much as it counts or changes: ranges of indexes, and no whole table."""

OF_THE_CATALOG: Final = {"find_outgrown_statistics", "refresh_statistics"}
"""What names big tables, and reads only what PostgreSQL knows about them."""

NEVER_GENERIC: Final = {"list_work", "list_labelled_work", "list_own_labelled_work"}
"""What is planned for its values each time: see ``limit_search.sql``."""


@asynccontextmanager
async def deep(server: str, depth: int) -> AsyncIterator[Deep]:
    async with fresh_database(server) as url, open_pool(url) as pool:
        yield await fill(pool, depth)


@pytest.fixture(scope="module")
async def small(postgres_server: str) -> AsyncIterator[Deep]:
    async with deep(postgres_server, SMALL) as filled:
        yield filled


@pytest.fixture(scope="module")
async def large(postgres_server: str) -> AsyncIterator[Deep]:
    async with deep(postgres_server, DEPTH) as filled:
        yield filled


@pytest.fixture(scope="module")
async def huge(postgres_server: str) -> AsyncIterator[Deep]:
    async with deep(postgres_server, SCALE) as filled:
        yield filled


def cases(table: dict[str, dict[str, Case]]) -> list[tuple[str, str]]:
    return [(name, kind) for name, kinds in table.items() for kind in kinds]


async def plan_of(filled: Deep, name: str, parameters: Parameters) -> Parameters:
    """Run a statement in a transaction that is undone, and return how it was carried out."""
    connection = await filled.pool.acquire()
    undone = connection.transaction()
    await undone.start()
    try:
        if name in NEVER_GENERIC:
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        return await explain(connection, *bind(name, parameters))
    finally:
        await undone.rollback()
        await filled.pool.release(connection)


def nodes(plan: Parameters) -> list[Parameters]:
    """Return all nodes of a plan."""
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


def scans(plan: Parameters) -> list[str]:
    """Return which big tables are read from one end to the other."""
    return [
        node["Relation Name"]
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG_TABLES
    ]


def buffers(plan: Parameters) -> int:
    """Return how many pages were looked at, those of parts that nothing waits for included."""
    parts = [plan, *(node for node in nodes(plan) if node.get("Subplan Name", "")[:4] == "CTE ")]
    return sum(part["Shared Hit Blocks"] + part["Shared Read Blocks"] for part in parts)


@pytest.mark.parametrize(("name", "kind"), cases(BOUNDED))
async def test_as_much_is_read_of_much_as_of_little(
    small: Deep, large: Deep, name: str, kind: str
) -> None:
    case = BOUNDED[name][kind]
    of_little = await plan_of(small, name, case(small))
    of_much = await plan_of(large, name, case(large))

    assert scans(of_much) == []
    assert buffers(of_much) <= 2 * buffers(of_little) + ALLOWANCE


@pytest.mark.parametrize(("name", "kind"), cases(COUNTING))
async def test_what_counts_reads_indexes(large: Deep, name: str, kind: str) -> None:
    plan = await plan_of(large, name, COUNTING[name][kind](large))

    assert scans(plan) == []


@pytest.mark.scale
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "kind"), [*cases(BOUNDED), *cases(COUNTING)])
async def test_as_much_is_read_of_a_million_as_of_little(
    small: Deep, huge: Deep, name: str, kind: str
) -> None:
    case = (BOUNDED | COUNTING)[name][kind]
    of_little = await plan_of(small, name, case(small))
    of_much = await plan_of(huge, name, case(huge))

    assert scans(of_much) == []
    if name in BOUNDED:
        assert buffers(of_much) <= 2 * buffers(of_little) + ALLOWANCE


@pytest.mark.parametrize("name", sorted({*BOUNDED, *COUNTING} - NEVER_GENERIC))
async def test_a_plan_for_any_values_reads_no_big_table_whole(large: Deep, name: str) -> None:
    """A prepared statement gets such a plan after a few uses, if it seems to cost no more."""
    async with transaction(large.pool) as db:
        await db.execute(
            "CREATE OR REPLACE FUNCTION pg_temp.plan(statement text) RETURNS jsonb"
            " LANGUAGE plpgsql AS $$ DECLARE plan jsonb; BEGIN"
            " EXECUTE 'EXPLAIN (GENERIC_PLAN, FORMAT JSON) ' || statement INTO plan;"
            " RETURN plan; END $$"
        )
        [found] = await db.fetchval("SELECT pg_temp.plan($1)", statement(name).sql)

    assert scans(found["Plan"]) == []


def test_every_statement_on_a_big_table_is_looked_at() -> None:
    folder = Path(statements.__file__).parent / "queries"
    named = re.compile(rf"\b({'|'.join((*BIG_TABLES, *VIEWS_OF_THEM))})\b")
    found = {
        path.stem for path in folder.glob("*.sql") if named.search(parse(path.read_text()).sql)
    }

    assert sorted(found - OF_THE_CATALOG) == sorted({*BOUNDED, *COUNTING})


async def test_counting_what_is_pending_reads_a_small_part_of_the_queue(large: Deep) -> None:
    plan = await plan_of(large, "count_queue", {})
    pages = await large.pool.fetchval(
        "SELECT pg_relation_size('work_queue') / current_setting('block_size')::int"
    )

    assert "work_queue_depth" in {node.get("Index Name") for node in nodes(plan)}
    assert buffers(plan) < pages / 5


async def test_a_renewal_touches_no_index_and_a_fresh_lease_nothing(queue: Queue) -> None:
    agent = await queue.an_agent()
    claim = await queue.claim(await queue.submit(), by=agent)

    async def updates(share: float) -> tuple[int, int]:
        """Renew a lease of which such a share is left; return its updates, and the HOT ones."""
        await queue.pool.execute(
            "UPDATE work_queue SET lease_expires_at = now()"
            " + $1::float * make_interval(secs => claim_timeout_seconds)",
            share,
        )
        seen = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables"
        async with transaction(queue.pool) as db:
            before = await db.fetchrow(f"{seen} WHERE relname = 'work_queue'")
            assert await renew_claims(db, [claim.claim_id], by=holder(agent))
            after = await db.fetchrow(f"{seen} WHERE relname = 'work_queue'")
        assert before is not None
        assert after is not None
        return after[0] - before[0], after[1] - before[1]

    assert await updates(0.5) == (1, 1)
    assert await updates(0.95) == (0, 0)

"""
A throw-away PostgreSQL, and queues of any length in it.

The server is the broker's embedded one with its own settings: durable, and small.
"""

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from brokkr.broker.db.embedded import embedded_postgres
from brokkr.broker.db.migrate import migrate
from brokkr.broker.db.pool import Connection, Pool, connect, open_pool
from brokkr.broker.db.selectors import selectors_of
from brokkr.broker.db.work_ids import new_work_id
from brokkr.local.build_runner.definitions import definitions
from brokkr.wire.bodies import MatchExpressionBody, TargetBody
from brokkr.wire.custom_resource import API_VERSION, KIND, render_spec
from brokkr.work.model import Manifest
from brokkr.work.selectors import Operator

ZONES = 50
ZONES_PER_SELECTOR = 5
"""So each agent is in five lanes of fifty, and a lane has a tenth of all agents."""
_numbers = count(1)


@asynccontextmanager
async def throw_away_postgres() -> AsyncIterator[str]:
    """Run a PostgreSQL with an empty, migrated database ``template`` for the block."""
    with tempfile.TemporaryDirectory(prefix="brokkr-bench-", ignore_cleanup_errors=True) as folder:
        async with embedded_postgres(Path(folder)) as url:
            async with connect(url) as db:
                await db.execute("CREATE DATABASE template")
            await migrate(url_of(url, "template"))
            yield url


@asynccontextmanager
async def database(url: str, *, template: str = "template") -> AsyncIterator[str]:
    """Clone a database for the block."""
    name = f"bench_{next(_numbers)}"
    async with connect(url) as db:
        await db.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url_of(url, name)
    async with connect(url) as db:
        await db.execute(f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def pool_of(url: str, *, size: int = 10) -> AsyncIterator[Pool]:
    """Open the broker's own kind of pool, and close it before its database is dropped."""
    async with open_pool(url, size=size) as pool:
        yield pool
        await pool.close()


def url_of(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return url.replace("/postgres?", f"/{name}?")


def a_template() -> dict[str, Any]:
    """Return a Build as users submit them; the Work resource comes to some 1.2 kB."""
    return {
        "apiVersion": "shipwright.io/v1beta1",
        "kind": "Build",
        "metadata": {"name": "shop-frontend", "annotations": {"team": "shop"}},
        "spec": {
            "source": {
                "type": "Git",
                "git": {"url": "https://git.example.com/shop/frontend.git", "revision": "main"},
                "contextDir": "services/frontend",
            },
            "strategy": {"name": "buildah", "kind": "ClusterBuildStrategy"},
            "paramValues": [
                {"name": "dockerfile", "value": "deploy/Dockerfile"},
                {"name": "build-args", "values": [{"value": f"ARG_{n}=value"} for n in range(12)]},
                {"name": "registries-insecure", "values": [{"value": "registry.example.com"}]},
            ],
            "output": {
                "image": "registry.example.com/shop/frontend:latest",
                "pushSecret": "registry-push",
                "annotations": {"org.opencontainers.image.source": "https://git.example.com"},
            },
            "timeout": "15m",
            "retention": {"atBuildDeletion": True},
        },
    }


def a_resource() -> str:
    """Return the text that the queue keeps of such a submission."""
    spec = render_spec(
        work_type="build",
        max_retries=3,
        claim_timeout=timedelta(hours=1),
        template=a_template(),
    )
    return json.dumps(
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "work"}, "spec": spec}
    )


def a_work(target_sha256: bytes) -> dict[str, Any]:
    """Return what ``insert_work.sql`` takes, but for the id."""
    return {
        "work_type": "build",
        "crd_spec": a_resource(),
        "target_sha256": target_sha256.hex(),
        "priority": 0,
        "max_retries": 3,
        "max_handoffs": 0,
        "claim_timeout_seconds": 3600,
        "labels": {},
    }


def custom_resources() -> list[Manifest]:
    """Return the definitions that an agent needs of its cluster: Works, and Shipwright's."""
    work = (files("brokkr.agent.kube") / "crd.yaml").read_text()
    return [yaml.safe_load(work), *definitions()]


async def make_agents(db: Connection, agents: int) -> None:
    """Store agents ``agent-1`` and so on, spread evenly over the zones."""
    await db.execute(
        "INSERT INTO agents (id, name, cluster_name, labels, annotations)"
        " SELECT gen_random_uuid(), 'agent-' || n, 'cluster',"
        "        jsonb_build_object('any', 'yes', 'zone', 'z' || n % $2::int), '{}'"
        "   FROM generate_series(1, $1::int) AS n",
        agents,
        ZONES,
    )
    await db.execute("ANALYZE agents")


async def make_selectors(db: Connection) -> list[int]:
    """Store one selector for each zone, with the agents that each selects."""
    targets = [("build", [TargetBody(match_expressions=[each])]) for each in _in()]
    async with db.transaction():
        made = await selectors_of(db, targets)
    await db.execute("ANALYZE agent_selectors, selectors")
    return made


def _in() -> list[MatchExpressionBody]:
    return [
        MatchExpressionBody(
            key="zone",
            operator=Operator.IN,
            values=[f"z{(first + n) % ZONES}" for n in range(ZONES_PER_SELECTOR)],
        )
        for first in range(ZONES)
    ]


async def fill(db: Connection, selectors: list[int], works: int) -> None:
    """Queue so many Works, spread evenly over the lanes, and let the planner know."""
    first = new_work_id().int >> 80 << 80
    await db.execute(
        "INSERT INTO work_queue (id, work_type, crd_spec, selector_id, priority, max_retries,"
        "                        events)"
        " SELECT ($1::text || lpad(to_hex(n), 20, '0'))::uuid, 'build', $2,"
        "        ($3::bigint[])[1 + n % cardinality($3::bigint[])], 0, 3, 1"
        "   FROM generate_series(1, $4::int) AS n",
        UUID(int=first).hex[:12],
        a_resource(),
        selectors,
        works,
    )
    await db.execute("VACUUM (ANALYZE) work_queue")


async def warm(db: Connection) -> None:
    """Read every block that a benchmark will, so that none is read for the first time."""
    await db.execute("SET enable_indexscan = off; SET enable_bitmapscan = off")
    await db.fetchval("SELECT sum(length(crd_spec)) FROM work_queue")
    await db.execute("RESET enable_indexscan; RESET enable_bitmapscan")

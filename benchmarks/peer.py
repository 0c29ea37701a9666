"""
Another queue on PostgreSQL, run the way its own documentation says, without HTTP.

A process of its own, started as ``peer.py NAME ROLE URL CLIENTS BATCH JOBS``: ``install`` makes
the tables, ``submit`` hands in so many jobs, and ``work`` executes jobs until it is
terminated.  It says ``ready`` when it is connected, and begins when a line comes in.  The
jobs do nothing; what they carry is as large as a Work's template.
"""

# Note [What the peers do]
#
# As many submitters and as many workers as the broker has pairs, but thirty at most, for each
# is a connection to PostgreSQL; and at most a batch at a time.
# PgQueuer takes and logs jobs in batches itself: each worker is a queue manager with a
# connection of its own, and its batch size is ours.  Procrastinate submits in batches and
# takes jobs one by one: its workers are one worker's concurrency.  Their submitters and their
# workers are two processes, so that each queue has two of Python's, as the broker has with
# the benchmark's client.

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from itertools import repeat
from typing import Any

import asyncpg
import uvloop
from pgqueuer import Queries, QueueManager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from procrastinate import App, PsycopgConnector

from world import a_template

UNFINISHED = {
    "pgqueuer": "SELECT count(*) FROM pgqueuer",
    "procrastinate": "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
}
"""By peer, how many jobs are not over."""


async def _pgqueuer(role: str, url: str, clients: int, batch: int, jobs: int) -> None:
    connections = [await asyncpg.connect(url) for _ in range(clients)]
    drivers = [AsyncpgDriver(each) for each in connections]
    if role == "install":
        await Queries(drivers[0]).install()
    elif role == "submit":
        payload = json.dumps(a_template()).encode()

        def submitter(queries: Queries) -> Callable[[int], Awaitable[object]]:
            return lambda n: queries.enqueue(["work"] * n, [payload] * n, [0] * n)

        await _until_told()
        await _share(jobs, batch, [submitter(Queries(each)) for each in drivers])
    else:
        managers = [QueueManager(Queries(each)) for each in drivers]
        for each in managers:

            @each.entrypoint("work")
            async def work(_job: Job) -> None:
                """Do nothing."""

        await _until_told()
        await asyncio.gather(*(each.run(batch_size=batch) for each in managers))


async def _procrastinate(role: str, url: str, clients: int, batch: int, jobs: int) -> None:
    app = App(connector=PsycopgConnector(conninfo=url, min_size=clients, max_size=clients + 4))

    @app.task(name="work")
    async def work(*, template: Mapping[str, Any]) -> None:
        """Do nothing."""

    async with app.open_async():
        if role == "install":
            await app.schema_manager.apply_schema_async()
        elif role == "submit":
            one: dict[str, Any] = {"template": a_template()}

            async def submit(number: int) -> None:
                await work.batch_defer_async(*repeat(one, number))

            await _until_told()
            await _share(jobs, batch, [submit] * clients)
        else:
            await _until_told()
            await app.run_worker_async(concurrency=clients)


async def _share(
    jobs: int, batch: int, submitters: Sequence[Callable[[int], Awaitable[object]]]
) -> None:
    """Submit so many in all, each submitter one batch after the other."""
    sizes = iter([batch] * (jobs // batch))

    async def go(submit: Callable[[int], Awaitable[object]]) -> None:
        for size in sizes:
            await submit(size)

    await asyncio.gather(*map(go, submitters))


async def _until_told() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def main() -> Coroutine[Any, Any, None]:
    """Read the arguments."""
    logging.disable()
    name, role, url, *numbers = sys.argv[1:]
    clients, batch, jobs = map(int, numbers)
    peer = {"pgqueuer": _pgqueuer, "procrastinate": _procrastinate}[name]
    return peer(role, url, clients, batch, jobs)


if __name__ == "__main__":
    uvloop.run(main())

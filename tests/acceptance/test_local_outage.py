"""A broker with its own database that crashes while a real build runs loses nothing of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from brokkr.local.process import running
from brokkr.wire.bodies import WorkState
from support.local import LOCAL, Local, build_args, local_mode, value
from support.signals import eventually
from support.system import brokkr, environment, kill

pytestmark = [pytest.mark.build, pytest.mark.kube, pytest.mark.postgres]


@asynccontextmanager
async def another_broker(local: Local) -> AsyncIterator[None]:
    """Run a broker in the place of local mode's, on the same port and data folder."""
    url = local.system.broker_url

    async def is_ready() -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as got:
                return got.status == 200
        except aiohttp.ClientError:
            return False

    async with running(
        "another-broker",
        brokkr("broker", "serve"),
        log=local.system.folder / "another-broker.log",
        env=environment(
            BROKER__HOST="127.0.0.1",
            BROKER__PORT=str(urlsplit(url).port),
            BROKER__DATA_DIR=str(local.system.folder / "broker"),
        ),
        cwd=local.system.folder,
        is_ready=is_ready,
    ):
        yield


@pytest.mark.timeout(240)
async def test_a_build_that_ends_while_the_broker_is_dead_is_completed_once(
    tmp_path: Path,
) -> None:
    async with local_mode(tmp_path) as local:
        values = [value("dockerfile", "Dockerfile.sleeps"), build_args("SECONDS=2")]
        submitted = await local.submit(local.a_build(values=values), target=LOCAL)
        await eventually(local.is_asleep, within=60)
        broker = local.server("broker")
        kill(broker)
        await broker.wait()

        async def has_ended_in_the_cluster() -> bool:
            resource = await local.find_resource(submitted, agent="local") or {}
            return "completionTime" in resource.get("status", {})

        await eventually(has_ended_in_the_cluster, within=60)
        async with another_broker(local):
            work = await local.end_of(submitted)
            events = (await local.broker.list_events(work.id)).items

        assert work.status is WorkState.SUCCEEDED, work.result_message
        assert (work.round, work.lost_claims, work.retries_attempted) == (1, 0, 0)
        assert len(await local.build_runs_of(work)) == 1
        assert [each.kind for each in events].count("completed") == 1

"""What a broker is told acts; what other tests show of settings has the same marker there."""

import asyncio
import re
import secrets
import signal
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp
import pytest

from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.local.process import free_port
from brokkr.wire.bodies import (
    ClaimOne,
    CompleteWork,
    Heartbeat,
    RegisterAgent,
    SubmitWork,
    TargetBody,
    WorkState,
)
from brokkr.work.errors import BrokerUnavailable, WorkNotFound
from support.broker import serving
from support.command_line import CommandLine
from support.factories import a_build_template
from support.signals import eventually

pytestmark = pytest.mark.postgres


def a_submission(**fields: int) -> SubmitWork:
    target = TargetBody(match_labels={"gpu": "true"})
    return SubmitWork(work_type="build", template=a_build_template(), target=target, **fields)


@pytest.mark.setting(
    *("broker.host", "broker.port", "broker.admin_key", "broker.log_format", "broker.log_level"),
    *("database.url", "database.pool_size"),
)
async def test_a_process_is_what_its_environment_says(tmp_path: Path, database_url: str) -> None:
    key, port = f"brokkr_adm{'a' * 10}_{secrets.token_urlsafe(32)}", free_port()
    brokkr = CommandLine(
        tmp_path,
        BROKKR__BROKER__HOST="127.0.0.2",
        BROKKR__BROKER__PORT=str(port),
        BROKKR__BROKER__ADMIN_KEY=key,
        BROKKR__BROKER__LOG_FORMAT="console",
        BROKKR__BROKER__LOG_LEVEL="debug",
        BROKKR__DATABASE__URL=database_url,
        BROKKR__DATABASE__POOL_SIZE="7",
    )
    url = f"http://127.0.0.2:{port}"
    async with brokkr.started("broker", "serve") as process, BrokerClient(url, key) as admin:

        async def is_served() -> bool:
            try:
                await admin.get_work(uuid4())
            except BrokerUnavailable:
                return False
            except WorkNotFound:
                return True
            return False

        await eventually(is_served)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
            metrics = await answer.text()
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()

    assert re.search(r"^brokkr_broker_pool_connections_limit 7\.0$", metrics, re.MULTILINE)
    # For people, though this is no terminal, and with what is said of requests that go well.
    assert b"broker listens" in log
    assert b"[debug" in log
    assert not [line for line in log.splitlines() if line.startswith(b"{")]


@pytest.mark.setting("broker.max_lost_claims", "broker.stale_claim_interval_seconds")
async def test_claims_are_looked_for_as_often_and_may_be_lost_as_often_as_it_says(
    database_url: str,
) -> None:
    key = await create_admin_key(database_url)
    settings = BrokerSettings(max_lost_claims=1, stale_claim_interval_seconds=0.1)
    async with serving(settings, database_url) as app, BrokerClient(app.url, key) as admin:
        agent = await admin.register_agent(RegisterAgent(name="a", labels={"gpu": "true"}))
        # By itself it looks every ten seconds: it would find one in time by chance, but not two.
        for _ in range(2):
            work_id = (await admin.submit_work(a_submission(claim_timeout_seconds=1))).id
            async with BrokerClient(app.url, agent.key) as client:
                await client.claim_work(work_id, ClaimOne())

            await eventually(partial(is_quarantined, admin, work_id), within=8)


async def is_quarantined(admin: BrokerClient, work_id: UUID) -> bool:
    return (await admin.get_work(work_id)).status is WorkState.QUARANTINED


@pytest.mark.setting("broker.handoff_max_delay_seconds")
async def test_no_hand_off_waits_longer_than_it_says(database_url: str) -> None:
    key = await create_admin_key(database_url)
    settings = BrokerSettings(handoff_base_delay_seconds=3600, handoff_max_delay_seconds=0)
    async with serving(settings, database_url) as app, BrokerClient(app.url, key) as admin:
        one, two = [
            await admin.register_agent(RegisterAgent(name=name, labels={"gpu": "true"}))
            for name in ("one", "two")
        ]
        work_id = (await admin.submit_work(a_submission(max_handoffs=1))).id
        async with BrokerClient(app.url, one.key) as tired, BrokerClient(app.url, two.key) as fresh:
            await fresh.heartbeat(two.id, Heartbeat(incarnation=uuid4()))
            claim = await tired.claim_work(work_id, ClaimOne())
            failed = CompleteWork(claim_id=claim.claim_id, success=False, retryable=True)
            await tired.complete_work(work_id, failed)
            async with asyncio.timeout(10):
                assert (await fresh.claim_work(work_id, ClaimOne())).round == 2

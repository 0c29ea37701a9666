"""Two brokers on one database are one broker."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest

from brokkr.broker.db.pool import Pool
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import (
    ClaimBody,
    ClaimSome,
    RegisteredAgent,
    RelabelAgent,
    SubmitWork,
    TargetBody,
    WorkBody,
)
from support.broker import ServedApp, serving
from support.factories import a_build_template
from support.signals import eventually

from .conftest import Served

SOON = 10
"""Seconds: far less than a poll waits, for a machine that does other things too."""


@dataclass
class Parked:
    """A poll that waits at the other broker."""

    agent: RegisteredAgent
    broker: ServedApp
    answer: asyncio.Task[Sequence[ClaimBody]]


@pytest.fixture
async def parked(served: Served, database_url: str) -> AsyncIterator[Parked]:
    agent, _ = await served.an_agent()
    async with (
        serving(BrokerSettings(), database_url) as other,
        BrokerClient(other.url, agent.key) as client,
    ):
        poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))

        async def is_parked() -> bool:
            return bool(other.parts.dispatcher.waiting == 1)

        await eventually(is_parked)
        yield Parked(agent, other, poll)
        poll.cancel()
        await asyncio.wait([poll])


async def submit(served: Served, target: TargetBody) -> WorkBody:
    return await served.admin.submit_work(
        SubmitWork(work_type="build", template=a_build_template(), target=target)
    )


async def test_a_poll_at_one_broker_hears_of_a_submission_at_another(
    served: Served, parked: Parked
) -> None:
    submitted = await submit(served, TargetBody(agents=[parked.agent.name]))
    async with asyncio.timeout(SOON):
        [claim] = await parked.answer

    assert claim.id == submitted.id
    assert claim.broker == str(served.broker.id)


async def test_an_agent_that_is_relabelled_at_one_broker_gains_work_at_another(
    served: Served, parked: Parked
) -> None:
    submitted = await submit(served, TargetBody(match_labels={"gpu": "true"}))

    await served.admin.relabel_agent(parked.agent.id, RelabelAgent(labels={"gpu": "true"}))

    async with asyncio.timeout(SOON):
        assert [each.id for each in await parked.answer] == [submitted.id]


async def test_a_lost_connection_between_brokers_costs_a_poll_little_time(
    served: Served, parked: Parked, pool: Pool
) -> None:
    await pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'brokkr-channel' AND datname = current_database()"
    )
    submitted = await submit(served, TargetBody(agents=[parked.agent.name]))

    async with asyncio.timeout(SOON):
        assert [each.id for each in await parked.answer] == [submitted.id]


async def test_what_a_deleted_agent_held_is_offered_at_the_other_broker(
    served: Served, parked: Parked
) -> None:
    holder, client = await served.an_agent("holder", gpu="true")
    submitted = await submit(served, TargetBody(match_labels={"gpu": "true"}))
    await client.claim_some(holder.id, ClaimSome())
    await served.admin.relabel_agent(parked.agent.id, RelabelAgent(labels={"gpu": "true"}))

    await served.admin.delete_agent(holder.id)

    async with asyncio.timeout(SOON):
        assert [each.id for each in await parked.answer] == [submitted.id]

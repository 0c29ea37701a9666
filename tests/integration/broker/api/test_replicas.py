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
from brokkr.work.errors import Unauthenticated
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


# -- keys ----------------------------------------------------------------------------------


async def status_at(served: Served, broker: ServedApp, key: str) -> int:
    """Submit a Work at another broker with a key; return the status of the answer."""
    async with served.http.post(
        f"{broker.url}/api/v1/work",
        headers={"Authorization": f"Bearer {key}"},
        json={
            "work_type": "build",
            "template": a_build_template(),
            "target": {"match_labels": {"any": "yes"}},
        },
    ) as answer:
        return answer.status


@pytest.mark.parametrize("how", ["rotated", "revoked", "deleted"])
async def test_a_key_that_is_revoked_at_one_broker_opens_nothing_at_another_at_once(
    served: Served, database_url: str, how: str
) -> None:
    async with serving(BrokerSettings(), database_url) as other:
        _, created = await served.request("POST", "/api/v1/generators", json={"name": "team"})
        key = created["key"]
        accepted, late = 0, 0
        is_over = asyncio.Event()

        async def submit_on() -> None:
            nonlocal accepted, late
            while True:
                was_over = is_over.is_set()
                status = await status_at(served, other, key)
                if status == 401:
                    return
                assert status == 201
                accepted += 1
                late += was_over

        submitting = [asyncio.create_task(submit_on()) for _ in range(4)]
        await asyncio.sleep(0.3)
        if how == "rotated":
            await served.request("POST", "/api/v1/generators/team/rotate-key")
        elif how == "revoked":
            await served.request("DELETE", f"/api/v1/keys/{key[len('brokkr_gen') :][:10]}")
        else:
            await served.request("DELETE", "/api/v1/generators/team")
        is_over.set()
        async with asyncio.timeout(2):
            await asyncio.gather(*submitting)

    assert accepted > 0
    assert late <= len(submitting)  # those that were on their way


async def test_the_key_of_a_deleted_agent_opens_nothing_at_another_broker(
    served: Served, database_url: str
) -> None:
    agent, _ = await served.an_agent()
    async with (
        serving(BrokerSettings(), database_url) as other,
        BrokerClient(other.url, agent.key) as client,
    ):
        await client.get_agent(agent.id)
        await served.admin.delete_agent(agent.id)

        async def is_refused() -> bool:
            try:
                await client.get_agent(agent.id)
            except Unauthenticated:
                return True
            return False

        async with asyncio.timeout(2):
            await eventually(is_refused)


async def test_a_broker_that_did_not_listen_asks_about_all_keys_when_it_does_again(
    served: Served, database_url: str, pool: Pool
) -> None:
    async with serving(BrokerSettings(), database_url) as other:
        _, created = await served.request("POST", "/api/v1/generators", json={"name": "team"})
        assert await status_at(served, other, created["key"]) == 201
        # Revoked by nobody who says so, as if the word had got lost with the connection.
        await pool.execute("UPDATE api_keys SET revoked_at = now() WHERE role = 'generator'")
        assert await status_at(served, other, created["key"]) == 201
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'brokkr-channel' AND datname = current_database()"
        )

        async def is_refused() -> bool:
            return await status_at(served, other, created["key"]) == 401

        async with asyncio.timeout(4):  # less than a key is remembered for
            await eventually(is_refused)

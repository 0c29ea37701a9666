"""Two brokers on one database are one broker."""

import asyncio

from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimSome, SubmitWork, TargetBody
from support.broker import serving
from support.factories import a_build_template
from support.signals import eventually

from .conftest import Served


async def test_a_poll_at_one_broker_hears_of_a_submission_at_another(
    served: Served, database_url: str
) -> None:
    agent, _ = await served.an_agent()
    async with (
        serving(BrokerSettings(), database_url) as other,
        BrokerClient(other.url, agent.key) as client,
    ):
        poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))

        async def is_parked() -> bool:
            return bool(other.parts.dispatcher.waiting == 1)

        await eventually(is_parked)
        submitted = await served.admin.submit_work(
            SubmitWork(
                work_type="build",
                template=a_build_template(),
                target=TargetBody(agents=[agent.name]),
            )
        )
        async with asyncio.timeout(10):
            [claim] = await poll

    assert claim.id == submitted.id
    assert claim.broker == str(served.broker.id)

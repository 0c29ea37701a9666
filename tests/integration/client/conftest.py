"""A broker, and an agent that a test plays."""

from collections.abc import AsyncIterator

import pytest

from brokkr.broker.db.keys import create_admin_key
from brokkr.client import BrokerClient
from brokkr.wire.bodies import RegisterAgent
from support.broker import RunningBroker
from support.played_agent import PlayedAgent


@pytest.fixture
async def admin_key(broker: RunningBroker) -> str:
    """A key for the broker."""
    return await create_admin_key(broker.database_url)


@pytest.fixture
async def agent(broker: RunningBroker) -> AsyncIterator[PlayedAgent]:
    registered = await broker.admin.register_agent(
        RegisterAgent(name="edge-1", labels={"gpu": "true"})
    )
    async with BrokerClient(broker.url, registered.key) as client:
        yield PlayedAgent(client, registered.id)

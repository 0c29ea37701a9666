"""A real broker in the test's own process, for tests of those who talk to it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from brokkr.broker.app import Server, create_app
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient


@dataclass(frozen=True)
class RunningBroker:
    """Where it is, and an admin's client for it."""

    url: str
    database_url: str
    admin: BrokerClient


@pytest.fixture
async def broker(database_url: str) -> AsyncIterator[RunningBroker]:
    """A broker on a database of its own, sweeping often."""
    key = await create_admin_key(database_url)
    settings = BrokerSettings(stale_claim_interval_seconds=0.2)
    app = create_app(settings, database_url=database_url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = Server(app)
        async with app.router.lifespan_context(app):
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            async with BrokerClient(url, key) as admin:
                yield RunningBroker(url=url, database_url=database_url, admin=admin)
            server.should_exit = True
            await serving

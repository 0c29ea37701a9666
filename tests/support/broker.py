"""A real broker in the test's own process, for tests of it and of those who talk to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from brokkr.broker.api.state import Broker
from brokkr.broker.app import Server, create_app, listening
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from support.signals import eventually


@dataclass(frozen=True)
class ServedApp:
    """Where it is, and its parts."""

    url: str
    parts: Broker
    server: Server


@asynccontextmanager
async def serving(
    settings: BrokerSettings, database_url: str, *, port: int = 0
) -> AsyncIterator[ServedApp]:
    """Serve a broker, on a free port unless one is given, until the block is left."""
    app = create_app(settings, database_url=database_url)
    with listening("127.0.0.1", port) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with app.router.lifespan_context(app):
            server = Server(app)
            task = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await eventually(partial(_is_ready, app.state.broker))
                yield ServedApp(url, app.state.broker, server)
            finally:
                server.should_exit = True
                await task


async def _is_ready(parts: Broker) -> bool:
    return parts.database is not None


@dataclass(frozen=True)
class RunningBroker:
    """Where it is, an admin's client for it, and its parts."""

    url: str
    database_url: str
    admin: BrokerClient
    parts: Broker


@pytest.fixture
async def broker(database_url: str) -> AsyncIterator[RunningBroker]:
    """A broker on a database of its own, sweeping often."""
    key = await create_admin_key(database_url)
    async with (
        serving(BrokerSettings(stale_claim_interval_seconds=0.2), database_url) as app,
        BrokerClient(app.url, key) as admin,
    ):
        yield RunningBroker(url=app.url, database_url=database_url, admin=admin, parts=app.parts)

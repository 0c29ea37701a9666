"""A broker, served by the real server on a port of its own, in this process."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from brokkr.broker.api.state import Broker
from brokkr.broker.app import Server
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import RegisterAgent, RegisteredAgent
from support.broker import serving


@dataclass
class Served:
    """A running broker, its parts, and clients for it."""

    url: str
    broker: Broker
    server: Server
    admin_key: str
    admin: BrokerClient
    http: aiohttp.ClientSession
    clients: AsyncExitStack

    async def client(self, key: str) -> BrokerClient:
        return await self.clients.enter_async_context(BrokerClient(self.url, key))

    async def an_agent(
        self, name: str = "edge-7", **labels: str
    ) -> tuple[RegisteredAgent, BrokerClient]:
        agent = await self.admin.register_agent(RegisterAgent(name=name, labels=labels))
        return agent, await self.client(agent.key)

    async def request(
        self, method: str, path: str, *, key: str | None = "", **options: Any
    ) -> tuple[int, Any]:
        """Ask without a client; ``key`` is the admin's unless given, None sends none."""
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key or self.admin_key}"
        async with self.http.request(
            method, self.url + path, headers=headers, **options
        ) as response:
            if "json" in response.content_type:
                return response.status, await response.json(content_type=None)
            return response.status, await response.text()


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    settings = BrokerSettings(max_body_bytes=100_000)
    key = await create_admin_key(database_url)
    async with serving(settings, database_url) as app, AsyncExitStack() as clients:
        admin = await clients.enter_async_context(BrokerClient(app.url, key))
        http = await clients.enter_async_context(aiohttp.ClientSession())
        yield Served(app.url, app.parts, app.server, key, admin, http, clients)

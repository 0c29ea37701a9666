"""Two brokers on one database are one broker."""

import asyncio
import socket

from brokkr.broker.app import Server, create_app
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimSome, SubmitWork, TargetBody
from support.factories import a_build_template
from support.signals import eventually

from .conftest import Served


async def test_a_poll_at_one_broker_hears_of_a_submission_at_another(
    served: Served, database_url: str
) -> None:
    agent, _ = await served.an_agent()
    app = create_app(BrokerSettings(), database_url=database_url)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with app.router.lifespan_context(app), BrokerClient(url, agent.key) as client:
        server = Server(app)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=60)))

        async def is_parked() -> bool:
            return bool(app.state.broker.dispatcher.waiting == 1)

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
        server.should_exit = True
        await serving

    assert claim.id == submitted.id
    assert claim.broker == str(served.broker.id)

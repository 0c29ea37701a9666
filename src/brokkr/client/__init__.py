"""
The broker, for programs: submit Work, wait for it, watch it, cancel it.

::

    from brokkr.client import Client

    with Client() as client:  # BROKKR_URL and BROKKR_KEY say which broker
        work = client.submit(Path("work.yaml"), target={"env": "prod"})
        work = client.wait(work.id, timeout_seconds=1800)

:class:`Client` is for scripts, :class:`AsyncClient` the same for asyncio.  Both repeat what
the broker does not answer.  :class:`BrokerClient` is what they are made of: the REST API,
one method for each endpoint, which asks once.

Whatever goes wrong is one of :mod:`brokkr.work.errors`.
"""

from brokkr.client.asynchronous import AsyncClient
from brokkr.client.endpoints import BrokerClient
from brokkr.client.submission import SubmitOptions
from brokkr.client.synchronous import Client
from brokkr.wire.bodies import MatchExpressionBody, TargetBody, WorkBody, WorkState
from brokkr.wire.events import WorkEvent

__all__ = [
    "AsyncClient",
    "BrokerClient",
    "Client",
    "MatchExpressionBody",
    "SubmitOptions",
    "TargetBody",
    "WorkBody",
    "WorkEvent",
    "WorkState",
]

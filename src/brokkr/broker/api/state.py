"""What every request may use; made by :mod:`brokkr.broker.app`, handed out here."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from brokkr.broker.db.pool import Pool
from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.metrics import Metrics
from brokkr.broker.settings import BrokerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The parts of a running broker.

    Attributes:
        id: The id of the database, by which resources in clusters name their broker.
    """

    id: UUID
    pool: Pool
    dispatcher: Dispatcher
    metrics: Metrics
    settings: BrokerSettings


def broker_of(request: Request) -> Broker:
    """Return the broker that a request was sent to."""
    broker: Broker = request.app.state.broker
    return broker


async def _the_broker(request: Request) -> Broker:
    return broker_of(request)  # a coroutine, or the framework would use a thread for it


TheBroker = Annotated[Broker, Depends(_the_broker)]

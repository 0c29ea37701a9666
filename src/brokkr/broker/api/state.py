"""What every request may use; made by :mod:`brokkr.broker.app`, handed out here."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from fastapi import Request

from brokkr.broker.db.callers import Callers
from brokkr.broker.db.clock import DatabaseClock
from brokkr.broker.db.pool import Pool
from brokkr.broker.db.shares import Connections
from brokkr.broker.db.work_queue import HandOffPolicy
from brokkr.broker.db.writes import Writes
from brokkr.broker.dispatch import Dispatcher
from brokkr.broker.followers import Followers
from brokkr.broker.metrics import Metrics
from brokkr.broker.settings import BrokerSettings
from brokkr.work.errors import DatabaseUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The database, once it has been seen and migrated.

    Attributes:
        id: By which resources in clusters name their broker.
    """

    id: UUID
    connections: Connections


@dataclass(slots=True, kw_only=True)
class Broker:
    """The parts of a running broker.

    Attributes:
        database: None until it has been seen; a broker serves before that.
        stopping: Set when the broker stops: whoever waits for something gives up.
    """

    dispatcher: Dispatcher
    metrics: Metrics
    settings: BrokerSettings
    callers: Callers = field(default_factory=Callers)
    clock: DatabaseClock = field(default_factory=DatabaseClock)
    followers: Followers = field(default_factory=Followers)
    writes: Writes = field(default_factory=Writes)
    database: Database | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> UUID:
        """
        Return the id of the database, by which resources in clusters name their broker.

        Raises:
            DatabaseUnavailable: It has not been seen yet.
        """
        return self._seen().id

    @property
    def connections(self) -> Connections:
        """
        Return the connections to the database, by what they are for.

        Raises:
            DatabaseUnavailable: It has not been seen yet.
        """
        return self._seen().connections

    @property
    def pool(self) -> Pool:
        """
        Return all connections to the database.

        Raises:
            DatabaseUnavailable: It has not been seen yet.
        """
        return self.connections.pool

    @property
    def handoff_policy(self) -> HandOffPolicy:
        """Return how long Work waits that is handed on or given back."""
        return HandOffPolicy(
            base=timedelta(seconds=self.settings.handoff_base_delay_seconds),
            cap=timedelta(seconds=self.settings.handoff_max_delay_seconds),
        )

    def _seen(self) -> Database:
        if self.database is None:
            raise DatabaseUnavailable("the broker has not reached its database yet")
        return self.database


def broker_of(request: Request) -> Broker:
    """Return the broker that a request was sent to."""
    broker: Broker = request.app.state.broker
    return broker

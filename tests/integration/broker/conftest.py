import pytest

from brokkr.broker.db.pool import Pool
from support.queue import Queue


@pytest.fixture
def queue(pool: Pool) -> Queue:
    return Queue(pool)

import pytest
from support.queue import Queue

from brokkr.broker.db.pool import Pool


@pytest.fixture
def queue(pool: Pool) -> Queue:
    return Queue(pool)

"""Copy the labels of Works from before there was a table of them for each generator."""

from dataclasses import dataclass
from typing import Final

import structlog

from brokkr.broker.db import execution_log
from brokkr.broker.db.pool import Lender, autocommit

_BATCH: Final = 1000
_BATCHES: Final = 100

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class LabelCopy:
    """Goes on until all are copied, by whichever replica; then there is nothing left to do."""

    pool: Lender
    batch: int = _BATCH
    is_done: bool = False

    async def __call__(self) -> None:
        """Copy the next labels, a batch at a time."""
        for _ in range(0 if self.is_done else _BATCHES):
            async with autocommit(self.pool) as db:
                if await execution_log.copy_labels(db, limit=self.batch):
                    self.is_done = True
                    return

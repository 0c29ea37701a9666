"""Submits the stream, and cancels what is to be cancelled, however long that takes."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Final, TypeVar
from uuid import UUID

from brokkr.client import BrokerClient
from brokkr.wire.bodies import SubmitBatch, SubmitWork
from brokkr.work.errors import BrokerUnavailable, LimitReached, WorkFinished
from chaos.stream import SORTS, Planned, Workshop, planned

MOST_QUEUED: Final = 40
_AGAIN_SECONDS: Final = 0.5
_T = TypeVar("_T")


class Submitter:
    """
    Two generators that never give up.

    Args:
        workshop: If there is none, no real build is submitted.

    Attributes:
        accepted: By idempotency key, the Work that a broker has said it has queued.
        sorts: By idempotency key, the sort of that Work.
        queued: How many Works are in the queue, as somebody has found.
    """

    def __init__(
        self, seed: str, broker_urls: list[str], keys: list[str], workshop: Workshop | None
    ) -> None:
        self.accepted: dict[str, str] = {}
        self.sorts: dict[str, str] = {}
        self.queued = 0
        self._seed = seed
        self._urls = broker_urls
        self._keys = keys
        self._workshop = workshop
        self._cancelling: set[asyncio.Task[None]] = set()

    async def run(self, until: asyncio.Event) -> None:
        """Submit until the event is set; return when all cancellations are answered."""
        async with AsyncExitStack() as stack:
            self._clients = [
                cycle([await stack.enter_async_context(BrokerClient(u, key)) for u in self._urls])
                for key in self._keys
            ]
            async with asyncio.TaskGroup() as tasks:
                for each in planned(self._seed):
                    if until.is_set():
                        break
                    if self._workshop is None and SORTS[each.sort].is_real:
                        continue
                    await self._submit(each, tasks)
                    await asyncio.sleep(each.pause_seconds)
                    while self.queued > MOST_QUEUED and not until.is_set():
                        await asyncio.sleep(_AGAIN_SECONDS)

    async def _submit(self, each: Planned, tasks: asyncio.TaskGroup) -> None:
        for key in each.keys:
            self.sorts[key] = each.sort
        bodies = each.bodies(self._workshop)
        if len(bodies) == 1:
            body = SubmitWork.model_validate(bodies[0])
            found = await self._ask(each.generator, lambda api: api.submit_work(body))
            self.accepted[each.keys[0]] = str(found.id)
        else:
            batch = SubmitBatch(items=bodies)
            items = await self._ask(each.generator, lambda api: api.submit_some(batch))
            for key, item in zip(each.keys, items, strict=True):
                assert item.work is not None, item
                self.accepted[key] = str(item.work.id)
        if SORTS[each.sort].cancelled:
            tasks.create_task(self._cancel(each))

    async def _cancel(self, each: Planned) -> None:
        await asyncio.sleep(each.cancel_seconds)
        work_id = UUID(self.accepted[each.keys[0]])
        try:
            await self._ask(each.generator, lambda api: api.cancel_work(work_id))
        except WorkFinished:
            return

    async def _ask(self, generator: int, ask: Callable[[BrokerClient], Awaitable[_T]]) -> _T:
        while True:
            try:
                async with asyncio.timeout(8):  # a frozen broker says nothing
                    return await ask(next(self._clients[generator]))
            except (BrokerUnavailable, LimitReached, TimeoutError):
                await asyncio.sleep(_AGAIN_SECONDS)

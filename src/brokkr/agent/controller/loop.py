"""
Take a key; observe, decide, act; look again later.  No policy lives here.

Watches only say *when* to look.  Nothing is remembered that can be read again, but for
``last_looked_at``: the heartbeat lists a claim only while the controller has looked at
its Work recently, so that a controller that is stuck loses its leases.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from brokkr.agent.controller.act import carry_out
from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.decide import Policy, decide
from brokkr.agent.controller.observe import observe
from brokkr.agent.controller.workqueue import Workqueue, work_off
from brokkr.agent.handlers.protocol import Handler
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.log_fields import about
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Work

log = structlog.get_logger()

WORKERS = 8


class Controller:
    """Drives the Work resources of one namespace to their ends."""

    def __init__(
        self,
        *,
        kube: KubeClient,
        caches: Caches,
        handlers: Mapping[str, Handler],
        policy: Policy,
        is_held: Callable[[Work], bool],
        clock: Callable[[], datetime],
        workqueue: Workqueue,
        resync_interval: timedelta,
    ) -> None:
        """
        Put a controller together; :meth:`run` starts it.

        Args:
            workqueue: The names of Works there is news of.
            is_held: Whether the broker has confirmed, to this process, that the claim on
                the resource is this agent's.  Anybody who may create Works can forge
                labels; without the confirmation nothing is started.
        """
        self._kube = kube
        self._caches = caches
        self._handlers = handlers
        self._policy = policy
        self._is_held = is_held
        self._clock = clock
        self._resync_interval = resync_interval
        self.workqueue = workqueue
        self.last_looked_at: dict[str, datetime] = {}

    async def run(self) -> None:
        """Reconcile for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._resync())
            tasks.create_task(work_off(self.workqueue, self.reconcile, workers=WORKERS))

    async def _resync(self) -> None:
        """Look at everything every so often: the floor under lost watch events."""
        while True:
            for name in self._caches.works.cache:
                self.workqueue.add(name)
            await asyncio.sleep(self._resync_interval.total_seconds())

    async def reconcile(self, name: str) -> timedelta | None:
        """Go once through observe, decide, act; say when to look again."""
        try:
            seen = await observe(
                name, kube=self._kube, caches=self._caches, handlers=self._handlers
            )
        except InvalidWork as error:
            log.warning("work resource ignored", work=name, error=str(error))
            return None
        if seen is None:  # deleted meanwhile
            self.last_looked_at.pop(name, None)
            return None

        structlog.contextvars.bind_contextvars(**about(seen.work))
        now = self._clock()
        self.last_looked_at[name] = now
        if not self._may_touch(seen.work):
            return None
        plan = decide(seen, now=now, policy=self._policy)
        await carry_out(
            plan,
            seen,
            kube=self._kube,
            caches=self._caches,
            handlers=self._handlers,
            now=now,
        )
        return plan.requeue_after

    def _may_touch(self, work: Work) -> bool:
        """Start nothing without the broker's word; stopping and cleaning up need none."""
        return work.status.phase.is_terminal or work.cancel_requested or self._is_held(work)

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
from brokkr.agent.controller.decide import Policy, Seen, decide
from brokkr.agent.controller.failures import AGENT_ERROR, own_failure
from brokkr.agent.controller.observe import observe
from brokkr.agent.controller.plan import DeleteAttempt, Note, Plan
from brokkr.agent.controller.record import ended
from brokkr.agent.controller.workqueue import Workqueue, work_off
from brokkr.agent.handlers.protocol import Handler
from brokkr.agent.handlers.verdict import Running
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeError
from brokkr.agent.log_fields import about
from brokkr.agent.metrics import Metrics
from brokkr.work.model import Phase, Work, WorkStatus

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
        metrics: Metrics,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Put a controller together; :meth:`run` starts it.

        Args:
            workqueue: The names of Works there is news of.
            is_held: Whether the broker has confirmed, to this process, that the claim on
                the resource is this agent's.  Anybody who may create Works can forge
                labels; without the confirmation nothing is started.
            on_step: Called with the name of a Work whose attempt has come to another step.
        """
        self._kube = kube
        self._caches = caches
        self._handlers = handlers
        self._policy = policy
        self._is_held = is_held
        self._clock = clock
        self._resync_interval = resync_interval
        self._metrics = metrics
        self._on_step = on_step
        self._steps: dict[str, str] = {}
        self._written_over: dict[str, str] = {}
        self.workqueue = workqueue
        self.last_looked_at: dict[str, datetime] = {}

    async def run(self) -> None:
        """Reconcile for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._resync())
            tasks.create_task(
                work_off(self.workqueue, self.reconcile, workers=WORKERS, give_up=self._give_up)
            )

    async def _resync(self) -> None:
        """
        Look at all that is not reported every so often: the floor under lost watch events.

        What is reported waits for its deletion; that is in the queue for when it is due.
        """
        while True:
            for name in self._caches.unacknowledged:
                self.workqueue.add(name)
            await asyncio.sleep(self._resync_interval.total_seconds())

    def step_of(self, name: str) -> str:
        """Return what a Work's attempt does now, in one word; empty if that is not known."""
        return self._steps.get(name, "")

    async def reconcile(self, name: str) -> timedelta | None:
        """Go once through observe, decide, act; say when to look again."""
        with (
            self._metrics.reconcile_seconds.time(),
            self._metrics.reconcile_errors.count_exceptions(KubeError),
        ):
            return await self._reconcile(name)

    async def _give_up(self, name: str, error: Exception) -> None:
        """End a Work that has surprised again and again: one failure, and no slot is stuck."""
        work = self._caches.works.get(name)
        if work is None or work.status.phase.is_terminal or not self._may_touch(work):
            return
        now = self._clock()
        failure = own_failure(AGENT_ERROR, f"{type(error).__name__}: {error}")
        status = ended(
            work,
            Phase.FAILED,
            failure.reason,
            failure.message,
            now=now,
            failure=failure,
            retryable=failure.fault.is_local,
        )
        stop = (DeleteAttempt(),) if work.work_type in self._handlers else ()
        note = Note(reason=failure.reason, message=failure.message, is_warning=True)
        await carry_out(
            Plan(actions=stop, status=status, notes=(note,)),
            Seen(work=work, verdict=failure),
            kube=self._kube,
            caches=self._caches,
            handlers=self._handlers,
            now=now,
        )
        self._count(work, status)

    async def _reconcile(self, name: str) -> timedelta | None:
        work = self._caches.works.get(name)
        if work is not None and work.resource_version == self._written_over.get(name):
            # An event of an attempt was faster than that of our own write, which will
            # bring the Work back.  To act on what was before it could only be refused.
            return None
        seen = await observe(name, kube=self._kube, caches=self._caches, handlers=self._handlers)
        if seen is None:  # deleted meanwhile
            self.last_looked_at.pop(name, None)
            self._steps.pop(name, None)
            self._written_over.pop(name, None)
            return None

        structlog.contextvars.bind_contextvars(**about(seen.work))
        now = self._clock()
        self.last_looked_at[name] = now
        if not self._may_touch(seen.work):
            return None
        plan = decide(seen, now=now, policy=self._policy)
        is_written = await carry_out(
            plan,
            seen,
            kube=self._kube,
            caches=self._caches,
            handlers=self._handlers,
            now=now,
        )
        if is_written:
            self._written_over[name] = seen.work.resource_version
        self._count(seen.work, plan.status)
        self._note_step(seen)
        return plan.requeue_after

    def _count(self, work: Work, status: WorkStatus) -> None:
        """Count the attempt that this look has found to be over, if it has."""
        over = {each.number for each in work.status.attempts if each.ended_at is not None}
        for attempt in status.attempts:
            if attempt.ended_at is not None and attempt.number not in over:
                outcome = {Phase.SUCCEEDED: "succeeded", Phase.CANCELLED: "cancelled"}
                self._metrics.attempts.labels(
                    work.work_type,
                    outcome.get(status.phase, "failed"),
                    attempt.failure_class,
                    attempt.fault,
                ).inc()
                if status.infrastructure_retries > work.status.infrastructure_retries:
                    self._metrics.infrastructure_retries.labels(
                        work.work_type, attempt.failure_class
                    ).inc()

    def _note_step(self, seen: Seen) -> None:
        step = seen.verdict.step if isinstance(seen.verdict, Running) else ""
        if step != self.step_of(seen.work.name):
            self._steps[seen.work.name] = step
            self._on_step(seen.work.name)

    def _may_touch(self, work: Work) -> bool:
        """Start nothing without the broker's word; stopping and cleaning up need none."""
        return work.status.phase.is_terminal or work.cancel_requested or self._is_held(work)

"""
What the broker counts and measures, for Prometheus.

Counters are of this process, and add up over the replicas.  What is measured in the database
is the same from each of them: take the largest, not the sum.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from brokkr.broker.db.claims import ClaimedWork
from brokkr.broker.db.measurements import Measured, measure
from brokkr.broker.db.pool import Lender, PoolUse, transaction
from brokkr.broker.db.retention import OUTCOMES
from brokkr.log_output import standard_error
from brokkr.work.errors import DatabaseUnavailable

MEASURE_EVERY_SECONDS: Final = 15
"""Counting a million takes a while: however often somebody asks, it is done this often."""

_DISPATCH_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    *(300, 1800, 3600, 6 * 3600, 86400),
)
_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_JOB_BUCKETS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 300)


class Metrics:
    """The broker's metrics, in a registry of its own: two brokers may share a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._measure_at = 0.0
        self._lines_lost = 0
        self.claims = self._counter("claims", "Claims given to agents.")
        self.lost_claims = self._counter(
            "lost_claims", "Claims taken back because their lease ran out."
        )
        self.finished = self._counter("finished_work", "Works that ended.", "outcome")
        for outcome in OUTCOMES:  # a rate needs something to rise from
            self.finished.labels(outcome)
        self.handoffs = self._counter("handoffs", "Works that were handed on to other agents.")
        self.throttled = self._counter(
            "throttled_submissions", "Submissions that a limit of their generator refused."
        )
        self.pruned = self._counter("pruned", "What retention has deleted.", "kind")
        self.repaired = self._counter(
            "repaired_agents", "Agents that were found in the wrong lanes, and put right."
        )
        self.log_lines_lost = self._counter(
            "log_lines_lost", "Log lines that could not be written."
        )
        self.dispatch = self._histogram(
            "dispatch_seconds",
            "From when a Work could be claimed until it was.",
            buckets=_DISPATCH_BUCKETS,
        )
        self.requests = self._histogram(
            "http_request_seconds",
            "Time to answer a request; long polls include their wait.",
            "method",
            "route",
            "status",
            buckets=_REQUEST_BUCKETS,
        )
        self.jobs = self._histogram(
            "job_seconds",
            "How long periodic jobs ran, by how that ended: done or failed.",
            "job",
            "result",
            buckets=_JOB_BUCKETS,
        )
        self.waiting = self._gauge("waiting_polls", "Long polls that wait for Work.")
        self.streams = self._gauge("event_streams", "Clients that follow events of a Work.")
        self.pool = self._gauge("pool_connections", "Open database connections.", "state")
        self.pool_limit = self._gauge(
            "pool_connections_limit", "How many connections this broker opens at most."
        )
        self.pool_waiting = self._gauge(
            "pool_waiting_requests", "What waits for a database connection."
        )
        self.database_up = self._gauge(
            "database_up", "Whether the database answered when it was last asked."
        )
        self.queued = self._gauge(
            "queued_work",
            "Works in the queue; an admin's have no generator.",
            "type",
            "generator",
            "status",
        )
        self.longest_wait = self._gauge(
            "oldest_pending_seconds", "Longest wait of a Work that could be claimed."
        )
        self.rows = self._gauge(
            "table_rows", "Live and dead rows of the busiest tables.", "table", "state"
        )
        self.oldest_transaction = self._gauge(
            "oldest_transaction_seconds",
            "Age of the oldest transaction; dead rows are kept for as long.",
        )

    def count_claims(self, claimed: Sequence[ClaimedWork]) -> None:
        """Count Works that were claimed, and how long they were to be had."""
        self.claims.inc(len(claimed))
        for each in claimed:
            if each.waited is not None:
                self.dispatch.observe(max(0, each.waited.total_seconds()))  # clocks are set back

    def count_outcomes(self, outcomes: Iterable[str]) -> None:
        """Count Works that ended, by how they did."""
        for outcome in outcomes:
            self.finished.labels(outcome).inc()

    def timed(
        self, job: Callable[[], Awaitable[None]], *, name: str
    ) -> Callable[[], Awaitable[None]]:
        """Return the job as one whose runs are counted and timed."""

        async def run() -> None:
            began = perf_counter()
            result = "failed"
            try:
                await job()
                result = "done"
            finally:
                self.jobs.labels(name, result).observe(perf_counter() - began)

        return run

    async def measure(self, pool: Lender, *, now: float) -> None:
        """
        Look at queue and tables, unless that was done lately.

        Args:
            now: In seconds, by a clock that only goes forward.

        Raises:
            DatabaseUnavailable: The database is away, or too slow.
        """
        if now < self._measure_at:
            return
        self._measure_at = now + MEASURE_EVERY_SECONDS
        try:
            async with transaction(pool) as db:
                self._note(await measure(db))
        except DatabaseUnavailable:
            self.database_up.set(0)
            raise
        self.database_up.set(1)

    def note_pool(self, use: PoolUse, *, waiting: int) -> None:
        """Note how the connections are used, and how many requests wait for their turn."""
        self.pool.labels("in_use").set(use.in_use)
        self.pool.labels("idle").set(use.idle)
        self.pool_limit.set(use.limit)
        self.pool_waiting.set(use.waiting + waiting)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        lost = standard_error.lost
        self.log_lines_lost.inc(lost - self._lines_lost)
        self._lines_lost = lost
        return generate_latest(self.registry)

    def _note(self, measured: Measured) -> None:
        self.queued.clear()  # kinds that are not queued any more are not said to be
        for kind in measured.queued:
            self.queued.labels(kind.work_type, kind.generator, kind.status).set(kind.works)
        self.longest_wait.set(measured.longest_wait.total_seconds())
        for table in measured.tables:
            self.rows.labels(table.name, "live").set(table.live)
            self.rows.labels(table.name, "dead").set(table.dead)
        self.oldest_transaction.set(measured.oldest_transaction.total_seconds())

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"brokkr_broker_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"brokkr_broker_{name}", meaning, labels, registry=self.registry)

    def _histogram(
        self, name: str, meaning: str, *labels: str, buckets: Sequence[float]
    ) -> Histogram:
        return Histogram(
            f"brokkr_broker_{name}", meaning, labels, registry=self.registry, buckets=buckets
        )

"""What the broker counts, for Prometheus."""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from brokkr.broker.db.claims import ClaimedWork


class Metrics:
    """The broker's metrics, in a registry of its own: two brokers may share a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.claims = Counter(
            "brokkr_broker_claims", "Claims given to agents.", registry=self.registry
        )
        self.lost_claims = Counter(
            "brokkr_broker_lost_claims",
            "Claims taken back because their lease ran out.",
            registry=self.registry,
        )
        self.finished = Counter(
            "brokkr_broker_finished_work",
            "Works that ended, as told to this broker; a completion sent again counts again.",
            ["outcome"],
            registry=self.registry,
        )
        self.queued = Gauge(
            "brokkr_broker_queued_work",
            "Works in the queue.",
            ["status"],
            registry=self.registry,
        )
        self.waiting = Gauge(
            "brokkr_broker_waiting_polls", "Long polls that wait for Work.", registry=self.registry
        )
        self.requests = Histogram(
            "brokkr_broker_http_request_seconds",
            "Time to answer a request; long polls include their wait.",
            ["method", "route", "status"],
            registry=self.registry,
        )

    def count_claims(self, claimed: Sequence[ClaimedWork]) -> None:
        """Count Works that were claimed."""
        self.claims.inc(len(claimed))

    def count_outcomes(self, outcomes: Iterable[str]) -> None:
        """Count Works that ended, by how they did."""
        for outcome in outcomes:
            self.finished.labels(outcome).inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

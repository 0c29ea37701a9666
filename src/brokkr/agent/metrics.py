"""
What Prometheus may know of an agent.

Counters are counted where things happen; what is a state is read when somebody asks.
"""

from collections import Counter as Tally
from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from brokkr.log_output import standard_error

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one agent, each under a name that begins with ``brokkr_agent_``."""

    def __init__(self) -> None:
        """Begin to count at nothing."""
        self.registry = CollectorRegistry()
        self._lines_lost = 0
        self.claims = Counter(
            "brokkr_agent_claims",
            "Works that were claimed.",
            ["type"],
            registry=self.registry,
        )
        self.attempts = Counter(
            "brokkr_agent_attempts",
            "Attempts that ended: succeeded, failed or cancelled, the class of failures, and "
            "whose failure it was.",
            ["type", "outcome", "class", "fault"],
            registry=self.registry,
        )
        self.infrastructure_retries = Counter(
            "brokkr_agent_infrastructure_retries",
            "Attempts that are repeated because the cluster or a node was to blame, by class.",
            ["type", "class"],
            registry=self.registry,
        )
        self.reported = Counter(
            "brokkr_agent_reported_works",
            "Works whose result the broker has taken.",
            ["outcome"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "brokkr_agent_reconcile_seconds",
            "How long one look at one Work took, with all that followed from it.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.reconcile_errors = Counter(
            "brokkr_agent_reconcile_errors",
            "Looks at a Work that ended in an error; they are repeated.",
            registry=self.registry,
        )
        self.log_lines_lost = Counter(
            "brokkr_agent_log_lines_lost",
            "Log lines that could not be written.",
            registry=self.registry,
        )
        self.watch_restarts = Counter(
            "brokkr_agent_watch_restarts",
            "Watches that broke or had to begin with a list again.",
            ["resource"],
            registry=self.registry,
        )
        self.orphans = Counter(
            "brokkr_agent_orphans_deleted",
            "Objects that were deleted because no Work of this agent's needs them any more.",
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "brokkr_agent_queue_depth",
            "Works that wait to be looked at (reconcile) or reported (report).",
            ["queue"],
            registry=self.registry,
        )
        self.works = Gauge(
            "brokkr_agent_works",
            "Work resources in the cluster, by phase.",
            ["phase"],
            registry=self.registry,
        )
        self.report_backlog = Gauge(
            "brokkr_agent_report_backlog",
            "Finished Works whose result the broker has not taken yet.",
            registry=self.registry,
        )
        self.free_slots = Gauge(
            "brokkr_agent_free_slots",
            "How many more Works would be claimed now.",
            registry=self.registry,
        )
        self.unable = Gauge(
            "brokkr_agent_unable",
            "Whether the agent cannot work in its cluster for this reason (1) or not (0).",
            ["reason"],
            registry=self.registry,
        )
        self.type_available = Gauge(
            "brokkr_agent_type_available",
            "Whether the cluster has what this type of work needs (1) or not (0).",
            ["type"],
            registry=self.registry,
        )

    def read_unable(self, reason: Callable[[], str | None], reasons: list[str]) -> None:
        """Read why the agent cannot work in its cluster whenever somebody asks."""
        for each in reasons:
            self.unable.labels(each).set_function(partial(_is_told, reason, each))

    def read_works(self, counts: Tally[str], phases: list[str]) -> None:
        """Read how many Works there are of each phase whenever somebody asks."""
        for phase in phases:
            self.works.labels(phase=phase).set_function(partial(counts.__getitem__, phase))

    def render(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        lost = standard_error.lost
        self.log_lines_lost.inc(lost - self._lines_lost)
        self._lines_lost = lost
        return generate_latest(self.registry)


def _is_told(reason: Callable[[], str | None], value: str) -> float:
    return float(reason() == value)

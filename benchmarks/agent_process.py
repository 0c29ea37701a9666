"""A real ``brokkr agent run`` process, and what it says of itself."""

import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from brokkr.local.process import free_port, running

_RECONCILE = "brokkr_agent_reconcile_seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProcess:
    """Where it is, and when it was started, in seconds since 1970."""

    pid: int
    started_at: float
    url: str

    async def looks(self) -> "Looks":
        """Return how long its looks at single Works have taken so far."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
            text = await answer.text()
        return Looks(
            {
                float(sample.labels["le"]): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == f"{_RECONCILE}_bucket"
            }
        )


@dataclass(frozen=True, slots=True)
class Looks:
    """A histogram: how many looks took no longer than so many seconds."""

    buckets: Mapping[float, float]

    def __sub__(self, before: "Looks") -> "Looks":
        return Looks({le: count - before.buckets[le] for le, count in self.buckets.items()})

    @property
    def count(self) -> int:
        """Return how many there were."""
        return int(max(self.buckets.values()))

    def percentile_ms(self, share: float) -> float:
        """Return the time that this share keeps below, as if each bucket was evenly filled.

        It is 0 if there were no looks, and where the last bucket begins if that has no end.
        """
        wanted = share * self.count
        lower, below = 0.0, 0.0
        for upper, count in sorted(self.buckets.items()):
            if count >= wanted and count > below and upper != float("inf"):
                return 1000 * (lower + (upper - lower) * (wanted - below) / (count - below))
            if upper != float("inf"):
                lower, below = upper, count
        return 1000 * lower if wanted else 0.0


@asynccontextmanager
async def agent_process(
    folder: Path,
    *,
    broker_url: str,
    key: str,
    kubeconfig: Path,
    namespace: str,
    settings: Mapping[str, str],
) -> AsyncIterator[AgentProcess]:
    """Run an agent for the block, which begins at once; settings by their variables' ends."""
    port = free_port()
    given = {
        "BROKER_URL": broker_url,
        "KEY": key,
        "KUBECONFIG": str(kubeconfig),
        "LOG_FORMAT": "json",
        "HEALTH__PORT": str(port),
        "WORK_CRD__NAMESPACE": namespace,
        **settings,
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("BROKKR_")}
    started_at = time.time()
    async with running(
        "agent",
        [Path(sys.executable).with_name("brokkr"), "agent", "run"],
        log=folder / f"agent-{namespace}.log",
        env={**inherited, **{f"BROKKR__AGENT__{k}": v for k, v in given.items()}},
    ) as server:
        yield AgentProcess(pid=server.pid, started_at=started_at, url=f"http://127.0.0.1:{port}")

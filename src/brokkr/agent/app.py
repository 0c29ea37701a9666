"""Run the agent: the only place that puts its parts together."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import structlog

from brokkr.agent.access import Access, Reason, Timing, needs_of
from brokkr.agent.access_probe import AccessProbe, log_changes
from brokkr.agent.claims import HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.decide import Policy
from brokkr.agent.controller.loop import Controller
from brokkr.agent.controller.workqueue import Workqueue
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.build.policy import BuildPolicy
from brokkr.agent.handlers.protocol import Handler
from brokkr.agent.handlers.registry import find_installed, handlers
from brokkr.agent.health import health_endpoint
from brokkr.agent.heartbeat import Heart
from brokkr.agent.intake import Intake
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeError
from brokkr.agent.kube.permissions import CLUSTER_ROLE, render_role
from brokkr.agent.metrics import Metrics
from brokkr.agent.orphans import OrphanSweep
from brokkr.agent.prerequisites import Prerequisites
from brokkr.agent.reporting import Reporting
from brokkr.agent.settings import AgentSettings, BuildSettings, WorkCrdSettings
from brokkr.client import BrokerClient
from brokkr.client.transport import retry_after_of
from brokkr.telemetry import exporting
from brokkr.wire.bodies import AgentBody
from brokkr.work.backoff import Backoff
from brokkr.work.errors import BrokkrError
from brokkr.work.explain import render_time
from brokkr.work.model import Phase
from brokkr.work.trace import Span

log = structlog.get_logger()

_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 10.0

_T = TypeVar("_T")

LEAVE_WITHIN: Final = timedelta(seconds=5)
HEARD_WITHIN: Final = timedelta(seconds=60)
"""A broker that has not answered for so long is away."""


def _now() -> datetime:
    return datetime.now(UTC)


def _jitter() -> float:
    return random.uniform(0.75, 1.0)  # noqa: S311 - spreads requests, guards nothing


async def run(settings: AgentSettings, *, timing: Timing = Timing()) -> None:  # noqa: B008  # frozen
    """
    Be an agent until cancelled.

    One that cannot work in its cluster stays up, claims nothing, and says why.

    Told to stop, it claims no more, gives back what nothing was made of yet, and leaves what
    runs to its successor.

    Without a broker, and also with one that refuses the agent's key, it waits: a proxy may
    have answered, and what runs in the cluster needs an agent.

    Raises:
        AgentSuperseded: A newer process of the same agent is at work.
        CannotListen: The health endpoint's address is taken.
        TelemetryUnavailable: Traces are to be exported, and cannot be.
    """
    key = "" if settings.key is None else settings.key.get_secret_value()
    async with AsyncExitStack() as opened:
        exporter = opened.enter_context(exporting("brokkr-agent"))
        config = KubeConfig.load(settings.kubeconfig)
        kube = await opened.enter_async_context(KubeClient(config))
        client = await opened.enter_async_context(BrokerClient(settings.broker_url, key))
        metrics, standing = Metrics(), _Standing(_now)
        await opened.enter_async_context(
            health_endpoint(
                settings.health.host,
                settings.health.port,
                metrics=metrics,
                problems=standing.problems,
                warnings=standing.warnings,
            )
        )
        agent = await _until_answered(lambda: client.get_agent("self"), standing.note)
        log.info("agent started", agent=agent.name, namespace=settings.work_crd.namespace)
        parts = _Parts(
            settings,
            agent,
            kube,
            client,
            metrics=metrics,
            timing=timing,
            own_namespace=config.own_namespace,
            export=None if exporter is None else exporter.export,
        )
        standing.parts = parts
        try:
            await parts.run()
        except BaseExceptionGroup as group:
            # The parts run for ever; the first error that gets out of one ends them all.
            raise _first_of(group) from group


class _Parts:
    """All that an agent consists of, put together."""

    def __init__(
        self,
        settings: AgentSettings,
        agent: AgentBody,
        kube: KubeClient,
        client: BrokerClient,
        *,
        metrics: Metrics,
        timing: Timing,
        own_namespace: str | None,
        export: Callable[[Span], None] | None,
    ) -> None:
        crd, news = settings.work_crd, asyncio.Event()
        kinds = _handlers(settings)
        held = HeldClaims()
        to_reconcile, to_report = Workqueue(_jitter), Workqueue(_jitter)

        def on_change(work_name: str) -> None:
            to_reconcile.add(work_name)
            to_report.add(work_name)
            news.set()

        def on_availability() -> None:
            self.intake.note_trouble()
            self.heart.wake()

        def on_access() -> None:
            self._log_access()
            on_availability()

        rules = (*render_role(crd.namespace), *CLUSTER_ROLE)
        self.timing = timing
        self.access = Access(
            needs_of(kinds, rules),
            namespace=crd.namespace,
            clock=time.monotonic,
            timing=timing,
            on_change=on_access,
        )
        self._log_access = log_changes(self.access)
        self.probe = AccessProbe(
            kube, self.access, namespace=crd.namespace, rules=rules, interval=timing.probe
        )

        self.prerequisites = Prerequisites(
            kube=kube,
            namespace=crd.namespace,
            handlers=kinds,
            objection=_objection(settings, own_namespace),
            interval=3 * timedelta(seconds=crd.reconcile_interval_seconds),
            metrics=metrics,
            on_change=on_availability,
        )
        self.caches = Caches(
            kube,
            crd.namespace,
            agent_id=agent.id,
            handlers=kinds.values(),
            on_change=on_change,
            on_restart=lambda kind: metrics.watch_restarts.labels(str(kind)).inc(),
        )
        self.controller = Controller(
            kube=kube,
            caches=self.caches,
            handlers=kinds,
            policy=_policy(crd),
            is_held=held.holds,
            clock=_now,
            workqueue=to_reconcile,
            resync_interval=timedelta(seconds=crd.reconcile_interval_seconds),
            metrics=metrics,
            on_step=to_report.add,
        )
        self.reporting = Reporting(
            client=client,
            kube=kube,
            caches=self.caches,
            held=held,
            clock=_now,
            workqueue=to_report,
            step_of=self.controller.step_of,
            export=export,
            metrics=metrics,
        )
        self.intake = Intake(
            agent=agent,
            client=client,
            kube=kube,
            caches=self.caches,
            held=held,
            namespace=crd.namespace,
            prerequisites=self.prerequisites,
            access=self.access,
            clock=time.monotonic,
            settings=settings.work_queue,
            news=news,
            jitter=_jitter,
            metrics=metrics,
        )
        self.heart = Heart(
            agent=agent,
            client=client,
            kube=kube,
            caches=self.caches,
            access=self.access,
            held=held,
            controller=self.controller,
            intake=self.intake,
            namespace=crd.namespace,
            clock=_now,
            monotonic=time.monotonic,
            grace=crd.unable_grace,
            patience=timedelta(seconds=max(60.0, 3 * crd.reconcile_interval_seconds)),
            stops_when_cut_off=settings.work_queue.when_cut_off == "stop",
            on_return=to_report.add,
            jitter=_jitter,
        )
        self.orphans = OrphanSweep(
            kube=kube,
            caches=self.caches,
            held=held,
            namespace=crd.namespace,
            grace=crd.orphan_grace,
            unreported_retention=crd.unreported_retention,
            clock=_now,
            metrics=metrics,
        )
        metrics.read_unable(
            lambda: None if self.intake.unable is None else self.intake.unable.reason,
            [each.value for each in Reason],
        )
        metrics.queue_depth.labels("reconcile").set_function(lambda: len(to_reconcile))
        metrics.queue_depth.labels("report").set_function(lambda: len(to_report))
        metrics.free_slots.set_function(lambda: self.intake.capacity.free)
        metrics.report_backlog.set_function(self.caches.count_unreported)
        metrics.read_works(self.caches.phases, [each.value for each in Phase])

    async def run(self) -> None:
        """Run all of them, until one fails or all are cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.caches.run())
                tasks.create_task(self.probe.run())
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.timing.confirm):
                        await self.caches.until_synced()
                        await self.prerequisites.look()
                # What the cluster holds is adopted before anything new is claimed: the first
                # heartbeat lists it, and hears of claims whose resource was never written.
                # If it is not known what the cluster holds, it says so, and claims nothing.
                await _until_answered(self.heart.beat, self.heart.note_failure)
                tasks.create_task(self.heart.run())
                await self.caches.until_synced()
                await self.prerequisites.look()
                self.heart.adopt()
                self.heart.wake()
                tasks.create_task(self.prerequisites.run())
                tasks.create_task(self.controller.run())
                tasks.create_task(self.reporting.run())
                tasks.create_task(self.orphans.run())
                tasks.create_task(self.intake.run())
        except asyncio.CancelledError:
            await self._leave()
            raise

    async def _leave(self) -> None:
        """Give back what was not begun, if broker and cluster are there to be told."""
        try:
            async with asyncio.timeout(LEAVE_WITHIN.total_seconds()):
                await self.intake.release_untouched()
        except (TimeoutError, BrokkrError, KubeError) as error:
            log.warning("untouched work not given back", error=str(error))
        log.info("agent stopped")


class _Standing:
    """What keeps the agent from being ready, as of now."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._waits_for = "neither broker nor cluster may be away while an agent starts"
        self.parts: _Parts | None = None

    def note(self, error: BrokkrError | KubeError) -> None:
        """Note why the agent cannot start yet."""
        self._waits_for = str(error)

    def problems(self) -> dict[str, str]:
        """Name what is in the way; nothing, if the agent executes all that it is meant to."""
        if self.parts is None:
            return {"start": self._waits_for}
        found = {
            f"watch of {each}": "is not served, or not yet listed"
            for each in self.parts.caches.unsynced
        }
        if (unable := self.parts.intake.unable) is not None:
            found["cluster"] = unable.cause
        heard_at, problem = self.parts.heart.answered_at, self.parts.heart.problem
        why = f": {problem}" if problem else ""
        if heard_at is None:
            found["broker"] = f"has not answered a heartbeat yet{why}"
        elif self._clock() - heard_at > HEARD_WITHIN:
            found["broker"] = f"has not answered a heartbeat since {render_time(heard_at)}{why}"
        return {
            **found,
            **{f"work type {k}": v.cause for k, v in self.parts.access.unavailable.items()},
            **{f"work type {k}": v for k, v in self.parts.prerequisites.lacking.items()},
        }

    def warnings(self) -> dict[str, str]:
        """Name what the agent works without."""
        if self.parts is None:
            return {}
        unseen = {f"watch of {each}": "has failed" for each in self.parts.caches.missing_optional}
        return {**unseen, **self.parts.access.warnings}


def _handlers(settings: AgentSettings) -> dict[str, Handler]:
    installed = find_installed()
    for each in installed.left_out:
        log.warning(
            "work type left out",
            type=each.work_type,
            package=each.distribution,
            problem=each.problem,
        )
    return handlers(
        _build_defaults(settings.work_crd.build),
        BuildPolicy(**settings.policy.model_dump()),
        installed.handlers,
    )


def _build_defaults(build: BuildSettings) -> BuildDefaults:
    return BuildDefaults(
        service_account=build.service_account,
        timeout=build.default_timeout,
        retention_succeeded=build.build_retention_succeeded,
        retention_failed=build.build_retention_failed,
        deadline_grace=build.deadline_grace,
        start_within=build.start_within,
    )


def _objection(settings: AgentSettings, own_namespace: str | None) -> str | None:
    """
    Say what speaks against executing anything here.

    The agent's key is a Secret in the agent's own namespace: Work that runs there could
    name it, as long as nothing says which Secrets Work may name.
    """
    if own_namespace != settings.work_crd.namespace or settings.policy.secrets is not None:
        return None
    return (
        f"Work would run in the agent's own namespace, {own_namespace}, beside the agent's key: "
        "run it in another one (agent.work_crd.namespace), or list the Secrets that Work may "
        "name (agent.policy.secrets)"
    )


def _policy(crd: WorkCrdSettings) -> Policy:
    return Policy(
        backoff=Backoff(
            base=timedelta(seconds=crd.retry_base_delay_seconds),
            cap=timedelta(seconds=crd.retry_max_delay_seconds),
        ),
        keep_succeeded=crd.build.build_retention_succeeded,
        keep_failed=crd.build.build_retention_failed,
        infrastructure_retries=crd.infrastructure_retries,
    )


async def _until_answered(
    ask: Callable[[], Awaitable[_T]], note: Callable[[BrokkrError | KubeError], None]
) -> _T:
    """Ask the broker until it answers; nothing that comes instead ends an agent."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await ask()
        except (BrokkrError, KubeError) as error:
            note(error)
            asked_for = retry_after_of(error) if isinstance(error, BrokkrError) else 0
            seconds = min(max(pause, asked_for), _LONGEST_PAUSE_SECONDS) * _jitter()
            log.warning("broker not reached", error=str(error), seconds=round(seconds, 1))
        await asyncio.sleep(seconds)
        pause *= 2


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first

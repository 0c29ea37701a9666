"""Run the agent: the only place that puts its parts together."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import structlog

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
from brokkr.agent.kinds import NAMESPACES, WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import (
    KubeError,
    KubeForbidden,
    KubeKindUnknown,
    KubeUnavailable,
)
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

_ACCESS_SECONDS: Final = 10
_ACCESS_PAUSE_SECONDS: Final = 0.5
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 10.0

_T = TypeVar("_T")

LEAVE_WITHIN: Final = timedelta(seconds=5)
HEARD_WITHIN: Final = timedelta(seconds=60)
"""A broker that has not answered for so long is away."""


class ClusterNotReady(BrokkrError):
    """The cluster lacks something that the agent cannot make for itself."""

    code = "cluster_not_ready"


def _now() -> datetime:
    return datetime.now(UTC)


def _jitter() -> float:
    return random.uniform(0.75, 1.0)  # noqa: S311 - spreads requests, guards nothing


async def run(settings: AgentSettings) -> None:
    """
    Be an agent until cancelled.

    Told to stop, it claims no more, gives back what nothing was made of yet, and leaves what
    runs to its successor.

    Without a broker, and also with one that refuses the agent's key, it waits: a proxy may
    have answered, and what runs in the cluster needs an agent.

    Raises:
        AgentSuperseded: A newer process of the same agent is at work.
        CannotListen: The health endpoint's address is taken.
        ClusterNotReady: The namespace or the definition of Work is missing.
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
            )
        )
        agent = await _until_answered(lambda: client.get_agent("self"), standing.note)
        await _until_available(lambda: _check_access(kube, settings.work_crd.namespace))
        log.info("agent started", agent=agent.name, namespace=settings.work_crd.namespace)
        parts = _Parts(
            settings,
            agent,
            kube,
            client,
            metrics=metrics,
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
            news.set()
            self.heart.wake()

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
            held=held,
            controller=self.controller,
            intake=self.intake,
            namespace=crd.namespace,
            clock=_now,
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
                await self.caches.until_synced()
                await self.prerequisites.look()
                # What the cluster holds is adopted before anything new is claimed: the first
                # heartbeat lists it, and hears of claims whose resource was never written.
                await _until_answered(self.heart.beat, self.heart.note_failure)
                tasks.create_task(self.heart.run())
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
        heard_at, problem = self.parts.heart.answered_at, self.parts.heart.problem
        why = f": {problem}" if problem else ""
        if heard_at is None:
            found["broker"] = f"has not answered a heartbeat yet{why}"
        elif self._clock() - heard_at > HEARD_WITHIN:
            found["broker"] = f"has not answered a heartbeat since {render_time(heard_at)}{why}"
        return {
            **found,
            **{f"work type {k}": v for k, v in self.parts.prerequisites.lacking.items()},
        }


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


async def _check_access(kube: KubeClient, namespace: str) -> None:
    """
    Insist on what no agent can do without, as soon as the API server knows what there is.

    One that has just started refuses everything until it has read its rules, and knows no kinds
    but its own until it has read their definitions.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + _ACCESS_SECONDS
    while True:
        try:
            return await _check_cluster(kube, namespace)
        except (KubeForbidden, KubeKindUnknown) as error:
            obstacle = _obstacle(error, namespace)
            if clock() >= until:
                raise obstacle from error
            log.warning("cluster not ready", error=str(obstacle))
        await asyncio.sleep(_ACCESS_PAUSE_SECONDS)


def _obstacle(error: KubeForbidden | KubeKindUnknown, namespace: str) -> ClusterNotReady:
    if isinstance(error, KubeKindUnknown):
        return ClusterNotReady(
            f"the cluster does not know {WORKS}: brokkr agent crd | kubectl apply -f -"
        )
    return ClusterNotReady(
        f"there is no namespace {namespace}, or no right to work in it ({error}): "
        f"brokkr agent rbac --namespace {namespace} | kubectl apply -f -"
    )


async def _check_cluster(kube: KubeClient, namespace: str) -> None:
    """Look for what no agent can do without; what types of work need may come later."""
    if await kube.find(NAMESPACES, None, namespace) is None:
        raise ClusterNotReady(
            f"there is no namespace {namespace}; create it "
            f"(kubectl create namespace {namespace}), or set agent.work_crd.namespace"
        )
    if not await kube.serves(WORKS.group, WORKS.version, WORKS.plural):
        raise KubeKindUnknown(WORKS.plural)
    await kube.find(WORKS, namespace, "is-there-access")


async def _until_answered(
    ask: Callable[[], Awaitable[_T]], note: Callable[[BrokkrError | KubeError], None]
) -> _T:
    """Ask the broker until it answers; nothing that comes instead ends an agent."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await ask()
        except (BrokkrError, KubeUnavailable) as error:
            note(error)
            asked_for = retry_after_of(error) if isinstance(error, BrokkrError) else 0
            seconds = min(max(pause, asked_for), _LONGEST_PAUSE_SECONDS) * _jitter()
            log.warning("broker not reached", error=str(error), seconds=round(seconds, 1))
        await asyncio.sleep(seconds)
        pause *= 2


async def _until_available(ask: Callable[[], Awaitable[_T]]) -> _T:
    pause = 0.5
    while True:
        try:
            return await ask()
        except KubeUnavailable as error:
            log.warning("server not reached", error=str(error), seconds=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 10.0)


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first

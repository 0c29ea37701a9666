"""Run the agent: the only place that puts its parts together."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog

from brokkr.agent.claims import HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.decide import Policy
from brokkr.agent.controller.loop import Controller
from brokkr.agent.controller.workqueue import Workqueue
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.registry import handlers
from brokkr.agent.heartbeat import Heart
from brokkr.agent.intake import Intake
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeKindUnknown, KubeUnavailable
from brokkr.agent.kinds import BUILD_RUNS, BUILDS, NAMESPACES, WORKS
from brokkr.agent.reporting import Reporting
from brokkr.agent.settings import AgentSettings, BuildSettings, WorkCrdSettings
from brokkr.client import BrokerClient
from brokkr.telemetry import exporting
from brokkr.wire.bodies import AgentBody
from brokkr.work.backoff import Backoff
from brokkr.work.errors import BrokerUnavailable, BrokkrError
from brokkr.work.trace import Span

log = structlog.get_logger()

_T = TypeVar("_T")


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

    Raises:
        Unauthenticated: The key opens nothing.
        AgentSuperseded: A newer process of the same agent is at work.
        ClusterNotReady: The namespace or a resource definition is missing.
        TelemetryUnavailable: Traces are to be exported, and cannot be.
    """
    key = "" if settings.key is None else settings.key.get_secret_value()
    async with AsyncExitStack() as opened:
        exporter = opened.enter_context(exporting("brokkr-agent"))
        kube = await opened.enter_async_context(KubeClient(KubeConfig.load(settings.kubeconfig)))
        client = await opened.enter_async_context(BrokerClient(settings.broker_url, key))
        agent = await _until_available(lambda: client.get_agent("self"))
        await _until_available(lambda: _check_cluster(kube, settings.work_crd.namespace))
        log.info("agent started", agent=agent.name, namespace=settings.work_crd.namespace)
        try:
            export = None if exporter is None else exporter.export
            await _run(settings, agent, kube, client, export)
        except BaseExceptionGroup as group:
            # The parts run for ever; the first error that gets out of one ends them all.
            raise _first_of(group) from group


async def _run(
    settings: AgentSettings,
    agent: AgentBody,
    kube: KubeClient,
    client: BrokerClient,
    export: Callable[[Span], None] | None,
) -> None:
    crd = settings.work_crd
    kinds = handlers(_build_defaults(crd.build))
    held = HeldClaims()
    to_reconcile, to_report, news = Workqueue(_jitter), Workqueue(_jitter), asyncio.Event()

    def on_change(work_name: str) -> None:
        to_reconcile.add(work_name)
        to_report.add(work_name)
        news.set()

    caches = Caches(
        kube,
        crd.namespace,
        agent_id=agent.id,
        kinds=(BUILDS, BUILD_RUNS),
        on_change=on_change,
    )
    controller = Controller(
        kube=kube,
        caches=caches,
        handlers=kinds,
        policy=_policy(crd),
        is_held=held.holds,
        clock=_now,
        workqueue=to_reconcile,
        resync_interval=timedelta(seconds=crd.reconcile_interval_seconds),
    )
    reporting = Reporting(
        client=client,
        kube=kube,
        caches=caches,
        held=held,
        clock=_now,
        workqueue=to_report,
        export=export,
    )
    intake = Intake(
        agent=agent,
        client=client,
        kube=kube,
        caches=caches,
        held=held,
        namespace=crd.namespace,
        types=sorted(kinds),
        settings=settings.work_queue,
        news=news,
        jitter=_jitter,
    )
    heart = Heart(
        agent=agent,
        client=client,
        kube=kube,
        caches=caches,
        held=held,
        controller=controller,
        intake=intake,
        namespace=crd.namespace,
        clock=_now,
        patience=timedelta(seconds=max(60.0, 3 * crd.reconcile_interval_seconds)),
    )

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(caches.run())
        await caches.until_synced()
        # What the cluster holds is adopted before anything new is claimed: the first
        # heartbeat lists it, and hears of claims whose resource was never written.
        await _until_available(heart.beat)
        tasks.create_task(heart.run())
        tasks.create_task(controller.run())
        tasks.create_task(reporting.run())
        tasks.create_task(intake.run())


def _build_defaults(build: BuildSettings) -> BuildDefaults:
    return BuildDefaults(
        service_account=build.service_account,
        timeout=build.default_timeout,
        retention_succeeded=build.build_retention_succeeded,
        retention_failed=build.build_retention_failed,
    )


def _policy(crd: WorkCrdSettings) -> Policy:
    return Policy(
        backoff=Backoff(
            base=timedelta(seconds=crd.retry_base_delay_seconds),
            cap=timedelta(seconds=crd.retry_max_delay_seconds),
        ),
        keep_succeeded=crd.build.build_retention_succeeded,
        keep_failed=crd.build.build_retention_failed,
    )


async def _check_cluster(kube: KubeClient, namespace: str) -> None:
    if await kube.find(NAMESPACES, None, namespace) is None:
        raise ClusterNotReady(
            f"there is no namespace {namespace}; create it "
            f"(kubectl create namespace {namespace}), or set agent.work_crd.namespace"
        )
    for resource, cure in (
        (WORKS, "brokkr agent crd | kubectl apply -f -"),
        (BUILDS, "install Shipwright Build"),
        (BUILD_RUNS, "install Shipwright Build"),
    ):
        try:
            await kube.list(resource, namespace)
        except KubeKindUnknown as error:
            raise ClusterNotReady(
                f"the cluster does not know {resource.plural}.{resource.group}: {cure}"
            ) from error


async def _until_available(ask: Callable[[], Awaitable[_T]]) -> _T:
    pause = 0.5
    while True:
        try:
            return await ask()
        except (BrokerUnavailable, KubeUnavailable) as error:
            log.warning("server not reached", error=str(error), seconds=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 10.0)


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first

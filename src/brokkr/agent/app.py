"""Run the agent: the only place that puts its parts together."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import structlog

from brokkr.agent.claims import HeldClaims
from brokkr.agent.controller.decide import Policy
from brokkr.agent.controller.loop import Controller
from brokkr.agent.controller.observe import Caches
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.registry import handlers
from brokkr.agent.heartbeat import Heart
from brokkr.agent.intake import Intake
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeKindUnknown, KubeUnavailable
from brokkr.agent.kube.informer import Informer
from brokkr.agent.kube.resources import BUILD_RUNS, BUILDS, NAMESPACES, WORKS, Resource
from brokkr.agent.reporting import Reporting
from brokkr.agent.settings import AgentSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import AgentBody
from brokkr.wire.custom_resource import (
    ANNOTATION_ACKNOWLEDGED,
    LABEL_AGENT,
    LABEL_WORK,
    status_from_resource,
)
from brokkr.work.backoff import Backoff
from brokkr.work.errors import BrokerUnavailable, BrokkrError
from brokkr.work.model import Manifest

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
    """
    key = "" if settings.key is None else settings.key.get_secret_value()
    async with (
        KubeClient(KubeConfig.load(settings.kubeconfig)) as kube,
        BrokerClient(settings.broker_url, key) as client,
    ):
        agent = await _until_available(lambda: client.get_agent("self"))
        await _until_available(lambda: _check_cluster(kube, settings.work_crd.namespace))
        log.info("agent started", agent=agent.name, namespace=settings.work_crd.namespace)
        try:
            await _run(settings, agent, kube, client)
        except BaseExceptionGroup as group:
            # The parts run for ever; the first error that gets out of one ends them all.
            raise _first_of(group) from group


async def _run(
    settings: AgentSettings, agent: AgentBody, kube: KubeClient, client: BrokerClient
) -> None:
    crd = settings.work_crd
    build_defaults = BuildDefaults(
        service_account=crd.build.service_account,
        timeout=crd.build.default_timeout,
        retention_succeeded=crd.build.build_retention_succeeded,
        retention_failed=crd.build.build_retention_failed,
    )
    kinds = handlers(build_defaults)
    held = HeldClaims()

    def informer(
        resource: Resource, label: str, on_event: Callable[[str, Manifest], None]
    ) -> Informer:
        return Informer(
            kube,
            resource,
            crd.namespace,
            label_selector=label,
            on_event=on_event,
            keep=_without_managed_fields,
        )

    def on_work(event: str, resource: Manifest) -> None:
        name = resource["metadata"]["name"]
        if event == "DELETED":
            caches.forget_objects_of(name)
            if _is_unreported(resource):
                caches.departed_works[name] = resource
        controller.workqueue.add(name)
        reporting.workqueue.add(name)
        intake.look_for_room()

    def on_object(event: str, manifest: Manifest) -> None:
        if event == "DELETED":
            caches.remember(manifest)
        controller.workqueue.add(manifest["metadata"]["labels"][LABEL_WORK])

    caches = Caches(
        works=informer(WORKS, f"{LABEL_AGENT}={agent.id}", on_work),
        objects={each.kind: informer(each, LABEL_WORK, on_object) for each in (BUILDS, BUILD_RUNS)},
    )
    controller = Controller(
        kube=kube,
        caches=caches,
        handlers=kinds,
        policy=Policy(
            backoff=Backoff(
                base=timedelta(seconds=crd.retry_base_delay_seconds),
                cap=timedelta(seconds=crd.retry_max_delay_seconds),
            ),
            keep_succeeded=crd.build.build_retention_succeeded,
            keep_failed=crd.build.build_retention_failed,
        ),
        is_held=held.holds,
        clock=_now,
        jitter=_jitter,
        resync_interval=timedelta(seconds=crd.reconcile_interval_seconds),
    )
    reporting = Reporting(
        client=client, kube=kube, caches=caches, held=held, clock=_now, jitter=_jitter
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
        for each in (caches.works, *caches.objects.values()):
            tasks.create_task(each.run())
        for each in (caches.works, *caches.objects.values()):
            await each.synced.wait()
        # What the cluster holds is adopted before anything new is claimed: the first
        # heartbeat lists it, and hears of claims whose resource was never written.
        await _until_available(heart.beat)
        tasks.create_task(heart.run())
        tasks.create_task(controller.run())
        tasks.create_task(reporting.run())
        tasks.create_task(intake.run())


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
            log.warning("waiting", error=str(error), seconds=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 10.0)


def _without_managed_fields(manifest: dict[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}
    return {**manifest, "metadata": metadata}


def _is_unreported(resource: Manifest) -> bool:
    annotations = resource["metadata"].get("annotations") or {}
    status = status_from_resource(resource.get("status") or {})
    return status.phase.is_terminal and ANNOTATION_ACKNOWLEDGED not in annotations


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first

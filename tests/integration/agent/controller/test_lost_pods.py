"""What becomes of an attempt whose Pod is taken away, by the word of a real API server."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from brokkr.agent.kinds import PODS, ROLES, TASK_RUNS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.permissions import render_role
from brokkr.work.model import Phase, Work
from brokkr.work.names import attempt_name
from support.controller import a_claimed_work, driven, until, watching
from support.shipwright import PlayedShipwright, Status, condition, success
from support.signals import eventually

pytestmark = pytest.mark.kube

LABEL: Final = "buildrun.shipwright.io/name"
FOREIGN: Final = 200


def killed(attempt: int) -> Status:
    """What Shipwright says of a build whose Pod was taken away."""
    location = {"pod": f"pod-{attempt}", "container": "step-build"}
    return {
        **condition("False", "Failed", "buildrun step step-build failed"),
        "failureDetails": {"location": location},
    }


def a_task_run(name: str, pod: str) -> dict[str, Any]:
    return {
        "apiVersion": TASK_RUNS.api_version,
        "kind": TASK_RUNS.kind,
        "metadata": {"name": f"{name}-x", "labels": {LABEL: name}},
        "spec": {"serviceAccountName": "default"},
        "status": {
            "podName": pod,
            "conditions": [{"type": "Succeeded", "status": "False", "reason": "StepFailed"}],
            "steps": [
                {
                    "container": "step-build",
                    "terminated": {"exitCode": 255, "reason": "Error"},
                    "terminationReason": "Error",
                },
                {
                    "container": "step-image-processing",
                    "terminated": {"exitCode": 2, "reason": "Error"},
                },
            ],
        },
    }


def a_pod(name: str, attempt: str) -> dict[str, Any]:
    return {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": {
            "name": name,
            "labels": {LABEL: attempt},
            # As kubelets make of what they run by themselves: it needs no service account.
            "annotations": {"kubernetes.io/config.mirror": "x"},
        },
        "spec": {
            "nodeName": "no-such-node",
            "containers": [{"name": "step-build", "image": "none"}],
        },
    }


async def mark_disrupted(kube: KubeClient, namespace: str, name: str, reason: str) -> None:
    pod = await kube.get(PODS, namespace, name)
    disrupted = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "lastTransitionTime": "2026-03-01T12:00:00Z",
    }
    status = {**pod.get("status", {}), "phase": "Failed", "conditions": [disrupted]}
    await kube.replace_status(PODS, namespace, {**pod, "status": status})


async def is_running(played: PlayedShipwright, name: str) -> bool:
    return any(each["metadata"]["name"] == name for each in played.seen.values())


@asynccontextmanager
async def a_build_whose_pod_runs(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> AsyncIterator[tuple[str, PlayedShipwright]]:
    name = await a_claimed_work(agent_kube, namespace, max_retries=0)
    first = attempt_name(name, 1)
    async with driven(
        kube, agent_kube, namespace, lambda n: None if n == 1 else success(n)
    ) as played:

        async def is_there() -> bool:
            return await is_running(played, first)

        await eventually(is_there)
        await kube.create(PODS, namespace, a_pod("pod-1", first))
        yield name, played


async def lose(kube: KubeClient, namespace: str, name: str, played: PlayedShipwright) -> None:
    """Take the Pod away for good, and have Tekton and Shipwright notice."""
    first = attempt_name(name, 1)
    await kube.delete(PODS, namespace, "pod-1", at_once=True)
    task_run = a_task_run(first, "pod-1")
    created = await kube.create(TASK_RUNS, namespace, task_run)
    await kube.replace_status(TASK_RUNS, namespace, {**created, "status": task_run["status"]})
    await played.end(first, killed)


def first_attempt(work: Work) -> tuple[str, str]:
    return work.status.attempts[0].failure_class, work.status.attempts[0].fault


@pytest.mark.parametrize(
    ("reason", "judged"),
    [
        ("PreemptionByScheduler", ("PodPreempted", "cluster")),
        ("DeletionByTaintManager", ("NodeLost", "node")),
        ("EvictionByEvictionAPI", ("NodeDrained", "node")),
        ("", ("PodDeleted", "cluster")),
    ],
)
async def test_a_pod_that_is_gone_within_a_moment_costs_the_user_no_retry(
    kube: KubeClient, agent_kube: KubeClient, namespace: str, reason: str, judged: tuple[str, str]
) -> None:
    async with a_build_whose_pod_runs(kube, agent_kube, namespace) as (name, played):
        if reason:
            await mark_disrupted(kube, namespace, "pod-1", reason)
        await lose(kube, namespace, name, played)
        work = await until(kube, namespace, name, Phase.SUCCEEDED, Phase.FAILED)

    assert work.status.phase is Phase.SUCCEEDED
    assert (work.status.retries, work.status.infrastructure_retries) == (0, 1)
    assert first_attempt(work) == judged


async def test_without_the_permission_a_lost_pod_is_told_by_its_steps_and_nothing_stands_still(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    """An agent that was upgraded, and its Role was not."""
    roles, _ = await kube.list(ROLES, namespace)
    [role] = [each for each in roles if each["metadata"]["name"] == "brokkr-agent"]
    rules = [each.manifest() for each in render_role(namespace) if each.resources != ("pods",)]
    await kube.merge_patch(ROLES, namespace, role["metadata"]["name"], {"rules": rules})

    async def is_refused() -> bool:
        async with watching(agent_kube, namespace) as (caches, _):
            return caches.missing_optional == [PODS]

    await eventually(is_refused)
    async with a_build_whose_pod_runs(kube, agent_kube, namespace) as (name, played):
        await mark_disrupted(kube, namespace, "pod-1", "PreemptionByScheduler")
        await lose(kube, namespace, name, played)
        work = await until(kube, namespace, name, Phase.SUCCEEDED, Phase.FAILED)

    assert first_attempt(work) == ("Interrupted", "node")
    assert work.status.infrastructure_retries == 1


async def test_pods_of_others_are_neither_kept_nor_a_reason_to_look_at_anything(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    name = await a_claimed_work(agent_kube, namespace)
    async with watching(agent_kube, namespace) as (caches, controller):
        await asyncio.sleep(0.2)
        while len(controller.workqueue):
            controller.workqueue.done(await controller.workqueue.get())
        began = time.process_time()
        for number in range(FOREIGN):
            await kube.create(PODS, namespace, a_pod(f"other-{number}", f"other-{number % 7}"))

        async def all_seen() -> bool:
            return len(caches._pods[0].informer.cache) == FOREIGN

        await eventually(all_seen)
        assert len(controller.workqueue) == 0
        assert caches._pods[0]._facts == {}
        assert caches.pods_of(attempt_name(name, 1)) == []
        assert time.process_time() - began < 30

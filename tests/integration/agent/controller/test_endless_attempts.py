"""
Attempts that Shipwright leaves without an end, and those that do not stop when they are told.

Shipwright is played; the states are those that it is known to stay in.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.kinds import BUILD_RUNS, TASK_RUNS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.resources import mark_cancelled
from brokkr.work.model import Phase
from support.controller import DEFAULTS, a_claimed_work, driven, read, until
from support.factories import a_build_template
from support.shipwright import DIGEST, condition, never, success
from support.signals import eventually

pytestmark = pytest.mark.kube

HASTY: BuildDefaults = replace(
    DEFAULTS, timeout=timedelta(seconds=1), deadline_grace=timedelta(seconds=2)
)


@pytest.mark.parametrize("fault", ["registers", "starts"])
async def test_what_shipwright_does_not_look_at_fails_at_its_deadline_and_is_tried_once_more(
    kube: KubeClient, agent_kube: KubeClient, namespace: str, fault: str
) -> None:
    name = await a_claimed_work(agent_kube, namespace, max_retries=5)
    async with driven(kube, agent_kube, namespace, never, defaults=HASTY, **{fault: False}):
        work = await until(kube, namespace, name, Phase.FAILED)

    ends = [(each.reason, each.failure_class) for each in work.status.attempts]
    assert ends == [("NotStarted", "NotStarted")] * 2
    assert work.status.retries == 0
    assert (await kube.list(BUILD_RUNS, namespace))[0] == []


async def test_a_run_without_end_is_cancelled_at_its_deadline(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    """Such as one that a used-up quota keeps waiting: its own timeout never begins."""
    quota = condition("Unknown", "ExceededResourceQuota", "exceeded quota: builds")
    name = await a_claimed_work(agent_kube, namespace, max_retries=0)
    async with driven(kube, agent_kube, namespace, lambda _: quota, defaults=HASTY):
        work = await until(kube, namespace, name, Phase.FAILED)

    run = await kube.get(BUILD_RUNS, namespace, f"{name}-a1")
    assert work.status.reason == "NotStarted"
    # What was known while it waited is known at its end.
    assert "exceeded quota: builds" in work.status.message
    assert run["spec"]["state"] == "BuildRunCanceled"
    assert work.status.attempts[0].stopping_at is not None


async def test_the_deadline_is_that_of_the_builds_own_timeout(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    template = a_build_template(timeout="10m")
    name = await a_claimed_work(agent_kube, namespace, template=template)
    async with driven(kube, agent_kube, namespace, never, defaults=HASTY) as played:

        async def runs() -> bool:
            return (await read(kube, namespace, name)).status.reason == "AttemptRunning"

        await eventually(runs)
        await played.finish(f"{name}-a1")
        work = await until(kube, namespace, name, Phase.SUCCEEDED, Phase.FAILED, Phase.PENDING)

    assert work.status.phase is Phase.SUCCEEDED


async def test_a_cancelled_run_that_does_not_stop_is_deleted(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    name = await a_claimed_work(agent_kube, namespace)
    async with driven(kube, agent_kube, namespace, never, stops=False) as played:

        async def runs() -> bool:
            return bool(played.seen)

        await eventually(runs)
        await mark_cancelled(kube, await read(kube, namespace, name), "enough")
        work = await until(kube, namespace, name, Phase.CANCELLED, Phase.FAILED)

    assert work.status.phase is Phase.CANCELLED
    assert await kube.find(BUILD_RUNS, namespace, f"{name}-a1") is None


async def test_a_cancelled_run_that_stays_unknown_is_what_its_task_run_says(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    """Tekton refuses to cancel what is done, and Shipwright asks it for ever."""
    name = await a_claimed_work(agent_kube, namespace)
    async with driven(kube, agent_kube, namespace, never, stops=False) as played:

        async def runs() -> bool:
            return bool(played.seen)

        await eventually(runs)
        await kube.create(TASK_RUNS, namespace, a_task_run(name))
        task_run = await kube.get(TASK_RUNS, namespace, f"{name}-a1-x7k2p")
        done = {**condition("True", "Succeeded"), "results": RESULTS}
        await kube.replace_status(TASK_RUNS, namespace, {**task_run, "status": done})
        await mark_cancelled(kube, await read(kube, namespace, name), "enough")
        work = await until(kube, namespace, name, Phase.SUCCEEDED, Phase.CANCELLED, Phase.FAILED)

    assert work.status.phase is Phase.SUCCEEDED
    assert work.status.result["digest"] == DIGEST


async def test_a_run_that_ends_while_it_is_being_cancelled_has_ended(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    name = await a_claimed_work(agent_kube, namespace)
    async with driven(kube, agent_kube, namespace, never, stops=False) as played:

        async def runs() -> bool:
            return bool(played.seen)

        await eventually(runs)
        await mark_cancelled(kube, await read(kube, namespace, name), "enough")

        async def is_asked_to_stop() -> bool:
            run = await kube.get(BUILD_RUNS, namespace, f"{name}-a1")
            return bool(run["spec"].get("state") == "BuildRunCanceled")

        await eventually(is_asked_to_stop)
        await played.finish(f"{name}-a1", success)
        work = await until(kube, namespace, name, Phase.SUCCEEDED, Phase.CANCELLED, Phase.FAILED)

    assert work.status.phase is Phase.SUCCEEDED


RESULTS = [{"name": "shp-image-digest", "type": "string", "value": DIGEST}]


def a_task_run(work_name: str) -> dict[str, Any]:
    return {
        "apiVersion": "tekton.dev/v1",
        "kind": "TaskRun",
        "metadata": {
            "name": f"{work_name}-a1-x7k2p",
            "labels": {"buildrun.shipwright.io/name": f"{work_name}-a1"},
        },
    }

"""
The controller against a real API server, with Shipwright played.

It has the permissions of an agent (``agent_kube``); the tests have an administrator's.
"""

import asyncio

import pytest

from brokkr.agent.handlers.build.handler import BuildHandler
from brokkr.agent.kinds import (
    BUILD_RUNS,
    BUILDS,
    CONFIG_MAPS,
    EVENTS,
    WORKS,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.resources import mark_acknowledged, mark_cancelled
from brokkr.work.model import Phase
from support.controller import (
    a_claimed_work,
    driven,
    now,
    read,
    shipwright,
    until,
    watching,
)
from support.factories import a_build_template
from support.shipwright import (
    DIGEST,
    Outcome,
    evicted_at_first,
    never,
    permanent_failure,
    success,
)
from support.signals import eventually

pytestmark = pytest.mark.kube


async def test_a_build_goes_through_and_its_result_is_in_the_status(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    name = await a_claimed_work(agent_kube, namespace)
    async with driven(kube, agent_kube, namespace, success) as played:
        work = await until(kube, namespace, name, Phase.SUCCEEDED, Phase.FAILED)

    assert work.status.phase is Phase.SUCCEEDED
    assert work.status.result["digest"] == DIGEST
    assert work.status.attempts[0].uid in played.seen
    assert {each.type: each.status for each in work.status.conditions} == {
        "TemplateApplied": True,
        "TemplateSucceeded": True,
    }


async def test_a_retryable_failure_is_one_more_build_run_under_the_next_number(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    name = await a_claimed_work(agent_kube, namespace)
    async with driven(kube, agent_kube, namespace, evicted_at_first) as played:
        work = await until(kube, namespace, name, Phase.SUCCEEDED, Phase.FAILED)

    assert work.status.phase is Phase.SUCCEEDED
    assert (work.status.retries, work.status.infrastructure_retries) == (0, 1)
    assert sorted(run["metadata"]["name"] for run in played.seen.values()) == [
        f"{name}-a1",
        f"{name}-a2",
    ]
    events, _ = await kube.list(EVENTS, namespace)
    told = sorted(each["reason"] for each in events if each["involvedObject"]["name"] == name)
    assert told == ["AttemptStarted", "AttemptStarted", "BuildCompleted", "PodEvicted"]


async def test_a_permanent_failure_is_final_at_once(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    name = await a_claimed_work(agent_kube, namespace)
    async with driven(kube, agent_kube, namespace, permanent_failure) as played:
        work = await until(kube, namespace, name, Phase.FAILED)

    assert work.status.retries == 0
    assert len(played.seen) == 1


@pytest.mark.parametrize("outcome", [success, evicted_at_first, permanent_failure])
async def test_a_controller_thrown_away_between_every_two_steps_starts_nothing_twice(
    kube: KubeClient, agent_kube: KubeClient, namespace: str, outcome: Outcome
) -> None:
    name = await a_claimed_work(agent_kube, namespace)
    async with shipwright(kube, namespace, outcome) as played:
        async with asyncio.timeout(60):
            while not (await read(kube, namespace, name)).status.phase.is_terminal:
                async with watching(agent_kube, namespace) as (_, controller):
                    await controller.reconcile(name)
        work = await read(kube, namespace, name)

    attempts = [f"{name}-a{number}" for number in range(1, work.attempt + 1)]
    assert sorted(each["metadata"]["name"] for each in played.seen.values()) == attempts
    assert sorted(each["metadata"]["name"] for each in played.builds_seen.values()) == attempts


async def test_a_build_run_deleted_while_it_runs_is_a_failed_attempt(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    name = await a_claimed_work(agent_kube, namespace)
    async with driven(kube, agent_kube, namespace, lambda n: None if n == 1 else success(n)):

        async def is_recorded() -> bool:
            return any(a.uid for a in (await read(kube, namespace, name)).status.attempts)

        await eventually(is_recorded)
        await kube.delete(BUILD_RUNS, namespace, f"{name}-a1")
        work = await until(kube, namespace, name, Phase.SUCCEEDED, Phase.FAILED)

    assert [each.reason for each in work.status.attempts] == ["AttemptMissing", "BuildCompleted"]


async def test_a_build_run_that_ended_and_was_deleted_at_once_has_ended(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    """A TTL may be faster than the controller; the watch's last word counts."""
    name = await a_claimed_work(agent_kube, namespace)
    async with (
        shipwright(kube, namespace, never) as played,
        watching(agent_kube, namespace) as (_, controller),
    ):
        loop = asyncio.create_task(controller.run())

        async def is_recorded() -> bool:
            return any(a.uid for a in (await read(kube, namespace, name)).status.attempts)

        await eventually(is_recorded)
        loop.cancel()
        await played.finish(f"{name}-a1")
        await kube.delete(BUILD_RUNS, namespace, f"{name}-a1")
        loop = asyncio.create_task(controller.run())
        work = await until(kube, namespace, name, Phase.SUCCEEDED, Phase.PENDING, Phase.FAILED)
        loop.cancel()

    assert work.status.phase is Phase.SUCCEEDED
    assert len(work.status.attempts) == 1


async def test_cancel_stops_the_running_build(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    name = await a_claimed_work(agent_kube, namespace)
    async with driven(kube, agent_kube, namespace, never) as played:

        async def has_a_run() -> bool:
            return bool(played.seen)

        await eventually(has_a_run)
        await mark_cancelled(agent_kube, await read(kube, namespace, name), "enough")
        work = await until(kube, namespace, name, Phase.CANCELLED, Phase.FAILED)

    run = await kube.get(BUILD_RUNS, namespace, f"{name}-a1")
    assert work.status.phase is Phase.CANCELLED
    assert run["spec"]["state"] == "BuildRunCanceled"


async def test_a_config_map_that_belongs_to_somebody_else_is_not_overwritten(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings"},
        "data": {"a": "theirs"},
    }
    await kube.create(CONFIG_MAPS, namespace, theirs)
    ours = {**theirs, "data": {"a": "ours"}}
    template = {"apiVersion": "v1", "kind": "List", "items": [a_build_template(), ours]}
    name = await a_claimed_work(agent_kube, namespace, template=template)
    async with driven(kube, agent_kube, namespace, never):
        work = await until(kube, namespace, name, Phase.FAILED)

    assert work.status.reason == "TemplateRefused"
    assert "ConfigMap settings" in work.status.message
    assert (await kube.get(CONFIG_MAPS, namespace, "settings"))["data"] == {"a": "theirs"}


async def test_a_template_that_names_another_namespace_is_refused(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    template = a_build_template()
    template["metadata"]["namespace"] = "kube-system"
    name = await a_claimed_work(agent_kube, namespace, template=template)
    async with driven(kube, agent_kube, namespace, never):
        work = await until(kube, namespace, name, Phase.FAILED)

    assert "kube-system" in work.status.message
    assert (await kube.list(BUILDS, namespace))[0] == []


async def test_a_stale_cache_starts_nothing(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    name = await a_claimed_work(agent_kube, namespace)
    async with watching(agent_kube, namespace) as (caches, controller):
        old = caches.works[name]
        live = await kube.get(WORKS, namespace, name)
        finished = {**live, "status": {"phase": "Succeeded", "retries": 0}}
        await kube.replace_status(WORKS, namespace, finished)

        async def has_heard() -> bool:
            return caches.works[name] != old

        await eventually(has_heard)
        caches.works[name] = old
        with pytest.raises(Exception, match="has changed"):
            await controller.reconcile(name)

    assert (await kube.list(BUILDS, namespace))[0] == []


async def test_an_acknowledged_work_and_its_objects_are_deleted(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    name = await a_claimed_work(agent_kube, namespace)
    async with driven(kube, agent_kube, namespace, success):
        work = await until(kube, namespace, name, Phase.SUCCEEDED)
        await mark_acknowledged(agent_kube, work, now())

        async def is_gone() -> bool:
            return await kube.find(WORKS, namespace, name) is None

        await eventually(is_gone)

    assert (await kube.list(BUILD_RUNS, namespace))[0] == []
    assert (await kube.list(BUILDS, namespace))[0] == []


async def test_a_work_that_surprises_the_controller_is_one_failure_with_its_reason(
    kube: KubeClient, agent_kube: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*_: object) -> None:
        raise ZeroDivisionError("a mistake of our own")

    name = await a_claimed_work(agent_kube, namespace)
    monkeypatch.setattr(BuildHandler, "assess", surprise)
    async with driven(kube, agent_kube, namespace, success):
        work = await until(kube, namespace, name, Phase.FAILED)
        monkeypatch.undo()
        other = await a_claimed_work(agent_kube, namespace)
        await until(kube, namespace, other, Phase.SUCCEEDED)

    assert work.status.reason == "AgentError"
    assert "ZeroDivisionError: a mistake of our own" in work.status.message
    assert work.status.attempts[0].fault == "agent"

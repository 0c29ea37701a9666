"""
The traps of the protocol that are the agent's, one test each.

The parts that lead out of each trap have tests of their own, in more detail, beside the modules.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from brokkr.agent.claims import HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.handlers.build.handler import BuildHandler
from brokkr.agent.handlers.build.manifests import BuildDefaults, render_build, render_build_run
from brokkr.agent.kinds import BUILD_RUNS, BUILDS, CONFIG_MAPS, WORKS
from brokkr.agent.metrics import Metrics
from brokkr.agent.orphans import OrphanSweep
from brokkr.agent.settings import PolicySettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimOne, Heartbeat, RegisterAgent, WorkState
from brokkr.wire.custom_resource import (
    ANNOTATION_ACKNOWLEDGED,
    LABEL_BROKER,
    render_claimed,
    render_spec,
)
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Claim
from brokkr.work.names import attempt_name, work_name
from brokkr.work.template import check_template
from support.agent import Stage
from support.factories import a_build_template, a_work
from support.proxy import proxy
from support.shipwright import DIGEST, never, success
from support.signals import eventually

pytestmark = [pytest.mark.kube, pytest.mark.postgres]


def a_planted_work(stage: Stage, *, broker: str) -> dict[str, Any]:
    claim = Claim(
        work_id=uuid4(), claim_id=uuid4(), round=1, agent_id=stage.agent_id, broker=broker
    )
    spec = render_spec(
        work_type="build",
        max_retries=0,
        claim_timeout=timedelta(hours=1),
        template=a_build_template(),
    )
    return render_claimed(spec, claim)


async def test_trap_13_an_attempt_that_vanishes_is_not_started_again_under_its_number(
    stage: Stage,
) -> None:
    async with (
        stage.shipwright(lambda n: None if n == 1 else success(n)) as played,
        stage.agent(),
    ):
        submitted = await stage.submit()
        first = attempt_name(work_name(submitted.id, round=1), 1)

        async def is_recorded() -> bool:
            status = (await stage.resource(submitted)).get("status", {})
            return any(each.get("uid") for each in status.get("attempts", ()))

        await eventually(is_recorded)
        await stage.kube.delete(BUILD_RUNS, stage.namespace, first)
        work = await stage.finished(submitted)

    assert work.result is not None
    assert [each["reason"] for each in work.result["attempts"]] == [
        "AttemptMissing",
        "BuildCompleted",
    ]
    names = sorted(each["metadata"]["name"] for each in played.seen.values())
    assert names == [first, first[:-1] + "2"]


async def test_trap_14_a_status_that_was_observed_too_early_is_not_written(stage: Stage) -> None:
    """Somebody, here the test, ends the Work between the agent's look and its write."""
    ended: list[str] = []

    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        if path.endswith("/status") and not ended:
            name = path.split("/")[-2]
            ended.append(name)
            work = await stage.kube.get(WORKS, stage.namespace, name)
            done = {**work, "status": {"phase": "Failed", "retries": 0, "reason": "Elsewhere"}}
            await stage.kube.replace_status(WORKS, stage.namespace, done)
        yield

    async with stage.proxied_cluster(around_write), stage.shipwright(success), stage.agent():
        work = await stage.finished(await stage.submit())

    assert ended
    assert (work.status, work.result_message) == (WorkState.FAILED, "Elsewhere: ")


async def test_trap_15_a_work_resource_that_somebody_deletes_is_a_failed_work(
    stage: Stage,
) -> None:
    async with stage.shipwright(never) as played, stage.agent():
        submitted = await stage.submit(claim_timeout_seconds=3)
        await stage.running(played)
        await stage.kube.delete(WORKS, stage.namespace, work_name(submitted.id, round=1))
        work = await stage.finished(submitted)

    assert work.status is WorkState.FAILED
    assert work.result_message is not None
    assert "WorkResourceDeleted" in work.result_message


async def test_trap_16_another_brokers_results_are_neither_reported_nor_deleted(
    stage: Stage,
) -> None:
    """After a restore from a backup, the broker must not erase what it does not know."""
    theirs = await stage.kube.create(
        WORKS, stage.namespace, a_planted_work(stage, broker="a-former-broker")
    )
    done = {**theirs, "status": {"phase": "Succeeded", "retries": 0}}
    await stage.kube.replace_status(WORKS, stage.namespace, done)
    async with stage.shipwright(success), stage.agent():
        await stage.finished(await stage.submit())

    kept = await stage.kube.get(WORKS, stage.namespace, theirs["metadata"]["name"])
    assert kept["metadata"]["labels"][LABEL_BROKER] == "a-former-broker"
    assert ANNOTATION_ACKNOWLEDGED not in kept["metadata"]["annotations"]


@pytest.mark.parametrize(("days", "is_kept"), [(29, True), (31, False)])
async def test_trap_16_the_sweep_spares_unreported_results_for_a_long_time(
    stage: Stage, days: int, is_kept: bool
) -> None:
    theirs = await stage.kube.create(
        WORKS, stage.namespace, a_planted_work(stage, broker="a-former-broker")
    )
    held = HeldClaims()
    held.broker = "the-new-broker"
    caches = Caches(
        stage.kube,
        stage.namespace,
        agent_id=stage.agent_id,
        handlers=[BuildHandler(BuildDefaults())],
        on_change=lambda _: None,
    )
    sweep = OrphanSweep(
        kube=stage.kube,
        caches=caches,
        held=held,
        namespace=stage.namespace,
        grace=timedelta(minutes=10),
        unreported_retention=timedelta(days=30),
        clock=lambda: datetime.now(UTC) + timedelta(days=days),
        metrics=Metrics(),
    )
    watching = asyncio.create_task(caches.run())
    await caches.until_synced()
    await sweep.sweep()
    watching.cancel()

    name = theirs["metadata"]["name"]
    assert (await stage.kube.find(WORKS, stage.namespace, name) is not None) is is_kept


async def test_trap_17_a_planted_work_resource_is_not_run(stage: Stage) -> None:
    planted = a_planted_work(stage, broker="somebody")
    await stage.kube.create(WORKS, stage.namespace, planted)
    async with stage.shipwright(success) as played, stage.agent():
        await stage.finished(await stage.submit())

    left = await stage.kube.get(WORKS, stage.namespace, planted["metadata"]["name"])
    assert len(played.seen) == 1
    assert "status" not in left


async def test_trap_17_one_with_the_right_brokers_name_is_not_run_either(stage: Stage) -> None:
    async with stage.as_agent() as agent:
        broker_id = (await agent.heartbeat(stage.agent_id, Heartbeat(incarnation=uuid4()))).broker
    planted = a_planted_work(stage, broker=broker_id)
    await stage.kube.create(WORKS, stage.namespace, planted)
    async with stage.shipwright(success) as played, stage.agent():

        async def is_ended() -> bool:
            name = planted["metadata"]["name"]
            live = await stage.kube.get(WORKS, stage.namespace, name)
            return bool(live.get("status", {}).get("phase") == "Cancelled")

        await eventually(is_ended)

    assert not played.seen


def test_trap_18_a_users_retention_cannot_erase_a_result_before_it_is_read() -> None:
    template = a_build_template(
        retention={"ttlAfterSucceeded": "1s", "ttlAfterFailed": "1s", "succeededLimit": 1}
    )
    work = a_work(template=template)
    build, run = render_build(work, 1, BuildDefaults()), render_build_run(work, 1, BuildDefaults())

    assert "retention" not in build["spec"]
    assert run["spec"]["retention"] == {"ttlAfterSucceeded": "3600s", "ttlAfterFailed": "86400s"}


def test_trap_19_owner_references_block_nobody_and_templates_bring_none() -> None:
    work = a_work()
    for rendered in (
        render_build(work, 1, BuildDefaults()),
        render_build_run(work, 1, BuildDefaults()),
    ):
        assert rendered["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "brokkr.io/v1alpha1",
                "kind": "Work",
                "name": work.name,
                "uid": work.uid,
            }
        ]
        assert "finalizers" not in rendered["metadata"]

    for field in ("ownerReferences", "finalizers"):
        template = a_build_template()
        template["metadata"][field] = ["a/b"]
        with pytest.raises(InvalidWork, match=field):
            check_template("build", template)


async def test_trap_20_beside_its_own_key_an_agent_runs_nothing_until_secrets_are_listed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = "brokkr.agent.kube.config.KubeConfig.load"
    from brokkr.agent.kube.config import KubeConfig  # noqa: PLC0415

    in_a_pod = replace(KubeConfig.load(stage.agent_kubeconfig), own_namespace=stage.namespace)
    monkeypatch.setattr(config, lambda _: in_a_pod)
    submitted = await stage.submit()
    async with stage.shipwright(success):
        async with stage.agent():
            await stage.until_heard_of()

            async def says_why() -> bool:
                said = (await stage.broker.admin.get_agent(stage.agent_id)).capabilities
                return said is not None and "agent.policy.secrets" in said.unavailable["build"]

            await eventually(says_why)
            assert (await stage.broker.admin.get_work(submitted.id)).status is WorkState.PENDING
        policy = PolicySettings(secrets=["push-*"])
        stage.settings = stage.settings.model_copy(update={"policy": policy})
        async with stage.agent():
            work = await stage.finished(submitted)

    assert work.status is WorkState.SUCCEEDED


async def test_trap_20_a_secret_that_is_not_listed_may_not_be_named(stage: Stage) -> None:
    policy = PolicySettings(secrets=["push-*"])
    stage.settings = stage.settings.model_copy(update={"policy": policy})
    template = a_build_template(
        output={"image": "registry.example/a/b", "pushSecret": "the-agents-key"}
    )
    async with stage.shipwright(success) as played, stage.agent():
        work = await stage.finished(await stage.submit(template=template))

    assert work.status is WorkState.FAILED
    assert work.result_message is not None
    assert "agent.policy.secrets" in work.result_message
    assert "the-agents-key" in work.result_message
    assert not played.builds_seen


async def test_trap_21_a_config_map_of_somebody_elses_is_not_overwritten(stage: Stage) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings"},
        "data": {"a": "theirs"},
    }
    await stage.kube.create(CONFIG_MAPS, stage.namespace, theirs)
    ours = {**theirs, "data": {"a": "ours"}}
    template = {"apiVersion": "v1", "kind": "List", "items": [a_build_template(), ours]}
    async with stage.shipwright(success), stage.agent():
        work = await stage.finished(await stage.submit(template=template))

    assert work.status is WorkState.FAILED
    assert work.result_message is not None
    assert "ConfigMap settings exists" in work.result_message
    kept = await stage.kube.get(CONFIG_MAPS, stage.namespace, "settings")
    assert kept["data"] == {"a": "theirs"}


@pytest.mark.setting("agent.work_queue.when_cut_off")
@pytest.mark.parametrize("what", ["continue", "stop"])
async def test_trap_22_an_agent_that_is_cut_off_goes_on_or_stops_as_it_was_told(
    stage: Stage, what: str
) -> None:
    is_cut_off = asyncio.Event()

    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        if is_cut_off.is_set():
            raise ConnectionError
        yield

    async with proxy(stage.broker.url, around_write) as url, stage.shipwright(never) as played:
        queue = stage.settings.work_queue.model_copy(update={"when_cut_off": what})
        stage.settings = stage.settings.model_copy(update={"broker_url": url, "work_queue": queue})
        async with stage.agent():
            submitted = await stage.submit(claim_timeout_seconds=1)
            await stage.running(played)
            is_cut_off.set()
            await stage.in_state(submitted, WorkState.PENDING)
            if what == "stop":

                async def is_stopped() -> bool:
                    return bool((await stage.resource(submitted))["status"]["phase"] == "Cancelled")

                await eventually(is_stopped)
                played.outcome = success
                is_cut_off.clear()
            else:
                is_cut_off.clear()
                await played.finish(attempt_name(work_name(submitted.id, round=1), 1))
            work = await stage.finished(submitted)

    assert work.status is WorkState.SUCCEEDED
    assert (work.result or {})["digest"] == DIGEST
    assert (work.round, len(played.seen)) == ((2, 2) if what == "stop" else (1, 1))


async def test_trap_22_what_overlaps_after_a_partition_is_fenced_and_stopped(
    stage: Stage,
) -> None:
    is_cut_off = asyncio.Event()

    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        if is_cut_off.is_set():
            raise ConnectionError
        yield

    other = await stage.broker.admin.register_agent(
        RegisterAgent(name=f"{stage.namespace}-b", labels={"stage": stage.namespace})
    )
    async with proxy(stage.broker.url, around_write) as url, stage.shipwright(never) as played:
        stage.settings = stage.settings.model_copy(update={"broker_url": url})
        async with stage.agent(), BrokerClient(stage.broker.url, other.key) as thief:
            submitted = await stage.submit(claim_timeout_seconds=1)
            await stage.running(played)
            is_cut_off.set()
            await stage.in_state(submitted, WorkState.PENDING)
            claim = await thief.claim_work(submitted.id, ClaimOne())
            is_cut_off.clear()

            async def is_stopped() -> bool:
                return bool((await stage.resource(submitted))["status"]["phase"] == "Cancelled")

            async def is_stopped_while_the_thief_lives() -> bool:
                await thief.heartbeat(
                    other.id, Heartbeat(incarnation=other.id, claims=[claim.claim_id])
                )
                return await is_stopped()

            await eventually(is_stopped_while_the_thief_lives)

    run = await stage.kube.get(
        BUILD_RUNS, stage.namespace, attempt_name(work_name(submitted.id, round=1), 1)
    )
    assert run["spec"]["state"] == "BuildRunCanceled"
    assert claim.round == 2
    assert (await stage.kube.list(BUILDS, stage.namespace))[0]

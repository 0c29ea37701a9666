"""What an agent is told acts; what other tests show of settings has the same marker there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from brokkr.agent.kinds import CONFIG_MAPS, WORKS
from brokkr.agent.settings import BuildSettings, HealthSettings, PolicySettings
from brokkr.local.process import free_port
from brokkr.wire.bodies import WorkBody, WorkState
from brokkr.wire.custom_resource import (
    LABEL_ATTEMPT,
    LABEL_ROUND,
    LABEL_WORK,
    LABEL_WORK_ID,
    render_claimed,
    render_spec,
)
from brokkr.work.model import Claim
from brokkr.work.names import attempt_name, work_name
from support.agent import Stage
from support.command_line import CommandLine
from support.factories import a_build_template
from support.shipwright import evicted_at_first, never, permanent_failure, success
from support.signals import eventually

pytestmark = [pytest.mark.kube, pytest.mark.postgres]


def told(stage: Stage, **work_crd: Any) -> None:
    """Change what the agent is told in ``[agent.work_crd]``."""
    crd = stage.settings.work_crd.model_copy(update=work_crd)
    stage.settings = stage.settings.model_copy(update={"work_crd": crd})


@pytest.mark.setting("agent.log_format", "agent.log_level")
async def test_a_process_logs_as_its_environment_says(tmp_path: Path) -> None:
    brokkr = CommandLine(
        tmp_path,
        BROKKR__AGENT__BROKER_URL="http://127.0.0.1:1",
        BROKKR__AGENT__KEY=f"brokkr_agt{'a' * 10}_{'b' * 43}",
        BROKKR__AGENT__KUBECONFIG=str(a_kubeconfig_of_nobody(tmp_path)),
        BROKKR__AGENT__LOG_FORMAT="console",
        BROKKR__AGENT__LOG_LEVEL="warning",
    )
    async with brokkr.started("agent", "run") as process:
        assert process.stderr is not None
        first = await process.stderr.readline()

    # For people, though this is no terminal, and without "agent listens", which comes before.
    assert b"[warning" in first
    assert b"broker not reached" in first


def a_kubeconfig_of_nobody(folder: Path) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        """
        current-context: it
        contexts: [{name: it, context: {cluster: it, user: it}}]
        clusters: [{name: it, cluster: {server: "http://127.0.0.1:1"}}]
        users: [{name: it, user: {}}]
        """
    )
    return path


@pytest.mark.setting(
    "agent.work_crd.build.service_account",
    "agent.work_crd.build.default_timeout",
    "agent.work_crd.build.deadline_grace",
)
async def test_a_build_has_account_timeout_and_deadline_of_the_settings_if_it_has_none(
    stage: Stage,
) -> None:
    build = BuildSettings(
        service_account="robots",
        default_timeout=timedelta(seconds=3),
        deadline_grace=timedelta(0),
    )
    told(stage, build=build)
    async with stage.shipwright(never) as played, stage.agent():
        work = await stage.finished(await stage.submit(max_retries=0))
        (run,) = played.seen.values()

    assert work.status is WorkState.FAILED
    assert run["spec"]["serviceAccount"] == "robots"
    assert run["spec"]["timeout"] == "3s"


@pytest.mark.setting(
    "agent.work_crd.build.build_retention_succeeded", "agent.work_crd.build.build_retention_failed"
)
@pytest.mark.parametrize("short", ["succeeded", "failed"])
async def test_what_succeeded_and_what_failed_are_kept_as_long_as_it_says(
    stage: Stage, short: str
) -> None:
    keep = {"succeeded": timedelta(hours=9), "failed": timedelta(hours=9)}
    keep[short] = timedelta(seconds=0.1)
    build = BuildSettings(
        build_retention_succeeded=keep["succeeded"], build_retention_failed=keep["failed"]
    )
    told(stage, build=build)
    ends = {"succeeded": success, "failed": permanent_failure}
    works = {}
    async with stage.agent():
        for name in sorted(ends, key=lambda name: name == short):
            async with stage.shipwright(ends[name]):
                works[name] = await stage.finished(await stage.submit(max_retries=0))
        await eventually(lambda: is_gone(stage, works[short]))

    assert [name for name in works if not await is_gone(stage, works[name])] == [
        name for name in ends if name != short
    ]


async def is_gone(stage: Stage, work: WorkBody) -> bool:
    name = work_name(work.id, round=1)
    return await stage.kube.find(WORKS, stage.namespace, name) is None


@pytest.mark.setting("agent.work_crd.build.start_within")
async def test_a_build_that_nothing_begins_waits_as_long_as_it_says(stage: Stage) -> None:
    told(stage, build=BuildSettings(start_within=timedelta(seconds=1)), infrastructure_retries=0)
    async with stage.agent():
        work = await stage.finished(await stage.submit(max_retries=0))

    assert work.status is WorkState.FAILED
    assert work.result is not None
    assert work.result["attempts"][0]["class"] == "NotStarted"


@pytest.mark.setting("agent.work_crd.retry_max_delay_seconds")
async def test_no_retry_waits_longer_than_it_says(stage: Stage) -> None:
    told(stage, retry_base_delay_seconds=3600, retry_max_delay_seconds=0.1)
    async with stage.shipwright(evicted_at_first), stage.agent():
        work = await stage.finished(await stage.submit())

    assert (work.status, work.retries_attempted) == (WorkState.SUCCEEDED, 0)


@pytest.mark.setting("agent.work_crd.infrastructure_retries")
@pytest.mark.parametrize("retries", [0, 1])
async def test_so_many_attempts_that_the_cluster_lost_are_repeated_as_it_says(
    stage: Stage, retries: int
) -> None:
    told(stage, infrastructure_retries=retries)
    async with stage.shipwright(evicted_at_first), stage.agent():
        work = await stage.finished(await stage.submit(max_retries=2))

    assert (work.status is WorkState.SUCCEEDED) == (retries == 1)
    assert work.retries_attempted == 0


@pytest.mark.setting("agent.work_crd.orphan_grace", "agent.work_crd.unreported_retention")
async def test_what_nobody_needs_is_deleted_when_it_is_as_old_as_it_says(stage: Stage) -> None:
    orphan, theirs = uuid4(), uuid4()
    labels = {
        LABEL_WORK: work_name(orphan, round=1),
        LABEL_WORK_ID: str(orphan),
        LABEL_ROUND: "1",
        LABEL_ATTEMPT: "1",
    }
    name = attempt_name(work_name(orphan, round=1), 1)
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}
    await stage.kube.create(CONFIG_MAPS, stage.namespace, config)
    spec = render_spec(
        work_type="build",
        max_retries=0,
        claim_timeout=timedelta(hours=1),
        template=a_build_template(),
    )
    claim = Claim(
        work_id=theirs, claim_id=uuid4(), round=1, agent_id=stage.agent_id, broker="a-former-broker"
    )
    work = await stage.kube.create(WORKS, stage.namespace, render_claimed(spec, claim))
    done = {**work, "status": {"phase": "Succeeded", "retries": 0}}
    await stage.kube.replace_status(WORKS, stage.namespace, done)
    told(stage, orphan_grace=timedelta(seconds=0.1), unreported_retention=timedelta(seconds=0.1))

    async def both_are_gone() -> bool:
        config = await stage.kube.find(CONFIG_MAPS, stage.namespace, name)
        work = await stage.kube.find(WORKS, stage.namespace, work_name(theirs, round=1))
        return config is None and work is None

    async with stage.agent():
        await eventually(both_are_gone)


@pytest.mark.setting(
    "agent.health.host", "agent.health.port", "agent.work_crd.reconcile_interval_seconds"
)
async def test_it_answers_where_it_says_and_looks_at_each_work_as_often_as_it_says(
    stage: Stage,
) -> None:
    health = HealthSettings(host="127.0.0.2", port=free_port())
    stage.settings = stage.settings.model_copy(update={"health": health})
    told(stage, reconcile_interval_seconds=0.1)

    async def looks() -> float:
        url = f"http://127.0.0.2:{health.port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            lines = (await answer.text()).splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith("brokkr_agent_reconcile_seconds_count")
        )

    async with stage.shipwright(never) as played, stage.agent():
        await stage.submit()
        await stage.running(played)
        before = await looks()

        async def was_looked_at() -> bool:
            return await looks() >= before + 20

        await eventually(was_looked_at)


@pytest.mark.setting("agent.work_queue.poll_interval_seconds")
async def test_what_is_not_answered_is_tried_again_as_often_as_it_says(stage: Stage) -> None:
    refused = 0

    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        nonlocal refused
        if method == "POST" and path.endswith("/works") and refused < 12:
            refused += 1
            raise ConnectionError
        yield

    queue = stage.settings.work_queue.model_copy(update={"poll_interval_seconds": 0.05})
    stage.settings = stage.settings.model_copy(update={"work_queue": queue})
    async with stage.shipwright(success), stage.proxied_cluster(around_write), stage.agent():
        await stage.finished(await stage.submit())

    assert refused == 12


@pytest.mark.setting(
    "agent.policy.registries",
    "agent.policy.git_hosts",
    "agent.policy.strategies",
    "agent.policy.service_accounts",
    "agent.policy.secrets",
)
async def test_what_is_not_on_a_list_is_refused_in_the_name_of_that_list(stage: Stage) -> None:
    policy = PolicySettings(
        registries=("registry.example",),
        git_hosts=("git.example",),
        strategies=("buildah",),
        service_accounts=("builder-sa",),
        secrets=("push-*",),
    )
    stage.settings = stage.settings.model_copy(update={"policy": policy})
    build = a_build_template()
    run = {
        "apiVersion": build["apiVersion"],
        "kind": "BuildRun",
        "metadata": {"name": "hello"},
        "spec": {"build": {"name": "hello"}, "serviceAccount": "admin"},
    }
    both = {"apiVersion": "v1", "kind": "List", "items": [build, run]}
    wrong = {
        "registries": a_build_template(output={"image": "elsewhere.example/hello"}),
        "git_hosts": a_build_template(
            source={"type": "Git", "git": {"url": "http://elsewhere.example/hello.git"}}
        ),
        "strategies": a_build_template(strategy={"name": "own", "kind": "ClusterBuildStrategy"}),
        "service_accounts": both,
        "secrets": a_build_template(
            output={"image": "registry.example/hello", "pushSecret": "admin"}
        ),
    }
    async with stage.shipwright(success), stage.agent():
        allowed = await stage.finished(await stage.submit())
        said = {
            name: (await stage.finished(await stage.submit(template=template))).result_message or ""
            for name, template in wrong.items()
        }

    assert allowed.status is WorkState.SUCCEEDED
    assert [name for name in wrong if f"agent.policy.{name}" not in said[name]] == [], said

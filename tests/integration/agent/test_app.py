"""The whole agent, in this process, between a real broker and a real API server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from pydantic import SecretStr

from brokkr import __version__
from brokkr.agent.app import run
from brokkr.agent.kinds import BUILD_RUNS, NAMESPACES, TASK_RUNS, WORKS
from brokkr.client import BrokerClient
from brokkr.local.control_plane import ControlPlane
from brokkr.wire.bodies import (
    Capabilities,
    ClaimOne,
    Heartbeat,
    RegisterAgent,
    WorkState,
)
from brokkr.wire.custom_resource import (
    ANNOTATION_ACKNOWLEDGED,
    ANNOTATION_CANCEL,
    render_claimed,
    render_spec,
)
from brokkr.work.errors import AgentSuperseded
from brokkr.work.model import Claim
from brokkr.work.names import work_name
from support.agent import QUICK, Stage
from support.proxy import proxy
from support.shipwright import (
    DIGEST,
    evicted_at_first,
    never,
    permanent_failure,
    success,
)
from support.signals import eventually

pytestmark = [pytest.mark.kube, pytest.mark.postgres]


async def test_an_agent_says_what_it_executes_and_how_much_more_it_would(stage: Stage) -> None:
    async def free() -> int | None:
        said = await stage.broker.admin.get_agent(stage.agent_id)
        return None if said.capacity is None else said.capacity.free

    async def is_free(slots: int) -> bool:
        return await free() == slots

    async with stage.shipwright(never), stage.agent():
        await eventually(lambda: is_free(2))
        await stage.submit(claim_timeout_seconds=1)
        await eventually(lambda: is_free(1))
        await stage.submit(claim_timeout_seconds=1)
        await eventually(lambda: is_free(0))

    said = await stage.broker.admin.get_agent(stage.agent_id)
    assert said.capabilities == Capabilities(types=["build"], version=__version__, strategies=[])


@pytest.mark.setting(
    "agent.broker_url", "agent.key", "agent.kubeconfig", "agent.work_crd.namespace"
)
async def test_a_build_ends_in_the_log_with_its_digest(stage: Stage) -> None:
    async with stage.shipwright(success), stage.agent():
        work = await stage.finished(await stage.submit())

    assert work.status is WorkState.SUCCEEDED
    assert work.result is not None
    assert work.result["digest"] == DIGEST
    assert [each["number"] for each in work.result["attempts"]] == [1]


@pytest.mark.setting("agent.work_crd.retry_base_delay_seconds")
async def test_a_retried_build_tells_of_both_attempts(stage: Stage) -> None:
    async with stage.shipwright(evicted_at_first), stage.agent():
        work = await stage.finished(await stage.submit())

    assert work.status is WorkState.SUCCEEDED
    # The node was to blame: it cost the user no retry.
    assert work.retries_attempted == 0
    assert work.result is not None
    assert work.result["infrastructure_retries"] == 1
    assert work.result["attempts"][0]["fault"] == "node"
    assert "fault" not in work.result
    assert [each["reason"] for each in work.result["attempts"]] == ["PodEvicted", "BuildCompleted"]


async def test_a_permanent_failure_is_reported_with_its_reason(stage: Stage) -> None:
    async with stage.shipwright(permanent_failure), stage.agent():
        work = await stage.finished(await stage.submit())

    assert work.status is WorkState.FAILED
    assert work.result_message is not None
    assert "MissingParameterValues" in work.result_message


async def test_more_work_than_slots_is_all_done(stage: Stage) -> None:
    async with stage.shipwright(success) as played, stage.agent():
        works = [await stage.submit() for _ in range(7)]
        ends = [await stage.finished(work) for work in works]

    assert {end.status for end in ends} == {WorkState.SUCCEEDED}
    assert len(played.seen) == 7


@pytest.mark.setting("agent.work_queue.max_concurrent")
async def test_no_more_is_claimed_than_there_are_slots(stage: Stage) -> None:
    async with stage.shipwright(never) as played, stage.agent():
        for _ in range(4):
            await stage.submit()

        async def two_run() -> bool:
            return len(played.seen) == 2

        await eventually(two_run)
        pending = await stage.broker.admin.list_work(status="PENDING")

    assert len(pending.items) == 2


@pytest.mark.setting("agent.work_queue.max_concurrent_by_type")
async def test_a_type_with_slots_of_its_own_takes_no_others(stage: Stage) -> None:
    queue = stage.settings.work_queue.model_copy(update={"max_concurrent_by_type": {"build": 1}})
    stage.settings = stage.settings.model_copy(update={"work_queue": queue})
    async with stage.shipwright(never) as played, stage.agent():
        first = await stage.submit()
        await stage.running(played)
        await stage.submit()
        with pytest.raises(TimeoutError):  # with a slot for it, it would be there at once
            await stage.running(played, runs=2, within=2)
        pending = await stage.broker.admin.list_work(status="PENDING")
        said = await stage.broker.admin.get_agent(stage.agent_id)
        await played.finish(f"{work_name(first.id, round=1)}-a1")
        await stage.running(played, runs=2)

    assert len(pending.items) == 1
    assert said.claimed == 1


async def test_progress_names_the_step_that_runs(stage: Stage) -> None:
    async with stage.shipwright(never) as played, stage.agent():
        submitted = await stage.submit()
        await stage.running(played)
        name = f"{work_name(submitted.id, round=1)}-a1"
        labels = {"buildrun.shipwright.io/name": name}
        task_run = await stage.kube.create(
            TASK_RUNS,
            stage.namespace,
            {
                "apiVersion": "tekton.dev/v1",
                "kind": "TaskRun",
                "metadata": {"name": f"{name}-x7k2p", "labels": labels},
            },
        )
        steps = [{"name": "build", "container": "step-build", "running": {"startedAt": "now"}}]
        await stage.kube.replace_status(
            TASK_RUNS, stage.namespace, {**task_run, "status": {"steps": steps}}
        )

        async def is_told() -> bool:
            progress = (await stage.broker.admin.get_work(submitted.id)).progress
            return progress is not None and progress.step == "build"

        await eventually(is_told)


async def test_a_cancel_stops_the_build_and_ends_in_the_log(stage: Stage) -> None:
    async with stage.shipwright(never) as played, stage.agent():
        submitted = await stage.submit(claim_timeout_seconds=3)

        async def runs() -> bool:
            return bool(played.seen)

        await eventually(runs)
        await stage.broker.admin.cancel_work(submitted.id)
        work = await stage.finished(submitted)

    name = work_name(work.id, round=1)
    run_object = await stage.kube.get(BUILD_RUNS, stage.namespace, f"{name}-a1")
    assert work.status is WorkState.CANCELLED
    assert run_object["spec"]["state"] == "BuildRunCanceled"


async def test_long_work_keeps_its_claim_though_the_lease_is_short(stage: Stage) -> None:
    async with stage.shipwright(never) as played, stage.agent():

        async def has_come() -> bool:
            seen = await stage.broker.admin.get_agent(stage.agent_id)
            return seen.last_seen_at is not None

        await eventually(has_come)
        await asyncio.sleep(1)  # it holds nothing, so its next heartbeat is not near
        submitted = await stage.submit(claim_timeout_seconds=2)
        await stage.in_state(submitted, WorkState.CLAIMED)
        await asyncio.sleep(5)  # two leases and a half
        await played.finish(f"{work_name(submitted.id, round=1)}-a1")
        work = await stage.finished(submitted)

    assert (work.status, work.round, work.lost_claims) == (WorkState.SUCCEEDED, 1, 0)
    assert len(played.seen) == 1


async def test_a_claim_whose_resource_was_never_written_is_found_after_a_restart(
    stage: Stage,
) -> None:
    submitted = await stage.submit()
    async with stage.as_agent() as dead:
        await dead.claim_work(submitted.id, ClaimOne())
    async with stage.shipwright(success) as played, stage.agent():
        work = await stage.finished(submitted)

    assert (work.status, work.round, len(played.seen)) == (WorkState.SUCCEEDED, 1, 1)


async def test_a_result_is_reported_by_the_next_process(stage: Stage) -> None:
    async with stage.shipwright(never) as played:
        async with stage.agent():
            submitted = await stage.submit()

            async def runs() -> bool:
                return bool(played.seen)

            await eventually(runs)
        await played.finish(f"{work_name(submitted.id, round=1)}-a1")
        async with stage.agent():
            work = await stage.finished(submitted)

    assert (work.status, work.round, len(played.seen)) == (WorkState.SUCCEEDED, 1, 1)


async def test_a_lost_claim_stops_the_execution_and_its_result_counts_no_more(
    stage: Stage,
) -> None:
    async with stage.shipwright(never) as played:
        async with stage.agent():
            submitted = await stage.submit(claim_timeout_seconds=1)

            async def runs() -> bool:
                return bool(played.seen)

            await eventually(runs)
        await stage.in_state(submitted, WorkState.PENDING)
        other = await stage.broker.admin.register_agent(
            RegisterAgent(name=f"{stage.namespace}-b", labels={"stage": stage.namespace})
        )
        async with BrokerClient(stage.broker.url, other.key) as thief:
            claim = await thief.claim_work(submitted.id, ClaimOne())
            await thief.heartbeat(other.id, Heartbeat(incarnation=uuid4(), claims=[claim.claim_id]))
        async with stage.agent():
            name = work_name(submitted.id, round=1)

            async def is_stopped() -> bool:
                live = await stage.kube.get(WORKS, stage.namespace, name)
                annotations = live["metadata"]["annotations"]
                return ANNOTATION_ACKNOWLEDGED in annotations

            await eventually(is_stopped)
        stopped = await stage.kube.get(WORKS, stage.namespace, name)

    assert stopped["status"]["phase"] == "Cancelled"
    assert "claim was lost" in stopped["metadata"]["annotations"][ANNOTATION_CANCEL]
    assert claim.round == 2


async def test_of_ten_agents_racing_for_one_work_one_runs_it(stage: Stage) -> None:
    """All in one namespace, which nobody should do, and which must do no harm."""
    async with AsyncExitStack() as stack:
        played = await stack.enter_async_context(stage.shipwright(never))
        for number in range(10):
            racer = await stage.broker.admin.register_agent(
                RegisterAgent(name=f"{stage.namespace}-{number}", labels={"stage": stage.namespace})
            )
            settings = stage.settings.model_copy(update={"key": SecretStr(racer.key)})
            task = asyncio.create_task(run(settings))
            stack.callback(task.cancel)
        submitted = await stage.submit()

        async def runs() -> bool:
            return bool(played.seen)

        await eventually(runs)
        # One that comes now tells the broker at once of all that it finds in the cluster.
        await stack.enter_async_context(stage.agent())

        async def has_come() -> bool:
            seen = await stage.broker.admin.get_agent(stage.agent_id)
            return seen.last_seen_at is not None

        await eventually(has_come)
        await played.finish(f"{work_name(submitted.id, round=1)}-a1")
        work = await stage.finished(submitted)

    assert (work.status, work.round, len(played.seen)) == (WorkState.SUCCEEDED, 1, 1)


async def test_work_whose_place_in_the_cluster_is_taken_is_completed_as_failed(
    stage: Stage,
) -> None:
    submitted = await stage.submit()
    claim = Claim(
        work_id=submitted.id, claim_id=uuid4(), round=1, agent_id=stage.agent_id, broker="none"
    )
    spec = render_spec(
        work_type="build", max_retries=0, claim_timeout=timedelta(hours=1), template={"a": "b"}
    )
    await stage.kube.create(WORKS, stage.namespace, render_claimed(spec, claim))
    async with stage.shipwright(success) as played, stage.agent():
        work = await stage.finished(submitted)

    assert work.status is WorkState.FAILED
    assert work.result_message is not None
    assert work.result_message.startswith("WorkRefused")
    assert not played.seen


async def test_of_two_processes_of_an_agent_the_older_one_stops(stage: Stage) -> None:
    async with stage.agent() as older:

        async def has_come() -> bool:
            seen = await stage.broker.admin.get_agent(stage.agent_id)
            return seen.last_seen_at is not None

        await eventually(has_come)
        submitted = await stage.submit(claim_timeout_seconds=1)
        await stage.in_state(submitted, WorkState.CLAIMED)
        async with stage.agent():
            with pytest.raises(AgentSuperseded):
                async with asyncio.timeout(20):
                    await older


@pytest.mark.setting("agent.work_queue.enabled")
async def test_a_disabled_queue_takes_nothing_new_and_goes_on_with_what_is_held(
    stage: Stage,
) -> None:
    held, new = await stage.submit(), await stage.submit()
    async with stage.as_agent() as before:
        await before.claim_work(held.id, ClaimOne())
    queue = stage.settings.work_queue.model_copy(update={"enabled": False})
    stage.settings = stage.settings.model_copy(update={"work_queue": queue})
    async with stage.shipwright(success), stage.agent():
        finished = await stage.finished(held)
        waiting = await stage.broker.admin.get_work(new.id)

    assert finished.status is WorkState.SUCCEEDED
    assert waiting.status is WorkState.PENDING


async def test_a_broker_that_is_away_costs_no_result(stage: Stage) -> None:
    """The build ends while the broker does not answer; the result arrives afterwards."""
    is_away = asyncio.Event()

    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        if is_away.is_set():
            raise ConnectionError
        yield

    async with (
        proxy(stage.broker.url, around_write) as url,
        stage.shipwright(never) as played,
    ):
        stage.settings = stage.settings.model_copy(update={"broker_url": url})
        async with stage.agent():
            submitted = await stage.submit()

            async def runs() -> bool:
                return bool(played.seen)

            await eventually(runs)
            is_away.set()
            name = work_name(submitted.id, round=1)
            await played.finish(f"{work_name(submitted.id, round=1)}-a1")

            async def has_ended() -> bool:
                work = await stage.kube.get(WORKS, stage.namespace, name)
                return bool(work.get("status", {}).get("phase") == "Succeeded")

            await eventually(has_ended)
            assert (await stage.broker.admin.get_work(submitted.id)).status is WorkState.CLAIMED
            is_away.clear()
            work = await stage.finished(submitted)

    assert work.status is WorkState.SUCCEEDED


async def test_a_claim_whose_answer_was_lost_is_had_by_asking_again(stage: Stage) -> None:
    lost: list[str] = []

    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        yield
        if path.endswith("/work/claim") and not lost:
            lost.append(path)
            raise ConnectionError

    submitted = await stage.submit()
    async with proxy(stage.broker.url, around_write) as url, stage.shipwright(success) as played:
        stage.settings = stage.settings.model_copy(update={"broker_url": url})
        async with stage.agent():
            work = await stage.finished(submitted)

    assert lost
    assert (work.status, work.round, len(played.seen)) == (WorkState.SUCCEEDED, 1, 1)


async def test_a_result_outlives_its_resource_if_that_is_deleted_before_it_was_reported(
    stage: Stage,
) -> None:
    may_complete = asyncio.Event()

    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        if path.endswith("/complete") and not may_complete.is_set():
            raise ConnectionError
        yield

    async with proxy(stage.broker.url, around_write) as url, stage.shipwright(success):
        stage.settings = stage.settings.model_copy(update={"broker_url": url})
        async with stage.agent():
            submitted = await stage.submit(claim_timeout_seconds=3)
            name = work_name(submitted.id, round=1)

            async def has_ended() -> bool:
                work = await stage.kube.find(WORKS, stage.namespace, name)
                return bool((work or {}).get("status", {}).get("phase") == "Succeeded")

            await eventually(has_ended)
            await stage.kube.delete(WORKS, stage.namespace, name)
            may_complete.set()
            work = await stage.finished(submitted)

    assert work.status is WorkState.SUCCEEDED
    assert work.result is not None
    assert work.result["digest"] == DIGEST


async def test_an_api_server_that_takes_nothing_for_a_while_is_no_failed_attempt(
    stage: Stage,
) -> None:
    is_away = asyncio.Event()
    refused: list[str] = []

    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        if is_away.is_set():
            refused.append(path)
            raise ConnectionError
        yield

    async with (
        stage.proxied_cluster(around_write),
        stage.shipwright(evicted_at_first) as played,
        stage.agent(),
    ):
        is_away.set()
        submitted = await stage.submit()

        async def was_refused() -> bool:
            return len(refused) >= 2

        await eventually(was_refused)
        is_away.clear()
        work = await stage.finished(submitted)

    assert (work.status, work.round, work.retries_attempted) == (WorkState.SUCCEEDED, 1, 0)
    assert len(played.seen) == 2


async def test_a_wrong_key_is_said_at_once_and_ends_nothing(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent starts as soon as it is let in: what runs in the cluster waits for it."""
    right = stage.settings
    wrong = SecretStr("brokkr_agtnonsense")
    stage.settings = right.model_copy(update={"key": wrong})
    async with stage.agent() as agent:
        said = ""

        async def is_said() -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return "this API key is not known, or was revoked" in said

        await eventually(is_said)
        assert not agent.done()
    stage.settings = right
    async with stage.shipwright(success), stage.agent():
        assert (await stage.finished(await stage.submit())).success


async def test_a_missing_namespace_is_said(stage: Stage, control_plane: ControlPlane) -> None:
    crd = stage.settings.work_crd.model_copy(update={"namespace": "nowhere"})
    # Only somebody with more permissions can tell a missing namespace from a forbidden one.
    stage.settings = stage.settings.model_copy(
        update={"work_crd": crd, "kubeconfig": control_plane.kubeconfig}
    )

    async def is_said() -> bool:
        said = (await stage.broker.admin.get_agent(stage.agent_id)).capabilities
        return (
            said is not None
            and said.unable is not None
            and said.unable.reason == "namespace_missing"
            and "kubectl create namespace nowhere" in said.unable.cause
        )

    async with stage.agent(QUICK):
        await eventually(is_said)

    assert await stage.kube.find(NAMESPACES, None, "nowhere") is None

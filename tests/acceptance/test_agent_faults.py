"""
What an agent's surroundings may do to it: be away, be restarted, be cut off, freeze it.

Each time: one BuildRun per attempt, one completion, the right result.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from brokkr.agent.kinds import WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.local.control_plane import ControlPlane, control_plane
from brokkr.wire.bodies import WorkBody, WorkState
from brokkr.wire.custom_resource import ANNOTATION_ACKNOWLEDGED
from brokkr.work.names import attempt_name, work_name
from support.agent import Stage, a_stage
from support.broker import RunningBroker
from support.kube import account_of_the_chart, project_crds
from support.proxy import Streams, proxy
from support.shipwright import DIGEST, evicted_at_first, never
from support.signals import eventually

pytestmark = [pytest.mark.kube, pytest.mark.postgres]


@asynccontextmanager
async def no_one_in_between(method: str, path: str) -> AsyncIterator[None]:
    yield


def end_of(work: WorkBody) -> tuple[object, ...]:
    digest = (work.result or {}).get("digest")
    return work.status, work.round, work.retries_attempted, digest


def right_end(*, round: int = 1) -> tuple[object, ...]:
    return WorkState.SUCCEEDED, round, 0, DIGEST


@pytest.mark.timeout(180)
async def test_a_broker_that_is_away_for_a_minute_costs_no_result_and_no_second_build(
    stage: Stage, tmp_path: Path
) -> None:
    """The lease runs out meanwhile: it is revived, for nobody else has claimed."""
    away_until = 0.0

    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        if time.monotonic() < away_until:
            raise ConnectionError
        yield

    async with (
        proxy(stage.broker.url, around_write) as url,
        stage.shipwright(never) as played,
        stage.agent_process(tmp_path, broker_url=url),
    ):
        submitted = await stage.submit(claim_timeout_seconds=5)
        await stage.running(played)
        away_until = time.monotonic() + 60
        await stage.in_state(submitted, WorkState.PENDING)
        await played.finish(attempt_name(work_name(submitted.id, round=1), 1))
        assert (await stage.broker.admin.get_work(submitted.id)).status is WorkState.PENDING
        work = await stage.finished(submitted, within=120)

    assert time.monotonic() >= away_until
    assert end_of(work) == right_end()
    assert len(played.seen) == 1


async def test_watches_that_break_all_the_time_delay_and_nothing_else(
    stage: Stage, tmp_path: Path
) -> None:
    streams, cuts = Streams(), 0

    async def cut_for_ever() -> None:
        nonlocal cuts
        while True:
            await asyncio.sleep(0.4)
            cuts += streams.cut()

    async with (
        stage.proxied_cluster(no_one_in_between, streams=streams),
        stage.shipwright(evicted_at_first) as played,
    ):
        cutting = asyncio.create_task(cut_for_ever())
        async with stage.agent_process(tmp_path):
            submitted = [await stage.submit() for _ in range(3)]
            works = [await stage.finished(each, within=60) for each in submitted]
        cutting.cancel()

    assert cuts > 5
    assert [end_of(work) for work in works] == [right_end()] * len(works)
    assert len(played.seen) == 6


async def test_a_process_that_was_frozen_past_its_lease_does_no_harm_when_it_thaws(
    stage: Stage, tmp_path: Path
) -> None:
    """Its successor has finished the first attempt by then, and runs the second."""
    (tmp_path / "old").mkdir()
    async with (
        stage.shipwright(lambda n: evicted_at_first(n) if n == 1 else None) as played,
        stage.agent_process(
            tmp_path / "old", AGENT__WORK_CRD__RETRY_BASE_DELAY_SECONDS="1.5"
        ) as old,
    ):
        submitted = await stage.submit(claim_timeout_seconds=2)
        name = work_name(submitted.id, round=1)
        await stage.running(played)
        os.kill(old.pid, signal.SIGSTOP)
        try:
            await stage.in_state(submitted, WorkState.PENDING)
            async with stage.agent_process(tmp_path):
                await stage.running(played, runs=2)
                before = await stage.kube.get(WORKS, stage.namespace, name)
                os.kill(old.pid, signal.SIGCONT)
                code = await asyncio.wait_for(old.wait(), 20)
                after = await stage.kube.get(WORKS, stage.namespace, name)
                await played.finish(attempt_name(name, 2))
                work = await stage.finished(submitted)
        finally:
            with suppress(ProcessLookupError):
                os.kill(old.pid, signal.SIGCONT)

    assert code == 1
    assert after["status"]["retries"] == before["status"]["retries"] == 1
    assert "brokkr.io/cancel" not in after["metadata"]["annotations"]
    assert end_of(work) == right_end()
    assert len(played.seen) == 2


@asynccontextmanager
async def restartable(plane: ControlPlane) -> AsyncIterator[None]:
    """Kill kube-apiserver for the block's length, and start the same one again after it."""
    port = plane.url.rpartition(":")[2]
    pid = next(
        int(each.name)
        for each in Path("/proc").iterdir()
        if each.name.isdigit() and f"--secure-port={port}".encode() in _command_line(each)
    )
    command = [each.decode() for each in _command_line(Path(f"/proc/{pid}")).split(b"\0") if each]
    folder = Path(f"/proc/{pid}/cwd").readlink()
    os.kill(pid, signal.SIGKILL)
    yield
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    _RESTARTED.append(process)


_RESTARTED: list[asyncio.subprocess.Process] = []


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
async def own_plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """An API server that the test may do with as it likes."""
    async with control_plane(tmp_path / "plane", print, crds=project_crds()) as plane:
        yield plane
        for process in _RESTARTED:
            process.kill()
            await process.wait()
        _RESTARTED.clear()


async def test_an_api_server_that_crashes_and_comes_back_is_no_failed_attempt(
    broker: RunningBroker, own_plane: ControlPlane, tmp_path: Path
) -> None:
    async with (
        KubeClient(KubeConfig.load(own_plane.kubeconfig)) as kube,
        account_of_the_chart(own_plane, tmp_path, "default") as account,
    ):
        stage = await a_stage(broker, kube, account, "default")
        async with (
            stage.shipwright(lambda n: evicted_at_first(n) if n == 1 else None) as played,
            stage.agent_process(tmp_path),
        ):
            early = await stage.submit(claim_timeout_seconds=60)
            await stage.running(played, runs=2)
            async with restartable(own_plane):
                late = await stage.submit(claim_timeout_seconds=60)
                await stage.in_state(late, WorkState.CLAIMED)
            # On a busy machine it takes its time to start, and watches come back after a pause.
            await eventually(kube.is_ready, within=90)
            await played.finish(attempt_name(work_name(early.id, round=1), 2))
            works = [await stage.finished(each, within=120) for each in (early, late)]

    # What was not begun when the server went may have been given back, and claimed again.
    assert [end_of(work) for work in works] == [right_end(), right_end(round=works[1].round)]
    assert works[1].lost_claims == 0
    assert len(played.seen) == 3


async def test_an_agent_told_to_stop_gives_back_what_it_has_not_begun_and_leaves_the_rest(
    stage: Stage, tmp_path: Path, broker: RunningBroker
) -> None:
    """Nothing can be begun: the API server takes no Builds."""

    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        if path.endswith("/builds") and refuses:
            raise ConnectionError
        yield

    refuses = False
    async with stage.shipwright(never) as played, stage.proxied_cluster(around_write):
        async with stage.agent_process(tmp_path) as agent:
            begun = await stage.submit()
            await stage.running(played)
            refuses = True
            untouched = await stage.submit()
            name = work_name(untouched.id, round=1)

            async def is_written() -> bool:
                return await stage.kube.find(WORKS, stage.namespace, name) is not None

            await eventually(is_written)
            os.kill(agent.pid, signal.SIGTERM)
            code = await asyncio.wait_for(agent.wait(), 15)
        released = await broker.admin.get_work(untouched.id)
        left = await broker.admin.get_work(begun.id)
        live = await stage.kube.get(WORKS, stage.namespace, work_name(begun.id, round=1))

    assert code == 0
    assert (released.status, left.status) == (WorkState.PENDING, WorkState.CLAIMED)
    assert live["status"]["phase"] == "Running"
    assert ANNOTATION_ACKNOWLEDGED not in live["metadata"]["annotations"]
    assert await stage.kube.find(WORKS, stage.namespace, name) is None

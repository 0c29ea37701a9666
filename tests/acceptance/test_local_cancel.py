"""A real build that is cancelled, wherever it is at that moment, stops and leaves nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from brokkr.local.process import free_port
from brokkr.wire.bodies import TargetBody, WorkBody, WorkState
from brokkr.work.errors import WorkFinished
from support.local import LOCAL, Local, value
from support.signals import eventually

pytestmark = [pytest.mark.build, pytest.mark.kube, pytest.mark.postgres]

SLOTS = 4
"""Of an agent that is not told otherwise; the build runner runs half of them at once."""


@dataclass
class SilentServer:
    """Takes connections and says nothing."""

    url: str
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def a_silent_server() -> AsyncIterator[SilentServer]:
    """Run one."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        silent.asked.set()
        await reader.read()
        silent.left.set()
        writer.close()

    port = free_port()
    silent = SilentServer(f"http://127.0.0.1:{port}")
    async with await asyncio.start_server(listen, "127.0.0.1", port):
        yield silent


def a_build_that_sleeps(local: Local) -> dict[str, Any]:
    return local.a_build(values=[value("dockerfile", "Dockerfile.sleeps")])


async def cancelled(local: Local, work: WorkBody) -> WorkBody:
    """Cancel a Work, and return how it ended."""
    await local.broker.cancel_work(work.id)
    end = await local.end_of(work)
    assert end.status is WorkState.CANCELLED, end.result_message
    return end


async def reasons_of_build_runs(local: Local, work: WorkBody) -> list[str]:
    return [each["status"]["conditions"][0]["reason"] for each in await local.build_runs_of(work)]


async def test_a_work_that_no_agent_matches_is_cancelled_at_once(local: Local) -> None:
    target = TargetBody(match_labels={"env": "moon"})
    work = await local.submit(local.a_build(), target=target)

    assert (await local.broker.cancel_work(work.id)).status is WorkState.CANCELLED
    assert await local.build_runs_of(work) == []


async def test_builds_that_fill_an_agent_and_one_that_waits_behind_them_are_cancelled(
    local: Local,
) -> None:
    works = [await local.submit(a_build_that_sleeps(local), target=LOCAL) for _ in range(SLOTS)]

    async def all_have_begun() -> bool:
        return all([await local.attempts_of(each, agent="local") for each in works])

    await eventually(all_have_begun, within=60)
    await eventually(local.is_asleep, within=60)
    waits = await local.submit(local.a_build(), target=LOCAL)
    assert (await local.broker.explain_work(waits.id)).work.status is WorkState.PENDING

    assert (await local.broker.cancel_work(waits.id)).status is WorkState.CANCELLED
    ends = await asyncio.gather(*(cancelled(local, each) for each in works))

    assert await local.find_resource(waits, agent="local") is None
    assert [await reasons_of_build_runs(local, each) for each in ends] == [
        ["BuildRunCanceled"]
    ] * SLOTS
    assert local.processes_of_builds() == []


async def test_builds_that_are_cancelled_while_they_clone_and_run_leave_no_process(
    local: Local,
) -> None:
    async with a_silent_server() as silent, asyncio.timeout(90):
        git = {"url": f"{silent.url}/sample.git", "cloneSecret": None}
        clones = await local.submit(local.a_build(git=git), max_retries=3)
        runs = await local.submit(a_build_that_sleeps(local), max_retries=3)
        await silent.asked.wait()
        await eventually(local.is_asleep, within=60)
        ends = await asyncio.gather(cancelled(local, clones), cancelled(local, runs))
        await silent.left.wait()

    assert local.processes_of_builds() == []
    for end in ends:
        assert end.result is not None
        assert [each["reason"] for each in end.result["attempts"]] == ["Cancelled"]
        assert await reasons_of_build_runs(local, end) == ["BuildRunCanceled"]
        assert end.retries_attempted == 0


async def test_a_work_that_is_cancelled_before_its_retry_is_due_has_no_other_attempt(
    local: Local,
) -> None:
    output = {"image": f"127.0.0.1:{free_port()}/x", "pushSecret": None}
    work = await local.submit(local.a_build(output=output), max_retries=3, target=LOCAL)

    async def waits_for_its_retry() -> bool:
        resource = await local.find_resource(work, agent="local") or {}
        return "retryTime" in resource.get("status", {})

    await eventually(waits_for_its_retry, within=60)
    end = await cancelled(local, work)

    assert end.result is not None
    assert [each["class"] for each in end.result["attempts"]] == ["PushTransport"]
    assert len(await local.build_runs_of(work)) == 1


async def test_a_work_that_is_finished_cannot_be_cancelled_and_stays_as_it_is(
    local: Local,
) -> None:
    work = await local.run(local.a_build("finished"))
    with pytest.raises(WorkFinished, match="is finished: succeeded"):
        await local.broker.cancel_work(work.id)

    after = await local.broker.get_work(work.id)
    assert after.model_dump(exclude={"resource"}) == work.model_dump(exclude={"resource"})
    assert after.status is WorkState.SUCCEEDED

"""The client with a real broker that is not always there; the test plays the agent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.settings import BrokerSettings
from brokkr.client import AsyncClient, WorkBody, WorkState
from brokkr.client.submission import submission_of
from brokkr.local.process import free_port
from brokkr.wire.bodies import CompleteWork
from brokkr.wire.tenants import CreateGenerator
from brokkr.work.errors import (
    BrokerUnavailable,
    IdempotencyKeyReused,
    InvalidInput,
    LimitReached,
    Unauthenticated,
    WorkFinished,
    WorkNotFound,
)
from support.broker import RunningBroker, serving
from support.hostile_broker import says
from support.played_agent import PlayedAgent
from support.proxy import Answer, proxy
from support.signals import eventually
from support.templates import a_build

GPU = {"gpu": "true"}


@pytest.fixture
async def client(broker: RunningBroker, admin_key: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(broker.url, admin_key) as client:
        yield client


def losing_the_first_answer() -> Callable[[str, str], AbstractAsyncContextManager[None]]:
    """Let the broker hear the first request, and nobody its answer."""
    seen: list[str] = []

    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        seen.append(path)
        yield
        if len(seen) == 1:
            raise web.HTTPBadGateway

    return around_write


# -- submit


async def test_a_submission_whose_answer_was_lost_makes_one_work(
    broker: RunningBroker, admin_key: str
) -> None:
    async with (
        proxy(broker.url, losing_the_first_answer()) as url,
        AsyncClient(url, admin_key) as client,
    ):
        work = await client.submit(a_build(), target=GPU)

    assert [each.id for each in (await broker.admin.list_work()).items] == [work.id]


async def test_each_call_of_submit_makes_a_work_of_its_own(client: AsyncClient) -> None:
    first = await client.submit(a_build(), target=GPU)
    second = await client.submit(a_build(), target=GPU)

    assert first.id != second.id


async def test_a_key_that_is_given_makes_one_work_of_many_calls(client: AsyncClient) -> None:
    first = await client.submit(a_build(), target=GPU, idempotency_key="job-17")
    again = await client.submit(a_build(), target=GPU, idempotency_key="job-17")

    assert first.id == again.id
    with pytest.raises(IdempotencyKeyReused):
        await client.submit(a_build(), target=GPU, idempotency_key="job-17", priority=1)


async def test_everything_that_is_said_of_a_work_arrives(client: AsyncClient) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    work = await client.submit(
        a_build(),
        target=GPU,
        labels={"app": "shop"},
        max_retries=1,
        max_handoffs=2,
        priority=7,
        claim_timeout_seconds=90,
        start_within_seconds=60,
        traceparent=traceparent,
    )

    assert (work.labels, work.max_retries, work.max_handoffs) == ({"app": "shop"}, 1, 2)
    assert (work.priority, work.claim_timeout_seconds, work.traceparent) == (7, 90, traceparent)
    assert work.start_deadline is not None


async def test_who_is_at_a_limit_waits_until_there_is_room(broker: RunningBroker) -> None:
    generator = await broker.admin.create_generator(
        CreateGenerator(name="ci", max_submissions_per_minute=60)
    )
    async with AsyncClient(broker.url, generator.key) as client:
        works = await asyncio.gather(*(client.submit(a_build(), target=GPU) for _ in range(61)))

    assert len({each.id for each in works}) == 61


async def test_a_proxy_says_too_when_to_come_back(broker: RunningBroker, admin_key: str) -> None:
    @asynccontextmanager
    async def around_write(method: str, path: str) -> AsyncIterator[None]:
        raise web.HTTPTooManyRequests(headers={"Retry-After": "60"})
        yield

    async with (
        proxy(broker.url, around_write) as url,
        AsyncClient(url, admin_key, patience_seconds=50) as client,
    ):
        with pytest.raises(BrokerUnavailable, match="429"):
            await asyncio.wait_for(client.submit(a_build(), target=GPU), timeout=5)


async def test_who_would_wait_longer_than_his_patience_is_told_at_once(
    broker: RunningBroker,
) -> None:
    generator = await broker.admin.create_generator(CreateGenerator(name="ci", max_pending=1))
    async with AsyncClient(broker.url, generator.key, patience_seconds=0) as client:
        await client.submit(a_build(), target=GPU)
        with pytest.raises(LimitReached):
            await client.submit(a_build(), target=GPU)


async def test_without_a_broker_a_call_ends_with_the_patience() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with AsyncClient(url, "a key", patience_seconds=0.5) as client:
        with pytest.raises(BrokerUnavailable):
            await client.submit(a_build(), target=GPU)


async def test_what_is_wrong_is_not_repeated(client: AsyncClient, broker: RunningBroker) -> None:
    with pytest.raises(InvalidInput, match="metadata"):
        await client.submit(a_build(metadata=[]), target=GPU)
    with pytest.raises(WorkNotFound):
        await client.get(uuid4())
    with pytest.raises(InvalidInput, match="work_id: 'x'"):
        await client.get("x")
    async with AsyncClient(broker.url, "a wrong key") as stranger:
        with pytest.raises(Unauthenticated):
            await stranger.submit(a_build(), target=GPU)


async def test_the_environment_says_which_broker(
    broker: RunningBroker, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BROKKR_KEY", raising=False)
    with pytest.raises(Unauthenticated, match="BROKKR_KEY is not set"):
        AsyncClient(broker.url)
    monkeypatch.setenv("BROKKR_URL", broker.url)
    monkeypatch.setenv("BROKKR_KEY", admin_key)
    async with AsyncClient() as client:
        assert (await client.submit(a_build(), target=GPU)).status is WorkState.PENDING


# -- wait


async def test_wait_returns_the_result(client: AsyncClient, agent: PlayedAgent) -> None:
    work = await client.submit(a_build(), target=GPU)
    waiting = asyncio.create_task(client.wait(str(work.id), timeout_seconds=20))
    await agent.complete(await agent.claim(), "succeeded", result={"digest": "sha256:abc"})
    ended = await waiting

    assert (ended.success, ended.result) == (True, {"digest": "sha256:abc"})
    assert await client.wait(work.id, timeout_seconds=20) == ended


async def test_wait_ends_with_its_time_and_the_work_goes_on(
    client: AsyncClient, agent: PlayedAgent
) -> None:
    work = await client.submit(a_build(), target=GPU)
    with pytest.raises(TimeoutError, match=rf"{work.id} is not finished after 0.3 s"):
        await client.wait(work.id, timeout_seconds=0.3)

    assert (await agent.claim()).id == work.id


async def test_wait_goes_on_where_no_stream_is_to_be_had(
    broker: RunningBroker,
    client: AsyncClient,
    agent: PlayedAgent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brokkr.broker.followers._RETRY_AFTER_SECONDS", 0.1)
    broker.parts.followers.limit = 0
    work = await client.submit(a_build(), target=GPU)
    waiting = asyncio.create_task(client.wait(work.id, timeout_seconds=20))
    await agent.complete(await agent.claim(), "failed", message="no")

    assert (await waiting).result_message == "no"


async def test_wait_and_watch_outlive_a_restart_of_the_broker(database_url: str) -> None:
    heard: asyncio.Queue[int] = asyncio.Queue()
    away: list[Exception] = []
    port = free_port()
    key = await create_admin_key(database_url)
    async with AsyncClient(f"http://127.0.0.1:{port}", key) as client:

        async def watch(work: WorkBody) -> None:
            async for event in client.watch(work.id, away=away.append):
                await heard.put(event.number)

        async with serving(BrokerSettings(), database_url, port=port):
            work = await client.submit(a_build(), target=GPU)
            watching = asyncio.create_task(watch(work))
            waiting = asyncio.create_task(client.wait(work.id))
            numbers = [await heard.get()]
        await eventually(lambda: _any(away))
        async with serving(BrokerSettings(), database_url, port=port), asyncio.timeout(30):
            await client.cancel(work.id)
            await watching
            ended = await waiting

    assert [*numbers, heard.get_nowait(), heard.empty()] == [1, 2, True]
    assert ended.status is WorkState.CANCELLED
    assert [type(each) for each in away] == [BrokerUnavailable]


async def test_who_is_told_that_a_stream_is_over_and_it_is_not_asks_again_in_peace(
    broker: RunningBroker, admin_key: str, agent: PlayedAgent
) -> None:
    """An empty 204 of a proxy looks like the end of a stream."""
    asked: list[str] = []
    is_meddled = True

    def instead(request: web.Request) -> Answer | None:
        if not is_meddled or not request.path.endswith("/events"):
            return None
        asked.append(request.path)
        return says(status=204)

    async with (
        proxy(broker.url, lambda *_: nullcontext(), instead=instead) as url,
        AsyncClient(url, admin_key) as client,
    ):
        work = await client.submit(a_build(), target=GPU)
        watching = asyncio.create_task(anext(client.watch(work.id)))
        waiting = asyncio.create_task(client.wait(work.id))
        await asyncio.sleep(2.5)  # nothing is to happen, at least not often
        asked_in_vain = len(asked)
        is_meddled = False
        await agent.complete(await agent.claim(), "succeeded")
        first, ended = await watching, await waiting

    assert 2 <= asked_in_vain <= 8
    assert (first.kind, ended.status) == ("submitted", WorkState.SUCCEEDED)


async def _any(found: list[Any]) -> bool:
    return bool(found)


# -- watch


async def test_watch_tells_what_happened_and_what_happens(
    client: AsyncClient, agent: PlayedAgent
) -> None:
    work = await client.submit(a_build(), target=GPU)
    claim = await agent.claim()
    kinds = []
    async for event in client.watch(work.id):
        kinds.append(event.kind)
        if event.kind == "claimed":
            await agent.progress(claim, phase="Running")
        if event.kind == "progress":
            await agent.complete(claim, "succeeded")

    assert kinds == ["submitted", "claimed", "progress", "completed"]
    assert [each.number async for each in client.watch(work.id, after=2)] == [3, 4]


# -- cancel


async def test_what_nobody_has_is_cancelled_and_stays_so(client: AsyncClient) -> None:
    work = await client.submit(a_build(), target=GPU)

    assert (await client.cancel(work.id)).status is WorkState.CANCELLED
    assert (await client.cancel(work.id)).status is WorkState.CANCELLED


async def test_a_cancel_whose_answer_was_lost_has_worked(
    broker: RunningBroker, admin_key: str
) -> None:
    work = await broker.admin.submit_work(submission_of(a_build(), GPU))
    async with (
        proxy(broker.url, losing_the_first_answer()) as url,
        AsyncClient(url, admin_key) as client,
    ):
        assert (await client.cancel(work.id)).status is WorkState.CANCELLED


async def test_what_an_agent_has_is_cancelled_when_the_agent_has_stopped_it(
    client: AsyncClient, agent: PlayedAgent
) -> None:
    work = await client.submit(a_build(), target=GPU)
    claim = await agent.claim()
    asked = await client.cancel(work.id)
    await agent.client.complete_work(
        work.id, CompleteWork(claim_id=claim.claim_id, outcome="cancelled")
    )

    assert (asked.status, asked.cancel_requested_at is None) == (WorkState.CLAIMED, False)
    assert (await client.wait(work.id, timeout_seconds=20)).status is WorkState.CANCELLED


async def test_what_has_ended_otherwise_is_not_cancelled(
    client: AsyncClient, agent: PlayedAgent
) -> None:
    work = await client.submit(a_build(), target=GPU)
    await agent.complete(await agent.claim(), "succeeded")

    with pytest.raises(WorkFinished):
        await client.cancel(work.id)

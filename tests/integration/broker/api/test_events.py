"""Events over HTTP: as pages, and as streams that any replica can go on with."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from brokkr.broker.db.work_events import list_news
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import (
    ClaimBody,
    ClaimOne,
    CompleteWork,
    ReportProgress,
    RequeueWork,
    SubmitWork,
    TargetBody,
)
from brokkr.wire.events import EventReader, WorkEvent
from brokkr.work.errors import BrokerUnavailable, LimitReached, WorkNotFound
from support.broker import serving
from support.factories import a_build_template
from support.signals import eventually

from .conftest import Served


async def a_work(served: Served, agent: str = "edge-7") -> UUID:
    target = TargetBody(agents=[agent])
    work = await served.admin.submit_work(
        SubmitWork(work_type="build", template=a_build_template(), target=target)
    )
    return work.id


async def finish(client: BrokerClient, work_id: UUID, claim: ClaimBody | None = None) -> None:
    claim = claim or await client.claim_work(work_id, ClaimOne())
    await client.complete_work(work_id, CompleteWork(claim_id=claim.claim_id, success=True))


async def report(client: BrokerClient, claim: ClaimBody, message: str) -> None:
    body = ReportProgress(claim_id=claim.claim_id, phase="Running", attempt=1, message=message)
    await client.report_progress(claim.id, body)


class Stream:
    """One connection that follows a Work, read as slowly as the test wants."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.reader = EventReader()
        self.text = b""
        self._read: list[WorkEvent] = []

    async def next(self) -> WorkEvent | None:
        """Return the next event; None at the end."""
        while not self._read:
            chunk = await self.response.content.readany()
            if not chunk:
                return None
            self.text += chunk
            self._read.extend(self.reader.read(chunk))
        return self._read.pop(0)

    async def rest(self) -> list[str]:
        kinds = []
        while (event := await self.next()) is not None:
            kinds.append(event.kind)
        return kinds


@asynccontextmanager
async def following(
    served: Served, work_id: UUID, *, key: str = "", url: str = "", **options: Any
) -> AsyncIterator[Stream]:
    headers = {"Authorization": f"Bearer {key or served.admin_key}", **options.pop("headers", {})}
    async with (
        asyncio.timeout(30),
        served.http.get(
            f"{url or served.url}/api/v1/work/{work_id}/events",
            params={"follow": "true", **options},
            headers=headers,
        ) as response,
    ):
        yield Stream(response)


async def followers(served: Served) -> int:
    return len(served.broker.followers)


async def test_a_page_says_what_happened_and_where_to_read_on(served: Served) -> None:
    _, client = await served.an_agent()
    work_id = await a_work(served)
    await finish(client, work_id)

    first = await served.admin.list_events(work_id, limit=2)
    second = await served.admin.list_events(work_id, after=first.next_after or 0, limit=2)

    assert [(each.number, each.kind, each.actor) for each in [*first.items, *second.items]] == [
        (1, "submitted", first.items[0].actor),
        (2, "claimed", "agent:edge-7"),
        (3, "completed", "agent:edge-7"),
    ]
    assert first.items[0].actor.startswith("admin:")
    assert (first.next_after, second.next_after) == (2, None)


async def test_events_of_an_unknown_work_are_not_found(served: Served) -> None:
    for query in ("", "?follow=true"):
        status, problem = await served.request("GET", f"/api/v1/work/{uuid4()}/events{query}")
        assert (status, problem["code"]) == (404, "work_not_found")


@pytest.mark.parametrize("query", ["after=-1", "after=9999999999", "limit=0", "after=x"])
async def test_a_place_that_is_none_is_refused(served: Served, query: str) -> None:
    work_id = await a_work(served)

    status, problem = await served.request("GET", f"/api/v1/work/{work_id}/events?{query}")

    assert (status, problem["field"]) == (422, query.partition("=")[0])


async def test_a_stream_sends_what_was_what_is_and_ends_with_the_work(served: Served) -> None:
    _, client = await served.an_agent()
    work_id = await a_work(served)
    claim = await client.claim_work(work_id, ClaimOne())
    async with following(served, work_id) as stream:
        told = [await stream.next(), await stream.next()]
        await report(client, claim, "pulling")
        told.append(await stream.next())
        await finish(client, work_id, claim)
        told.append(await stream.next())

        assert await stream.next() is None

    assert stream.response.content_type == "text/event-stream"
    kinds = [each.kind for each in told if each is not None]
    assert kinds == ["submitted", "claimed", "progress", "completed"]
    text = stream.text.decode()
    assert "retry: 1000\n\n" in text
    data = json.loads(text.split("id: 3\nevent: progress\ndata: ")[1].split("\n")[0])
    assert data["detail"]["message"] == "pulling"
    await eventually(lambda: _nobody(served))


async def _nobody(served: Served) -> bool:
    return await followers(served) == 0


async def test_a_reader_goes_on_where_it_was_at_any_replica(
    served: Served, database_url: str
) -> None:
    _, client = await served.an_agent()
    work_id = await a_work(served)
    claim = await client.claim_work(work_id, ClaimOne())
    async with serving(BrokerSettings(), database_url) as other:
        last = {"Last-Event-ID": "1"}
        # The header is of who comes back, so it counts more than what the address says.
        async with following(served, work_id, url=other.url, headers=last, after="0") as stream:
            assert (await stream.next()) is not None
            await report(client, claim, "pulling")
            await finish(client, work_id, claim)

            assert await stream.rest() == ["progress", "completed"]

    async with following(served, work_id, headers={"Last-Event-ID": "3"}) as stream:
        assert await stream.rest() == ["completed"]


async def test_who_has_everything_of_a_finished_work_is_told_not_to_come_back(
    served: Served,
) -> None:
    _, client = await served.an_agent()
    work_id = await a_work(served)
    await finish(client, work_id)

    for last in ("3", "99"):
        async with following(served, work_id, headers={"Last-Event-ID": last}) as stream:
            assert stream.response.status == 204


async def test_a_long_history_is_sent_whole(served: Served) -> None:
    _, client = await served.an_agent()
    work_id = await a_work(served)
    claim = await client.claim_work(work_id, ClaimOne())
    for number in range(100):
        await report(client, claim, f"step {number}")
    await finish(client, work_id, claim)

    async with following(served, work_id, limit="1") as stream:
        numbers = []
        while (event := await stream.next()) is not None:
            numbers.append(event.number)

    assert numbers == list(range(1, 104))


async def test_a_stream_of_a_requeued_work_goes_on_to_its_next_end(served: Served) -> None:
    _, client = await served.an_agent()
    work_id = await a_work(served)
    await finish(client, work_id)
    await served.admin.requeue_work(work_id, RequeueWork())

    async with following(served, work_id, after="3") as stream:
        assert (await stream.next()) is not None
        await finish(client, work_id)

        assert await stream.rest() == ["claimed", "completed"]


async def test_a_quiet_stream_shows_that_it_is_there(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokkr.broker.api.events.QUIET", timedelta(seconds=0.05))
    work_id = await a_work(served)

    async with following(served, work_id, after="1") as stream:
        text = b""
        while text.count(b"\n\n") < 4:
            text += await stream.response.content.readany()

    assert text.replace(b"retry: 1000\n\n", b"").startswith(b": still there\n\n")


async def test_a_client_that_goes_away_frees_its_stream(served: Served) -> None:
    work_id = await a_work(served)
    async with following(served, work_id) as stream:
        await stream.next()
        assert await followers(served) == 1
        stream.response.close()

    await eventually(lambda: _nobody(served))


async def test_a_slow_reader_is_waited_for_and_misses_nothing(served: Served) -> None:
    work_id = await a_work(served)
    await served.broker.pool.execute(  # more than the buffers on the way take
        "INSERT INTO work_events (work_id, number, kind, actor, detail)"
        " SELECT $1, number, 'progress', 'agent:edge-7',"
        "        jsonb_build_object('message', repeat('x', 100000))"
        "   FROM generate_series(2, 400) AS number",
        work_id,
    )

    async def is_left_out() -> bool:
        """Say whether the broker has asked for nothing more for half a second."""
        [follower] = served.broker.followers
        before = follower.after
        await asyncio.sleep(0.5)
        return not follower.is_waiting and follower.after == before < 400

    async with following(served, work_id) as stream:
        await eventually(is_left_out)
        numbers = [event.number for _ in range(400) if (event := await stream.next()) is not None]

    assert numbers == list(range(1, 401))


async def test_as_many_as_a_broker_serves_may_follow(served: Served) -> None:
    served.broker.followers.limit = 1
    work_id = await a_work(served)
    path = f"/api/v1/work/{work_id}/events"
    async with following(served, work_id) as stream:
        await stream.next()

        status, problem = await served.request("GET", f"{path}?follow=true")
        page = await served.request("GET", path)

    assert (status, problem["code"], problem["retry_after"]) == (429, "limit_reached", 10)
    assert page[0] == 200
    await eventually(lambda: _nobody(served))
    async with following(served, work_id) as stream:
        assert await stream.next() is not None


async def test_a_broker_that_stops_ends_its_streams_at_once(
    served: Served, database_url: str
) -> None:
    work_id = await a_work(served)
    loop = asyncio.get_running_loop()
    async with (
        serving(BrokerSettings(), database_url) as other,
        following(served, work_id, url=other.url) as stream,
    ):
        await stream.next()
        other.server.should_exit = True
        began = loop.time()

        assert await stream.rest() == []
        assert loop.time() - began < 2


async def test_a_revoked_key_ends_its_stream_before_it_hears_more(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokkr.broker.api.events.QUIET", timedelta(seconds=0.05))
    agent, client = await served.an_agent()
    work_id = await a_work(served)
    await client.claim_work(work_id, ClaimOne())
    async with following(served, work_id, key=agent.key) as stream:
        assert [await stream.next(), await stream.next()] != []
        await served.admin.rotate_agent_key(agent.id)

        assert await stream.rest() == []


async def test_an_agent_follows_what_it_holds_and_nothing_else(served: Served) -> None:
    agent, client = await served.an_agent()
    mine, other = await a_work(served), await a_work(served)
    await client.claim_work(mine, ClaimOne())

    assert len((await client.list_events(mine)).items) == 2
    with pytest.raises(WorkNotFound):
        await client.list_events(other)
    async with following(served, other, key=agent.key) as stream:
        assert stream.response.status == 404


async def test_the_database_is_asked_only_while_somebody_follows(served: Served) -> None:
    work_id = await a_work(served)

    async def looks() -> int:
        """Return how often events were looked at; the server counts a second late."""
        found: int = await served.broker.pool.fetchval(
            "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables"
            " WHERE relname = 'work_events'"
        )
        return found

    await asyncio.sleep(1.5)  # what was done before is counted
    before = await looks()
    await asyncio.sleep(1.5)
    idle = await looks()

    async def are_more() -> bool:
        return await looks() > idle + 3

    async with following(served, work_id):
        await eventually(are_more)

    assert idle == before


async def test_the_client_follows_from_broker_to_broker(served: Served, database_url: str) -> None:
    _, agent = await served.an_agent()
    work_id = await a_work(served)
    claim = await agent.claim_work(work_id, ClaimOne())
    heard: asyncio.Queue[str] = asyncio.Queue()
    away: list[Exception] = []
    async with serving(BrokerSettings(), database_url) as first:
        port = int(first.url.rpartition(":")[2])
        client = await served.clients.enter_async_context(BrokerClient(first.url, served.admin_key))

        async def follow() -> None:
            async for event in client.follow_events(work_id, away=away.append):
                await heard.put(event.kind)

        task = asyncio.create_task(follow())
        async with asyncio.timeout(20):
            kinds = [await heard.get(), await heard.get()]
    await eventually(lambda: _is_away(away))
    await report(agent, claim, "while nobody listened")
    async with serving(BrokerSettings(), database_url, port=port), asyncio.timeout(20):
        kinds.append(await heard.get())
        await finish(agent, work_id, claim)
        await task
        kinds.append(await heard.get())

    assert kinds == ["submitted", "claimed", "progress", "completed"]
    assert [type(each) for each in away] == [BrokerUnavailable]


async def _is_away(away: list[Exception]) -> bool:
    return bool(away)


async def test_the_client_gives_up_after_a_while(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_id = await a_work(served)
    served.broker.followers.limit = 0
    monkeypatch.setattr("brokkr.broker.followers._RETRY_AFTER_SECONDS", 0)

    with pytest.raises(LimitReached):
        await anext(served.admin.follow_events(work_id, patience_seconds=0))
    with pytest.raises(WorkNotFound):
        await anext(served.admin.follow_events(uuid4()))


async def test_followers_are_told_after_a_round_that_went_wrong_in_an_unforeseen_way(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = await served.an_agent()
    work_id = await a_work(served)
    failures = iter([ZeroDivisionError("nobody had thought of it")])

    async def wrong_once(*arguments: Any, **options: Any) -> Any:
        for failure in failures:
            raise failure
        return await list_news(*arguments, **options)

    async with following(served, work_id) as stream:
        assert await stream.next() is not None
        monkeypatch.setattr("brokkr.broker.followers.list_news", wrong_once)
        await finish(client, work_id)
        kinds = await stream.rest()

    assert kinds == ["claimed", "completed"]
    assert list(failures) == []

"""What one caller, or one broken replica, does to all others: little, and for a short time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from brokkr.broker import dispatch
from brokkr.broker.db.pool import connect
from brokkr.broker.settings import BrokerSettings
from brokkr.wire.bodies import ClaimSome
from support.broker import ServedApp, serving
from support.factories import a_build_template
from support.signals import eventually

from .conftest import Served


async def a_tenant(served: Served, name: str) -> str:
    status, body = await served.request("POST", "/api/v1/generators", json={"name": name})
    assert status == 201, body
    return str(body["key"])


async def submit(served: Served, key: str, **target: Any) -> tuple[int, Any]:
    return await served.request(
        "POST",
        "/api/v1/work",
        key=key,
        json={
            "work_type": "build",
            "template": a_build_template(),
            "target": target or {"match_labels": {"any": "yes"}},
        },
    )


@asynccontextmanager
async def frozen(database_url: str, statement: str) -> AsyncIterator[None]:
    """Hold what a statement locks, as a replica does that was stopped in a transaction."""
    async with connect(database_url) as db, db.transaction():
        await db.execute(statement)
        yield


async def beat(served: Served, agent_id: Any, key: str) -> float:
    """Send a heartbeat; return how long that took."""
    began = monotonic()
    status, body = await served.request(
        "POST",
        f"/api/v1/agents/{agent_id}/heartbeat",
        key=key,
        json={"incarnation": "0197a000-0000-4000-8000-000000000001", "claims": []},
    )
    assert status == 200, body
    return monotonic() - began


async def test_a_replica_that_froze_with_the_selectors_lock_stops_no_heartbeat(
    served: Served, database_url: str
) -> None:
    agent, _ = await served.an_agent(any="yes")
    tenant = await a_tenant(served, "one")
    assert (await submit(served, tenant))[0] == 201

    async with frozen(database_url, "SELECT pg_advisory_xact_lock(1, 0)"):
        waiting = [
            asyncio.create_task(submit(served, tenant, match_labels={"new": f"t{number}"}))
            for number in range(30)
        ]
        relabels = [
            asyncio.create_task(
                served.request("PATCH", f"/api/v1/agents/{agent.id}", json={"labels": {"a": "b"}})
            )
            for _ in range(3)
        ]
        await asyncio.sleep(0.2)
        beats = [await beat(served, agent.id, agent.key) for _ in range(10)]
        async with served.http.post(
            f"{served.url}/api/v1/agents/{agent.id}/work/claim",
            headers={"Authorization": f"Bearer {agent.key}"},
            json={"max": 1},
        ) as claimed:
            claim = (await claimed.json())["claims"][0]
        done, _ = await served.request(
            "POST",
            f"/api/v1/work/{claim['id']}/complete",
            key=agent.key,
            json={"claim_id": claim["claim_id"], "success": True, "message": "done"},
        )
        answers = await asyncio.gather(*waiting, *relabels)

    assert max(beats) < 1
    assert done == 200
    assert {status for status, _ in answers} == {503}
    assert (await submit(served, tenant, match_labels={"new": "t0"}))[0] == 201


async def test_a_replica_that_froze_is_answered_for_with_when_to_come_again(
    served: Served, database_url: str
) -> None:
    tenant = await a_tenant(served, "one")
    async with (
        frozen(database_url, "SELECT pg_advisory_xact_lock(1, 0)"),
        served.http.post(
            f"{served.url}/api/v1/work",
            headers={"Authorization": f"Bearer {tenant}"},
            json={
                "work_type": "build",
                "template": a_build_template(),
                "target": {"match_labels": {"new": "yes"}},
            },
        ) as answer,
    ):
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert (await answer.json())["code"] == "database_unavailable"


@pytest.mark.parametrize("path", ["/api/v1/work", "/api/v1/work?label=a%3Db"])
async def test_forty_lists_of_one_caller_leave_the_others_alone(
    served: Served, database_url: str, path: str
) -> None:
    agent, _ = await served.an_agent(any="yes")
    tenant, other = await a_tenant(served, "one"), await a_tenant(served, "two")
    assert (await submit(served, other))[0] == 201
    # Lists are slow: they wait for a table that somebody has locked, and nothing else does.
    async with frozen(database_url, "LOCK TABLE work_execution_log IN ACCESS EXCLUSIVE MODE"):
        lists = [asyncio.create_task(served.request("GET", path, key=tenant)) for _ in range(40)]
        await asyncio.sleep(0.2)
        beats = [await beat(served, agent.id, agent.key) for _ in range(10)]
        assert (await submit(served, other))[0] == 201
        answers = await asyncio.gather(*lists)

    assert max(beats) < 1
    refused = [body for status, body in answers if status == 429]
    assert {body["code"] for body in refused} == {"limit_reached"}
    assert len(refused) == 30
    assert {status for status, _ in answers} == {429, 503}


# -- targets -------------------------------------------------------------------------------


@asynccontextmanager
async def small(database_url: str, **limits: Any) -> AsyncIterator[tuple[ServedApp, ServedApp]]:
    """Serve two replicas with limits that a test can reach."""
    settings = BrokerSettings(**limits)
    async with serving(settings, database_url) as one, serving(settings, database_url) as two:
        yield one, two


async def submit_at(served: Served, broker: ServedApp, key: str, target: str) -> tuple[int, Any]:
    async with served.http.post(
        f"{broker.url}/api/v1/work",
        headers={"Authorization": f"Bearer {key}"},
        json={
            "work_type": "build",
            "template": a_build_template(),
            "target": {"match_labels": {"t": target}},
        },
    ) as answer:
        if answer.status == 429:
            assert int(answer.headers["Retry-After"]) > 0
        return answer.status, await answer.json()


@pytest.mark.setting("broker.max_targets_per_generator")
async def test_a_tenant_with_as_many_targets_as_it_may_have_is_told_so_and_others_are_served(
    served: Served, database_url: str
) -> None:
    one, two = await a_tenant(served, "one"), await a_tenant(served, "two")
    async with small(database_url, max_targets_per_generator=3) as (here, there):
        # Two replicas, and twenty at once for the last places.
        answers = await asyncio.gather(
            *(
                submit_at(served, broker, one, f"one-{number}")
                for number in range(10)
                for broker in (here, there)
            )
        )
        refused = [body for status, body in answers if status == 429]
        accepted = {
            body["target"][0]["match_labels"]["t"] for status, body in answers if status == 201
        }

        assert len(accepted) == 3
        assert len(refused) == 14
        assert {each["code"] for each in refused} == {"limit_reached"}
        assert "max_targets_per_generator" in refused[0]["detail"]
        for known in accepted:
            assert (await submit_at(served, here, one, known))[0] == 201
        for number in range(3):
            assert (await submit_at(served, there, two, f"two-{number}"))[0] == 201
        assert (await submit_at(served, there, two, "two-3"))[0] == 429
        for number in range(5):
            assert (await submit_at(served, here, served.admin_key, f"admin-{number}"))[0] == 201


@pytest.mark.setting("broker.max_targets")
async def test_all_together_have_as_many_targets_as_there_may_be(
    served: Served, database_url: str
) -> None:
    one = await a_tenant(served, "one")
    async with small(database_url, max_targets=4) as (here, _):
        answers = [await submit_at(served, here, one, f"t{number}") for number in range(6)]

        assert [status for status, _ in answers] == [201, 201, 201, 201, 429, 429]
        assert "broker.max_targets" in answers[-1][1]["detail"]
        assert (await submit_at(served, here, served.admin_key, "t9"))[0] == 429
        assert (await submit_at(served, here, served.admin_key, "t0"))[0] == 201


@pytest.mark.parametrize(
    "target",
    [
        {"match_annotations": {f"key-{number}": "x" * 4000 for number in range(20)}},
        [{"agents": [f"agent-{number}-{each}" for each in range(900)]} for number in range(6)],
    ],
)
async def test_a_target_that_is_too_large_is_refused(
    served: Served, database_url: str, target: Any
) -> None:
    tenant = await a_tenant(served, "one")
    async with (
        serving(BrokerSettings(), database_url) as broker,
        served.http.post(
            f"{broker.url}/api/v1/work",
            headers={"Authorization": f"Bearer {tenant}"},
            json={"work_type": "build", "template": a_build_template(), "target": target},
        ) as answer,
    ):
        body = await answer.json()

    assert answer.status == 422
    assert body["field"] == "target"
    assert "65536" in body["detail"]


async def test_a_target_that_names_a_thousand_agents_by_id_is_accepted(
    served: Served, database_url: str
) -> None:
    tenant = await a_tenant(served, "one")
    ids = [str(UUID(int=number)) for number in range(1000)]
    status, body = await submit(served, tenant, agents=ids)

    assert status == 201, body


# -- streams and polls ---------------------------------------------------------------------


@pytest.mark.setting("broker.max_event_streams_per_caller")
async def test_a_tenant_has_a_share_of_the_event_streams(served: Served, database_url: str) -> None:
    keys = [await a_tenant(served, name) for name in ("one", "two")]
    works = [(await submit(served, key))[1]["id"] for key in keys]
    settings = BrokerSettings(max_event_streams_per_caller=3)
    async with serving(settings, database_url) as broker, AsyncExitStack() as open_streams:

        async def follow(who: int) -> aiohttp.ClientResponse:
            return await open_streams.enter_async_context(
                served.http.get(
                    f"{broker.url}/api/v1/work/{works[who]}/events?follow=true",
                    headers={"Authorization": f"Bearer {keys[who]}"},
                )
            )

        mine = [await follow(0) for _ in range(3)]
        refused, theirs = await follow(0), await follow(1)

        assert [each.status for each in (*mine, refused, theirs)] == [200, 200, 200, 429, 200]
        problem = await refused.json(content_type=None)
        assert problem["code"] == "limit_reached"
        assert "end a stream" in problem["detail"]
        assert int(refused.headers["Retry-After"]) == 10

        mine[0].close()

        async def has_room() -> bool:
            return (await follow(0)).status == 200

        await eventually(has_room)


async def test_one_agent_parks_so_many_polls_and_no_more(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_POLLS", 3)
    agent, _ = await served.an_agent()
    other, client = await served.an_agent("edge-8")

    async def poll() -> int:
        status, _ = await served.request(
            "POST", f"/api/v1/agents/{agent.id}/work/claim", key=agent.key, json={"wait": 5}
        )
        return status

    polls = [asyncio.create_task(poll()) for _ in range(3)]

    async def are_parked() -> bool:
        return served.broker.dispatcher.waiting == 3

    await eventually(are_parked)
    assert await poll() == 429
    assert await client.claim_some(other.id, ClaimSome(wait=0.1)) == []
    assert await asyncio.gather(*polls) == [200] * 3

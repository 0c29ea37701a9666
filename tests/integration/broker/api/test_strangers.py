"""
Those with a good key who want what is not theirs: they learn nothing and change nothing.

What is another's is answered exactly as what does not exist, so not even that it exists is
learnt.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from brokkr.client import BrokerClient
from brokkr.wire.bodies import (
    ClaimBody,
    ClaimOne,
    ClaimSome,
    CompleteWork,
    Heartbeat,
    ReleaseWork,
    ReportProgress,
    SubmitWork,
    WorkBody,
)
from brokkr.wire.tenants import CreateGenerator
from support.factories import a_build_template

from .conftest import Served

KEY = "an-idempotency-key"


def a_submission(**fields: Any) -> dict[str, Any]:
    return {
        "work_type": "build",
        "template": a_build_template(),
        "target": {"agents": ["victim"]},
        "labels": {"secret": "yes"},
        **fields,
    }


class Scene:
    """A team's Works, which an agent holds and has finished, and two who want them."""

    served: Served
    held: WorkBody
    finished: WorkBody
    claims: Mapping[UUID, ClaimBody]
    rival: str
    thief: str
    thief_id: UUID
    victim_id: UUID

    async def seen(self) -> list[Any]:
        """Return all that can be known about the Works; two of these are equal or not."""
        known = []
        for work in (self.held, self.finished):
            for path in ("", "/events"):
                status, body = await self.served.request("GET", f"/api/v1/work/{work.id}{path}")
                assert status == 200
                known.append({k: v for k, v in body.items() if k != "lease_seconds"})
        return known

    async def leases(self) -> list[Any]:
        """Return until when the claims are held."""
        rows = await self.served.broker.pool.fetch(
            "SELECT id, claim_id, lease_expires_at FROM work_queue ORDER BY id"
        )
        return [tuple(each) for each in rows]


async def a_scene(served: Served) -> Scene:
    scene = Scene()
    scene.served = served
    victim, agent = await served.an_agent("victim")
    thief, _ = await served.an_agent("thief")
    team = await served.admin.create_generator(CreateGenerator(name="team"))
    rival = await served.admin.create_generator(CreateGenerator(name="rival"))
    submitter = await served.client(team.key)
    scene.held, scene.finished = [
        await submitter.submit_work(SubmitWork.model_validate(a_submission(idempotency_key=key)))
        for key in (KEY, None)
    ]
    claims = [await agent.claim_work(each.id, ClaimOne()) for each in (scene.held, scene.finished)]
    scene.claims = {each.id: each for each in claims}
    report = CompleteWork(claim_id=scene.claims[scene.finished.id].claim_id, success=True)
    await agent.complete_work(scene.finished.id, report)
    scene.rival, scene.thief = rival.key, thief.key
    scene.thief_id, scene.victim_id = thief.id, victim.id
    return scene


async def ask(
    scene: Scene, key: str, method: str, path: str, body: Any, **ids: UUID
) -> tuple[int, str]:
    """Ask about something; return the answer without its name and without the request's id."""
    status, answer = await scene.served.request(
        method, f"/api/v1{path.format(**ids)}", key=key, json=body
    )
    if isinstance(answer, dict):
        answer.pop("request_id", None)
    text = str(answer)
    for each in ids.values():
        text = text.replace(str(each), "it")
    return status, text


async def test_for_another_generator_a_work_is_as_if_it_were_not(served: Served) -> None:
    scene = await a_scene(served)
    before = await scene.seen()
    for method, path in (
        ("GET", "/work/{work}"),
        ("DELETE", "/work/{work}"),
        ("GET", "/work/{work}/events"),
        ("GET", "/work/{work}/events?follow=true"),
        ("GET", "/work/{work}/explain"),
    ):
        for work in (scene.held.id, scene.finished.id):
            real = await ask(scene, scene.rival, method, path, None, work=work)
            none = await ask(scene, scene.rival, method, path, None, work=uuid4())
            assert (path, *real) == (path, *none)
            assert real[0] == 404

    assert await scene.seen() == before


async def test_no_filter_and_no_cursor_shows_another_generators_work(served: Served) -> None:
    scene = await a_scene(served)
    _, page = await served.request("GET", "/api/v1/work?limit=1")
    for query in (
        *("", "label=secret=yes", "status=CLAIMED", "status=SUCCEEDED", "type=build"),
        *("since=2020-01-01T00:00:00Z", f"cursor={page['next_cursor']}"),
        f"label=secret=yes&cursor={page['next_cursor']}",
    ):
        status, seen = await served.request("GET", f"/api/v1/work?{query}", key=scene.rival)
        assert (query, status, seen.get("items")) == (query, 200, [])
    for name, theirs in (("generator", "team"), ("agent_id", str(scene.victim_id))):
        real, none = [
            await served.request("GET", f"/api/v1/work?{name}={each}", key=scene.rival)
            for each in (theirs, uuid4())
        ]
        assert (name, real[0], real[1].get("items")) == (name, none[0], none[1].get("items"))
        assert not real[1].get("items")


async def test_anothers_idempotency_key_is_a_key_like_any_other(served: Served) -> None:
    scene = await a_scene(served)
    before = await scene.seen()
    status, work = await served.request(
        "POST", "/api/v1/work", key=scene.rival, json=a_submission(idempotency_key=KEY, priority=7)
    )

    assert status == 201
    assert work["id"] != str(scene.held.id)
    assert await scene.seen() == before


async def test_for_another_agent_a_claim_is_as_if_it_were_not_even_with_its_id(
    served: Served,
) -> None:
    scene = await a_scene(served)
    before, leases = await scene.seen(), await scene.leases()
    for work in (scene.held.id, scene.finished.id):
        stolen = {"claim_id": str(scene.claims[work].claim_id)}
        for method, path, body in (
            ("GET", "/work/{work}", None),
            ("GET", "/work/{work}/events", None),
            ("POST", "/work/{work}/claim", {}),
            ("POST", "/work/{work}/claim", {"request_id": stolen["claim_id"]}),
            ("POST", "/work/{work}/progress", {**stolen, "phase": "Running", "attempt": 1}),
            ("POST", "/work/{work}/complete", {**stolen, "success": False}),
            ("POST", "/work/{work}/release", {**stolen, "delay_seconds": 86400}),
        ):
            real = await ask(scene, scene.thief, method, path, body, work=work)
            none = await ask(scene, scene.thief, method, path, body, work=uuid4())
            assert (path, *real) == (path, *none)
            assert real[0] == 404

    assert await scene.seen() == before
    assert await scene.leases() == leases


async def test_an_agent_cannot_act_as_another_one_nor_find_it(served: Served) -> None:
    scene = await a_scene(served)
    before, leases = await scene.seen(), await scene.leases()
    beat = {"incarnation": str(uuid4()), "claims": [str(scene.claims[scene.held.id].claim_id)]}
    item = {"work_id": str(scene.held.id), "claim_id": beat["claims"][0], "success": True}
    for method, path, body in (
        ("GET", "/agents/{agent}", None),
        ("GET", "/agents/{agent}/work/pending", None),
        ("POST", "/agents/{agent}/work/claim", {}),
        ("POST", "/agents/{agent}/work/complete", {"items": [item]}),
        ("POST", "/agents/{agent}/heartbeat", beat),
    ):
        real = await ask(scene, scene.thief, method, path, body, agent=scene.victim_id)
        none = await ask(scene, scene.thief, method, path, body, agent=uuid4())
        assert (path, *real) == (path, *none)
        assert real[0] == 404

    assert await scene.seen() == before
    assert await scene.leases() == leases


async def test_what_an_agent_lists_as_its_own_is_not_renewed_shown_or_completed(
    served: Served,
) -> None:
    scene = await a_scene(served)
    before, leases = await scene.seen(), await scene.leases()
    thief = await served.client(scene.thief)
    stolen = [each.claim_id for each in scene.claims.values()]

    beat = await thief.heartbeat(
        scene.thief_id, Heartbeat(incarnation=uuid4(), claims=[*stolen, uuid4()])
    )
    items = [
        {"work_id": str(work), "claim_id": str(claim.claim_id), "success": True}
        for work, claim in scene.claims.items()
    ]
    _, answers = await served.request(
        "POST", "/api/v1/agents/self/work/complete", key=scene.thief, json={"items": items}
    )

    assert (beat.renewed, beat.held) == ([], [])
    assert set(stolen) < set(beat.lost)
    assert [each["status"] for each in answers["items"]] == [404, 404]
    assert await scene.seen() == before
    assert await scene.leases() == leases


async def test_a_claim_of_an_agents_own_opens_no_other_work(served: Served) -> None:
    scene = await a_scene(served)
    _, own = await served.request(
        "POST", "/api/v1/work", json=a_submission(target={"agents": ["victim", "thief"]})
    )
    thief = await served.client(scene.thief)
    claim = await thief.claim_work(UUID(own["id"]), ClaimOne())
    before = await scene.seen()
    for route, body in (
        ("complete", {"success": True}),
        ("progress", {"phase": "Running", "attempt": 1}),
        ("release", {}),
    ):
        status, _ = await served.request(
            "POST",
            f"/api/v1/work/{scene.held.id}/{route}",
            key=scene.thief,
            json={"claim_id": str(claim.claim_id), **body},
        )
        assert (route, status) == (route, 404)

    assert await scene.seen() == before


async def test_an_agent_that_floods_the_broker_leaves_room_for_others_and_little_behind(
    served: Served,
) -> None:
    scene = await a_scene(served)
    _, own = await served.request(
        "POST", "/api/v1/work", json=a_submission(target={"agents": ["thief"]})
    )
    thief = await served.client(scene.thief)
    claim = await thief.claim_work(UUID(own["id"]), ClaimOne())

    async def flood(number: int) -> None:
        await thief.heartbeat(
            scene.thief_id,
            Heartbeat(incarnation=UUID(int=1), claims=[claim.claim_id, *map(_an_id, range(500))]),
        )
        for step in range(5):
            body = ReportProgress(
                claim_id=claim.claim_id,
                phase="Running",
                attempt=1,
                message=f"{number} {step} " + "x" * 4000,
            )
            await thief.report_progress(claim.id, body)

    async with asyncio.TaskGroup() as flooding:
        for number in range(40):
            flooding.create_task(flood(number))
        for _ in range(5):
            status, _ = await served.request("POST", "/api/v1/work", json=a_submission())
            assert status == 201
    events = await served.broker.pool.fetchval(
        "SELECT count(*) FROM work_events WHERE work_id = $1", claim.id
    )

    assert events <= 2 + 40 * 5  # and at most 500, which test_work_events.py shows


async def _give_back_for_ever(agent: BrokerClient, agent_id: UUID) -> None:
    while True:
        for claim in await agent.claim_some(agent_id, ClaimSome(max=10)):
            await agent.release_work(claim.id, ReleaseWork(claim_id=claim.claim_id))


async def _park_for_ever(agent: BrokerClient, agent_id: UUID) -> None:
    while True:
        await agent.claim_some(agent_id, ClaimSome(types=["nothing"], wait=0.05))


async def test_an_agent_that_claims_and_gives_back_without_end_leaves_others_served(
    served: Served,
) -> None:
    scene = await a_scene(served)
    thief = await served.client(scene.thief)
    other, agent = await served.an_agent("other")

    async def submit(*agents: str) -> UUID:
        body = SubmitWork.model_validate(a_submission(target={"agents": agents}))
        return (await served.admin.submit_work(body)).id

    fodder = [await submit("thief") for _ in range(5)]
    flooding = [
        asyncio.create_task(each(thief, scene.thief_id))
        for each in (*[_give_back_for_ever] * 5, *[_park_for_ever] * 10)
    ]
    asked = {await submit("other"), await submit("other", "thief")}
    done: set[UUID] = set()
    while not asked <= done:
        for claim in await agent.claim_some(other.id, ClaimSome(max=10, wait=5)):
            report = CompleteWork(claim_id=claim.claim_id, success=True)
            await agent.complete_work(claim.id, report)
            done.add(claim.id)
    for each in flooding:
        each.cancel()
    ended = await asyncio.gather(*flooding, return_exceptions=True)
    taken = await served.broker.pool.fetchval(
        "SELECT count(*) FROM work_claims WHERE work_id = ANY ($1)", fodder
    )

    assert {type(each) for each in ended} == {asyncio.CancelledError}
    assert taken > len(fodder), "there was no flood"


def _an_id(number: int) -> UUID:
    return UUID(int=number + 1)

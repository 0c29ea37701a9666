"""
Who may do what, to whose things: every route, every kind of caller.

The table below is for people to read.  What it says is held against the broker, and its
rows against the routing table: a route without a row fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from brokkr.broker.api.routes import AGENTS, TENANTS, WORK, Route
from brokkr.broker.db.keys import Role
from brokkr.wire.bodies import (
    ClaimBody,
    ClaimOne,
    CompleteWork,
    RegisteredAgent,
    SubmitWork,
    WorkBody,
)
from brokkr.wire.tenants import CreatedGenerator, CreateGenerator, CreateKey
from support.factories import a_build_template

from .conftest import Served

# The Work is a generator's and is held by an agent; `foreign` are another generator and
# another agent, whom it does not concern.  Paths lead to that agent and that generator.
TABLE = """
                                         ---generator---   -----agent-----
                          admin  viewer    own  foreign      own  foreign
POST   /work                201     403    201      201      403      403
POST   /work/batch          200     403    200      200      403      403
GET    /work                200     200    200      200      403      403
GET    /work/{work_id}      200     200    200      404      200      404
GET    /work/{work_id}/events
                            200     200    200      404      200      404
GET    /work/{work_id}/explain
                            200     200    200      404      403      403
DELETE /work/{work_id}      202     403    202      404      403      403
POST   /work/{work_id}/release
                            200     403    403      403      200      404
POST   /work/{work_id}/requeue
                            200     403    403      403      403      403
POST   /work/{work_id}/claim
                            403     403    403      403      200      404
POST   /work/{work_id}/progress
                            403     403    403      403      204      404
POST   /work/{work_id}/complete
                            403     403    403      403      200      404
GET    /agents/{ref}/work/pending
                            403     403    403      403      200      404
POST   /agents/{ref}/work/claim
                            403     403    403      403      200      404
POST   /agents/{ref}/work/complete
                            403     403    403      403      200      404
POST   /agents              201     403    403      403      403      403
GET    /agents              200     200    403      403      403      403
GET    /agents/{ref}        200     200    403      403      200      404
PATCH  /agents/{ref}        200     403    403      403      403      403
DELETE /agents/{ref}        204     403    403      403      403      403
POST   /agents/{ref}/drain  200     403    403      403      403      403
POST   /agents/{ref}/undrain
                            200     403    403      403      403      403
POST   /agents/{ref}/rotate-key
                            200     403    403      403      403      403
POST   /agents/{ref}/heartbeat
                            403     403    403      403      200      404
POST   /generators          201     403    403      403      403      403
GET    /generators          200     200    403      403      403      403
GET    /generators/{ref}    200     200    403      403      403      403
PATCH  /generators/{ref}    200     403    403      403      403      403
DELETE /generators/{ref}    204     403    403      403      403      403
POST   /generators/{ref}/rotate-key
                            200     403    403      403      403      403
POST   /keys                201     403    403      403      403      403
GET    /keys                200     403    403      403      403      403
DELETE /keys/{short_id}     204     403    403      403      403      403
"""
COLUMNS = {
    "admin": Role.ADMIN,
    "viewer": Role.VIEWER,
    "own generator": Role.GENERATOR,
    "foreign generator": Role.GENERATOR,
    "own agent": Role.AGENT,
    "foreign agent": Role.AGENT,
}
ROUTES: dict[str, Route] = {f"{route[0]} {route[1]}": route for route in [*WORK, *AGENTS, *TENANTS]}
_numbers = count(1)


def the_table() -> dict[str, dict[str, int]]:
    """Read the table: a route, and a status for each column."""
    words = TABLE.split("foreign\n")[1].split()
    rows = [words[i : i + 2 + len(COLUMNS)] for i in range(0, len(words), 2 + len(COLUMNS))]
    return {
        f"{method} {path}": dict(zip(COLUMNS, map(int, statuses), strict=True))
        for method, path, *statuses in rows
    }


@dataclass(frozen=True, kw_only=True)
class World:
    """One Work with those whom it concerns, one of each kind whom it does not."""

    keys: dict[str, str]
    agent: RegisteredAgent
    generator: CreatedGenerator
    work: WorkBody
    claim: ClaimBody | None


async def a_world(served: Served, *, is_claimed: bool, is_finished: bool) -> World:
    """Make what one cell of the table needs; nothing in it was touched before."""
    number = next(_numbers)
    agent, client = await served.an_agent(f"edge-{number}")
    stranger, _ = await served.an_agent(f"stranger-{number}")
    generator, other = [
        await served.admin.create_generator(CreateGenerator(name=f"{name}-{number}"))
        for name in ("team", "rival")
    ]
    viewer = await served.admin.create_key(CreateKey(role="viewer", name="wall"))
    submitter = await served.client(generator.key)
    work = await submitter.submit_work(SubmitWork.model_validate(a_submission(agent.name)))
    claim = None
    if is_claimed or is_finished:
        claim = await client.claim_work(work.id, ClaimOne())
        if is_finished:
            report = CompleteWork(claim_id=claim.claim_id, success=True)
            await client.complete_work(work.id, report)
    keys = [served.admin_key, viewer.key, generator.key, other.key, agent.key, stranger.key]
    return World(
        keys=dict(zip(COLUMNS, keys, strict=True)),
        agent=agent,
        generator=generator,
        work=work,
        claim=claim,
    )


def a_submission(agent: str) -> dict[str, Any]:
    return {"work_type": "build", "template": a_build_template(), "target": {"agents": [agent]}}


def a_completion(world: World) -> dict[str, Any]:
    return {"claim_id": str(the_claim(world)), "success": True}


def the_claim(world: World) -> Any:
    return world.claim.claim_id if world.claim else uuid4()


# What is sent on each route that takes a body; one that is missing here sends none.
BODIES: dict[str, Callable[[World], dict[str, Any]]] = {
    "POST /work": lambda world: a_submission(world.agent.name),
    "POST /work/batch": lambda world: {"items": [a_submission(world.agent.name)]},
    "POST /work/{work_id}/release": lambda world: {"claim_id": str(the_claim(world))},
    "POST /work/{work_id}/requeue": lambda _: {},
    "POST /work/{work_id}/claim": lambda _: {},
    "POST /work/{work_id}/progress": lambda world: {
        "claim_id": str(the_claim(world)),
        "phase": "Running",
        "attempt": 1,
    },
    "POST /work/{work_id}/complete": a_completion,
    "POST /agents/{ref}/work/claim": lambda _: {},
    "POST /agents/{ref}/work/complete": lambda world: {
        "items": [{"work_id": str(world.work.id), **a_completion(world)}]
    },
    "POST /agents": lambda _: {"name": f"new-{next(_numbers)}"},
    "PATCH /agents/{ref}": lambda _: {"labels": {"zone": "eu"}},
    "POST /agents/{ref}/heartbeat": lambda _: {"incarnation": str(uuid4())},
    "POST /generators": lambda _: {"name": f"new-{next(_numbers)}"},
    "PATCH /generators/{ref}": lambda _: {"max_pending": 7},
    "POST /keys": lambda _: {"role": "viewer", "name": "another wall"},
}


async def ask(served: Served, name: str, world: World, key: str | None) -> tuple[int, Any]:
    """Send the request of one route to the things of this world."""
    method, path = name.split()
    ref = world.generator if path.startswith("/generators") else world.agent
    viewer = world.keys["viewer"]
    path = path.format(work_id=world.work.id, ref=ref.id, short_id=viewer[len("brokkr_vwr") :][:10])
    body = BODIES[name](world) if name in BODIES else None
    return await served.request(method, f"/api/v1{path}", key=key, json=body)


async def test_every_route_answers_each_caller_as_the_table_says(served: Served) -> None:
    seen: dict[str, dict[str, int]] = {}
    for name in ROUTES:
        seen[name] = {}
        for column in COLUMNS:
            world = await a_world(
                served,
                is_claimed=not name.endswith("}/claim"),
                is_finished=name.endswith("/requeue"),
            )
            seen[name][column], _ = await ask(served, name, world, world.keys[column])

    assert seen == the_table()


@pytest.mark.parametrize("name", ROUTES)
def test_the_roles_of_the_routing_table_are_those_of_the_table(name: str) -> None:
    row = the_table()[name]

    assert {COLUMNS[each] for each in row if row[each] != 403} == ROUTES[name][4]


async def test_the_routing_table_is_all_there_is(served: Served) -> None:
    _, description = await served.request("GET", "/api/v1/openapi.json", key=None)

    described = {
        f"{method.upper()} {path.removeprefix('/api/v1')}": set(operation["x-roles"])
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }
    assert description["openapi"].startswith("3.1")
    assert described == {name: set(route[4]) for name, route in ROUTES.items()}


async def test_without_a_living_key_every_route_answers_the_same(served: Served) -> None:
    world = await a_world(served, is_claimed=True, is_finished=False)
    revoked = await served.admin.create_key(CreateKey(role="admin", name="left"))
    await served.admin.revoke_key(revoked.short_id)
    wrong = served.admin_key[:-1] + ("A" if served.admin_key[-1] != "A" else "B")
    unknown = f"brokkr_adm{'a' * 10}_{'x' * 43}"

    for name in ROUTES:
        for key in (None, wrong, unknown, revoked.key):
            status, problem = await ask(served, name, world, key)
            assert (name, status, problem["code"]) == (name, 401, "unauthenticated")


async def test_who_may_not_call_is_told_who_may_and_the_body_is_not_read(served: Served) -> None:
    world = await a_world(served, is_claimed=False, is_finished=False)
    for name, (_, _, _, _, roles) in ROUTES.items():
        for column, role in COLUMNS.items():
            if role in roles or name not in BODIES:
                continue
            method, path = name.split()
            status, problem = await served.request(
                method, f"/api/v1{path}", key=world.keys[column], data=b"{"
            )
            assert (name, status, problem["code"]) == (name, 403, "not_permitted")
            assert all(each in problem["detail"] for each in roles)


FOREIGN = [
    (name, column)
    for name, row in the_table().items()
    for column in ("foreign generator", "foreign agent")
    if row[column] == 404
]


@pytest.mark.parametrize("state", ["pending", "claimed", "finished"])
async def test_what_is_somebody_elses_is_answered_like_what_does_not_exist(
    served: Served, state: str
) -> None:
    world = await a_world(served, is_claimed=state == "claimed", is_finished=state == "finished")
    for name, column in FOREIGN:
        key = world.keys[column]
        there = await ask(served, name, world, key)
        nowhere, stranger = uuid4(), world.agent.model_copy(update={"id": uuid4()})
        nothing = replace(world, work=world.work.model_copy(update={"id": nowhere}), agent=stranger)
        answers = [there, await ask(served, name, nothing, key)]

        # The ids are those that were asked for; nothing else may tell the two apart.
        told = [
            (status, {each: str(problem[each]) for each in ("code", "title", "detail")})
            for status, problem in answers
        ]
        for old, new in ((world.work.id, nowhere), (world.agent.id, stranger.id)):
            told[0][1]["detail"] = told[0][1]["detail"].replace(str(old), str(new))
        assert (name, column, told[0]) == (name, column, told[1])
        assert there[0] == 404


async def test_a_generator_learns_nothing_of_agents_that_its_target_does_not_select(
    served: Served,
) -> None:
    world = await a_world(served, is_claimed=False, is_finished=False)
    await served.an_agent("their-agent", owner="their-team")
    for target in ({"match_labels": {"owner": "guess"}}, {"agents": ["their-agents"]}):
        body = {**a_submission(world.agent.name), "target": target}
        key = world.keys["own generator"]
        _, work = await served.request("POST", "/api/v1/work", key=key, json=body)
        seen = [
            await served.request("GET", f"/api/v1/work/{work['id']}{path}", key=key)
            for path in ("", "/explain", "/events")
        ]

        assert [status for status, _ in seen] == [200, 200, 200]
        assert "their-team" not in str(seen)
        assert "their-agent" not in str(seen).replace("their-agents", "")
        for column in ("admin", "viewer"):
            _, told = await served.request(
                "GET", f"/api/v1/work/{work['id']}/explain", key=world.keys[column]
            )
            assert "their-agent" in [each["name"] for each in told["waiting"]["agents"]]


async def test_lists_hold_what_the_caller_may_see(served: Served) -> None:
    mine = await a_world(served, is_claimed=False, is_finished=False)
    other = await a_world(served, is_claimed=True, is_finished=True)
    both = {str(mine.work.id), str(other.work.id)}

    async def listed(key: str) -> set[str]:
        _, page = await served.request("GET", "/api/v1/work", key=key)
        return {each["id"] for each in page["items"]}

    assert await listed(served.admin_key) == both
    assert await listed(mine.keys["viewer"]) == both
    assert await listed(mine.keys["own generator"]) == {str(mine.work.id)}
    assert await listed(mine.keys["foreign generator"]) == set()


async def test_what_an_admin_submits_is_no_generators(served: Served) -> None:
    world = await a_world(served, is_claimed=False, is_finished=False)
    _, work = await served.request("POST", "/api/v1/work", json=a_submission(world.agent.name))

    status, _ = await served.request(
        "GET", f"/api/v1/work/{work['id']}", key=world.keys["own generator"]
    )

    assert status == 404


async def test_a_key_is_in_no_other_answer(served: Served) -> None:
    world = await a_world(served, is_claimed=True, is_finished=False)
    secrets = [key[-43:] for key in world.keys.values()]
    for name, (method, _, _, _, _) in ROUTES.items():
        if method == "GET":
            for key in world.keys.values():
                _, answer = await ask(served, name, world, key)
                assert not any(each in str(answer) for each in secrets)

"""
The description of the API is what the API does: requests made from it, by all who may call.

A broker as a process of its own is asked whatever its description allows, and much that it
does not: it never fails, and never answers what it does not describe.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from brokkr.broker.api.routes import AGENTS, TENANTS, WORK
from brokkr.broker.db.keys import Role, create_admin_key
from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimOne, CompleteWork, RegisterAgent, SubmitWork
from brokkr.wire.tenants import CreateGenerator, CreateKey
from support.factories import a_build_template
from support.system import a_broker

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = max(10, settings().max_examples // 10)
"""For each route and role, of what is allowed and as many of what is not: 200 at depth."""


@dataclass(frozen=True)
class World:
    """A broker with something of everything, and the ids of it."""

    url: str
    keys: dict[str, str]
    known: dict[str, list[Any]]
    refs: dict[str, list[str]]


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    key = await create_admin_key(database_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with (
        a_broker(tmp_path, database_url, port=port) as (url, _),
        BrokerClient(url, key) as admin,
    ):
        agent = await admin.register_agent(RegisterAgent(name="edge"))
        await admin.register_agent(RegisterAgent(name="doomed"))
        await admin.create_generator(CreateGenerator(name="doomed"))
        generator = await admin.create_generator(CreateGenerator(name="team"))
        viewer = await admin.create_key(CreateKey(role="viewer", name="wall"))
        async with BrokerClient(url, generator.key) as tenant, BrokerClient(url, agent.key) as edge:
            body = SubmitWork.model_validate(
                {
                    "work_type": "build",
                    "template": a_build_template(),
                    "target": {"agents": ["edge"]},
                }
            )
            works = [await tenant.submit_work(body) for _ in range(6)]
            claims = [await edge.claim_work(each.id, ClaimOne()) for each in works[:4]]
            for each in claims[:2]:
                report = CompleteWork(claim_id=each.claim_id, success=True)
                await edge.complete_work(each.id, report)
        yield World(
            url=url,
            keys={
                "agent": agent.key,
                "generator": generator.key,
                "viewer": viewer.key,
                "admin": key,
            },
            known={
                "work_id": [str(each.id) for each in works],
                "claim_id": [str(each.claim_id) for each in claims],
                "short_id": [viewer.short_id],
                "work_type": ["build"],
                "template": [a_build_template()],
                "target": [{"agents": ["edge"]}],
                "name": ["fresh"],
            },
            refs={"agent": ["edge", "self", str(agent.id)], "admin": ["edge", "team"]},
        )


def made_likely(case: Any, world: World, role: str, data: st.DataObject) -> None:
    """Ask for something that exists, every other time; and do not wait for long."""
    if "follow" in case.query:
        case.query["follow"] = "false"
    for holder in (case.query, case.body):
        if isinstance(holder, dict) and isinstance(holder.get("wait"), int | float):
            holder["wait"] = min(holder["wait"], 0.05)
    if not data.draw(st.booleans()):
        return
    refs = ["doomed"] if case.method == "DELETE" else world.refs.get(role, ["edge"])
    known = {**world.known, "ref": refs}
    for holder in (case.path_parameters, case.body):
        if isinstance(holder, dict):
            for name in sorted(holder.keys() & known.keys()):
                holder[name] = data.draw(st.sampled_from(known[name]))


def ask_everything(world: World, role: str) -> set[str]:
    """Send requests to the routes of a role; return those that did what was asked."""
    schema = schemathesis.openapi.from_url(f"{world.url}/api/v1/openapi.json")
    headers = {"Authorization": f"Bearer {world.keys[role]}"}
    done, asked = set(), 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation: Any = result.ok()
        if role not in operation.definition.raw["x-roles"]:
            continue  # that it is refused is in test_permissions.py
        for mode in GenerationMode:

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=EXAMPLES == 10,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
            def ask(case: Any, data: st.DataObject) -> None:
                nonlocal asked
                asked += 1
                made_likely(case, world, role, data)
                response = case.call(headers=headers, timeout=10)
                if response.status_code < 300:
                    done.add(f"{case.method} {case.path}")
                case.validate_response(response, checks=CHECKS)

            ask()
    print(f"{asked} requests as {role}")  # noqa: T201  # counted by `make hostile`
    return done


@pytest.mark.parametrize("role", [Role.AGENT, Role.GENERATOR, Role.VIEWER, Role.ADMIN])
async def test_every_answer_is_described(world: World, role: Role) -> None:
    done = await asyncio.to_thread(ask_everything, world, role)

    permitted = [route for route in [*WORK, *AGENTS, *TENANTS] if role in route[4]]
    assert len(done) > len(permitted) / 2, "most requests were refused, which shows little"

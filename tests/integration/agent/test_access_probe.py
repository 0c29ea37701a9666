"""
An agent that cannot work in its cluster, cause by cause, and what is seen of it where.

Each cause is made on a real API server, or between the agent and it, and taken away again.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import aiohttp
import pytest
from structlog.testing import capture_logs

from brokkr.agent.access import needs_of
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.registry import handlers
from brokkr.agent.kinds import BUILD_RUNS, NAMESPACES, ROLE_BINDINGS, ROLES, WORKS, Resource
from brokkr.agent.kube.permissions import render_role
from brokkr.agent.settings import HealthSettings
from brokkr.client import BrokerClient
from brokkr.local.process import free_port
from brokkr.wire.bodies import AgentBody, ClaimOne, CompleteWork, RegisterAgent, WorkState
from brokkr.work.names import work_name
from support.agent import QUICK, Stage
from support.proxy import ApiLine
from support.shipwright import never, success
from support.signals import eventually

pytestmark = [pytest.mark.kube, pytest.mark.postgres, pytest.mark.timeout(180)]

ROLE: Final = "brokkr-agent"
QUOTAS: Final = Resource("", "v1", "ResourceQuota", "resourcequotas")


@dataclass
class Scene:
    """A stage whose agent goes to its API server by a line that a test can harm."""

    stage: Stage
    line: ApiLine
    health_url: str

    async def ready(self) -> tuple[int, dict[str, Any]]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.health_url}/readyz") as got,
        ):
            return got.status, json.loads(await got.text())

    async def metrics(self) -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.health_url}/metrics") as got,
        ):
            return await got.text()

    async def said(self) -> AgentBody:
        return await self.stage.broker.admin.get_agent(self.stage.agent_id)

    async def reason(self) -> str | None:
        said = (await self.said()).capabilities
        return said.unable.reason if said and said.unable else None

    def until_unable(self, *reasons: str) -> Awaitable[Any]:
        async def is_so() -> bool:
            return await self.reason() in reasons

        return eventually(is_so, within=30)

    def until_able(self) -> Awaitable[Any]:
        async def is_so() -> bool:
            said = (await self.said()).capabilities
            return said is not None and said.unable is None and said.types == ["build"]

        return eventually(is_so, within=60)


@pytest.fixture
async def scene(stage: Stage) -> AsyncIterator[Scene]:
    port = free_port()
    health = HealthSettings(port=port)
    line = ApiLine()
    stage.settings = stage.settings.model_copy(update={"health": health})
    async with stage.harmed_cluster(line):
        yield Scene(stage, line, f"http://127.0.0.1:{port}")


# -- causes ----------------------------------------------------------------------------


@asynccontextmanager
async def api_server_away(scene: Scene) -> AsyncIterator[None]:
    scene.line.is_cut = True
    scene.line.drop()
    try:
        yield
    finally:
        scene.line.is_cut = False


@asynccontextmanager
async def api_server_fails(scene: Scene) -> AsyncIterator[None]:
    scene.line.status = 500
    scene.line.drop()
    try:
        yield
    finally:
        scene.line.status = None


@asynccontextmanager
async def token_invalid(scene: Scene) -> AsyncIterator[None]:
    scene.line.token = "expired"
    scene.line.drop()
    try:
        yield
    finally:
        scene.line.token = None


@asynccontextmanager
async def role_binding_deleted(scene: Scene) -> AsyncIterator[None]:
    kube, namespace = scene.stage.kube, scene.stage.namespace
    binding = await kube.get(ROLE_BINDINGS, namespace, ROLE)
    await kube.delete(ROLE_BINDINGS, namespace, ROLE)
    scene.line.drop()
    try:
        yield
    finally:
        metadata = {"name": ROLE, "namespace": namespace}
        await kube.create(ROLE_BINDINGS, namespace, binding | {"metadata": metadata})


@asynccontextmanager
async def quota_used_up(scene: Scene) -> AsyncIterator[None]:
    kube, namespace = scene.stage.kube, scene.stage.namespace
    hard = {"count/works.brokkr.io": "0"}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": hard},
    }
    made = await kube.create(QUOTAS, namespace, quota)
    # Nobody counts for quotas here; the API server's admission goes by the status.
    status = {"hard": hard, "used": hard}
    await kube.replace_status(QUOTAS, namespace, {**made, "status": status})
    try:
        yield
    finally:
        await kube.delete(QUOTAS, namespace, "none")


def without(verb: str, resource: str) -> Callable[[Scene], AbstractAsyncContextManager[None]]:
    """Return a cause: the agent's role has one verb less."""

    @asynccontextmanager
    async def cause(scene: Scene) -> AsyncIterator[None]:
        kube, namespace = scene.stage.kube, scene.stage.namespace
        role = await kube.get(ROLES, namespace, ROLE)
        rules = []
        for rule in role["rules"]:
            [group] = rule["apiGroups"]
            for each in rule["resources"]:
                plural, slash, part = each.partition("/")
                name = (f"{plural}.{group}" if group else plural) + slash + part
                verbs = [v for v in rule["verbs"] if (v, name) != (verb, resource)]
                if verbs:
                    rules.append({**rule, "resources": [each], "verbs": verbs})
        await kube.merge_patch(ROLES, namespace, ROLE, {"rules": rules})
        scene.line.drop()
        try:
            yield
        finally:
            await kube.merge_patch(ROLES, namespace, ROLE, {"rules": role["rules"]})

    return cause


CAUSES: Final = {
    "API server away": (api_server_away, "unreachable", "does not answer or fails"),
    "API server fails": (api_server_fails, "unreachable", "out of order"),
    "token invalid": (token_invalid, "unauthorized", "credentials (Unauthorized)"),
    "RoleBinding deleted": (
        role_binding_deleted,
        "forbidden",
        "no role allows the agent to ",
    ),
    "quota used up": (quota_used_up, "quota", "exceeded quota: none"),
    "create forbidden": (without("create", str(WORKS)), "forbidden", "create works.brokkr.io in"),
    "status forbidden": (
        without("update", f"{WORKS}/status"),
        "forbidden",
        "to update works.brokkr.io/status in namespace",
    ),
}
KEEPS_BEGUN: Final = {"quota used up", "create forbidden"}
"""What keeps from new work only."""


@pytest.mark.parametrize("name", CAUSES)
async def test_an_agent_that_cannot_work_in_its_cluster_says_so_everywhere_and_claims_nothing(
    scene: Scene, name: str
) -> None:
    cause, reason, words = CAUSES[name]
    stage = scene.stage
    with capture_logs() as lines:
        async with stage.shipwright(never) as played, stage.agent(QUICK):
            begun = await stage.submit()
            await stage.running(played)
            async with cause(scene):
                await scene.until_unable(reason)
                later = await stage.submit()
                explained = await stage.broker.admin.explain_work(later.id)
                holding = await stage.broker.admin.explain_work(begun.id)
                status, ready = await scene.ready()
                metrics = await scene.metrics()
                said = await scene.said()
                await asyncio.sleep(1.5)
                untouched = await stage.broker.admin.get_work(later.id)
                kept = await stage.broker.admin.get_work(begun.id)
            await scene.until_able()
            await stage.in_state(later, WorkState.CLAIMED)
            await played.finish(f"{work_name(begun.id, round=1)}-a1", success)
            ends = [await stage.finished(each, within=60) for each in (begun, later)]
            status_after, _ = await scene.ready()

    assert (status, ready["status"]) == (503, "not ready")
    assert words in ready["problems"]["cluster"]
    assert said.capabilities is not None
    assert said.capabilities.unable is not None
    assert words in said.capabilities.unable.cause
    assert said.capabilities.types == []
    assert words in said.capabilities.unavailable["build"]
    assert explained.waiting is not None
    assert words in explained.waiting.agents[0].sentence
    assert words in holding.summary
    assert f'brokkr_agent_unable{{reason="{reason}"}} 1.0' in metrics
    told = [each for each in lines if each["event"] == "agent unable"]
    assert words in told[0]["cause"]
    assert len(told) == 1
    assert untouched.status is WorkState.PENDING
    assert (kept.status, kept.round) == (WorkState.CLAIMED, 1)
    assert [(each.status, each.round) for each in ends] == [(WorkState.SUCCEEDED, 1)] * 2
    assert status_after == 200
    assert sum(each["event"] == "agent able again" for each in lines) == 1


@pytest.mark.setting("agent.work_crd.unable_grace")
async def test_what_is_begun_is_given_up_after_its_grace_and_taken_up_again_if_nobody_has_it(
    scene: Scene,
) -> None:
    """The build went on all the time: nothing is lost, and nothing counts as lost."""
    stage = scene.stage
    crd = stage.settings.work_crd.model_copy(update={"unable_grace": timedelta(seconds=3)})
    stage.settings = stage.settings.model_copy(update={"work_crd": crd})
    async with stage.shipwright(never) as played, stage.agent(QUICK):
        begun = await stage.submit(claim_timeout_seconds=2)
        await stage.running(played)
        async with api_server_away(scene):
            await scene.until_unable("unreachable")
            kept = await stage.broker.admin.get_work(begun.id)
            await stage.in_state(begun, WorkState.PENDING)
            given_up = await stage.broker.admin.get_work(begun.id)
            history = await stage.broker.admin.list_events(begun.id)
        await stage.in_state(begun, WorkState.CLAIMED)
        back = await stage.broker.admin.get_work(begun.id)
        await played.finish(f"{work_name(begun.id, round=1)}-a1", success)
        end = await stage.finished(begun, within=60)

    assert kept.status is WorkState.CLAIMED
    assert (given_up.lost_claims, back.round) == (0, 1)
    last = history.items[-1]
    assert (last.kind, last.actor) == ("unworkable", f"agent:{stage.namespace}")
    assert "does not answer" in last.detail["message"]
    assert (end.status, end.round, end.lost_claims) == (WorkState.SUCCEEDED, 1, 0)
    assert len(played.seen) == 1


async def test_what_was_given_up_and_done_elsewhere_is_stopped_when_the_cluster_is_back(
    scene: Scene,
) -> None:
    stage = scene.stage
    crd = stage.settings.work_crd.model_copy(update={"unable_grace": timedelta(seconds=2)})
    stage.settings = stage.settings.model_copy(update={"work_crd": crd})
    other = await stage.broker.admin.register_agent(
        RegisterAgent(name=f"{stage.namespace}-b", labels={"stage": stage.namespace})
    )
    async with stage.shipwright(never) as played, stage.agent(QUICK):
        begun = await stage.submit(claim_timeout_seconds=2)
        await stage.running(played)
        async with api_server_away(scene):
            await stage.in_state(begun, WorkState.PENDING)
            async with BrokerClient(stage.broker.url, other.key) as client:
                claim = await client.claim_work(begun.id, ClaimOne())
                await client.complete_work(
                    begun.id, CompleteWork(claim_id=claim.claim_id, success=True)
                )

        async def is_stopped() -> bool:
            run = await stage.kube.get(
                BUILD_RUNS, stage.namespace, f"{work_name(begun.id, round=1)}-a1"
            )
            return bool(run["spec"].get("state") == "BuildRunCanceled")

        await eventually(is_stopped, within=60)

    end = await stage.broker.admin.get_work(begun.id)
    assert (end.status, end.round) == (WorkState.SUCCEEDED, 2)


async def test_a_claim_that_cannot_be_written_is_given_back_and_done_by_another_agent(
    scene: Scene,
) -> None:
    """The first claims before it has found out; the Work waits for nobody's lease."""
    stage = scene.stage
    async with stage.agent(QUICK):
        await scene.until_able()
        async with without("create", str(WORKS))(scene):
            work = await stage.submit(claim_timeout_seconds=3600)

            async def is_back() -> bool:
                found = await stage.broker.admin.get_work(work.id)
                return found.status is WorkState.PENDING and found.round == 1

            await eventually(is_back, within=30)
            history = await stage.broker.admin.list_events(work.id)

    last = history.items[-1]
    assert last.kind == "released"
    assert last.detail["message"].startswith("unable: no role allows the agent to create works")


async def test_an_agent_that_starts_while_its_api_server_is_away_says_so_and_keeps_its_claims(
    scene: Scene,
) -> None:
    stage = scene.stage
    async with stage.shipwright(never) as played:
        async with stage.agent(QUICK):
            begun = await stage.submit(claim_timeout_seconds=2)
            await stage.running(played)
        async with api_server_away(scene), stage.agent(QUICK):
            await scene.until_unable("starting", "unreachable")
            later = await stage.submit()
            await asyncio.sleep(5)  # two leases and a half
            kept = await stage.broker.admin.get_work(begun.id)
            waiting = await stage.broker.admin.get_work(later.id)
            status, ready = await scene.ready()
        async with stage.agent(QUICK):
            await played.finish(f"{work_name(begun.id, round=1)}-a1", success)
            ends = [await stage.finished(each, within=60) for each in (begun, later)]

    assert (kept.status, kept.round, kept.lost_claims) == (WorkState.CLAIMED, 1, 0)
    assert waiting.status is WorkState.PENDING
    assert status == 503
    assert "cluster" in ready["problems"]
    assert [(each.status, each.round) for each in ends] == [(WorkState.SUCCEEDED, 1)] * 2
    assert len(played.seen) == 2


async def test_a_slow_api_server_is_not_one_that_is_away(scene: Scene) -> None:
    stage = scene.stage
    async with stage.shipwright(success), stage.agent(QUICK):
        await scene.until_able()
        scene.line.delay = 1.5  # longer than two failures would have to be apart
        work = await stage.submit()
        end = await stage.finished(work, within=60)
        reason = await scene.reason()

    assert (end.status, reason) == (WorkState.SUCCEEDED, None)


async def test_a_namespace_that_is_deleted_takes_no_work_with_it(scene: Scene) -> None:
    """Its Works are for others: nobody has meant to end them."""
    stage = scene.stage
    async with stage.shipwright(never) as played, stage.agent(QUICK):
        begun = await stage.submit()
        await stage.running(played)
        await stage.kube.delete(NAMESPACES, None, stage.namespace)
        await scene.until_unable("namespace_terminating", "forbidden", "namespace_missing")
        crd = stage.settings.work_crd
        assert crd.unable_grace > timedelta(minutes=1)
        await asyncio.sleep(2)
        work = await stage.broker.admin.get_work(begun.id)

    assert work.status in (WorkState.PENDING, WorkState.CLAIMED)
    assert work.lost_claims == 0


OPTIONAL: Final = [
    *[(verb, "taskruns.tekton.dev") for verb in ("get", "list", "watch")],
    ("create", "events"),
    ("get", "pods/log"),
    ("get", "serviceaccounts"),
]


async def test_without_what_it_can_do_without_an_agent_is_ready_and_warns(scene: Scene) -> None:
    stage = scene.stage
    async with AsyncExitStack() as stack:
        for verb, resource in OPTIONAL:
            await stack.enter_async_context(without(verb, resource)(scene))
        async with stage.shipwright(success), stage.agent(QUICK):
            end = await stage.finished(await stage.submit(), within=60)

            async def is_ready() -> bool:
                return (await scene.ready())[0] == 200

            await eventually(is_ready, within=30)
            _, ready = await scene.ready()

    assert end.status is WorkState.SUCCEEDED
    assert {f"{verb} {resource}" for verb, resource in OPTIONAL} <= ready["warnings"].keys()


async def test_each_verb_of_a_type_that_is_missing_is_named_and_nothing_is_claimed(
    scene: Scene,
) -> None:
    stage = scene.stage
    needs = needs_of(handlers(BuildDefaults()), render_role(stage.namespace))
    seen = {}
    async with stage.agent(QUICK):
        await scene.until_able()
        for need in needs:
            words = f"to {need.verb} {need.resource} in namespace"

            async def is_named(words: str = words) -> bool:
                said = (await scene.said()).capabilities
                return said is not None and words in said.unavailable.get("build", "")

            async with without(need.verb, need.resource)(scene):
                await eventually(is_named, within=30)
                work = await stage.submit()
                seen[words] = await stage.broker.admin.get_work(work.id)
                await stage.broker.admin.cancel_work(work.id)
            await scene.until_able()

    assert {each.status for each in seen.values()} == {WorkState.PENDING}
    assert len(seen) == len(needs) == 23

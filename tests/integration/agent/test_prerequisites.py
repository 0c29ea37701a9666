"""An agent in a cluster that lacks what builds need, or loses it, or gets it in the end."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from copy import deepcopy
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from brokkr.agent.kinds import (
    BUILD_RUNS,
    CLUSTER_ROLE_BINDINGS,
    CRDS,
    NAMESPACES,
    ROLE_BINDINGS,
    TASK_RUNS,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.settings import HealthSettings
from brokkr.local.control_plane import ControlPlane, control_plane
from brokkr.local.process import free_port
from brokkr.wire.bodies import WorkState
from brokkr.work.model import Manifest
from support.agent import QUICK, Stage, a_stage
from support.broker import RunningBroker
from support.kube import account_of_the_chart, project_crds
from support.shipwright import never, success
from support.signals import eventually

pytestmark = [pytest.mark.kube, pytest.mark.postgres, pytest.mark.timeout(180)]

RELEASE = "pipeline.tekton.dev/release"
WORK_CRD, *OTHER_CRDS = project_crds()


@pytest.fixture(scope="module")
async def bare_plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlPlane]:
    """A cluster of this module's own that knows Works and nothing of builds."""
    folder = tmp_path_factory.mktemp("bare-control-plane")
    async with control_plane(folder, print, crds=[WORK_CRD]) as plane:
        yield plane


@pytest.fixture
async def bare_kube(bare_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    """Its administrator's client; no definition of another test is left."""
    async with KubeClient(KubeConfig.load(bare_plane.kubeconfig)) as client:
        await remove(client, OTHER_CRDS)
        yield client


_namespaces = iter(f"bare-{number}" for number in range(1, 100))


@pytest.fixture
async def bare_stage(
    broker: RunningBroker, bare_plane: ControlPlane, bare_kube: KubeClient, tmp_path: Any
) -> AsyncIterator[Stage]:
    """A stage whose agent has the agent's own account, and answers when asked for its health."""
    namespace = next(_namespaces)
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    await bare_kube.create(NAMESPACES, None, manifest)
    async with account_of_the_chart(bare_plane, tmp_path, namespace) as kubeconfig:
        stage = await a_stage(broker, bare_kube, kubeconfig, namespace)
        health = HealthSettings(port=free_port())
        stage.settings = stage.settings.model_copy(update={"health": health})
        yield stage


async def apply(kube: KubeClient, definitions: Iterable[Manifest]) -> None:
    """Make the cluster know these kinds, and wait until it does."""
    for each in definitions:
        await kube.apply(CRDS, None, each)

    async def are_served() -> bool:
        for each in definitions:
            live = await kube.get(CRDS, None, each["metadata"]["name"])
            conditions = live.get("status", {}).get("conditions") or ()
            if not any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                return False
        return True

    await eventually(are_served)


async def remove(kube: KubeClient, definitions: Iterable[Manifest]) -> None:
    """Make the cluster forget these kinds and all objects of them, and wait until it has."""
    names = [each["metadata"]["name"] for each in definitions]
    for name in names:
        await kube.delete(CRDS, None, name)

    async def are_gone() -> bool:
        return not any([await kube.find(CRDS, None, name) for name in names])

    await eventually(are_gone, within=60)


async def health(stage: Stage, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{stage.settings.health.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def until_it_lacks(stage: Stage, words: str) -> str:
    """Wait until the agent tells its broker that it cannot build, and why; return the reason."""

    async def says_why() -> str | None:
        said = (await stage.broker.admin.get_agent(stage.agent_id)).capabilities
        reason = None if said is None else said.unavailable.get("build")
        return reason if reason is not None and words in reason else None

    return await eventually(says_why, within=30)


async def until_it_builds(stage: Stage) -> None:
    """Wait until the agent tells its broker that it can build."""

    async def says_so() -> bool:
        said = (await stage.broker.admin.get_agent(stage.agent_id)).capabilities
        return said is not None and said.types == ["build"] and said.unavailable == {}

    await eventually(says_so, within=30)


async def says_it_is_not_ready(stage: Stage, reason: str) -> None:
    """Insist that its own endpoints say the same as it told the broker."""
    status, text = await health(stage, "/readyz")
    assert status == 503
    assert json.loads(text)["problems"]["work type build"] == reason
    assert (await health(stage, "/healthz"))[0] == 200
    assert 'brokkr_agent_type_available{type="build"} 0.0' in (await health(stage, "/metrics"))[1]


async def becomes_ready(stage: Stage) -> None:
    async def is_ready() -> bool:
        return (await health(stage, "/readyz"))[0] == 200

    await eventually(is_ready, within=30)
    assert 'brokkr_agent_type_available{type="build"} 1.0' in (await health(stage, "/metrics"))[1]


@asynccontextmanager
async def everything_is_refused(kube: KubeClient) -> AsyncIterator[None]:
    """As by an API server that has just started, and has not read its rules yet."""
    taken = [
        (kind, each)
        for kind in (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS)
        for each in (await kube.list(kind, None))[0]
        if each["metadata"]["name"] == "system:discovery"
        or any(subject["kind"] == "ServiceAccount" for subject in each.get("subjects", []))
    ]
    for kind, each in taken:
        metadata = each["metadata"]
        await kube.delete(kind, metadata.get("namespace"), metadata["name"])
    try:
        yield
    finally:
        for kind, each in taken:
            metadata = {"name": each["metadata"]["name"], "labels": each["metadata"].get("labels")}
            namespace = each["metadata"].get("namespace")
            await kube.create(kind, namespace, each | {"metadata": metadata})


def said(lines: Iterable[Any], event: str) -> Callable[[], Awaitable[bool]]:
    async def is_there() -> bool:
        return any(each["event"] == event for each in lines)

    return is_there


async def test_an_api_server_that_refuses_everything_for_a_while_ends_no_agent(
    bare_stage: Stage,
) -> None:
    stage = bare_stage
    await apply(stage.kube, OTHER_CRDS)
    with capture_logs() as lines:
        async with stage.agent() as agent:
            await until_it_builds(stage)
            async with everything_is_refused(stage.kube):
                await eventually(said(lines, "prerequisites not checked"), within=30)
            await until_it_builds(stage)

            assert not agent.done()


@asynccontextmanager
async def no_work_is_known(kube: KubeClient) -> AsyncIterator[None]:
    """As to an API server that has just started, and has not read its definitions yet."""
    await remove(kube, [WORK_CRD])
    try:
        yield
    finally:
        await apply(kube, [WORK_CRD])


@pytest.mark.parametrize("as_it_is", [everything_is_refused, no_work_is_known])
async def test_an_agent_that_starts_with_its_api_server_waits_until_that_knows_its_objects(
    bare_stage: Stage, as_it_is: Callable[[KubeClient], AbstractAsyncContextManager[None]]
) -> None:
    stage = bare_stage
    await apply(stage.kube, OTHER_CRDS)
    with capture_logs() as lines:
        async with AsyncExitStack() as starting:
            await starting.enter_async_context(as_it_is(stage.kube))
            async with stage.agent() as agent:
                await eventually(said(lines, "watch interrupted"), within=30)
                await starting.aclose()
                await stage.until_heard_of()

                assert not agent.done()
                assert not await said(lines, "agent unable")()


@pytest.mark.parametrize(
    ("as_it_is", "cure"),
    [(everything_is_refused, "brokkr agent rbac"), (no_work_is_known, "brokkr agent crd")],
)
async def test_what_keeps_missing_is_said_with_its_cure(
    bare_stage: Stage,
    as_it_is: Callable[[KubeClient], AbstractAsyncContextManager[None]],
    cure: str,
) -> None:
    async def is_said() -> bool:
        said = (await bare_stage.broker.admin.get_agent(bare_stage.agent_id)).capabilities
        return said is not None and said.unable is not None and cure in said.unable.cause

    async with as_it_is(bare_stage.kube), bare_stage.agent(QUICK):
        await eventually(is_said)


async def test_an_agent_without_shipwright_waits_for_it_and_says_so_everywhere(
    bare_stage: Stage,
) -> None:
    stage = bare_stage
    async with stage.agent() as agent:
        reason = await until_it_lacks(stage, "builds.shipwright.io")
        submitted = await stage.submit()
        await says_it_is_not_ready(stage, reason)
        explained = await stage.broker.admin.explain_work(submitted.id)

        assert explained.work.status is WorkState.PENDING
        assert explained.waiting is not None
        [standing] = explained.waiting.agents
        assert reason in standing.sentence

        await apply(stage.kube, OTHER_CRDS)
        async with stage.shipwright(success):
            work = await stage.finished(submitted, within=60)
            await becomes_ready(stage)

        assert work.status is WorkState.SUCCEEDED
        assert not agent.done()


async def test_a_build_whose_definition_goes_is_missing_and_is_tried_again_when_it_is_back(
    bare_stage: Stage,
) -> None:
    stage = bare_stage
    await apply(stage.kube, OTHER_CRDS)
    of_runs = [each for each in OTHER_CRDS if each["metadata"]["name"] == str(BUILD_RUNS)]
    async with stage.agent() as agent, stage.shipwright(never) as played:
        submitted = await stage.submit()
        await stage.running(played)

        async def is_recorded() -> bool:
            status = (await stage.resource(submitted)).get("status", {})
            return any(each.get("uid") for each in status.get("attempts", ()))

        await eventually(is_recorded)
        await remove(stage.kube, of_runs)
        reason = await until_it_lacks(stage, "the cluster has no buildruns.shipwright.io")
        await says_it_is_not_ready(stage, reason)
        assert (await stage.broker.admin.get_work(submitted.id)).status is WorkState.CLAIMED

        played.outcome = success
        await apply(stage.kube, of_runs)
        work = await stage.finished(submitted, within=60)
        await becomes_ready(stage)

        assert work.status is WorkState.SUCCEEDED
        assert [each["reason"] for each in (work.result or {})["attempts"]] == [
            "AttemptMissing",
            "BuildCompleted",
        ]
        assert not agent.done()


async def test_a_tekton_that_is_too_old_is_named_and_a_newer_one_will_do(
    bare_stage: Stage,
) -> None:
    stage = bare_stage
    old = deepcopy(OTHER_CRDS)
    [of_task_runs] = [each for each in old if each["metadata"]["name"] == str(TASK_RUNS)]
    of_task_runs["metadata"]["labels"] = {RELEASE: "v0.58.0"}
    await apply(stage.kube, old)
    async with stage.agent(), stage.shipwright(success):
        reason = await until_it_lacks(stage, "is of v0.58.0")
        await says_it_is_not_ready(stage, reason)
        submitted = await stage.submit()
        assert (await stage.broker.admin.get_work(submitted.id)).status is WorkState.PENDING

        of_task_runs["metadata"]["labels"] = {RELEASE: "v0.59.0"}
        await apply(stage.kube, [of_task_runs])
        await until_it_builds(stage)
        work = await stage.finished(submitted)

    assert "install Tekton Pipelines v0.59.0" in reason
    assert work.status is WorkState.SUCCEEDED

"""
An agent whose broker is hostile, or broken: it lives, and does nothing that is not allowed.

The agent has an administrator's credentials here, so that nothing but its own checks stands
between its broker and the cluster.  Each test ends with honest Work, which is executed.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from pydantic import SecretStr

from brokkr.agent.app import run
from brokkr.agent.heartbeat import MAX_HELD
from brokkr.agent.kinds import BUILD_RUNS, BUILDS, NAMESPACES, SERVICE_ACCOUNTS, WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.settings import AgentSettings, WorkCrdSettings, WorkQueueSettings
from brokkr.local.control_plane import ControlPlane
from brokkr.wire.custom_resource import ANNOTATION_TRACEPARENT
from support.cluster import Found, everything
from support.factories import a_build_template
from support.hostile_broker import (
    KEY,
    Answer,
    Change,
    HostileBroker,
    Json,
    a_claim,
    a_renewal,
    bomb,
    drip,
    flood,
    hang,
    hostile_broker,
    problem,
    says,
    served,
)
from support.shipwright import DIGEST, PlayedShipwright, never, success
from support.signals import eventually
from support.templates import a_build_run, a_config_map, a_list

pytestmark = pytest.mark.kube

SLOTS = 2
EXECUTES = {"Work", "Build", "BuildRun", "ConfigMap"}


@dataclass
class Stage:
    """An agent, its broker, and the cluster that it could do anything to."""

    broker: HostileBroker
    kube: KubeClient
    namespace: str
    played: PlayedShipwright
    agent: asyncio.Task[None]
    before: Found

    async def executes_honest_work(self) -> None:
        """Be honest again, and see a Work through to its end."""
        self.broker.be_honest()
        claim = a_claim()
        self.broker.offer(claim)
        body = await self.broker.completed(claim, within=30)

        assert body.ended_as == "succeeded"
        assert body.result["digest"] == DIGEST
        assert self.broker.complaints == []
        assert not self.agent.done()

    async def refuses(self, claims: Mapping[str, Json]) -> Mapping[str, str]:
        """Offer claims one after the other; return how the agent says that each has failed."""
        runs = len(self.played.seen)
        ends = {}
        for what, claim in claims.items():
            with trying(what):
                self.broker.offer(claim)
                ends[what] = await self.broker.completed(claim)

        assert {what: end.ended_as for what, end in ends.items() if end.ended_as != "failed"} == {}
        assert [what for what, end in ends.items() if not end.message] == []
        assert len(self.played.seen) == runs
        return {what: end.message for what, end in ends.items()}

    async def made(self) -> Found:
        """Return what there is now in the whole cluster and was not before."""
        return await everything(self.kube) - self.before

    async def has_made_nothing_else(self) -> None:
        """Insist that nothing was made but what builds are made of, in the namespace."""
        strange = {
            each
            for each in await self.made()
            if each[1] != self.namespace or each[0] not in EXECUTES
        }

        assert strange == set()


@contextmanager
def trying(what: object) -> Iterator[None]:
    """Let a failure of the block say which of many cases it is."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"while trying: {what}")
        raise


_numbers = iter(range(1, 1000))


@asynccontextmanager
async def a_stage(
    control_plane: ControlPlane,
    *,
    prepare: Callable[[HostileBroker], None] = lambda _: None,
    **queue: Any,
) -> AsyncIterator[Stage]:
    """Run an agent against a fake broker, which may be prepared for its first words."""
    namespace = f"hostile-{next(_numbers)}"
    async with (
        KubeClient(KubeConfig.load(control_plane.kubeconfig)) as kube,
        hostile_broker() as broker,
    ):
        await kube.create(
            NAMESPACES,
            None,
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        )
        before = await settled(kube)
        played = PlayedShipwright(kube, namespace, success)
        playing = asyncio.create_task(played.run())
        prepare(broker)
        agent = asyncio.create_task(run(the_settings(broker, control_plane, namespace, **queue)))
        try:
            await broker.is_asked("heartbeat")
            yield Stage(broker, kube, namespace, played, agent, before)
        finally:
            for task in (agent, playing):
                task.cancel()
            await asyncio.wait([agent, playing])


def the_settings(
    broker: HostileBroker, control_plane: ControlPlane, namespace: str, **queue: Any
) -> AgentSettings:
    return AgentSettings(
        broker_url=broker.url,
        key=SecretStr(KEY),
        kubeconfig=control_plane.kubeconfig,
        work_queue=WorkQueueSettings(
            **{"max_concurrent": SLOTS, "poll_interval_seconds": 0.1, **queue}
        ),
        work_crd=WorkCrdSettings(
            namespace=namespace, reconcile_interval_seconds=0.5, retry_base_delay_seconds=0.05
        ),
    )


async def settled(kube: KubeClient) -> Found:
    """Return what there is once the controllers have made what they make of namespaces."""

    async def is_complete() -> Found | None:
        namespaces, _ = await kube.list(NAMESPACES, None)
        accounts, _ = await kube.list(SERVICE_ACCOUNTS, None)
        having = {each["metadata"]["namespace"] for each in accounts}
        if {each["metadata"]["name"] for each in namespaces} - having:
            return None
        return await everything(kube)

    return await eventually(is_complete)


@pytest.fixture(scope="module")
async def shared(control_plane: ControlPlane) -> AsyncIterator[Stage]:
    """One stage for many tests: what one of them did to the agent, the next would notice."""
    async with a_stage(control_plane) as stage:
        yield stage


@pytest.fixture
async def stage(control_plane: ControlPlane) -> AsyncIterator[Stage]:
    """A stage of the test's own."""
    async with a_stage(control_plane) as stage:
        yield stage


@pytest.fixture(scope="module", autouse=True)
def impatience() -> Iterator[None]:
    """Let the agents here wait for a second where others wait for half a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brokkr.client.transport.TIMEOUT_SECONDS", 1)
        patch.setattr("brokkr.agent.intake.WAIT_SECONDS", 0.3)
        patch.setattr("brokkr.agent.intake.FIRST_PAUSE_SECONDS", 0.05)
        patch.setattr("brokkr.agent.heartbeat.LONGEST_INTERVAL", timedelta(seconds=0.1))
        patch.setattr("brokkr.agent.heartbeat.AWAY_INTERVAL", timedelta(seconds=0.1))
        yield


async def test_an_honest_claim_through_the_fake_is_executed_and_completed(shared: Stage) -> None:
    claim = a_claim()
    shared.broker.offer(claim)
    body = await shared.broker.completed(claim)

    assert (body.ended_as, body.result["digest"]) == ("succeeded", DIGEST)
    assert [each["number"] for each in body.result["attempts"]] == [1]
    assert shared.broker.complaints == []
    assert {each[0] for each in await shared.made()} == {"Work", "Build", "BuildRun"}


# -- templates


def an_object(kind: str, api_version: str = "v1", **more: Any) -> Json:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "planted"}, **more}


def a_build(**metadata: Any) -> Json:
    return {**a_build_template(), "metadata": {"name": "hello", **metadata}}


def nested(levels: int) -> Json:
    value: Any = "deep"
    for _ in range(levels):
        value = {"x": value}
    return a_build_template(paramValues=value)


RBAC = "rbac.authorization.k8s.io/v1"
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": str(uuid4())}
TEMPLATES: dict[str, tuple[Json, str]] = {
    "a Secret": (an_object("Secret", stringData={"a": "b"}), "Secret"),
    "a Secret beside a Build": (a_list(a_build(), an_object("Secret")), "Secret"),
    "a ServiceAccount": (a_list(a_build(), an_object("ServiceAccount")), "not allowed"),
    "a Role": (a_list(a_build(), an_object("Role", RBAC, rules=[])), "not allowed"),
    "a Pod": (an_object("Pod", spec={"containers": [{"name": "x", "image": "x"}]}), "not allowed"),
    "a Namespace": (a_list(a_build(), an_object("Namespace")), "not allowed"),
    "a ClusterRoleBinding": (
        a_list(
            a_build(),
            an_object(
                "ClusterRoleBinding",
                RBAC,
                roleRef={
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": "cluster-admin",
                },
                subjects=[{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
            ),
        ),
        "not allowed",
    ),
    "a Work": (an_object("Work", "brokkr.io/v1alpha1"), "not allowed"),
    "a List in a List": (a_list(a_build(), a_list(an_object("Secret"))), "not allowed"),
    "an empty List": (a_list(), "at least one item"),
    "a List of words": ({**a_list(), "items": ["Secret"]}, "must be an object"),
    "two Builds": (a_list(a_build(), a_build(name="other")), "exactly one Build"),
    "nothing": ({}, "not allowed"),
    "another namespace": (a_build(namespace="kube-system"), "not where this agent runs"),
    "a namespace that is a list": (a_build(namespace=["kube-system"]), "not where this agent runs"),
    "owners": (a_build(ownerReferences=[OWNER]), "ownerReferences"),
    "finalizers": (a_build(finalizers=["a.example/b"]), "finalizers"),
    "a generated name": (a_build(generateName="x-"), "generateName"),
    "metadata that is a list": ({**a_build(), "metadata": ["x"]}, "must be an object"),
    "metadata that is a text": ({**a_build(), "metadata": "x"}, "must be an object"),
    "labels that are a list": (a_build(labels=["x"]), "must be an object"),
    "labels that are numbers": (a_build(labels={"a": 5}), ""),
    "labels that are no labels": (a_build(labels={"a/b/c": "/"}), ""),
    "annotations that are a text": (a_build(annotations="x"), "must be an object"),
    "a name that is a number": (a_build(name=5), "is not a Kubernetes name"),
    "a name with slashes": (a_build(name="../../kube-system/x"), "is not a Kubernetes name"),
    "a name of dots": (a_build(name=".."), "is not a Kubernetes name"),
    "a name with a line break": (a_build(name="a\nb"), "is not a Kubernetes name"),
    "a ConfigMap of dots": (a_list(a_build(), a_config_map(name="..")), "is not a Kubernetes name"),
    "a version that is a list": ({**a_build(), "apiVersion": ["v1"]}, "not allowed"),
    "a kind that is an object": ({**a_build(), "kind": {"x": "Build"}}, "not allowed"),
    "a spec that is a list": ({**a_build(), "spec": ["x"]}, "must be an object"),
    "an embedded spec": (
        a_list(a_build(), a_build_run(spec={"build": {"spec": a_build_template()["spec"]}})),
        "embedded",
    ),
    "a run of another Build": (
        a_list(a_build(), a_build_run(spec={"build": {"name": "theirs"}})),
        "is not the Build given here",
    ),
    "70 levels": (nested(70), "nested deeper"),
    "more than 512 KiB": (a_build(annotations={"a": "x" * 600 * 1024}), "bytes of JSON"),
    # Of what etcd cannot take, the API server says that it may be tried again.
    "two MiB": (a_build(annotations={"a": "x" * 2 * 1024 * 1024}), "bytes of JSON"),
    "four MiB": (a_build(annotations={"a": "x" * 4 * 1024 * 1024}), "bytes of JSON"),
    "30 000 values": (a_build_template(paramValues=[0] * 30_000), "values"),
    "no number": (a_build_template(paramValues=[math.nan, math.inf]), ""),
    "a NUL": (a_build_template(paramValues=["\0"]), "NUL"),
    "a credential": (
        a_build_template(source={"type": "Git", "git": {"url": "https://me:secret@git.example"}}),
        "credentials",
    ),
}


async def test_templates_with_what_they_may_not_have_are_completed_as_failed(
    shared: Stage,
) -> None:
    claims = {what: a_claim(spec={"template": each}) for what, (each, _) in TEMPLATES.items()}
    said = await shared.refuses(claims)

    assert {what: words for what, (_, words) in TEMPLATES.items() if words not in said[what]} == {}
    await shared.has_made_nothing_else()
    await shared.executes_honest_work()


async def test_labels_that_pose_as_the_agents_own_are_not_taken_over(shared: Stage) -> None:
    posing = {
        "brokkr.io/work": "another",
        "brokkr.io/work-id": str(uuid4()),
        "brokkr.io/agent": "x",
    }
    template = a_build(labels={**posing, "team": "a"}, annotations={"brokkr.io/cancel": "now"})
    claim = a_claim(spec={"template": template})
    shared.broker.offer(claim)
    await shared.broker.completed(claim)

    name = f"work-{claim['id']}-r1"
    build = await shared.kube.get(BUILDS, shared.namespace, f"{name}-a1")
    assert build["metadata"]["labels"]["team"] == "a"
    assert build["metadata"]["labels"]["brokkr.io/work"] == name
    assert build["metadata"]["labels"]["brokkr.io/work-id"] == claim["id"]
    assert "brokkr.io/agent" not in build["metadata"]["labels"]
    assert "brokkr.io/cancel" not in build["metadata"]["annotations"]


# -- the rest of a claim

CLAIMS: dict[str, Json] = {
    "an empty resource": a_claim(resource={}),
    "a resource whose spec is a list": a_claim(resource={"spec": ["x"]}),
    "a resource whose spec is a text": a_claim(resource={"spec": "rm -rf /"}),
    "an empty spec": a_claim(resource={"spec": {}}),
    "a template that is a list": a_claim(spec={"template": [a_build()]}),
    "a template that is a text": a_claim(spec={"template": "kind: Secret"}),
    "a template that is nothing": a_claim(spec={"template": None}),
    "a billion retries": a_claim(spec={"maxRetries": 10**9}),
    "negative retries": a_claim(spec={"maxRetries": -1}),
    "retries in words": a_claim(spec={"maxRetries": "three"}),
    "spent in words": a_claim(spec={"infrastructureRetriesSpent": "three"}),
    "spent less than nothing": a_claim(spec={"infrastructureRetriesSpent": -1}),
    "retries without end": a_claim(spec={"maxRetries": math.inf}),
    "a claim timeout in words": a_claim(spec={"claimTimeout": "1h"}),
    "a claim timeout of nothing": a_claim(spec={"claimTimeout": 0}),
    "a negative claim timeout": a_claim(spec={"claimTimeout": -1}),
    "a claim timeout of 30 million years": a_claim(spec={"claimTimeout": 10**15}),
    "a claim timeout that no clock can count": a_claim(spec={"claimTimeout": 10**30}),
    "a type that is not there": a_claim(work_type="rocket", spec={"workType": "rocket"}),
    "a type that was not asked for": a_claim(work_type="rocket"),
    "a type that disagrees with its spec": a_claim(spec={"workType": "rocket"}),
    "a type of many words": a_claim(work_type="x" * 5000, spec={"workType": "x" * 5000}),
    "round 0": a_claim(round=0),
    "round -1": a_claim(round=-1),
    "a round of 31 digits": a_claim(round=10**30),
    "a round of 4000 digits": a_claim(round=10**3999),
}


async def test_claims_of_which_nothing_comes_are_completed_as_failed(shared: Stage) -> None:
    await shared.refuses(CLAIMS)

    await shared.has_made_nothing_else()
    await shared.executes_honest_work()


async def test_claims_in_the_name_of_another_broker_are_given_back(shared: Stage) -> None:
    for broker in ("", "another-broker", "../../x", "x" * 300):
        claim = a_claim(broker=broker)
        with trying(broker):
            shared.broker.offer(claim)
            await is_given_back(shared, claim)

        assert f"work-{claim['id']}-r1" not in {name for _, _, name in await shared.made()}
    await shared.executes_honest_work()


async def is_given_back(stage: Stage, claim: Json) -> None:
    async def is_so() -> bool:
        return claim["claim_id"] in stage.broker.released

    await eventually(is_so)


ODD_METADATA: list[Any] = [
    [],
    "x",
    {"name": "../x", "namespace": "kube-system", "finalizers": ["a/b"]},
    {"labels": {"brokkr.io/agent": "x"}, "annotations": {"brokkr.io/cancel": "x"}},
    {"annotations": {ANNOTATION_TRACEPARENT: "00-" + "z" * 5000}},
    {"annotations": {ANNOTATION_TRACEPARENT: ["00-01"]}},
    {"annotations": ["x"]},
]
ODD: dict[str, Json] = {
    **{
        f"a lease of {seconds}": a_claim(lease_seconds=seconds)
        for seconds in (0, -1, 1e308, math.nan, math.inf, -math.inf)
    },
    **{
        f"metadata {metadata}"[:60]: a_claim(
            resource={
                "metadata": metadata,
                "spec": a_claim()["resource"]["spec"],
                "status": {"phase": "Succeeded"},
            }
        )
        for metadata in ODD_METADATA
    },
    "more than is known": a_claim(id=str(uuid4()).upper(), more={"x": "y"}),
}


async def test_what_is_odd_about_a_claim_and_does_not_matter_is_passed_over(
    shared: Stage,
) -> None:
    for what, claim in ODD.items():
        with trying(what):
            shared.broker.offer(claim)
            body = await shared.broker.completed(claim)

            assert body.ended_as == "succeeded"
            work = await shared.kube.get(WORKS, shared.namespace, f"work-{claim['id'].lower()}-r1")
            assert work["metadata"]["labels"]["brokkr.io/agent"] == str(shared.broker.agent_id)
            assert "finalizers" not in work["metadata"]
            marks = {ANNOTATION_TRACEPARENT, "brokkr.io/cancel"}
            assert not set(work["metadata"]["annotations"]) & marks
    await shared.has_made_nothing_else()


def always(answer: Any) -> Change:
    """Answer this, whatever would be honest."""
    return lambda _: answer


NO_CLAIMS: list[Json] = [
    {"id": "work"},
    {"id": "../../x"},
    {"id": 5},
    {"claim_id": "claim"},
    {"claim_id": None},
    {"round": "first"},
    {"round": 1.5},
    {"resource": []},
    {"resource": "x"},
    {"lease_seconds": "long"},
    {"broker": None},
]


async def test_an_answer_with_a_claim_that_cannot_be_one_is_no_answer(shared: Stage) -> None:
    before = await shared.made()
    for field in NO_CLAIMS:
        shared.broker.change("claim", always({"claims": [a_claim(**field)]}))
        with trying(field):
            await shared.broker.is_asked("claim", times=2)

    assert await shared.made() == before
    await shared.executes_honest_work()


async def test_one_claim_id_on_two_works_is_one_claim(stage: Stage) -> None:
    first, second = a_claim(), a_claim()
    second["claim_id"] = first["claim_id"]
    stage.broker.offer(first)
    stage.broker.change("claim", lambda _: {"claims": [second]})
    await stage.broker.is_asked("claim", times=3)
    stage.broker.offer(first)
    stage.broker.be_honest()
    await stage.broker.completed(second)

    works, _ = await stage.kube.list(WORKS, stage.namespace)
    assert len(works) == 1
    for _ in range(SLOTS + 1):
        await stage.executes_honest_work()


async def test_two_claims_for_one_work_are_one_execution(stage: Stage) -> None:
    stage.played.outcome = never
    first = a_claim()
    second = {**first, "claim_id": str(uuid4())}
    stage.broker.offer(first)
    await is_running(stage, first)
    stage.broker.offer(second)

    async def carries_the_second() -> bool:
        works, _ = await stage.kube.list(WORKS, stage.namespace)
        return [each["metadata"]["annotations"]["brokkr.io/claim-id"] for each in works] == [
            second["claim_id"]
        ]

    await eventually(carries_the_second)
    await stage.played.finish(f"work-{first['id']}-r1-a1")
    body = await stage.broker.completed(second)

    assert body.ended_as == "succeeded"
    assert len(stage.played.seen) == 1
    await stage.executes_honest_work()


async def is_running(stage: Stage, claim: Json) -> None:
    async def is_there() -> bool:
        name = f"work-{claim['id']}-r{claim['round']}-a1"
        return await stage.kube.find(BUILD_RUNS, stage.namespace, name) is not None

    await eventually(is_there)


async def test_of_a_thousand_claims_no_more_are_taken_than_were_asked_for(stage: Stage) -> None:
    claims = [a_claim() for _ in range(1000)]
    stage.played.outcome = never
    stage.broker.offer(*claims)
    await stage.broker.is_asked("heartbeat", times=4)

    works, _ = await stage.kube.list(WORKS, stage.namespace)
    assert len(works) == SLOTS
    stage.played.outcome = success
    for each in list(stage.played.seen.values()):
        await stage.played.finish(each["metadata"]["name"])
    await stage.executes_honest_work()


async def test_a_broker_that_never_lets_an_agent_wait_is_not_asked_all_the_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokkr.agent.intake.FIRST_PAUSE_SECONDS", 0.5)
    stage.broker.change("claim", lambda _: {"claims": []})
    before = stage.broker.asked["claim"]
    await stage.broker.is_asked("heartbeat", times=10)  # about a second

    assert stage.broker.asked["claim"] - before < 10
    await stage.executes_honest_work()


# -- heartbeats


async def test_no_more_claims_are_held_than_there_are_slots_whatever_a_heartbeat_says(
    control_plane: ControlPlane,
) -> None:
    """The first answer to a process tells it what it holds; the later ones are not heeded."""

    held = [a_claim() for _ in range(MAX_HELD + 500)]

    def more(honest: Json) -> Json:
        return {**honest, "held": held}

    async with a_stage(
        control_plane, prepare=lambda broker: broker.change("heartbeat", more)
    ) as stage:
        stage.played.outcome = never
        await stage.broker.is_asked("heartbeat", times=3)

        works, _ = await stage.kube.list(WORKS, stage.namespace)
        assert 0 < len(works) <= SLOTS
        await stage.has_made_nothing_else()
        # The rest of the answer is honest, and knows none of them, so that they are stopped.
        stage.played.outcome = success
        await stage.executes_honest_work()


async def test_all_claims_that_a_heartbeat_calls_lost_are_stopped(shared: Stage) -> None:
    shared.played.outcome = never
    claim = a_claim()
    shared.broker.offer(claim)
    await is_running(shared, claim)

    def lose(honest: Json) -> Json:
        lost = [*(each["claim_id"] for each in honest["renewed"]), *map(str, (uuid4(), uuid4()))]
        return {**honest, "renewed": [], "lost": lost}

    shared.broker.change("heartbeat", lose)

    async def is_stopped() -> bool:
        work = await shared.kube.get(WORKS, shared.namespace, f"work-{claim['id']}-r1")
        return bool((work.get("status") or {}).get("phase") == "Cancelled")

    await eventually(is_stopped)
    shared.played.outcome = success
    await shared.executes_honest_work()


async def test_a_heartbeat_that_cancels_everything_is_obeyed(shared: Stage) -> None:
    shared.played.outcome = never
    claim = a_claim()
    shared.broker.offer(claim)
    await is_running(shared, claim)

    def cancel(honest: Json) -> Json:
        renewed = [{**each, "cancel_requested": True} for each in honest["renewed"]]
        return {**honest, "renewed": renewed}

    shared.broker.change("heartbeat", cancel)
    body = await shared.broker.completed(claim)

    assert body.ended_as == "cancelled"
    shared.played.outcome = success
    await shared.executes_honest_work()


async def test_a_broker_that_is_another_one_each_time_stops_nothing(stage: Stage) -> None:
    stage.played.outcome = never
    claim = a_claim()
    stage.broker.offer(claim)
    await is_running(stage, claim)
    stage.broker.change("heartbeat", lambda honest: {**honest, "broker": str(uuid4())})
    await stage.broker.is_asked("heartbeat", times=4)
    stage.broker.be_honest()
    await stage.played.finish(f"work-{claim['id']}-r1-a1")
    body = await stage.broker.completed(claim)

    assert body.ended_as == "succeeded"
    assert len(stage.played.seen) == 1
    await stage.executes_honest_work()


NO_HEARTBEATS: list[Any] = [
    {},
    {"broker": 5, "renewed": [], "lost": []},
    {"broker": "x", "renewed": [{}], "lost": []},
    {"broker": "x", "renewed": [], "lost": ["all of them"]},
    {"broker": "x", "renewed": {}, "lost": "x", "held": "x"},
    [],
    None,
]


async def test_a_heartbeat_answered_with_nonsense_changes_nothing(shared: Stage) -> None:
    shared.played.outcome = never
    claim = a_claim()
    shared.broker.offer(claim)
    await is_running(shared, claim)
    for answer in NO_HEARTBEATS:
        shared.broker.change("heartbeat", always(answer))
        with trying(answer):
            await shared.broker.is_asked("heartbeat", times=2)
    shared.broker.be_honest()
    await shared.played.finish(f"work-{claim['id']}-r1-a1")

    assert (await shared.broker.completed(claim)).ended_as == "succeeded"
    await shared.executes_honest_work()


# -- answers that are none


def a_status(status: int, code: str | None = None) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return problem(status, code)

    return answer


DEEP = b'{"claims":' * 100_000
PROBLEM = "application/problem+json"
ANSWERS: dict[str, Answer] = {
    "a page": says(b"<h1>welcome</h1>", content_type="text/html"),
    "nothing": says(),
    "half of it": says(b'{"claims": [{"id": "'),
    "not even text": says(b"\xff\xfe\0{"),
    "something deep": says(DEEP),
    "100 MB": flood(megabytes=100),
    "a bomb": bomb(megabytes=500),
    "what is not packed as it says": says(b"{}", headers={"Content-Encoding": "gzip"}),
    "never": hang,
    "for ever": drip,
    "400": a_status(400),
    "401": a_status(401, "unauthenticated"),
    "403": a_status(403, "not_permitted"),
    "404": a_status(404, "work_not_found"),
    "409": a_status(409),
    "409 of another code": a_status(409, "claim_lost"),
    "422": a_status(422, "invalid"),
    "422 of a Work": a_status(422, "invalid_work"),
    "429": a_status(429, "limit_reached"),
    "429 without a word": a_status(429),
    "500": a_status(500),
    "503": a_status(503, "broker_unavailable"),
    "a code that is a list": says(b'{"code": ["x"]}', status=500, content_type=PROBLEM),
    "a problem that is a list": says(b"[]", status=500, content_type=PROBLEM),
    "half a problem": says(b'{"code": ', status=400, content_type=PROBLEM),
    "a deep problem": says(DEEP, status=400, content_type=PROBLEM),
    "a problem of 100 MB": flood(megabytes=100, status=400, content_type=PROBLEM),
    "a problem that is a bomb": bomb(megabytes=500, status=400, content_type=PROBLEM),
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_an_answer_that_is_none_costs_time_and_not_the_agent(
    shared: Stage, what: str
) -> None:
    """All endpoints answer like this, in the middle of an execution; the heartbeat last."""
    shared.played.outcome = never
    claim = a_claim()
    shared.broker.offer(claim)
    await is_running(shared, claim)
    for endpoint in ("claim", "progress", "complete", "release"):
        shared.broker.answer(endpoint, ANSWERS[what])
    async with asyncio.TaskGroup() as waiting:
        waiting.create_task(shared.broker.is_asked("complete"))
        waiting.create_task(shared.broker.is_asked("claim"))
        waiting.create_task(shared.played.finish(f"work-{claim['id']}-r1-a1"))
    shared.broker.answer("heartbeat", ANSWERS[what])
    await shared.broker.is_asked("heartbeat", times=2)

    assert not shared.agent.done()
    await shared.executes_honest_work()


async def test_a_refusal_that_the_broker_does_not_take_is_no_end_of_the_agent(
    shared: Stage,
) -> None:
    for what in ("400", "401", "403", "404", "409", "422 of a Work", "429", "500"):
        shared.broker.answer("complete", ANSWERS[what])
        shared.broker.offer(a_claim(round=0))
        with trying(what):
            await shared.broker.is_asked("complete")
            await shared.broker.is_asked("heartbeat", times=2)

            assert not shared.agent.done()
            await shared.executes_honest_work()


async def test_the_key_goes_nowhere_that_the_broker_sends_the_agent(shared: Stage) -> None:
    elsewhere: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        elsewhere.append(request.headers.get("Authorization", ""))
        return web.json_response({"claims": []})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", note)
    async with served(app) as url:
        for status in (301, 302, 303, 307, 308):
            away = says(status=status, headers={"Location": f"{url}/api/v1"})
            # Nothing is claimed while heartbeats fail, so the claims come first.
            for endpoint in ("claim", "heartbeat"):
                shared.broker.be_honest()
                shared.broker.answer(endpoint, away)
                await shared.broker.is_asked(endpoint, times=2)

    assert elsewhere == []
    await shared.executes_honest_work()


async def test_renewals_of_claims_that_were_never_listed_are_no_claims(stage: Stage) -> None:
    strangers = [a_renewal(a_claim()) for _ in range(50)]
    stage.broker.change(
        "heartbeat", lambda honest: {**honest, "renewed": [*honest["renewed"], *strangers]}
    )
    await stage.broker.is_asked("heartbeat", times=2)

    assert await stage.made() == frozenset()
    await stage.executes_honest_work()

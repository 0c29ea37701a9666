"""
Whatever somebody has made of the objects in the cluster, the agent reads, judges and reports.

The API server gives what the definitions allow.  Of a Work that is its schema, and its
metadata are what they are of all objects.  Shipwright's and Tekton's objects, and what a
template holds, may be anything.  ``make hostile`` tries much more of it.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from datetime import timedelta
from importlib.resources import files
from typing import Any, cast

import yaml
from hypothesis import given
from hypothesis import strategies as st

from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.decide import Policy, decide
from brokkr.agent.controller.observe import LOG_BYTES, observe
from brokkr.agent.handlers.build.handler import BuildHandler
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.protocol import Handler
from brokkr.agent.handlers.verdict import Incomplete
from brokkr.agent.kinds import BUILD_RUNS, BUILDS, PIPELINE_RUNS, TASK_RUNS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.informer import Informer
from brokkr.agent.reporting import _completion, _progress
from brokkr.agent.spans import spans_of
from brokkr.wire.bodies import MAX_RETRIES_TOLD, CompleteWork
from brokkr.wire.custom_resource import (
    LABEL_AGENT,
    LABEL_ATTEMPT,
    LABEL_ROUND,
    LABEL_WORK,
    LABEL_WORK_ID,
    render_claimed,
    render_status,
    status_from_resource,
)
from brokkr.work.backoff import Backoff
from brokkr.work.model import Claim, Phase, WorkStatus
from support.factories import AGENT_ID, CLAIM_ID, NOON, WORK_ID, a_build_template, a_work
from support.recordings import CASES, recorded

NAME = a_work().name
HANDLERS: Mapping[str, Handler] = {"build": BuildHandler(BuildDefaults())}
POLICY = Policy(
    backoff=Backoff(), keep_succeeded=timedelta(hours=1), keep_failed=timedelta(hours=24)
)
KINDS = {each.kind: each for each in (BUILDS, BUILD_RUNS, TASK_RUNS, PIPELINE_RUNS)}
SCHEMA = yaml.safe_load((files("brokkr.agent.kube") / "crd.yaml").read_text())["spec"]["versions"][
    0
]["schema"]["openAPIV3Schema"]["properties"]

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
LARGE = st.sampled_from(["x" * 200_000, [0] * 20_000, json.loads("[" * 850 + "]" * 850)])
ANYTHING = LARGE | st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=5,
)
TIMES = st.sampled_from(
    [
        *("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.123456789+14:00", "0001-01-01T00:00:00Z"),
        *("9999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00", "0000-01-01T00:00:00Z"),
        *("2026-02-28T24:00:00Z", "2026-06-30T23:59:60Z", "2026-03-01t12:00:00z"),
    ]
)
RECORDED = {case: recorded(case) for case in CASES}


def by_schema(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Draw what a part of the Work's schema allows."""
    match schema:
        case {"x-kubernetes-preserve-unknown-fields": True}:
            return st.dictionaries(st.text(max_size=10), ANYTHING, max_size=3)
        case {"enum": values}:
            return st.sampled_from(values)
        case {"format": "date-time"}:
            return TIMES
        case {"type": "object", "properties": fields}:
            drawn = {name: by_schema(each) for name, each in fields.items()}
            required = {name: drawn.pop(name) for name in schema.get("required", ())}
            return st.fixed_dictionaries(required, optional=drawn)
        case {"type": "array", "items": items}:
            return st.lists(by_schema(items), max_size=3)
        case {"type": "integer"}:
            small = st.integers(schema.get("minimum", -3), 3)
            return small | st.integers(schema.get("minimum"), schema.get("maximum", 2**63 - 1))
        case {"type": "string"}:
            return st.text(max_size=30) | st.just("x" * 10_000)
        case {"type": "boolean"}:
            return st.booleans()
    raise AssertionError(schema)


STATUSES = by_schema(SCHEMA["status"])


@st.composite
def edited(draw: st.DrawFn, document: Any) -> Any:
    """Change a few places of a document into something else."""
    document = deepcopy(document)
    for _ in range(draw(st.integers(0, 4))):
        holder = document
        while True:
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            key = draw(st.sampled_from(list(keys)))
            if not (isinstance(holder[key], dict | list) and holder[key] and draw(st.booleans())):
                break
            holder = holder[key]
        if isinstance(holder, dict) and len(holder) > 1 and draw(st.booleans()):
            del holder[key]
        else:
            holder[key] = deepcopy(draw(ANYTHING))
    return document


def a_resource(**spec: Any) -> dict[str, Any]:
    """Return a Work resource of this agent, as the API server has it."""
    given = {"workType": "build", "maxRetries": 3, "claimTimeout": 3600}
    resource = render_claimed(
        {**given, "template": a_build_template(), **spec},
        Claim(work_id=WORK_ID, claim_id=CLAIM_ID, round=1, agent_id=AGENT_ID, broker="b"),
    )
    resource["metadata"] |= {"namespace": "ns", "uid": "u", "resourceVersion": "7"}
    resource["metadata"] |= {"generation": 1, "creationTimestamp": "2026-03-01T11:59:00Z"}
    return resource


@st.composite
def works(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a Work resource of this agent, as the API server may hold it."""
    template = draw(edited(a_build_template()))
    resource = a_resource(
        workType=draw(st.just("build") | st.text(min_size=1, max_size=50)),
        maxRetries=draw(st.integers(0, 20)),
        claimTimeout=draw(st.integers(1, 604800)),
        template=template,
    )
    metadata = resource["metadata"]
    for name, values in (("labels", st.text(max_size=20)), ("annotations", st.text(max_size=40))):
        keys = st.sampled_from([*sorted(metadata[name]), "brokkr.io/cancel", "brokkr.io/x"])
        metadata[name] |= draw(st.dictionaries(keys, values, max_size=1))
        if draw(st.integers(0, 9)) == 0:
            metadata[name].popitem()
    # Without it the informer would not see the resource.
    metadata["labels"][LABEL_AGENT] = str(AGENT_ID)
    if draw(st.booleans()):
        resource["status"] = draw(STATUSES)
    return resource


@st.composite
def objects(draw: st.DrawFn) -> dict[str, Any]:
    """Draw an object of the first attempt, as the API server may hold it."""
    thing = draw(st.sampled_from(RECORDED[draw(st.sampled_from(CASES))]))
    thing = {**draw(edited(thing)), "kind": thing["kind"], "apiVersion": "v1"}
    thing["metadata"] = {
        "name": f"{NAME}-a1",
        "namespace": "ns",
        "uid": f"{thing['kind']}-{draw(st.integers(1, 2))}",
        "resourceVersion": "9",
        "creationTimestamp": "2026-03-01T12:00:00Z",
        "labels": {
            LABEL_WORK: NAME,
            LABEL_WORK_ID: str(WORK_ID),
            LABEL_ROUND: "1",
            LABEL_ATTEMPT: draw(st.sampled_from(["1", "1", "2", "x"])),
            "buildrun.shipwright.io/name": f"{NAME}-a1",
        },
    }
    return thing


# A build writes its own log; of its end the agent reads so much.
LOGS = st.text(max_size=50) | st.sampled_from(
    [
        *("dial tcp: i/o timeout\n" * 12_000, "x" * LOG_BYTES, "\n" * LOG_BYTES),
        *("push denied\r\x1b[31m\0", "pod " * (LOG_BYTES // 4), "\ufffd" * 9),
    ]
)
EVENTS = st.tuples(st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), works() | objects())


class Elsewhere:
    """What the rest of a cluster says to whoever looks something up."""

    def __init__(self, found: Any, said: str) -> None:
        self._found, self._said = found, said

    async def find(self, resource: Resource, namespace: str | None, name: str) -> Any:
        return self._found

    async def read_log(self, *_: Any, **__: Any) -> str:
        return self._said


def watched(kube: KubeClient) -> tuple[Caches, Mapping[str, Informer]]:
    """Return caches, and by kind of object what fills them."""
    caches = Caches(
        kube, "ns", agent_id=AGENT_ID, handlers=HANDLERS.values(), on_change=lambda _: None
    )
    for informer in caches._made.values():
        informer.synced.set()
    return caches, {
        "Work": caches._works,
        **{each.resource.kind: each for each in caches._made.values()},
        **{each.resource.kind: each for each in caches._related},
        **{each.informer.resource.kind: each.informer for each in caches._pods},
    }


async def test_a_work_whose_end_somebody_takes_back_is_looked_at_as_before() -> None:
    kube = cast("KubeClient", Elsewhere(None, ""))
    caches, informers = watched(kube)
    task_run: dict[str, Any] = {
        "kind": "TaskRun",
        "metadata": {
            "name": f"{NAME}-a1-x",
            "namespace": "ns",
            "uid": "t",
            "resourceVersion": "9",
            "creationTimestamp": "2026-03-01T12:00:00Z",
            "labels": {"buildrun.shipwright.io/name": f"{NAME}-a1", LABEL_WORK: NAME},
        },
    }
    runs, is_over = [
        a_resource() | {"status": {"phase": each}} for each in ("Running", "Succeeded")
    ]
    for thing in (runs, task_run, is_over, runs):
        informers[thing["kind"]]._take("MODIFIED", thing)

    seen = await observe(NAME, kube=kube, caches=caches, handlers=HANDLERS)

    assert seen is not None
    assert isinstance(seen.verdict, Incomplete)


def test_a_result_that_somebody_has_made_too_large_is_left_out_of_the_report() -> None:
    result = {"digest": "x" * 100_000}
    status = WorkStatus(phase=Phase.SUCCEEDED, message="built", retries=10**6, result=result)

    body = _completion(a_work(status=status))

    assert (body.outcome, body.message, body.result) == ("succeeded", "built", {})
    assert body.retries == MAX_RETRIES_TOLD


def test_of_a_status_that_no_broker_would_take_no_progress_is_told() -> None:
    assert _progress(a_work(status=WorkStatus(retries=10**6)), "build", ()) is None


@given(
    events=st.lists(EVENTS, min_size=1, max_size=5),
    found=st.none() | objects(),
    said=LOGS,
    minutes=st.sampled_from([0, 1, 10_000]),
)
async def test_whatever_the_objects_have_become_there_is_a_status_and_a_report(
    events: list[tuple[str, dict[str, Any]]], found: Any, said: str, minutes: int
) -> None:
    kube = cast("KubeClient", Elsewhere(found, said))
    caches, informers = watched(kube)
    for event, thing in events:
        informers[thing["kind"]]._take(event, thing)
        seen = await observe(NAME, kube=kube, caches=caches, handlers=HANDLERS)
        if seen is None:
            continue
        plan = decide(seen, now=NOON + timedelta(minutes=minutes), policy=POLICY)
        written = render_status(plan.status)
        assert len(json.dumps(written)) < 2**20
        status_from_resource(written)
        spans_of(seen.work)
        _progress(seen.work, "build", {"infrastructure_retries"})
        if seen.work.status.phase.is_terminal:
            assert isinstance(_completion(seen.work), CompleteWork)

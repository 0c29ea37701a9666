import asyncio
import json
import tracemalloc
from typing import Any, cast

import pytest

from brokkr.agent.controller.pods import MAX_PODS, PodCache
from brokkr.agent.handlers.pod_facts import MAX_FACTS_BYTES
from brokkr.agent.kube.client import KubeClient
from support.factories import WORK_ID
from support.recordings import RECORDINGS
from support.signals import eventually

LABEL = "buildrun.shipwright.io/name"
NAME = f"work-{WORK_ID}-r1"
ATTEMPT = f"{NAME}-a1"


class Seen:
    def __init__(self, *works: str) -> None:
        self.news: list[str] = []
        self.pods = PodCache(
            cast(KubeClient, None),
            "ns",
            LABEL,
            is_wanted=works.__contains__,
            on_change=self.news.append,
            on_restart=lambda _: None,
        )

    def see(self, event: str, pod: dict[str, Any]) -> None:
        self.pods.informer._take(event, pod)


def a_pod(
    *, attempt: str = ATTEMPT, uid: str = "u1", version: str = "1", **status: Any
) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"pod-{uid}",
            "uid": uid,
            "resourceVersion": version,
            "labels": {LABEL: attempt, "app.kubernetes.io/managed-by": "tekton-pipelines"},
        },
        "spec": {"containers": [{"name": "step-build", "env": [{"value": "x" * 10_000}]}]},
        "status": status,
    }


DISRUPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "PreemptionByScheduler",
    "lastTransitionTime": "2026-03-01T12:00:00Z",
}


def test_what_a_pod_said_last_is_known_when_it_is_gone() -> None:
    seen = Seen(NAME)

    seen.see("ADDED", a_pod(phase="Running"))
    seen.see("MODIFIED", a_pod(phase="Failed", conditions=[DISRUPTED]))
    seen.see("DELETED", a_pod(phase="Failed", conditions=[DISRUPTED]))

    [facts] = seen.pods.of_attempt(ATTEMPT)
    assert facts["isGone"] is True
    assert facts["status"]["conditions"][0]["reason"] == "PreemptionByScheduler"
    assert seen.pods.of_attempt(f"{NAME}-a2") == []


def test_a_pod_that_vanished_while_nobody_watched_is_gone_and_keeps_what_it_had_said() -> None:
    seen = Seen(NAME)
    seen.see("ADDED", a_pod(phase="Running", conditions=[DISRUPTED]))

    seen.see("DELETED", seen.pods.informer.cache["pod-u1"])

    [facts] = seen.pods.of_attempt(ATTEMPT)
    assert facts["isGone"] is True
    assert facts["status"]["phase"] == "Running"


@pytest.mark.parametrize(
    "attempt", ["hello-x7k2p", "", "work-1-r1-a1", ATTEMPT.replace("r1", "r2")]
)
def test_pods_of_others_leave_nothing_but_their_identity(attempt: str) -> None:
    seen = Seen(NAME)

    seen.see("ADDED", a_pod(attempt=attempt))

    assert seen.news == []
    assert seen.pods._facts == {}
    assert len(json.dumps(seen.pods.informer.cache)) < 500


def test_only_what_is_news_of_a_pod_makes_its_work_be_looked_at() -> None:
    seen = Seen(NAME)

    for version in ("1", "2", "3"):
        seen.see("MODIFIED", a_pod(version=version, phase="Running", podIP="10.0.0.1"))
    seen.see("MODIFIED", a_pod(version="4", phase="Failed"))

    assert seen.news == [NAME, NAME]


def test_of_one_work_no_more_pods_are_remembered_than_there_can_be() -> None:
    seen = Seen(NAME)
    recorded = json.loads((RECORDINGS / "pod-preempted" / "pod.json").read_text())

    for number in range(3 * MAX_PODS):
        pod = {**recorded, "metadata": a_pod(uid=f"u{number}")["metadata"]}
        seen.see("ADDED", pod)

    kept = seen.pods.of_attempt(ATTEMPT)
    assert [each["metadata"]["uid"] for each in kept][-1] == f"u{3 * MAX_PODS - 1}"
    assert len(kept) == MAX_PODS
    assert all(len(json.dumps(each)) <= MAX_FACTS_BYTES + 300 for each in kept)

    seen.pods.forget(NAME)
    assert seen.pods.of_attempt(ATTEMPT) == []


def test_ten_thousand_pods_of_others_cost_less_than_twenty_megabytes() -> None:
    seen = Seen(NAME)
    pods = [a_pod(attempt=f"hello-{n}", uid=f"u{n}", phase="Running") for n in range(10_000)]
    tracemalloc.start()
    try:
        for pod in pods:
            seen.see("ADDED", json.loads(json.dumps(pod)))
        del pods
        cost, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(seen.pods.informer.cache) == 10_000
    assert cost < 20 * 1024**2


async def test_without_the_permission_it_is_said_that_pods_are_not_watched() -> None:
    seen = Seen(NAME)
    assert not seen.pods.is_missing  # nothing is known yet

    seen.pods.informer.settled.set()  # as a refused list leaves it
    assert seen.pods.is_missing

    seen.pods.informer.synced.set()
    assert not seen.pods.is_missing


async def test_pods_are_not_listed_before_it_is_known_which_works_there_are() -> None:
    asked = asyncio.Event()

    class Kube:
        def pages(self, *_: Any, **__: Any) -> Any:
            asked.set()
            raise NotImplementedError

    works = asyncio.Event()
    pods = PodCache(
        cast(KubeClient, Kube()),
        "ns",
        LABEL,
        is_wanted=lambda _: True,
        on_change=lambda _: None,
        on_restart=lambda _: None,
    )
    running = asyncio.create_task(pods.run(works))
    await asyncio.sleep(0.05)
    assert not asked.is_set()

    works.set()

    async def was_asked() -> bool:
        return asked.is_set()

    await eventually(was_asked)
    with pytest.raises(NotImplementedError):
        await running

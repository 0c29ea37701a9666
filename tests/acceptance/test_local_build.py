"""
Real builds: from a private git repository to a private registry, with nothing played.

Broker, agents, API server, registry and build runner are processes of their own, as
``brokkr local up --private`` starts them.
"""

from pathlib import Path
from typing import Any

import pytest

from brokkr.agent.kinds import BUILD_RUNS, EVENTS, SECRETS, WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeForbidden
from brokkr.local.process import free_port
from brokkr.local.registry import registry
from brokkr.local.up import CLONE_SECRET, NAMESPACE
from brokkr.wire.bodies import TargetBody, WorkBody, WorkState
from support.local import (
    LOCAL,
    QUICK,
    QUICK_NAMESPACE,
    Local,
    build_args,
    inspect,
    value,
)
from support.signals import eventually

pytestmark = [pytest.mark.build, pytest.mark.kube, pytest.mark.postgres]


async def test_an_image_is_built_from_private_git_and_pushed_to_a_private_registry(
    local: Local,
) -> None:
    git = {"url": f"{local.system.git_url}/hello-image.git"}
    work = await local.run(local.a_build("hello", git=git))
    assert work.status is WorkState.SUCCEEDED, work.result_message
    assert work.result is not None

    resource = await local.find_resource(work)
    assert resource is not None
    (build_run,) = await local.build_runs_of(work)
    digests = {
        work.result["digest"],
        resource["status"]["result"]["digest"],
        build_run["status"]["output"]["digest"],
        (await inspect(local.image("hello")))["Digest"],
    }
    assert len(digests) == 1
    assert work.result["git"]["commit_sha"]
    assert work.result["size"] > 0
    assert work.retries_attempted == 0
    assert _attempts(work) == ["BuildCompleted"]


async def test_the_agent_builds_without_being_allowed_to_read_a_secret(local: Local) -> None:
    variables = Path(f"/proc/{local.server('agent').pid}/environ").read_text().split("\0")
    (kubeconfig,) = [
        each.partition("=")[2]
        for each in variables
        if each.startswith("BROKKR__AGENT__KUBECONFIG=")
    ]

    async with KubeClient(KubeConfig.load(Path(kubeconfig))) as as_agent:
        assert (await as_agent.list(WORKS, NAMESPACE))[0] is not None
        with pytest.raises(KubeForbidden, match="cannot get resource"):
            await as_agent.get(SECRETS, NAMESPACE, CLONE_SECRET)


async def test_build_arguments_labels_and_annotations_arrive_on_the_image(local: Local) -> None:
    output = {"labels": {"team": "forge"}, "annotations": {"org.example.made-for": "a test"}}
    values = [build_args("GREETING=hello")]
    work = await local.run(local.a_build("labelled", values=values, output=output))

    assert work.status is WorkState.SUCCEEDED, work.result_message
    labels = (await inspect(local.image("labelled")))["Labels"]
    assert (labels["greeting"], labels["team"]) == ("hello", "forge")
    manifest = await inspect(local.image("labelled"), "--raw")
    assert manifest["annotations"]["org.example.made-for"] == "a test"


async def test_a_template_of_several_documents_brings_config_map_build_and_build_run(
    local: Local,
) -> None:
    greeting = {"name": "greetings", "key": "word", "format": "GREETING=${CONFIGMAP_VALUE}"}
    build = local.a_build("several", values=[{"name": "build-args", "values": []}])
    pattern = {
        "apiVersion": "shipwright.io/v1beta1",
        "kind": "BuildRun",
        "metadata": {"generateName": "several-", "labels": {"from": "the-pattern"}},
        "spec": {
            "build": {"name": "several"},
            "paramValues": [{"name": "build-args", "values": [{"configMapValue": greeting}]}],
        },
    }
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "greetings"},
        "data": {"word": "from a ConfigMap"},
    }
    template = {"apiVersion": "v1", "kind": "List", "items": [config_map, build, pattern]}
    work = await local.run(template)

    assert work.status is WorkState.SUCCEEDED, work.result_message
    labels = (await inspect(local.image("several")))["Labels"]
    assert labels["greeting"] == "from a ConfigMap"
    (build_run,) = await local.build_runs_of(work)
    assert build_run["metadata"]["labels"]["from"] == "the-pattern"


async def test_a_push_is_tried_again_until_the_registry_is_there(
    local: Local, tmp_path: Path
) -> None:
    port = free_port()
    output = {"image": f"127.0.0.1:{port}/late", "pushSecret": None}
    submitted = await local.submit(local.a_build("late", output=output), max_retries=8)

    async def has_failed_once() -> bool:
        attempts = await local.attempts_of(submitted)
        return bool(attempts and attempts[0].get("class") == "PushTransport")

    await eventually(has_failed_once, within=60)
    async with registry(tmp_path, port=port):
        work = await local.end_of(submitted)

    assert work.status is WorkState.SUCCEEDED, work.result_message
    *failed, last = _attempts(work)
    assert set(failed) == {"PushTransport"}
    assert last == "BuildCompleted"
    assert work.retries_attempted == len(failed)
    assert len(await local.build_runs_of(work)) == len(failed) + 1
    await _is_told_to_users_of_the_cluster(local, work)


async def _is_told_to_users_of_the_cluster(local: Local, work: WorkBody) -> None:
    """See to it that ``kubectl describe work`` shows each attempt of a Work that succeeded."""
    resource = await local.find_resource(work)
    assert resource is not None
    *failed, last = resource["status"]["attempts"]
    for each in failed:
        assert (each["class"], each["retryable"]) == ("PushTransport", True)
        assert "connection refused" in each["message"]
    assert "class" not in last
    for each in (*failed, last):
        assert each["reason"]
        assert each["startTime"] <= each["endTime"]

    async def has_told_all() -> bool:
        found, _ = await local.kube.list(EVENTS, QUICK_NAMESPACE)
        told = [
            each["message"]
            for each in found
            if each["involvedObject"].get("uid") == resource["metadata"]["uid"]
        ]
        number = len(failed) + 1
        begun = {f"attempt {n} of {work.max_retries + 1}" for n in range(1, number + 1)}
        spent = {f"attempt {n} failed, retry {n} of 8" for n in range(1, number)}
        return begun <= set(told) and all(
            any(each.startswith(sentence) for each in told) for sentence in spent
        )

    await eventually(has_told_all)


async def test_an_attempt_that_is_deleted_midway_is_retried_and_succeeds(local: Local) -> None:
    values = [value("dockerfile", "Dockerfile.sleeps"), build_args("SECONDS=2")]
    submitted = await local.submit(local.a_build("deleted", values=values), max_retries=1)

    async def is_recorded_as_running() -> bool:
        attempts = await local.attempts_of(submitted)
        return bool(attempts and attempts[0].get("uid"))

    await eventually(is_recorded_as_running, within=60)
    (first,) = await local.build_runs_of(submitted)
    await local.kube.delete(BUILD_RUNS, QUICK_NAMESPACE, first["metadata"]["name"])
    work = await local.end_of(submitted)

    assert work.status is WorkState.SUCCEEDED, work.result_message
    assert work.result is not None
    assert [each["reason"] for each in work.result["attempts"]] == [
        "AttemptMissing",
        "BuildCompleted",
    ]


@pytest.mark.parametrize(
    ("agent", "target", "namespace"),
    [("local", LOCAL, NAMESPACE), ("quick", QUICK, QUICK_NAMESPACE)],
)
async def test_of_two_agents_each_executes_what_is_meant_for_it(
    local: Local, agent: str, target: TargetBody, namespace: str
) -> None:
    work = await local.run(local.a_build(f"by-{agent}"), target=target)

    assert work.status is WorkState.SUCCEEDED, work.result_message
    assert work.agent == agent
    (build_run,) = await local.build_runs_of(work)
    assert build_run["metadata"]["namespace"] == namespace


async def test_a_work_that_is_meant_for_no_agent_waits_and_says_why(local: Local) -> None:
    work = await local.submit(local.a_build(), target=TargetBody(match_labels={"env": "moon"}))
    await local.run(local.a_build("meanwhile"))  # an agent has had time to take it
    explained = await local.broker.explain_work(work.id)
    await local.broker.cancel_work(work.id)

    assert explained.work.status is WorkState.PENDING
    assert explained.could_ever is False
    assert explained.waiting is not None
    assert {(each.name, *_unmet(each)) for each in explained.waiting.agents} == {
        ("local", "match_labels.env", "local"),
        ("quick", "match_labels.env", "quick"),
    }


def _unmet(standing: Any) -> tuple[str, str]:
    (unmet,) = standing.unmet
    return unmet.term, unmet.actual


def _attempts(work: WorkBody) -> list[str]:
    """Return the class of each attempt that failed, and the reason of the one that did not."""
    assert work.result is not None
    return [each.get("class") or each["reason"] for each in work.result["attempts"]]

import json
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web

from brokkr.agent.kinds import (
    CONFIG_MAPS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    TASK_RUNS,
    WORKS,
    Resource,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.credentials import FixedToken
from brokkr.agent.kube.errors import (
    KubeAlreadyExists,
    KubeConflict,
    KubeExpired,
    KubeForbidden,
    KubeInvalid,
    KubeKindUnknown,
    KubeNotFound,
    KubeUnavailable,
)
from brokkr.local.control_plane import ControlPlane
from brokkr.local.process import free_port
from support.hostile_broker import served


def a_config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": name}},
        "data": data,
    }


def a_work(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "brokkr.io/v1alpha1",
        "kind": "Work",
        "metadata": {"name": name},
        "spec": {
            "workType": "build",
            "maxRetries": 3,
            "claimTimeout": 3600,
            "template": {"apiVersion": "v1", "kind": "ConfigMap"},
        },
    }


async def test_what_was_created_can_be_read(kube: KubeClient, namespace: str) -> None:
    created = await kube.create(CONFIG_MAPS, namespace, a_config_map("a", colour="red"))

    assert await kube.get(CONFIG_MAPS, namespace, "a") == created
    assert created["data"] == {"colour": "red"}


async def test_what_does_not_exist_is_not_found(kube: KubeClient, namespace: str) -> None:
    with pytest.raises(KubeNotFound, match="nobody"):
        await kube.get(CONFIG_MAPS, namespace, "nobody")

    assert await kube.find(CONFIG_MAPS, namespace, "nobody") is None


@pytest.mark.parametrize("group", ["brokkr.io", "nobody.example"])
async def test_a_kind_that_is_not_served_is_not_taken_for_a_missing_object(
    kube: KubeClient, namespace: str, group: str
) -> None:
    unknown = Resource(group, "v1alpha1", "Dream", "dreams")

    with pytest.raises(KubeKindUnknown):
        await kube.find(unknown, namespace, "a")
    with pytest.raises(KubeKindUnknown):
        await kube.delete(unknown, namespace, "a")
    with pytest.raises(KubeKindUnknown):
        await kube.list(unknown, namespace)


async def test_who_may_do_nothing_can_still_ask_what_is_served(
    agent_kube: KubeClient, namespace: str
) -> None:
    assert await agent_kube.serves("tekton.dev", "v1", "taskruns")
    assert not await agent_kube.serves("tekton.dev", "v1", "nonsense")
    assert not await agent_kube.serves("tekton.dev", "v1beta1", "taskruns")
    assert not await agent_kube.serves("nobody.example", "v1", "taskruns")


async def test_an_object_in_a_missing_namespace_cannot_be_created(kube: KubeClient) -> None:
    with pytest.raises(KubeNotFound, match="nowhere"):
        await kube.create(CONFIG_MAPS, "nowhere", a_config_map("a"))


async def test_a_name_can_be_taken_once(kube: KubeClient, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, namespace, a_config_map("a"))

    with pytest.raises(KubeAlreadyExists):
        await kube.create(CONFIG_MAPS, namespace, a_config_map("a"))


async def test_an_object_that_breaks_its_schema_is_refused(
    kube: KubeClient, namespace: str
) -> None:
    work = a_work("a")
    work["spec"]["maxRetries"] = "many"

    with pytest.raises(KubeInvalid, match="maxRetries"):
        await kube.create(WORKS, namespace, work)


async def test_a_list_is_complete_however_many_pages_it_takes(
    kube: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokkr.agent.kube.client._PAGE", 3)
    for n in range(7):
        await kube.create(CONFIG_MAPS, namespace, a_config_map(f"cm-{n}"))

    items, version = await kube.list(CONFIG_MAPS, namespace)

    assert [each["metadata"]["name"] for each in items] == [f"cm-{n}" for n in range(7)]
    assert {(each["apiVersion"], each["kind"]) for each in items} == {("v1", "ConfigMap")}
    assert version.isdecimal()


async def test_a_selector_narrows_a_list(kube: KubeClient, namespace: str) -> None:
    for name in ("a", "b"):
        await kube.create(CONFIG_MAPS, namespace, a_config_map(name))

    items, _ = await kube.list(CONFIG_MAPS, namespace, label_selector="app=b")

    assert [each["metadata"]["name"] for each in items] == ["b"]


async def test_no_namespace_means_all_of_them(kube: KubeClient, namespace: str) -> None:
    label = f"only-{uuid4()}"
    await kube.create(CONFIG_MAPS, namespace, a_config_map(label))
    await kube.create(CONFIG_MAPS, "default", a_config_map(label))

    items, _ = await kube.list(CONFIG_MAPS, None, label_selector=f"app={label}")

    assert {each["metadata"]["namespace"] for each in items} == {namespace, "default"}


async def test_apply_creates_and_then_changes(kube: KubeClient, namespace: str) -> None:
    first = await kube.apply(CONFIG_MAPS, namespace, a_config_map("a", colour="red"))
    second = await kube.apply(CONFIG_MAPS, namespace, a_config_map("a", colour="blue"))

    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    assert second["data"] == {"colour": "blue"}


async def test_a_merge_patch_changes_what_it_names(kube: KubeClient, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, namespace, a_config_map("a", colour="red", shape="round"))

    await kube.merge_patch(CONFIG_MAPS, namespace, "a", {"data": {"colour": None}})

    assert (await kube.get(CONFIG_MAPS, namespace, "a"))["data"] == {"shape": "round"}


async def test_a_status_is_written_only_over_the_version_that_was_read(
    kube: KubeClient, namespace: str
) -> None:
    read = await kube.create(WORKS, namespace, a_work("a"))
    written = await kube.replace_status(WORKS, namespace, read | {"status": {"phase": "Running"}})

    with pytest.raises(KubeConflict):
        await kube.replace_status(WORKS, namespace, read | {"status": {"phase": "Pending"}})

    assert (await kube.get(WORKS, namespace, "a"))["status"] == written["status"]
    assert written["status"]["phase"] == "Running"


async def test_a_deleted_object_is_gone_and_may_be_deleted_again(
    kube: KubeClient, namespace: str
) -> None:
    await kube.create(CONFIG_MAPS, namespace, a_config_map("a"))

    await kube.delete(CONFIG_MAPS, namespace, "a")
    await kube.delete(CONFIG_MAPS, namespace, "a")

    assert await kube.find(CONFIG_MAPS, namespace, "a") is None


async def test_another_object_of_the_same_name_is_not_deleted(
    kube: KubeClient, namespace: str
) -> None:
    made = await kube.create(WORKS, namespace, a_work("a"))
    uid, version = made["metadata"]["uid"], made["metadata"]["resourceVersion"]
    await kube.merge_patch(WORKS, namespace, "a", {"metadata": {"labels": {"new": "yes"}}})

    with pytest.raises(KubeConflict):
        await kube.delete(WORKS, namespace, "a", uid=str(uuid4()))
    with pytest.raises(KubeConflict):
        await kube.delete(WORKS, namespace, "a", resource_version=version)
    assert await kube.find(WORKS, namespace, "a") is not None

    await kube.delete(WORKS, namespace, "a", uid=uid)
    assert await kube.find(WORKS, namespace, "a") is None


async def test_a_watch_tells_what_happened_since_the_list(kube: KubeClient, namespace: str) -> None:
    _, version = await kube.list(CONFIG_MAPS, namespace)
    await kube.create(CONFIG_MAPS, namespace, a_config_map("a"))
    await kube.merge_patch(CONFIG_MAPS, namespace, "a", {"data": {"colour": "red"}})
    await kube.delete(CONFIG_MAPS, namespace, "a")

    seen = []
    async with aclosing(kube.watch(CONFIG_MAPS, namespace, resource_version=version)) as events:
        async for kind, manifest in events:
            seen.append((kind, manifest["metadata"]["name"]))
            if kind == "DELETED":
                break

    assert seen == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_a_watch_carries_objects_of_more_than_a_network_buffer(
    kube: KubeClient, namespace: str
) -> None:
    _, version = await kube.list(CONFIG_MAPS, namespace)
    await kube.create(CONFIG_MAPS, namespace, a_config_map("big", text="x" * 900_000))

    async with aclosing(kube.watch(CONFIG_MAPS, namespace, resource_version=version)) as events:
        _, manifest = await anext(events)

    assert len(manifest["data"]["text"]) == 900_000


async def test_an_object_nested_beyond_reason_does_not_stand_in_the_way(
    kube: KubeClient, namespace: str, control_plane: ControlPlane
) -> None:
    _, version = await kube.list(TASK_RUNS, namespace)
    manifest = {"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {"name": "deep"}}
    text = json.dumps(manifest | {"spec": {"deep": "@", "short": "s"}})
    config = KubeConfig.load(control_plane.kubeconfig)
    token = await config.credentials.token()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    # The client itself could not write it.
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=config.tls or False), raise_for_status=True
        ) as session,
        session.post(
            config.server + TASK_RUNS.path(namespace),
            data=text.replace('"@"', "[" * 9000 + "]" * 9000),
            headers=headers,
        ),
    ):
        pass

    async with aclosing(kube.watch(TASK_RUNS, namespace, resource_version=version)) as events:
        _, watched = await anext(events)
    [listed], _ = await kube.list(TASK_RUNS, namespace)
    read = await kube.get(TASK_RUNS, namespace, "deep")

    assert [each["spec"]["short"] for each in (watched, listed, read)] == ["s"] * 3


async def test_a_log_is_read_to_its_end_however_long_it_takes_to_come() -> None:
    said = "\n".join(map(str, range(200_000))).encode()

    async def answer(request: web.Request) -> web.Response:
        assert request.query["container"] == "step"
        return web.Response(body=said)

    app, port = web.Application(), free_port()
    app.router.add_get("/api/v1/namespaces/ns/pods/pod/log", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with KubeClient(KubeConfig(server=f"http://127.0.0.1:{port}")) as kube:
            whole = await kube.read_log("ns", "pod", "step", lines=100, max_bytes=2**21)
            part = await kube.read_log("ns", "pod", "step", lines=100, max_bytes=2**20)
    finally:
        await runner.cleanup()

    assert whole.encode() == said
    assert part.encode() == said[: 2**20]


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7), ("999999999", 60), ("9" * 30, None), ("soon", None)]
)
async def test_no_server_is_left_alone_for_longer_than_can_be_borne(
    said: str, seconds: float | None
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": said})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with served(app) as url, KubeClient(KubeConfig(server=url)) as kube:
        with pytest.raises(KubeUnavailable) as caught:
            await kube.get(CONFIG_MAPS, "ns", "any")

    expected = None if seconds is None else timedelta(seconds=seconds)
    assert caught.value.retry_after == expected


async def test_a_watch_from_a_forgotten_version_has_expired(
    kube: KubeClient, namespace: str
) -> None:
    with pytest.raises(KubeExpired):
        async with aclosing(kube.watch(WORKS, namespace, resource_version="1")) as events:
            await anext(events)


async def test_credentials_reach_as_far_as_their_role(
    kube: KubeClient, namespace: str, control_plane: ControlPlane
) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}}
    rbac = "rbac.authorization.k8s.io"
    role = {
        "apiVersion": f"{rbac}/v1",
        "kind": "Role",
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}],
    }
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
    }
    await kube.create(SERVICE_ACCOUNTS, namespace, account)
    await kube.create(ROLES, namespace, role)
    await kube.create(ROLE_BINDINGS, namespace, binding)
    token = await kube.create_token(namespace, "reader", lifetime=timedelta(hours=1))

    config = KubeConfig.load(control_plane.kubeconfig)
    reading = replace(config, credentials=FixedToken(token))
    async with KubeClient(reading) as reader:
        assert await reader.find(CONFIG_MAPS, namespace, "a") is None
        with pytest.raises(KubeForbidden, match="secrets"):
            await reader.list(SECRETS, namespace)
        with pytest.raises(KubeForbidden):
            await reader.list(CONFIG_MAPS, "default")


async def test_an_account_that_is_not_there_gets_no_token(kube: KubeClient, namespace: str) -> None:
    with pytest.raises(KubeNotFound, match="nobody"):
        await kube.create_token(namespace, "nobody", lifetime=timedelta(hours=1))


async def test_a_wrong_token_is_forbidden(control_plane: ControlPlane, namespace: str) -> None:
    config = KubeConfig.load(control_plane.kubeconfig)
    async with KubeClient(replace(config, credentials=FixedToken("wrong"))) as stranger:
        with pytest.raises(KubeForbidden):
            await stranger.list(CONFIG_MAPS, namespace)


class Renewed:
    """Credentials whose first token has been revoked."""

    def __init__(self, good: str | None) -> None:
        self._tokens = ["revoked", good]

    async def token(self) -> str | None:
        return self._tokens[0]

    def forget(self) -> None:
        del self._tokens[0]


async def test_a_refused_token_is_asked_for_again(
    control_plane: ControlPlane, namespace: str
) -> None:
    config = KubeConfig.load(control_plane.kubeconfig)
    renewed = Renewed(await config.credentials.token())
    async with KubeClient(replace(config, credentials=renewed)) as client:
        items, _ = await client.list(CONFIG_MAPS, namespace)

    assert isinstance(items, list)


async def test_a_server_that_is_away_is_unavailable() -> None:
    async with KubeClient(KubeConfig(server=f"http://127.0.0.1:{free_port()}")) as kube:
        with pytest.raises(KubeUnavailable):
            await kube.get(CONFIG_MAPS, "default", "a")
        assert not await kube.is_ready()

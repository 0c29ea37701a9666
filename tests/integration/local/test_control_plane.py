import asyncio
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from brokkr.agent.kinds import (
    CONFIG_MAPS,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    WORKS,
    Resource,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.local.control_plane import ControlPlane, control_plane
from support.signals import eventually

PARENT = """
import asyncio, sys
from pathlib import Path
from brokkr.local.control_plane import control_plane

async def main():
    async with control_plane(Path(sys.argv[1]), print) as plane:
        print("ready", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def is_gone(kube: KubeClient, resource: Resource, namespace: str | None, name: str) -> bool:
    return await kube.find(resource, namespace, name) is None


def a_config_map(name: str, *, owner: dict[str, Any] | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
            }
        ]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def a_work(name: str) -> dict[str, Any]:
    template = {"apiVersion": "v1", "kind": "ConfigMap", "data": {f"k{n}": "v" for n in range(20)}}
    spec = {"workType": "build", "maxRetries": 0, "claimTimeout": 60, "template": template}
    return {
        "apiVersion": "brokkr.io/v1alpha1",
        "kind": "Work",
        "metadata": {"name": name, "labels": {f"l{n}": "v" for n in range(10)}},
        "spec": spec,
    }


@pytest.mark.parametrize(
    ("resource", "owner"),
    [(CONFIG_MAPS, a_config_map("owner")), (WORKS, a_work("owner"))],
    ids=["ConfigMap", "Work"],
)
async def test_what_a_deleted_object_owned_is_collected(
    kube: KubeClient, namespace: str, resource: Resource, owner: dict[str, Any]
) -> None:
    made = await kube.create(resource, namespace, owner)
    await kube.create(CONFIG_MAPS, namespace, a_config_map("owned", owner=made))

    await kube.delete(resource, namespace, "owner")

    await eventually(lambda: is_gone(kube, CONFIG_MAPS, namespace, "owned"))


async def test_a_deleted_namespace_goes_with_all_that_is_in_it(
    kube: KubeClient, namespace: str
) -> None:
    await kube.create(CONFIG_MAPS, namespace, a_config_map("a"))
    await kube.create(WORKS, namespace, a_work("a"))

    await kube.delete(NAMESPACES, None, namespace)

    await eventually(lambda: is_gone(kube, NAMESPACES, None, namespace))


async def test_a_namespace_has_its_default_service_account(
    kube: KubeClient, namespace: str
) -> None:
    async def has_one() -> bool:
        return await kube.find(SERVICE_ACCOUNTS, namespace, "default") is not None

    await eventually(has_one)


async def test_many_custom_resources_at_once_are_served(kube: KubeClient, namespace: str) -> None:
    """A server compiled with a newer Go than it was written for may crash here."""
    names = [f"work-{n}" for n in range(200)]
    await asyncio.gather(*(kube.create(WORKS, namespace, a_work(name)) for name in names))

    items, _ = await kube.list(WORKS, namespace)

    assert {item["metadata"]["name"] for item in items} == set(names)


def test_it_listens_on_loopback_alone(control_plane: ControlPlane) -> None:
    loopback = "0100007F"
    port = int(control_plane.url.rpartition(":")[2])

    assert control_plane.url == f"https://127.0.0.1:{port}"
    assert _listening(_processes_in(control_plane.kubeconfig.parent)) == {f"{loopback}:{port:04X}"}


def test_its_kubeconfig_and_key_are_for_their_owner_only(control_plane: ControlPlane) -> None:
    files = (control_plane.kubeconfig, control_plane.kubelet_identity)

    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 2


async def test_a_killed_one_leaves_nothing_running_and_can_be_continued(tmp_path: Path) -> None:
    folder = tmp_path / "plane"
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, folder), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"ready\n"
    async with KubeClient(KubeConfig.load(folder / "kubeconfig")) as kube:
        await kube.create(CONFIG_MAPS, "default", a_config_map("kept"))
    assert len(_processes_in(folder)) == 3

    parent.kill()
    await parent.wait()

    async def nothing_runs() -> bool:
        return not _processes_in(folder)

    await eventually(nothing_runs)
    async with (
        control_plane(folder, print) as plane,
        KubeClient(KubeConfig.load(plane.kubeconfig)) as kube,
    ):
        assert await kube.find(CONFIG_MAPS, "default", "kept") is not None


def _listening(processes: list[int]) -> set[str]:
    """Return the TCP addresses on which these processes listen, as the kernel prints them."""
    sockets = set()
    for pid in processes:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                sockets.add(str(descriptor.readlink()))
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1])
    return found


def _processes_in(folder: Path) -> list[int]:
    """Return the processes whose working folder this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
    return found

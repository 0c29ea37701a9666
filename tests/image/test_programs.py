"""
Broker and agent, from the image.

All of it is run without a network of its own, as the image's user, without privileges, on a
root file system that is read-only but for /tmp.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import yaml

from brokkr import __version__
from brokkr.agent.kube.client import KubeClient
from brokkr.broker.db.keys import create_admin_key
from brokkr.client import BrokerClient
from brokkr.local.process import Server, free_port
from brokkr.wire.bodies import RegisterAgent, SubmitWork, TargetBody, WorkBody, WorkState
from support.factories import a_build_template
from support.image import UnpackedImage
from support.relay import relayed
from support.shipwright import PlayedShipwright, success
from support.signals import eventually

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]

READY_WITHIN = timedelta(seconds=60)
PYTHON = ("/opt/brokkr/bin/python", "-")

WHO_AND_WHERE = """
import os, pathlib
status = pathlib.Path("/proc/self/status").read_text().splitlines()
print(os.getuid(), os.getgid(), os.getgroups(), os.getcwd())
print([line.split()[1] for line in status if line.startswith(("CapEff", "CapPrm"))])
print([line.split()[1] for line in status if line.startswith("NoNewPrivs")])
pathlib.Path("/tmp/file").write_text("")
for folder in ("/", "/etc/brokkr", "/opt/brokkr", "/var/lib/brokkr"):
    try:
        pathlib.Path(folder, "file").write_text("")
    except OSError as error:
        print(folder, error.strerror)
"""

LOAD_EVERYTHING = """
import importlib, pathlib, pkgutil, sys, sysconfig, brokkr
def load(name):
    try:
        importlib.import_module(name)
    except Exception as error:
        print(name, repr(error))
for folder in map(pathlib.Path, (sysconfig.get_path("platlib"), "/usr/lib/python3.11/lib-dynload")):
    found = sorted(folder.rglob("*.so"))
    assert found
    for each in found:
        name = ".".join(each.relative_to(folder).parts).split(".cpython-")[0]
        load(name.removesuffix(".abi3.so").removesuffix(".so"))
for each in pkgutil.walk_packages(brokkr.__path__, "brokkr."):
    if not each.name.endswith("__main__"):
        load(each.name)
"""

CHECK_TRUST = """
import ssl
print(len(ssl.create_default_context().get_ca_certs()) > 100)
"""


@pytest.fixture
async def played_namespace(kube: KubeClient, namespace: str) -> AsyncIterator[str]:
    """The test's namespace, in which Shipwright is played and lets each build succeed."""
    playing = asyncio.create_task(PlayedShipwright(kube, namespace, success).run())
    yield namespace
    playing.cancel()


async def test_it_runs_as_nobody_special_and_can_write_to_tmp_alone(image: UnpackedImage) -> None:
    done = await image.run(entrypoint=PYTHON, stdin=WHO_AND_WHERE)

    assert done.out.splitlines() == [
        "10001 10001 [] /etc/brokkr",
        "['0000000000000000', '0000000000000000']",
        "['1']",
        *(
            f"{folder} Read-only file system"
            for folder in ("/", "/etc/brokkr", "/opt/brokkr", "/var/lib/brokkr")
        ),
    ], done.err


async def test_every_module_finds_what_it_needs(image: UnpackedImage) -> None:
    done = await image.run(entrypoint=PYTHON, stdin=LOAD_EVERYTHING)

    assert (done.out, done.code) == ("", 0), done.err


async def test_public_certificates_are_trusted(image: UnpackedImage) -> None:
    assert (await image.run(entrypoint=PYTHON, stdin=CHECK_TRUST)).out == "True\n"


async def test_it_says_its_version_and_what_it_can(image: UnpackedImage) -> None:
    version, help_ = await image.run("--version"), await image.run("--help")

    assert version.out.split()[-1] == __version__, version.err
    assert {"broker", "agent", "work"} <= set(help_.out.split()), help_.err


async def test_it_prints_the_definition_of_the_work_resource(image: UnpackedImage) -> None:
    done = await image.run("agent", "crd")

    assert yaml.safe_load(done.out)["metadata"]["name"] == "works.brokkr.io", done.err


async def test_a_work_goes_through_broker_and_agent_and_both_end_when_told(
    image: UnpackedImage,
    tmp_path: Path,
    database_url: str,
    agent_kubeconfig: Path,
    played_namespace: str,
) -> None:
    port, health_port = free_port(), free_port()
    url, agent_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{health_port}"
    admin_key = await create_admin_key(database_url)
    async with (
        relayed(database_url) as database,
        image.running(
            *("broker", "serve"),
            log=tmp_path / "broker.log",
            settings={"DATABASE__URL": database.url, "BROKER__PORT": str(port)},
        ) as broker,
        BrokerClient(url, admin_key) as admin,
    ):
        await broker.until_ready(partial(is_ready, url), within=READY_WITHIN)
        registered = await admin.register_agent(RegisterAgent(name="edge", labels={"a": "b"}))
        async with image.running(
            *("agent", "run"),
            log=tmp_path / "agent.log",
            settings={
                "AGENT__BROKER_URL": url,
                "AGENT__KEY": registered.key,
                "AGENT__KUBECONFIG": "/tmp/cluster/kubeconfig",
                "AGENT__WORK_CRD__NAMESPACE": played_namespace,
                "AGENT__HEALTH__PORT": str(health_port),
            },
            mounts={readable_by_all(agent_kubeconfig, tmp_path / "cluster"): "/tmp/cluster"},
        ) as agent:
            await agent.until_ready(partial(is_ready, agent_url), within=READY_WITHIN)
            work = await admin.submit_work(a_submission())
            ended = await eventually(partial(find_finished, admin, work), within=60)
            agent_code = await told_to_stop(agent)
        broker_code = await told_to_stop(broker)

    assert (ended.status, ended.agent) == (WorkState.SUCCEEDED, "edge")
    assert (agent_code, broker_code) == (0, 0)


def a_submission() -> SubmitWork:
    return SubmitWork(
        work_type="build", template=a_build_template(), target=TargetBody(match_labels={"a": "b"})
    )


async def find_finished(admin: BrokerClient, work: WorkBody) -> WorkBody | None:
    found = await admin.get_work(work.id)
    return found if found.status.is_finished else None


async def is_ready(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as got:
            return got.status == 200
    except aiohttp.ClientError:
        return False


async def told_to_stop(server: Server) -> int:
    """Say to a server what Kubernetes says, and return the code that it ends with."""
    os.kill(server.pid, signal.SIGTERM)
    async with asyncio.timeout(20):
        return await server.wait()


def readable_by_all(kubeconfig: Path, folder: Path) -> Path:
    """Copy a kubeconfig and what it names into a folder, for /tmp/cluster of the image."""
    folder.mkdir()
    document = yaml.safe_load(kubeconfig.read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    for entry, name in ((cluster, "certificate-authority"), (user, "tokenFile")):
        if name in entry:
            copy = folder / name
            copy.write_bytes(Path(entry[name]).read_bytes())
            entry[name] = f"/tmp/cluster/{name}"
    (folder / "kubeconfig").write_text(yaml.safe_dump(document))
    for each in folder.iterdir():
        each.chmod(0o644)
    return folder

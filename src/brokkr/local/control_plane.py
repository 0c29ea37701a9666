"""
A Kubernetes API on this machine: etcd, kube-apiserver and kube-controller-manager.

Nothing that would run pods: objects, watches, RBAC, service-account tokens, garbage
collection and the deletion of namespaces are the real thing.  It listens on 127.0.0.1 alone,
and etcd on a socket in its own folder.
"""

# Note [What runs with 1.20 and with today's Kubernetes]
#
# The flags are those that both know.  The one exception is `--port=0`, which old
# controller managers need so that they do not listen in the clear on all addresses, and
# which new ones refuse; its help text says which kind it is.
#
# The API server makes its certificate and key itself.  The key signs the service-account
# tokens as well, and the certificate file ends in its issuer's, so it is the CA too.  All
# are made anew at each start: a predecessor killed half-way through leaves a certificate
# without its key, which the API server would refuse for ever.
#
# What a kubelet and the API server show each other is another pair, of which both have a
# copy, because the API server's own may not be used by a client.

import asyncio
import base64
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import yaml

from brokkr.agent.kinds import CONFIG_MAPS, CRDS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeError
from brokkr.local.binaries import KubernetesPrograms, ensure_programs, kubernetes_programs
from brokkr.local.folder import write_private
from brokkr.local.process import ServerFailed, free_port, is_listening, running
from brokkr.work.model import Manifest

# etcd insists on the form host:port; the socket is the file of this name in its folder.
# A relative name also stays below the 107 bytes that a socket's path may have.
_SOCKET: Final = "etcd:1"
_PEER_SOCKET: Final = "peer:1"

_KUBELET_IDENTITY: Final = "kubelet.pem"
_PORT_TRIES: Final = 3
_GARBAGE: Final = "brokkr-garbage-collection-check"
_POLL_SECONDS: Final = 0.05
_READY_WITHIN: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """A running one.

    Attributes:
        kubeconfig: A file that makes its reader the administrator.
        url: Where the API server listens.
        kubelet_identity: A certificate and its key, in one file.  Who serves with it on
            127.0.0.1 is a kubelet to the API server, which shows the same one.
    """

    kubeconfig: Path
    url: str
    kubelet_identity: Path


@asynccontextmanager
async def control_plane(
    folder: Path, say: Callable[[str], None], *, crds: Iterable[Manifest] = ()
) -> AsyncIterator[ControlPlane]:
    """
    Run a control plane for the length of the block.

    Args:
        folder: For its data, which a later run continues with, its logs and its kubeconfig.
        say: Told about what takes long, such as compiling Kubernetes the first time.
        crds: Applied before the block begins.  The garbage collector knows their kinds at
            once; those that are added later it notices within half a minute.

    Raises:
        ProgramsMissing: The programs are not here, and cannot be had.
        ServerFailed: One of them does not start.
    """
    programs = await kubernetes_programs(say)
    openssl = (await ensure_programs({"openssl"}, say))["openssl"]
    _prepare(folder)
    await _make_kubelet_identity(openssl, folder / _KUBELET_IDENTITY)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            running(
                "etcd",
                _etcd(programs),
                log=folder / "etcd.log",
                cwd=folder,
                is_ready=partial(asyncio.to_thread, (folder / _SOCKET).exists),
            )
        )
        plane = await _api_server(stack, programs, folder)
        async with KubeClient(KubeConfig.load(plane.kubeconfig)) as kube:
            await _establish(kube, crds)
            manager = await stack.enter_async_context(
                running(
                    "kube-controller-manager",
                    await _controller_manager(programs, plane),
                    log=folder / "kube-controller-manager.log",
                    cwd=folder,
                )
            )
            await _leave_garbage(kube)

            async def collects() -> bool:
                return await kube.find(CONFIG_MAPS, "default", _GARBAGE) is None

            await manager.until_ready(collects, within=_READY_WITHIN)
        yield plane


def _prepare(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for leftover in (_SOCKET, _PEER_SOCKET):
        (folder / leftover).unlink(missing_ok=True)


async def _make_kubelet_identity(openssl: Path, path: Path) -> None:
    """Make a certificate that signs itself, is a server's and a client's, and its key."""
    write_private(path, "")
    process = await asyncio.create_subprocess_exec(
        *(openssl, "req", "-x509", "-nodes", "-days", "365", "-subj", "/CN=brokkr-local-kubelet"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-addext", "subjectAltName=IP:127.0.0.1"),
        *("-addext", "extendedKeyUsage=serverAuth,clientAuth"),
        *("-keyout", path, "-out", path),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"openssl req ended with {process.returncode}: {errors.decode()}")


def _etcd(programs: KubernetesPrograms) -> list[str | Path]:
    return [
        programs.etcd,
        "--data-dir=etcd",
        "--unsafe-no-fsync",
        f"--listen-client-urls=unix://{_SOCKET}",
        f"--advertise-client-urls=unix://{_SOCKET}",
        f"--listen-peer-urls=unix://{_PEER_SOCKET}",
        "--logger=zap",
    ]


async def _api_server(
    stack: AsyncExitStack, programs: KubernetesPrograms, folder: Path
) -> ControlPlane:
    """Start it on a free port; on another one if somebody else was faster."""
    for tries_left in reversed(range(_PORT_TRIES)):
        shutil.rmtree(folder / "pki", ignore_errors=True)
        token, port = secrets.token_urlsafe(32), free_port()
        plane = ControlPlane(
            kubeconfig=folder / "kubeconfig",
            url=f"https://127.0.0.1:{port}",
            kubelet_identity=folder / _KUBELET_IDENTITY,
        )
        write_private(folder / "tokens.csv", f"{token},admin,admin,system:masters\n")

        async def is_ready(
            plane: ControlPlane = plane, token: str = token, port: int = port
        ) -> bool:
            with suppress(FileNotFoundError, KubeError):  # the certificate is on its way
                _write_kubeconfig(plane, folder / "pki" / "apiserver.crt", token)
                if await is_listening(port):
                    async with KubeClient(KubeConfig.load(plane.kubeconfig)) as kube:
                        return await kube.is_ready()
            return False

        try:
            await stack.enter_async_context(
                running(
                    "kube-apiserver",
                    _api_server_command(programs, port),
                    log=folder / "kube-apiserver.log",
                    cwd=folder,
                    is_ready=is_ready,
                    within=_READY_WITHIN,
                )
            )
        except ServerFailed as error:
            if "address already in use" not in error.tail or not tries_left:
                raise
        else:
            return plane
    raise AssertionError("unreachable")


def _api_server_command(programs: KubernetesPrograms, port: int) -> list[str | Path]:
    return [
        programs.api_server,
        f"--etcd-servers=unix://{_SOCKET}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--advertise-address=127.0.0.1",
        # There is no second API server, and a loopback address cannot be an endpoint.
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--cert-dir=pki",
        "--authorization-mode=RBAC",
        "--token-auth-file=tokens.csv",
        "--service-account-issuer=https://brokkr.local",
        "--service-account-key-file=pki/apiserver.key",
        "--service-account-signing-key-file=pki/apiserver.key",
        f"--kubelet-certificate-authority={_KUBELET_IDENTITY}",
        f"--kubelet-client-certificate={_KUBELET_IDENTITY}",
        f"--kubelet-client-key={_KUBELET_IDENTITY}",
    ]


async def _controller_manager(
    programs: KubernetesPrograms, plane: ControlPlane
) -> list[str | Path]:
    command: list[str | Path] = [
        programs.controller_manager,
        f"--kubeconfig={plane.kubeconfig.resolve()}",
        "--controllers=garbagecollector,namespace,serviceaccount",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=500",
        "--kube-api-burst=500",
    ]
    helping = await asyncio.create_subprocess_exec(
        programs.controller_manager, "--help", stdout=asyncio.subprocess.PIPE
    )
    text, _ = await helping.communicate()
    if b" --port int " in text:
        command.append("--port=0")
    return command


async def _establish(kube: KubeClient, crds: Iterable[Manifest]) -> None:
    """Apply definitions, and wait until the server serves what they define."""
    names = [(await kube.apply(CRDS, None, each))["metadata"]["name"] for each in crds]
    async with asyncio.timeout(_READY_WITHIN.total_seconds()):
        for name in names:
            while not _is_established(await kube.get(CRDS, None, name)):  # noqa: ASYNC110  # another process
                await asyncio.sleep(_POLL_SECONDS)


def _is_established(crd: Manifest) -> bool:
    conditions = crd.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


async def _leave_garbage(kube: KubeClient) -> None:
    """Create an object whose owner does not exist."""
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": str(uuid4())}
    metadata = {"name": _GARBAGE, "ownerReferences": [owner]}
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    await kube.apply(CONFIG_MAPS, "default", manifest)


def _write_kubeconfig(plane: ControlPlane, authority: Path, token: str) -> None:
    """Write it as one that stands alone: no paths in it."""
    data = base64.b64encode(authority.read_bytes()).decode()
    cluster = {"server": plane.url, "certificate-authority-data": data}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "admin"}}],
        "current-context": "local",
    }
    write_private(plane.kubeconfig, yaml.safe_dump(document, sort_keys=False))

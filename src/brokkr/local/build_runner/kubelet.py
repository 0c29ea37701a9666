"""
As little of a kubelet as it takes for ``kubectl logs``: a Node, and a server behind it.

The API server relays a request for the logs of a Pod to the Node that the Pod is bound to.
Each side shows the certificate of the same key pair, and trusts nothing else: whoever has
the key is the control plane or a runner of it.  It listens on 127.0.0.1 alone.
"""

import hashlib
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from brokkr.agent.kinds import Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.local.build_runner.steps import log_of
from brokkr.work.model import Manifest

NODES: Final = Resource("", "v1", "Node", "nodes", namespaced=False)

_LOGS: web.AppKey[Path] = web.AppKey("logs", Path)
# A name as Kubernetes makes them; none of them leads out of a folder.
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def node_name(folder: Path) -> str:
    """Name the Node of the runner that works in this folder, as its successor will, too."""
    digest = hashlib.sha256(str(folder).encode()).hexdigest()
    return f"local-build-runner-{digest[:8]}"


def logs_folder(folder: Path, namespace: str, pod: str) -> Path:
    """Return where the logs of a Pod are."""
    return folder / namespace / pod


@asynccontextmanager
async def serving_logs(logs: Path, identity: Path) -> AsyncIterator[int]:
    """
    Serve the logs for the length of the block, which is given the port.

    Args:
        logs: The folder of :func:`logs_folder`.
        identity: A file with the key pair that both sides use, certificate and key.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(identity)
    tls.load_verify_locations(identity)
    tls.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app[_LOGS] = logs
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", _serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        _, port, *_ = runner.addresses[0]
        yield port
    finally:
        await runner.cleanup()


async def register_node(kube: KubeClient, name: str, *, port: int, note: Manifest) -> None:
    """Tell the API server where the logs of this Node's Pods are; `note` says what it is."""
    node = {
        "apiVersion": NODES.api_version,
        "kind": NODES.kind,
        "metadata": {"name": name, "annotations": note},
        # For nobody's Pods but the runner's.
        "spec": {"unschedulable": True},
    }
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    registered = await kube.apply(NODES, None, node)
    await kube.replace_status(NODES, None, {**registered, "status": status})


async def _serve(request: web.Request) -> web.Response:
    names = [request.match_info[part] for part in ("namespace", "pod", "container")]
    if not all(_NAME.fullmatch(name) for name in names):
        raise web.HTTPNotFound
    namespace, pod, container = names
    try:
        log = log_of(logs_folder(request.app[_LOGS], namespace, pod), container).read_bytes()
    except FileNotFoundError:
        raise web.HTTPNotFound(text=f"no log of {container} of {pod}") from None
    # The API server has checked that these are numbers.
    if lines := request.query.get("tailLines"):
        log = b"".join(log.splitlines(keepends=True)[-int(lines) or len(log) :])
    if limit := request.query.get("limitBytes"):
        log = log[: int(limit)]
    return web.Response(body=log, content_type="text/plain")

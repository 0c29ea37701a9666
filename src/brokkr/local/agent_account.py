"""
The agent's own account in a cluster: its permissions, and a kubeconfig that has no others.

An administrator's kubeconfig makes it.  The agent gets one that names the same cluster and
a file with a token of the agent's ServiceAccount, which is renewed here.
"""

# Note [Tokens are asked for, and renewed]
#
# A token comes from the TokenRequest API, which Kubernetes 1.20 and today's have alike.  The
# other way is a Secret that a controller fills with a token.  It never expires, so it would
# stay behind in somebody's cluster as a key for good; since 1.24 nobody makes it by default.
#
# A requested token expires.  A day is asked for, so that a machine may sleep for a night; a
# server may be set to give less, though never less than an hour.  A new one every ten
# minutes is early enough for both, and the agent reads the file again each minute.

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from brokkr.agent.kinds import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CRDS,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeError, KubeForbidden
from brokkr.agent.kube.permissions import (
    AGENT_NAMESPACE,
    SERVICE_ACCOUNT,
    WORK_NAMESPACE,
    render_permissions,
)
from brokkr.local.folder import write_private
from brokkr.work.model import Manifest

_LIFETIME: Final = timedelta(days=1)
_RENEW_EVERY: Final = timedelta(minutes=10)
_IN_FORCE_WITHIN: Final = timedelta(seconds=60)
_POLL_SECONDS: Final = 0.02
_GRANTED: Final = {
    each.kind: each
    for each in (
        *(NAMESPACES, SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS),
        *(CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS),
    )
}


@asynccontextmanager
async def agent_kubeconfig(
    admin: Path,
    folder: Path,
    *,
    say: Callable[[str], None],
    namespace: str = WORK_NAMESPACE,
    agent_namespace: str = AGENT_NAMESPACE,
    permissions: Sequence[Manifest] | None = None,
    renew_every: timedelta = _RENEW_EVERY,
) -> AsyncIterator[Path]:
    """
    Give an agent its permissions, and a kubeconfig that is good for the length of the block.

    Args:
        admin: A kubeconfig of somebody who may grant them.
        folder: For the kubeconfig and its token; made if it is not there.
        say: Told when the token cannot be renewed.
        namespace: Where Work is run; it exists.
        agent_namespace: Where the ServiceAccount is; made if it is not there.
        permissions: What is applied, the ServiceAccount included; if not given, what
            :func:`render_permissions` says.

    Raises:
        KubeError: The administrator is none, or the API server is away.
    """
    token, kubeconfig = _prepare(folder)
    async with KubeClient(KubeConfig.load(admin)) as kube:
        if permissions is None:
            permissions = render_permissions(namespace=namespace, agent_namespace=agent_namespace)
        await _grant(kube, agent_namespace, permissions)
        await _renew(kube, agent_namespace, token)
        write_private(kubeconfig, yaml.safe_dump(_with_token(admin, token), sort_keys=False))
        await _until_in_force(kubeconfig, namespace)
        renewing = asyncio.create_task(
            _keep_renewing(kube, agent_namespace, token, every=renew_every, say=say)
        )
        try:
            yield kubeconfig
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])


def _prepare(folder: Path) -> tuple[Path, Path]:
    """Make the folder; return where token and kubeconfig go."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder.resolve() / "token", folder / "kubeconfig"


async def _grant(kube: KubeClient, agent_namespace: str, permissions: Sequence[Manifest]) -> None:
    home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": agent_namespace}}
    for each in (home, *permissions):
        await kube.apply(_GRANTED[each["kind"]], each["metadata"].get("namespace"), each)


async def _renew(kube: KubeClient, agent_namespace: str, token: Path) -> None:
    write_private(
        token, await kube.create_token(agent_namespace, SERVICE_ACCOUNT, lifetime=_LIFETIME)
    )


async def _keep_renewing(
    kube: KubeClient,
    agent_namespace: str,
    token: Path,
    *,
    every: timedelta,
    say: Callable[[str], None],
) -> None:
    while True:
        await asyncio.sleep(every.total_seconds())
        try:
            await _renew(kube, agent_namespace, token)
        except KubeError as error:
            say(f"the agent's token could not be renewed: {error}")


def _with_token(admin: Path, token: Path) -> dict[str, Any]:
    """Return a kubeconfig of the same cluster, with a file's token instead of the user."""
    document = yaml.safe_load(admin.read_text())
    context = _entry(document, "contexts", document["current-context"])["context"]
    cluster = dict(_entry(document, "clusters", context["cluster"])["cluster"])
    if authority := cluster.get("certificate-authority"):
        # A relative path begins at the folder of the file that it stands in.
        cluster["certificate-authority"] = str((admin.parent / authority).resolve())
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "brokkr-agent", "user": {"tokenFile": str(token)}}],
        "contexts": [
            {"name": "brokkr-agent", "context": {"cluster": "cluster", "user": "brokkr-agent"}}
        ],
        "current-context": "brokkr-agent",
    }


def _entry(document: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in document[section] if each["name"] == name)
    return found


async def _until_in_force(kubeconfig: Path, namespace: str) -> None:
    """Wait until the API server has heard of both bindings, which it does a moment later."""
    async with (
        asyncio.timeout(_IN_FORCE_WITHIN.total_seconds()),
        KubeClient(KubeConfig.load(kubeconfig)) as agent,
    ):
        while True:
            try:
                await agent.find(NAMESPACES, None, namespace)
                await agent.find(CRDS, None, "works.brokkr.io")
            except KubeForbidden:
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return

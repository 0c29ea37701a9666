"""
Which kinds of objects a work type may be given beside the built-in ones.

A kind is written as ``apiVersion``, a blank, and ``kind``: ``batch/v1 Job``, ``v1 ConfigMap``.
What could reach beyond its namespace, or hand out rights, is refused whoever asks for it.
"""

# Note [Kinds that no type may bring]
#
# A template comes from somebody who may submit, and is applied with the agent's rights.  So
# no configuration makes room for what gives rights (roles, service accounts and their
# tokens, webhooks), for secrets, for what belongs to the whole cluster, or for the Work
# resources that the agent trusts as its journal.  Which kinds are cluster-scoped only a
# cluster can say; the known ones stand here, and by convention the name of a custom one
# that has a namespaced twin begins with "Cluster".

import re
from types import MappingProxyType
from typing import Final

_API_VERSION: Final = re.compile(
    r"([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*/)?"
    r"v[0-9]+((alpha|beta)[0-9]+)?"
)
_KIND: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
_CLUSTER: Final = re.compile(r"Cluster[A-Z]")

_RIGHTS: Final = "it hands out rights"
_CLUSTER_WIDE: Final = "it belongs to the whole cluster"
_TRUSTED: Final = "the agent trusts what is written there"

_REFUSED_GROUPS: Final = MappingProxyType(
    {
        "admissionregistration.k8s.io": _CLUSTER_WIDE,
        "apiextensions.k8s.io": _CLUSTER_WIDE,
        "apiregistration.k8s.io": _CLUSTER_WIDE,
        "authentication.k8s.io": _RIGHTS,
        "authorization.k8s.io": _RIGHTS,
        "brokkr.io": _TRUSTED,
        "certificates.k8s.io": _RIGHTS,
        "flowcontrol.apiserver.k8s.io": _CLUSTER_WIDE,
        "node.k8s.io": _CLUSTER_WIDE,
        "rbac.authorization.k8s.io": _RIGHTS,
        "scheduling.k8s.io": _CLUSTER_WIDE,
        "storage.k8s.io": _CLUSTER_WIDE,
    }
)
_REFUSED_KINDS: Final = MappingProxyType(
    {
        "APIService": _CLUSTER_WIDE,
        "Binding": _RIGHTS,
        "CustomResourceDefinition": _CLUSTER_WIDE,
        "IngressClass": _CLUSTER_WIDE,
        "List": "a List is unpacked, so its items are what has to be allowed",
        "Namespace": _CLUSTER_WIDE,
        "Node": _CLUSTER_WIDE,
        "PersistentVolume": _CLUSTER_WIDE,
        "PodSecurityPolicy": _CLUSTER_WIDE,
        "Secret": "secrets stay in the cluster, where work names them",
        "ServiceAccount": _RIGHTS,
    }
)
"""Refused in any group: some of them have stood in more than one."""


def parse_kind(text: str) -> tuple[str, str]:
    """
    Read a kind that somebody wants to allow.

    Returns:
        Its ``apiVersion`` and ``kind``.

    Raises:
        ValueError: Says what is wrong with it.
    """
    api_version, _, kind = text.partition(" ")
    if not (_API_VERSION.fullmatch(api_version) and _KIND.fullmatch(kind)):
        raise ValueError(f"{text!r} is not an apiVersion, a blank and a kind, as in 'batch/v1 Job'")
    group = api_version.rpartition("/")[0]
    refused = _REFUSED_KINDS.get(kind) or _refused_group(group)
    if refused is None and _CLUSTER.match(kind):
        refused = _CLUSTER_WIDE
    if refused is not None:
        raise ValueError(f"{text!r} is never allowed: {refused}")
    return api_version, kind


def _refused_group(group: str) -> str | None:
    if group.endswith(".brokkr.io"):
        return _TRUSTED
    return _REFUSED_GROUPS.get(group)

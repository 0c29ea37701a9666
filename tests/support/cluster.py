"""What there is in a whole cluster, whatever its kind and namespace."""

from brokkr.agent.kinds import Resource
from brokkr.agent.kube.client import KubeClient

Found = frozenset[tuple[str, str | None, str]]
"""Kind, namespace and name of each."""


async def everything(kube: KubeClient) -> Found:
    """List all objects of all kinds; events are left out, for they are only words."""
    found: set[tuple[str, str | None, str]] = set()
    for resource in await _kinds(kube):
        items, _ = await kube.list(resource, None)
        found |= {
            (resource.kind, each["metadata"].get("namespace"), each["metadata"]["name"])
            for each in items
        }
    return frozenset(found)


async def _kinds(kube: KubeClient) -> list[Resource]:
    groups = (await kube._json("GET", "/apis"))["groups"]
    versions = ["v1", *(each["preferredVersion"]["groupVersion"] for each in groups)]
    kinds = []
    for version in versions:
        base = "/api/v1" if version == "v1" else f"/apis/{version}"
        group, _, number = version.rpartition("/")
        kinds += [
            Resource(group, number, each["kind"], each["name"], namespaced=each["namespaced"])
            for each in (await kube._json("GET", base))["resources"]
            if "list" in each["verbs"] and "/" not in each["name"]
            if each["kind"] not in ("Event", "ComponentStatus")
        ]
    return kinds

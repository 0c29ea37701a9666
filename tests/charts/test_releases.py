"""Releases of the charts, by a real Helm on a real API server."""

import asyncio
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import helm_python
import pytest

from brokkr.agent.kinds import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CRDS,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    WORKS,
    Resource,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.local.control_plane import ControlPlane
from brokkr.work.model import Manifest
from support.charts import (
    AGENT,
    BROKER,
    Values,
    loaded,
    manifests_in,
    the_only,
    value_sets,
    with_value,
)
from support.signals import eventually

pytestmark = pytest.mark.kube

MONITORING: Final = "monitoring.coreos.com"
DEPLOYMENTS: Final = Resource("apps", "v1", "Deployment", "deployments")
OTHERS: Final = {
    "Deployment": DEPLOYMENTS,
    "Service": Resource("", "v1", "Service", "services"),
    "Ingress": Resource("networking.k8s.io", "v1", "Ingress", "ingresses"),
    "NetworkPolicy": Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    "PodDisruptionBudget": Resource(
        "policy", "v1beta1", "PodDisruptionBudget", "poddisruptionbudgets"
    ),
    "ServiceMonitor": Resource(MONITORING, "v1", "ServiceMonitor", "servicemonitors"),
    "PodMonitor": Resource(MONITORING, "v1", "PodMonitor", "podmonitors"),
}
RESOURCES: Final = OTHERS | {
    each.kind: each
    for each in (
        *(NAMESPACES, SERVICE_ACCOUNTS, SECRETS, CONFIG_MAPS),
        *(ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS),
    )
}

SETS: Final = [(chart, name) for chart in (BROKER, AGENT) for name in value_sets(chart)]


def named(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value)


class Helm:
    """Helm on the test's API server; its release is called like the test's namespace."""

    def __init__(self, config: helm_python.Config, namespace: str) -> None:
        self.config = config
        self.namespace = namespace
        self.work_namespace = f"{namespace}-work"

    def values(self, chart: Path, name: str) -> Values:
        values = value_sets(chart)[name]
        if chart == BROKER:
            return values
        return with_value(values, "work.namespace", self.work_namespace)

    async def render(self, chart: Path, name: str) -> list[Manifest]:
        release = await asyncio.to_thread(
            self.config.install,
            loaded(chart),
            self.namespace,
            self.values(chart, name),
            dry_run="server",
        )
        return manifests_in(release["manifest"])

    async def install(self, chart: Path, name: str) -> dict[str, Any]:
        return await asyncio.to_thread(
            self.config.install, loaded(chart), self.namespace, self.values(chart, name)
        )

    async def upgrade(self, chart: Path, name: str) -> dict[str, Any]:
        return await asyncio.to_thread(
            self.config.upgrade, loaded(chart), self.namespace, self.values(chart, name)
        )

    async def uninstall(self) -> None:
        await asyncio.to_thread(self.config.uninstall, self.namespace)


@pytest.fixture
async def helm(
    control_plane: ControlPlane, kube: KubeClient, namespace: str
) -> AsyncIterator[Helm]:
    for kind in ("ServiceMonitor", "PodMonitor"):
        await kube.apply(CRDS, None, a_stub_of(OTHERS[kind]))
    await eventually(lambda: serves_monitors(kube))
    with helm_python.Config(
        kubeconfig_path=control_plane.kubeconfig, namespace=namespace
    ) as config:
        yield Helm(config, namespace)


def a_stub_of(resource: Resource) -> Manifest:
    names = {"kind": resource.kind, "plural": resource.plural, "singular": resource.kind.lower()}
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
    }
    return {
        "apiVersion": CRDS.api_version,
        "kind": CRDS.kind,
        "metadata": {
            "name": f"{resource.plural}.{resource.group}",
            # The API server asks for it in groups of others.
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stub"},
        },
        "spec": {
            "group": resource.group,
            "names": names,
            "scope": "Namespaced",
            "versions": [version],
        },
    }


async def serves_monitors(kube: KubeClient) -> bool:
    plurals = ("servicemonitors", "podmonitors")
    return all([await kube.serves(MONITORING, "v1", each) for each in plurals])


async def apply(kube: KubeClient, manifest: Manifest, *, dry_run: bool) -> Manifest:
    resource, metadata = RESOURCES[manifest["kind"]], manifest["metadata"]
    assert manifest["apiVersion"] == resource.api_version
    if not dry_run:
        return await kube.apply(resource, metadata.get("namespace"), manifest)
    return await kube._json(
        "PATCH",
        resource.path(metadata.get("namespace"), metadata["name"]),
        params={"fieldManager": "test", "dryRun": "All"},
        body=manifest,
        content_type="application/apply-patch+yaml",
    )


async def find_all(kube: KubeClient, manifests: list[Manifest]) -> dict[str, Manifest | None]:
    """Return what the cluster has of these objects, by kind and name."""
    return {
        f"{each['kind']} {each['metadata']['name']}": await kube.find(
            RESOURCES[each["kind"]], each["metadata"].get("namespace"), each["metadata"]["name"]
        )
        for each in manifests
    }


def lost(asked: object, kept: object) -> bool:
    """Say whether something that was asked for is not in what the server has kept."""
    if isinstance(asked, dict):
        assert isinstance(kept, dict)
        return any(lost(value, kept.get(key)) for key, value in asked.items() if value != {})
    if isinstance(asked, list):
        assert isinstance(kept, list)
        return len(asked) != len(kept) or any(map(lost, asked, kept))
    return asked != kept


@pytest.mark.parametrize(("chart", "values"), SETS, ids=named)
async def test_the_api_server_takes_every_object_and_drops_no_field(
    chart: Path, values: str, helm: Helm, kube: KubeClient
) -> None:
    """A field that a kind does not know is dropped silently by older servers."""
    manifests = await helm.render(chart, values)
    home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": helm.work_namespace}}
    await kube.create(NAMESPACES, None, home)

    for manifest in manifests:
        tried = await apply(kube, manifest, dry_run=True)
        kept = await apply(kube, manifest, dry_run=False)
        assert not lost(manifest, tried)
        assert not lost(manifest, kept)


@pytest.mark.parametrize("chart", [BROKER, AGENT], ids=named)
async def test_a_release_can_be_installed_upgraded_uninstalled_and_installed_again(
    chart: Path, helm: Helm, kube: KubeClient
) -> None:
    installed = await helm.install(chart, "default")
    small = manifests_in(installed["manifest"])
    name = the_only(small, "Deployment")["metadata"]["name"]
    before = await kube.get(DEPLOYMENTS, helm.namespace, name)
    after_install = await find_all(kube, small)

    upgraded = await helm.upgrade(chart, "everything")
    large = manifests_in(upgraded["manifest"])
    after = await kube.get(DEPLOYMENTS, helm.namespace, name)
    after_upgrade = await find_all(kube, large)

    await helm.uninstall()
    after_uninstall = await find_all(kube, large)
    again = await helm.install(chart, "default")

    assert (installed["status"], upgraded["status"], again["status"]) == ("deployed",) * 3
    assert upgraded["revision"] == 2
    assert None not in after_install.values()
    assert None not in after_upgrade.values()
    assert len(after_upgrade) > len(after_install)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    # A program that reads its settings at the start is started again.
    assert after["spec"]["template"] != before["spec"]["template"]
    kept = {key for key, found in after_uninstall.items() if found is not None}
    assert kept == ({f"Namespace {helm.work_namespace}"} if chart == AGENT else set())


async def test_an_upgrade_that_changes_nothing_starts_no_pods_anew(
    helm: Helm, kube: KubeClient
) -> None:
    installed = await helm.install(BROKER, "secrets")
    name = the_only(manifests_in(installed["manifest"]), "Deployment")["metadata"]["name"]
    before = await kube.get(DEPLOYMENTS, helm.namespace, name)

    await helm.upgrade(BROKER, "secrets")

    after = await kube.get(DEPLOYMENTS, helm.namespace, name)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


async def test_two_agents_of_one_cluster_share_nothing_though_their_releases_are_called_alike(
    helm: Helm, kube: KubeClient, control_plane: ControlPlane
) -> None:
    first = await helm.install(AGENT, "default")
    home = f"{helm.namespace}-b"
    values = with_value(helm.values(AGENT, "default"), "work.namespace", f"{home}-work")
    with helm_python.Config(kubeconfig_path=control_plane.kubeconfig, namespace=home) as config:
        install = partial(config.install, create_namespace=True)
        await asyncio.to_thread(install, loaded(AGENT), helm.namespace, values)
        await asyncio.to_thread(config.uninstall, helm.namespace)

    assert None not in (await find_all(kube, manifests_in(first["manifest"]))).values()


async def test_the_chart_brings_the_definition_of_work(kube: KubeClient) -> None:
    (crd,) = loaded(AGENT).crds
    (manifest,) = manifests_in(crd["data"])

    applied = await kube.apply(CRDS, None, manifest)

    assert not lost(manifest["spec"], applied["spec"])
    assert manifest["metadata"]["name"] == f"{WORKS.plural}.{WORKS.group}"


async def test_without_helm_the_manifests_are_the_chart_s_and_can_be_applied(
    kube: KubeClient, tmp_path: Path
) -> None:
    """In the order in which they stand, and to namespaces of the names in the charts."""
    script = BROKER.parent / "manifests.py"
    process = await asyncio.create_subprocess_exec(sys.executable, script, tmp_path / "made")
    assert await process.wait() == 0
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "brokkr-system"}}
    await kube.apply(NAMESPACES, None, system)

    for name in ("broker", "agent"):
        made = manifests_in((tmp_path / "made" / f"{name}.yaml").read_text())
        for manifest in made:
            if manifest["apiVersion"] == "policy/v1":  # of clusters after this one
                continue
            kept = await apply(kube, manifest, dry_run=False)
            assert not lost(manifest, kept)
    (crd,) = manifests_in((tmp_path / "made" / "crd.yaml").read_text())
    assert crd["kind"] == "CustomResourceDefinition"

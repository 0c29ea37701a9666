"""What the agent may do and what not, by the word of a real API server."""

from collections.abc import Iterator
from typing import Any

import pytest

from brokkr.agent.kinds import (
    BUILD_RUNS,
    BUILDS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CRDS,
    EVENTS,
    NAMESPACES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    WORKS,
    Resource,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeForbidden

pytestmark = pytest.mark.kube

RULES_REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "SelfSubjectRulesReview",
    "selfsubjectrulesreviews",
    namespaced=False,
)
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "SelfSubjectAccessReview",
    "selfsubjectaccessreviews",
    namespaced=False,
)

ANYBODY = {"authentication.k8s.io", "authorization.k8s.io"}
"""Where everybody who is known may ask who he is and what he may do."""

EVERYWHERE = """
get clusterbuildstrategies.shipwright.io
get customresourcedefinitions.apiextensions.k8s.io buildruns.shipwright.io
get customresourcedefinitions.apiextensions.k8s.io builds.shipwright.io
get customresourcedefinitions.apiextensions.k8s.io buildstrategies.shipwright.io
get customresourcedefinitions.apiextensions.k8s.io clusterbuildstrategies.shipwright.io
get customresourcedefinitions.apiextensions.k8s.io pipelineruns.tekton.dev
get customresourcedefinitions.apiextensions.k8s.io taskruns.tekton.dev
get customresourcedefinitions.apiextensions.k8s.io works.brokkr.io
list clusterbuildstrategies.shipwright.io
"""

WHERE_WORK_IS_RUN = """
create buildruns.shipwright.io
create builds.shipwright.io
create configmaps
create events
create works.brokkr.io
delete buildruns.shipwright.io
delete builds.shipwright.io
delete configmaps
delete works.brokkr.io
get buildruns.shipwright.io
get builds.shipwright.io
get buildstrategies.shipwright.io
get configmaps
get namespaces THE-NAMESPACE
get pipelineruns.tekton.dev
get pods
get pods/log
get serviceaccounts
get taskruns.tekton.dev
get works.brokkr.io
list buildruns.shipwright.io
list builds.shipwright.io
list buildstrategies.shipwright.io
list configmaps
list pipelineruns.tekton.dev
list pods
list taskruns.tekton.dev
list works.brokkr.io
patch buildruns.shipwright.io
patch works.brokkr.io
update works/status.brokkr.io
watch buildruns.shipwright.io
watch builds.shipwright.io
watch configmaps
watch pipelineruns.tekton.dev
watch pods
watch taskruns.tekton.dev
watch works.brokkr.io
"""
"""Verb, resource with its group, and the only object's name if there is but one."""


async def permissions_in(namespace: str, agent_kube: KubeClient) -> list[str]:
    """Return what the agent may do there, by its own question."""
    review = await agent_kube.create(
        RULES_REVIEWS,
        None,
        {
            "apiVersion": RULES_REVIEWS.api_version,
            "kind": RULES_REVIEWS.kind,
            "spec": {"namespace": namespace},
        },
    )
    assert not review["status"]["incomplete"]
    rules = review["status"]["resourceRules"]
    return sorted(line for rule in rules for line in lines_of(rule))


def lines_of(rule: dict[str, Any]) -> Iterator[str]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"] if group not in ANYBODY else ():
            for verb in rule["verbs"]:
                for name in rule.get("resourceNames") or [""]:
                    yield f"{verb} {resource}{'.' if group else ''}{group} {name}".rstrip()


def written(*lists: str) -> list[str]:
    return sorted(line for each in lists for line in each.strip().splitlines())


async def test_where_work_is_run_the_agent_may_do_this_and_nothing_else(
    agent_kube: KubeClient, namespace: str
) -> None:
    here = WHERE_WORK_IS_RUN.replace("THE-NAMESPACE", namespace)

    assert await permissions_in(namespace, agent_kube) == written(EVERYWHERE, here)


@pytest.mark.parametrize("elsewhere", ["default", "kube-system"])
async def test_elsewhere_the_agent_may_look_at_what_has_no_namespace(
    agent_kube: KubeClient, elsewhere: str
) -> None:
    assert await permissions_in(elsewhere, agent_kube) == written(EVERYWHERE)


@pytest.mark.parametrize(
    ("verb", "group", "resource", "name", "is_allowed"),
    [
        ("list", "shipwright.io", "clusterbuildstrategies", "", True),
        ("get", "apiextensions.k8s.io", "customresourcedefinitions", "works.brokkr.io", True),
        ("get", "apiextensions.k8s.io", "customresourcedefinitions", "another.example.com", False),
        ("list", "apiextensions.k8s.io", "customresourcedefinitions", "", False),
        ("create", "apiextensions.k8s.io", "customresourcedefinitions", "", False),
        ("patch", "shipwright.io", "clusterbuildstrategies", "buildah", False),
        ("list", "brokkr.io", "works", "", False),
        ("watch", "shipwright.io", "buildruns", "", False),
        ("list", "", "secrets", "", False),
        ("list", "", "namespaces", "", False),
        ("create", "", "namespaces", "", False),
        ("list", "", "nodes", "", False),
        ("impersonate", "", "users", "admin", False),
        ("escalate", "rbac.authorization.k8s.io", "clusterroles", "brokkr-agent", False),
        ("bind", "rbac.authorization.k8s.io", "clusterroles", "cluster-admin", False),
        ("*", "*", "*", "", False),
    ],
)
async def test_in_the_whole_cluster_the_agent_may_only_look_at_strategies_and_definitions(
    *, agent_kube: KubeClient, verb: str, group: str, resource: str, name: str, is_allowed: bool
) -> None:
    asked = {"verb": verb, "group": group, "resource": resource, "name": name}
    review = await agent_kube.create(
        ACCESS_REVIEWS,
        None,
        {
            "apiVersion": ACCESS_REVIEWS.api_version,
            "kind": ACCESS_REVIEWS.kind,
            "spec": {"resourceAttributes": asked},
        },
    )

    assert review["status"]["allowed"] is is_allowed


async def test_the_agent_sees_that_its_namespace_is_there_and_no_other(
    agent_kube: KubeClient, namespace: str
) -> None:
    found = await agent_kube.get(NAMESPACES, None, namespace)

    assert found["metadata"]["name"] == namespace
    with pytest.raises(KubeForbidden, match="cannot get resource"):
        await agent_kube.get(NAMESPACES, None, "default")


@pytest.mark.parametrize("resource", [SECRETS, ROLES, ROLE_BINDINGS, EVENTS], ids=str)
async def test_what_the_agent_has_no_use_for_it_may_not_read(
    agent_kube: KubeClient, namespace: str, resource: Resource
) -> None:
    with pytest.raises(KubeForbidden, match="cannot list resource"):
        await agent_kube.list(resource, namespace)
    with pytest.raises(KubeForbidden, match="cannot get resource"):
        await agent_kube.get(resource, namespace, "a")


@pytest.mark.parametrize(
    "resource",
    [
        *(SECRETS, PODS, SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS),
        *(CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, NAMESPACES, CRDS),
    ],
    ids=str,
)
async def test_what_would_give_the_agent_more_it_may_not_make(
    agent_kube: KubeClient, namespace: str, resource: Resource
) -> None:
    with pytest.raises(KubeForbidden, match="cannot create resource"):
        await agent_kube.create(resource, namespace, a_manifest(resource))


@pytest.mark.parametrize("resource", [WORKS, BUILDS, BUILD_RUNS, CONFIG_MAPS], ids=str)
async def test_in_another_namespace_the_agent_runs_nothing_and_reads_nothing(
    agent_kube: KubeClient, resource: Resource
) -> None:
    with pytest.raises(KubeForbidden, match="cannot create resource"):
        await agent_kube.create(resource, "default", a_manifest(resource))
    with pytest.raises(KubeForbidden, match="cannot get resource"):
        await agent_kube.get(resource, "default", "a")
    for everywhere_or_there in (None, "default"):
        with pytest.raises(KubeForbidden, match="cannot list resource"):
            await agent_kube.list(resource, everywhere_or_there)


@pytest.mark.parametrize("resource", [BUILDS, BUILD_RUNS], ids=str)
async def test_how_a_build_ended_only_shipwright_may_say(
    agent_kube: KubeClient, namespace: str, resource: Resource
) -> None:
    with pytest.raises(KubeForbidden, match="cannot update resource"):
        await agent_kube.replace_status(resource, namespace, a_manifest(resource))


async def test_the_builds_account_can_be_seen_and_not_used(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    await kube.create(SERVICE_ACCOUNTS, namespace, a_manifest(SERVICE_ACCOUNTS))

    assert await agent_kube.find(SERVICE_ACCOUNTS, namespace, "a") is not None
    with pytest.raises(KubeForbidden, match="cannot create resource"):
        await agent_kube.create(
            Resource("", "v1", "TokenRequest", "serviceaccounts/a/token"),
            namespace,
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"},
        )


async def test_a_config_map_of_somebody_else_is_not_the_agent_s_to_change(
    kube: KubeClient, agent_kube: KubeClient, namespace: str
) -> None:
    await kube.create(CONFIG_MAPS, namespace, a_manifest(CONFIG_MAPS))

    with pytest.raises(KubeForbidden, match="cannot patch resource"):
        await agent_kube.merge_patch(CONFIG_MAPS, namespace, "a", {"data": {"a": "ours"}})


def a_manifest(resource: Resource) -> dict[str, Any]:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": "a"},
    }

import pytest

from brokkr.agent.kinds import (
    CLUSTER_BUILD_STRATEGIES,
    CONFIG_MAPS,
    WORKS,
    Resource,
)


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "subresource", "path"),
    [
        (CONFIG_MAPS, "ns", None, None, "/api/v1/namespaces/ns/configmaps"),
        (CONFIG_MAPS, None, None, None, "/api/v1/configmaps"),
        (WORKS, "ns", "w", None, "/apis/brokkr.io/v1alpha1/namespaces/ns/works/w"),
        (WORKS, "ns", "w", "status", "/apis/brokkr.io/v1alpha1/namespaces/ns/works/w/status"),
        (
            CLUSTER_BUILD_STRATEGIES,
            "ignored",
            "buildah",
            None,
            "/apis/shipwright.io/v1beta1/clusterbuildstrategies/buildah",
        ),
    ],
)
def test_the_path_names_group_namespace_and_object(
    resource: Resource, namespace: str | None, name: str | None, subresource: str | None, path: str
) -> None:
    assert resource.path(namespace, name, subresource) == path

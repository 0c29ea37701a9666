"""What the agent touches in a cluster: group, version, kind and plural of each."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object that an API server serves.  The core group is ``""``."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return what a manifest of this kind says under ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """Return the path of the collection, of one object, or of a part of it."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts += [self.plural, *filter(None, (name, subresource))]
        return "/".join(parts)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


WORKS: Final = Resource("brokkr.io", "v1alpha1", "Work", "works")
BUILDS: Final = Resource("shipwright.io", "v1beta1", "Build", "builds")
BUILD_RUNS: Final = Resource("shipwright.io", "v1beta1", "BuildRun", "buildruns")
BUILD_STRATEGIES: Final = Resource("shipwright.io", "v1beta1", "BuildStrategy", "buildstrategies")
CLUSTER_BUILD_STRATEGIES: Final = Resource(
    "shipwright.io", "v1beta1", "ClusterBuildStrategy", "clusterbuildstrategies", namespaced=False
)
TASK_RUNS: Final = Resource("tekton.dev", "v1", "TaskRun", "taskruns")
PIPELINE_RUNS: Final = Resource("tekton.dev", "v1", "PipelineRun", "pipelineruns")
CONFIG_MAPS: Final = Resource("", "v1", "ConfigMap", "configmaps")
SECRETS: Final = Resource("", "v1", "Secret", "secrets")
SERVICE_ACCOUNTS: Final = Resource("", "v1", "ServiceAccount", "serviceaccounts")
PODS: Final = Resource("", "v1", "Pod", "pods")
EVENTS: Final = Resource("", "v1", "Event", "events")
NAMESPACES: Final = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
CRDS: Final = Resource(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
)
ROLES: Final = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLE_BINDINGS: Final = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
CLUSTER_ROLES: Final = Resource(
    "rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", namespaced=False
)
CLUSTER_ROLE_BINDINGS: Final = Resource(
    "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)

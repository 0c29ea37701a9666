"""
What the agent may do in its cluster: the one source.  `brokkr agent rbac` prints it.

Local mode runs the agent with exactly this, and the tests with what the chart makes of it.
Pure: others apply it.
"""

# Note [What the agent may not do]
#
# Work comes from outside the cluster, so whoever takes over the broker, or the agent, has
# what stands here and no more.  Nothing here has a wildcard; Secrets are not even read, for
# a Build names them and Shipwright reads them; pods are made by Shipwright and Tekton, and
# statuses but the Work's own are written by them; and all of it is in one namespace, but
# for the names of strategies and the definitions of seven kinds.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from brokkr.work.model import Manifest

WORK_NAMESPACE: Final = "brokkr-agent"
AGENT_NAMESPACE: Final = "brokkr-system"
SERVICE_ACCOUNT: Final = "brokkr-agent"

_ROLE: Final = "brokkr-agent"
_RBAC: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    One rule of a role.

    Attributes:
        group: The API group; the core group is ``""``.
        names: The only objects that it is about; none: all of the namespace.
        why: One sentence for those who have to grant it.
    """

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()
    why: str

    def manifest(self) -> dict[str, Any]:
        """Return it as a role has it."""
        rule = {"apiGroups": [self.group], "resources": [*self.resources]}
        if self.names:
            rule["resourceNames"] = [*self.names]
        return {**rule, "verbs": [*self.verbs]}


def render_role(namespace: str) -> tuple[Rule, ...]:
    """Return what the agent may do in the namespace of its Work."""
    return (
        Rule(
            group="brokkr.io",
            resources=("works",),
            verbs=("get", "list", "watch", "create", "patch", "delete"),
            why="The agent's journal: a claim becomes a Work resource, marks are made on it, "
            "and it is deleted when its time is over.",
        ),
        Rule(
            group="brokkr.io",
            resources=("works/status",),
            verbs=("update",),
            why="Phase, attempts and result of a Work.",
        ),
        Rule(
            group="shipwright.io",
            resources=("builds",),
            verbs=("get", "list", "watch", "create", "delete"),
            why="The Build of an attempt: made, watched, never changed, and deleted with its Work.",
        ),
        Rule(
            group="shipwright.io",
            resources=("buildruns",),
            verbs=("get", "list", "watch", "create", "patch", "delete"),
            why="The BuildRun of an attempt: cancelled by a patch.",
        ),
        Rule(
            group="shipwright.io",
            resources=("buildstrategies",),
            verbs=("get", "list"),
            why="Whether the strategy is there that a Build names.",
        ),
        Rule(
            group="",
            resources=("configmaps",),
            verbs=("get", "list", "watch", "create", "delete"),
            why="What a template brings beside its Build; never changed, so that nobody else's "
            "can be.",
        ),
        Rule(
            group="",
            resources=("events",),
            verbs=("create",),
            why="What becomes of a Work, for `kubectl describe`.",
        ),
        Rule(
            group="",
            resources=("serviceaccounts",),
            verbs=("get",),
            why="Whether the ServiceAccount of the builds is there.",
        ),
        Rule(
            group="tekton.dev",
            resources=("taskruns", "pipelineruns"),
            verbs=("get", "list", "watch"),
            why="How far a build is, and why it failed, where its BuildRun does not tell.",
        ),
        Rule(
            group="",
            resources=("pods",),
            verbs=("get", "list", "watch"),
            why="Whether a build failed or its Pod was taken away: evicted, preempted, deleted, "
            "or lost with its node. Without it a lost node looks like a failed step.",
        ),
        Rule(
            group="",
            resources=("pods/log",),
            verbs=("get",),
            why="The end of the log of the step that failed, for the result of the Work.",
        ),
        Rule(
            group="",
            resources=("namespaces",),
            verbs=("get",),
            names=(namespace,),
            why="Whether the namespace is there when the agent starts.",
        ),
    )


CLUSTER_ROLE: Final = (
    Rule(
        group="shipwright.io",
        resources=("clusterbuildstrategies",),
        verbs=("get", "list"),
        why="Whether the strategy is there that a Build names; these have no namespace.",
    ),
    Rule(
        group="apiextensions.k8s.io",
        resources=("customresourcedefinitions",),
        verbs=("get",),
        names=(
            "works.brokkr.io",
            "builds.shipwright.io",
            "buildruns.shipwright.io",
            "buildstrategies.shipwright.io",
            "clusterbuildstrategies.shipwright.io",
            "taskruns.tekton.dev",
            "pipelineruns.tekton.dev",
        ),
        why="Which of the kinds that it needs the cluster has, and in which versions.",
    ),
)
"""What the agent may do outside the namespace of its Work."""


def render_permissions(
    *,
    namespace: str = WORK_NAMESPACE,
    agent_namespace: str = AGENT_NAMESPACE,
    service_account: str = SERVICE_ACCOUNT,
) -> list[Manifest]:
    """
    Return all objects, in the order in which they are to be applied.

    Args:
        namespace: Where Work is run: ``agent.work_crd.namespace``.
        agent_namespace: Where the agent itself runs.
    """
    account = {"kind": "ServiceAccount", "name": service_account, "namespace": agent_namespace}
    # Several agents of one cluster share the ClusterRole, each with a binding of its own.
    binding = f"{_ROLE}:{agent_namespace}:{service_account}"
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": service_account, "namespace": agent_namespace},
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": {"name": _ROLE, "namespace": namespace},
            "rules": [each.manifest() for each in render_role(namespace)],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": _ROLE, "namespace": namespace},
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": _ROLE},
            "subjects": [account],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": _ROLE},
            "rules": [each.manifest() for each in CLUSTER_ROLE],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": binding},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": _ROLE},
            "subjects": [account],
        },
    ]


def render_yaml(
    *,
    namespace: str = WORK_NAMESPACE,
    agent_namespace: str = AGENT_NAMESPACE,
    service_account: str = SERVICE_ACCOUNT,
) -> str:
    """Return all objects as text, with the reason of each rule as a comment on it."""
    whys = {"Role": render_role(namespace), "ClusterRole": CLUSTER_ROLE}
    return "---\n".join(
        _text(each, whys.get(each["kind"], ()))
        for each in render_permissions(
            namespace=namespace, agent_namespace=agent_namespace, service_account=service_account
        )
    )


def _text(manifest: Manifest, rules: Sequence[Rule]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "rules"}
    text = yaml.safe_dump(rest, sort_keys=False)
    if rules:
        text += "rules:\n"
    for each in rules:
        rule = yaml.safe_dump(
            [each.manifest()], default_flow_style=None, sort_keys=False, width=1000
        )
        text += f"# {each.why}\n{rule}"
    return text

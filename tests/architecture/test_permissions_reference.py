"""
The list of the agent's permissions in print is what `brokkr agent rbac` grants.

``python tests/architecture/test_permissions_reference.py`` writes it anew.
"""

from collections.abc import Iterable
from pathlib import Path

from brokkr.agent.kube.permissions import CLUSTER_ROLE, WORK_NAMESPACE, Rule, render_role

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "permissions.md"

HEAD = """\
# What the agent may do in its cluster

`brokkr agent rbac` prints this for `kubectl apply -f -`: a ServiceAccount in the agent's own
namespace, a Role in the namespace where Work is run, a ClusterRole, and the two bindings.
`--namespace`, `--agent-namespace` and `--service-account` give other names than `brokkr-agent`,
`brokkr-system` and `brokkr-agent`; the namespaces have to exist. Several agents of one cluster
share the ClusterRole and have a namespace for their Work each.

There is nothing else: no wildcard, no Secrets, of pods only the logs, and no status but the Work's
own ([why](../adr/0018-least-privilege.md)).
"""

TABLE = """\
| API group | resources | verbs | only | why |
|---|---|---|---|---|
"""


def render() -> str:
    return (
        f"{HEAD}\n## In the namespace where Work is run\n\n{TABLE}"
        + _lines(render_role(WORK_NAMESPACE))
        + f"\n## In the whole cluster\n\n{TABLE}"
        + _lines(CLUSTER_ROLE)
    )


def _lines(rules: Iterable[Rule]) -> str:
    return "".join(
        f"| {_code([each.group]) if each.group else 'core'} | {_code(each.resources)} "
        f"| {' '.join(each.verbs)} | {_code(each.names)} | {each.why} |\n"
        for each in rules
    )


def _code(words: Iterable[str]) -> str:
    return " ".join(f"`{each}`" for each in words)


def test_the_permissions_in_print_are_what_is_granted() -> None:
    assert DOCUMENT.read_text() == render(), f"run: python {__file__}"


if __name__ == "__main__":
    DOCUMENT.write_text(render())

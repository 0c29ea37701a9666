from itertools import pairwise

import yaml

from brokkr.agent.kube.permissions import (
    CLUSTER_ROLE,
    WORK_NAMESPACE,
    render_permissions,
    render_role,
    render_yaml,
)
from brokkr.agent.settings import WorkCrdSettings


def test_nothing_is_granted_by_a_wildcard_and_nothing_about_secrets() -> None:
    rules = (*render_role("builds"), *CLUSTER_ROLE)
    words = {word for each in rules for word in (each.group, *each.resources, *each.verbs)}

    assert "*" not in "".join(words)
    assert not any("secret" in word for word in words)


def test_what_is_printed_is_what_is_granted() -> None:
    # A name that YAML would take for something else, and one that has to be a name.
    names = {"namespace": "yes", "agent_namespace": "0x10", "service_account": "null"}

    assert list(yaml.safe_load_all(render_yaml(**names))) == render_permissions(**names)


def test_each_printed_rule_has_its_reason_above_it() -> None:
    lines = render_yaml().splitlines()
    above = [before for before, line in pairwise(lines) if "apiGroups" in line]

    assert above == [f"# {each.why}" for each in (*render_role(WORK_NAMESPACE), *CLUSTER_ROLE)]


def test_the_work_namespace_is_the_one_that_agents_use_if_not_told_otherwise() -> None:
    assert WorkCrdSettings().namespace == WORK_NAMESPACE


def test_a_second_agent_in_a_cluster_does_not_take_the_first_one_s_binding() -> None:
    first, second = (render_permissions(agent_namespace=each)[-1] for each in ("one", "two"))

    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["roleRef"] == second["roleRef"]

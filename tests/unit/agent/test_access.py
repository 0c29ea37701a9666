"""When an agent is unable, and when it is able again."""

from collections.abc import Iterable
from itertools import pairwise

import pytest

from brokkr.agent.access import (
    Access,
    Need,
    Reason,
    Timing,
    allows,
    attributes_of,
    needs_of,
    optional_of,
)
from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.registry import handlers
from brokkr.agent.kube.errors import (
    KubeAlreadyExists,
    KubeBusy,
    KubeConfigInvalid,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeInvalid,
    KubeKindUnknown,
    KubeNamespaceMissing,
    KubeNotFound,
    KubeNotPermitted,
    KubeQuotaExceeded,
    KubeTerminating,
    KubeUnauthorized,
    KubeUnavailable,
)
from brokkr.agent.kube.permissions import CLUSTER_ROLE, render_role

WORKS = "works.brokkr.io"
RULES = (*render_role("builds"), *CLUSTER_ROLE)
NEEDS = needs_of(handlers(BuildDefaults()), RULES)
REFUSED = KubeUnavailable("connection refused")


def forbidden(verb: str, resource: str) -> KubeNotPermitted:
    return KubeNotPermitted("no", verb=verb, resource=resource)


class Cluster:
    """An access, its clock, and what was told."""

    def __init__(self, needs: Iterable[Need] = NEEDS) -> None:
        self.now = 1000.0
        self.told: list[str | None] = []
        self.access = Access(
            needs,
            namespace="builds",
            clock=lambda: self.now,
            timing=Timing(confirm=10, forget=120, announce=30),
            on_change=lambda: self.told.append(
                None if self.access.unable is None else self.access.unable.reason.value
            ),
        )

    def fail(
        self,
        error: KubeError = REFUSED,
        *,
        verb: str = "create",
        resource: str = WORKS,
        after: float = 0,
    ) -> None:
        self.now += after
        self.access.note(verb, resource, error)

    def succeed(self, verb: str = "create", resource: str = WORKS, *, after: float = 0) -> None:
        self.now += after
        self.access.note(verb, resource, None)


def test_one_failure_is_none_and_two_close_together_are_one() -> None:
    cluster = Cluster()

    cluster.fail()
    cluster.fail(after=9.9)

    assert cluster.access.obstacle_to("build") is None
    assert cluster.told == []


def test_two_failures_ten_seconds_apart_are_trouble_since_the_first() -> None:
    cluster = Cluster()

    cluster.fail()
    cluster.fail(after=10)

    obstacle = cluster.access.unable
    assert obstacle is not None
    assert (obstacle.reason, obstacle.since) == (Reason.UNREACHABLE, 1000.0)
    assert obstacle.cause == "the API server does not answer or fails: connection refused"
    assert cluster.access.obstacle_to("build") == obstacle
    assert cluster.told == ["unreachable"]


def test_a_success_between_makes_the_second_failure_a_first_one() -> None:
    cluster = Cluster()

    cluster.fail()
    cluster.succeed(after=5)
    cluster.fail(after=5)

    assert cluster.access.obstacle_to("build") is None


@pytest.mark.parametrize(
    "answer",
    [
        KubeNotFound("no such work"),
        KubeConflict("changed"),
        KubeAlreadyExists("there"),
        KubeInvalid("wrong"),
        KubeForbidden("an admission webhook says no"),
    ],
)
def test_an_answer_about_an_object_is_an_answer(answer: KubeError) -> None:
    cluster = Cluster()

    cluster.fail()
    cluster.fail(answer, after=5)
    cluster.fail(after=5)

    assert cluster.access.obstacle_to("build") is None


def test_a_busy_api_server_is_slow_and_slow_is_not_unable() -> None:
    cluster = Cluster()

    for _ in range(10):
        cluster.fail(KubeBusy("too many requests"), after=10)

    assert cluster.access.obstacle_to("build") is None


def test_a_slow_list_is_no_trouble_while_other_reads_go_well() -> None:
    cluster = Cluster()

    for _ in range(5):
        cluster.fail(KubeUnavailable("did not answer in time"), verb="list", after=30)
        cluster.succeed("get", after=1)

    assert cluster.access.obstacle_to("build") is None


def test_that_works_are_read_does_not_mean_that_they_can_be_written() -> None:
    cluster = Cluster()

    for _ in range(3):
        cluster.fail(after=10)
        cluster.succeed("list")

    assert cluster.access.unable is not None


def test_after_an_outage_one_write_is_enough_for_all_verbs() -> None:
    cluster = Cluster()
    for verb in ("create", "list", "patch"):
        cluster.fail(verb=verb)
    for verb in ("create", "list", "patch"):
        cluster.fail(verb=verb, after=10)
    cluster.fail(resource=f"{WORKS}/status", verb="update")

    cluster.succeed("create", after=30)

    assert cluster.access.obstacle_to("build") is None
    assert cluster.told == ["unreachable", None]


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (REFUSED, Reason.UNREACHABLE, "connection refused"),
        (KubeUnauthorized("Unauthorized"), Reason.UNAUTHORIZED, "credentials (Unauthorized)"),
        (KubeConfigInvalid("/token cannot be read"), Reason.UNAUTHORIZED, "/token cannot be read"),
        (
            KubeNamespaceMissing("not found"),
            Reason.NAMESPACE_MISSING,
            "there is no namespace builds: kubectl create namespace builds",
        ),
        (KubeTerminating("no"), Reason.NAMESPACE_TERMINATING, "builds is being deleted"),
        (KubeKindUnknown("no"), Reason.DEFINITION_MISSING, f"does not know {WORKS}: brokkr agent"),
        (forbidden("create", WORKS), Reason.FORBIDDEN, f"to create {WORKS} in namespace builds"),
        (KubeQuotaExceeded("exceeded quota: few"), Reason.QUOTA, "exceeded quota: few"),
    ],
)
def test_each_cause_has_its_reason_and_its_words(
    error: KubeError, reason: Reason, words: str
) -> None:
    cluster = Cluster()

    cluster.fail(error)
    cluster.fail(error, after=10)

    assert cluster.access.unable is not None
    assert cluster.access.unable.reason is reason
    assert words in cluster.access.unable.cause


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: f"{need.verb} {need.resource}")
def test_each_verb_that_is_missing_is_named_and_keeps_from_what_it_is_needed_for(
    need: Need,
) -> None:
    cluster = Cluster()
    for _ in range(2):
        cluster.now += 10
        cluster.access.note_permission(need.verb, need.resource, is_given=False)
        cluster.access.refresh()

    obstacle = cluster.access.obstacle_to("build")
    assert obstacle is not None
    assert f"to {need.verb} {need.resource} in namespace builds" in obstacle.cause
    assert (cluster.access.unable is not None) is (need.work_type is None)
    assert ("build" in cluster.access.unavailable) is (need.work_type == "build")
    assert (cluster.access.obstacle_to("other") is None) is (need.work_type == "build")
    assert (cluster.access.obstacle_to("build", begun=True) is not None) is need.is_for_begun

    cluster.now += 30
    cluster.access.note_permission(need.verb, need.resource, is_given=True)
    cluster.access.refresh()
    assert cluster.access.obstacle_to("build") is None


def test_what_is_begun_goes_on_though_nothing_new_can_be_written_or_cleared_away() -> None:
    begun = {(each.verb, each.resource) for each in NEEDS if not each.is_for_begun}

    assert begun == {
        ("create", WORKS),
        ("delete", WORKS),
        ("delete", "builds.shipwright.io"),
        ("delete", "buildruns.shipwright.io"),
        ("delete", "configmaps"),
    }


def test_a_cluster_that_comes_and_goes_is_announced_once_in_thirty_seconds() -> None:
    cluster = Cluster()
    announced = []
    for _ in range(20):
        for step in (cluster.fail, cluster.fail, cluster.succeed):
            before = len(cluster.told)
            step(after=10.5)
            announced += [cluster.now] * (len(cluster.told) - before)

    between = [later - earlier for earlier, later in pairwise(announced)]
    assert len(announced) > 5
    assert min(between) >= 30


def test_claims_stop_at_once_also_where_it_is_too_early_to_tell() -> None:
    cluster = Cluster()
    cluster.fail()
    cluster.fail(after=10)
    cluster.succeed(after=30)
    cluster.fail(after=1)
    cluster.fail(after=10)

    assert cluster.told == ["unreachable", None]
    assert cluster.access.unable is None
    assert cluster.access.obstacle_to("build") is not None


def test_claims_begin_when_it_has_been_told_that_they_may() -> None:
    cluster = Cluster()
    cluster.fail()
    cluster.fail(after=10)
    cluster.succeed(after=1)

    assert cluster.access.obstacle_to("build") == cluster.access.unable is not None
    cluster.now += 30
    cluster.access.refresh()
    assert cluster.access.obstacle_to("build") is None


def test_after_trouble_one_work_has_to_prove_that_it_is_over() -> None:
    cluster = Cluster()
    assert cluster.access.is_proven
    cluster.fail()
    cluster.fail(after=10)
    cluster.succeed(after=40)

    assert cluster.access.obstacle_to("build") is None
    assert not cluster.access.is_proven


def test_what_nothing_confirms_any_more_is_forgotten() -> None:
    cluster = Cluster()
    cluster.fail(forbidden("patch", WORKS))
    cluster.fail(forbidden("patch", WORKS), after=10)
    assert cluster.access.unable is not None

    cluster.now += 121
    cluster.access.refresh()

    assert cluster.access.unable is None


def test_several_missing_verbs_are_one_sentence() -> None:
    cluster = Cluster()
    for _ in range(2):
        cluster.now += 10
        for verb in ("watch", "list", "create"):
            cluster.access.note_permission(verb, WORKS, is_given=False)
        cluster.access.note_permission("update", f"{WORKS}/status", is_given=False)
    cluster.access.refresh()

    assert cluster.access.unable is not None
    assert (
        f"to create, list, watch {WORKS}; update {WORKS}/status in namespace builds: "
        "brokkr agent rbac --namespace builds"
    ) in cluster.access.unable.cause


def test_what_is_not_needed_is_no_trouble() -> None:
    cluster = Cluster()
    for _ in range(3):
        cluster.fail(forbidden("create", "events"), verb="create", resource="events", after=10)
        cluster.fail(KubeKindUnknown("no"), verb="list", resource="builds.shipwright.io")

    assert cluster.access.obstacle_to("build") is None


def test_what_is_optional_is_all_that_is_given_and_not_needed() -> None:
    optional = {(verb, resource) for _, verb, resource in optional_of(NEEDS, RULES)}

    assert ("create", "events") in optional
    assert ("watch", "taskruns.tekton.dev") in optional
    assert ("get", "pods/log") in optional
    assert not optional & {(each.verb, each.resource) for each in NEEDS}


@pytest.mark.parametrize(
    ("resource", "rule", "is_allowed"),
    [
        ("works.brokkr.io", {"apiGroups": ["brokkr.io"], "resources": ["works"]}, True),
        ("works.brokkr.io", {"apiGroups": ["*"], "resources": ["*"]}, True),
        ("works.brokkr.io", {"apiGroups": ["brokkr.io"], "resources": ["works/status"]}, False),
        ("works.brokkr.io/status", {"apiGroups": ["brokkr.io"], "resources": ["works"]}, False),
        (
            "works.brokkr.io/status",
            {"apiGroups": ["brokkr.io"], "resources": ["works/status"]},
            True,
        ),
        ("configmaps", {"apiGroups": [""], "resources": ["configmaps"]}, True),
        (
            "configmaps",
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["one"]},
            False,
        ),
    ],
)
def test_rules_are_read_as_the_api_server_reads_them(
    resource: str, rule: dict[str, list[str]], is_allowed: bool
) -> None:
    assert allows([{"verbs": ["get"], **rule}], "get", resource, "") is is_allowed
    assert not allows([{"verbs": ["list"], **rule}], "get", resource, "")


def test_a_rule_for_names_allows_these() -> None:
    rule = {
        "verbs": ["get"],
        "apiGroups": [""],
        "resources": ["namespaces"],
        "resourceNames": ["builds"],
    }

    assert allows([rule], "get", "namespaces", "builds")
    assert not allows([rule], "get", "namespaces", "others")


def test_a_part_of_a_resource_is_asked_for_by_its_name() -> None:
    expected = {"group": "brokkr.io", "resource": "works", "subresource": "status"}

    assert attributes_of("works.brokkr.io/status") == expected


def test_trouble_of_all_types_is_not_told_as_that_of_one_first() -> None:
    cluster = Cluster()
    cluster.fail(verb="list", resource="builds.shipwright.io")
    cluster.fail(verb="list", after=1)
    cluster.fail(verb="list", resource="builds.shipwright.io", after=9)
    assert cluster.access.obstacle_to("build") is not None
    assert cluster.told == []

    cluster.fail(verb="list", after=1)

    assert cluster.told == ["unreachable"]
    assert cluster.access.unavailable == {}


def test_when_the_trouble_of_all_types_ends_that_of_one_which_came_with_it_does_too() -> None:
    cluster = Cluster()
    for after in (0, 11):
        cluster.fail(verb="list", resource="builds.shipwright.io", after=after)
        cluster.fail(verb="list")
    cluster.succeed("list", after=40)

    assert cluster.told == ["unreachable", None]
    assert cluster.access.obstacle_to("build") is None

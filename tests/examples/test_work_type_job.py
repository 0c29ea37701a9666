"""The example of a work type from outside: found, pure, and all that the guide says of it."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokkr.agent.handlers.protocol import Handler
from brokkr.agent.handlers.registry import find_installed
from brokkr.agent.handlers.verdict import (
    Failed,
    Incomplete,
    Retry,
    Running,
    Succeeded,
    Unclear,
    Verdict,
)
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest, Work
from brokkr.work.template import check_template
from support.factories import WORK_ID, a_work
from support.packages import EXAMPLE, install_example
from support.templates import a_config_map, a_list

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "how-to" / "write-a-work-type.md"
SOURCES = {".md", ".py", ".toml"}
NAME = f"work-{WORK_ID}-r1-a2"


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handler]:
    """Install the example in a folder of its own, as an installer would."""
    folder = tmp_path_factory.mktemp("site-packages")
    package = install_example(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        installed = find_installed()
        assert installed.left_out == ()
        yield installed.handlers["job"]
    for name in [each for each in sys.modules if each.partition(".")[0] == package]:
        del sys.modules[name]


def a_job_template(**spec: Any) -> dict[str, Any]:
    pod = {"containers": [{"name": "hello", "image": "busybox"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "hello", "labels": {"team": "ml"}},
        "spec": {"template": {"spec": pod}, **spec},
    }


def a_job_work(template: Manifest | None = None) -> Work:
    return a_work(work_type="job", template=template or a_job_template())


def a_condition(type: str, *, status: str = "True", **more: str) -> dict[str, str]:
    return {"type": type, "status": status, **more}


def a_job(*conditions: Manifest, **status: Any) -> dict[str, Any]:
    """Return a Job as the API server has it."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": NAME, "uid": "uid-of-the-job", "resourceVersion": "8"},
        "spec": {"activeDeadlineSeconds": 600},
        "status": {"conditions": list(conditions), **status},
    }


def a_pod(
    *, phase: str = "Failed", terminated: Manifest | None = None, disrupted: bool = False
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{NAME}-x"},
        "status": {
            "phase": phase,
            "conditions": [a_condition("DisruptionTarget")] if disrupted else [],
            "containerStatuses": [{"name": "hello", "state": {"terminated": terminated}}],
        },
    }


def created(handler: Handler, template: Manifest) -> list[Manifest]:
    verdict = handler.assess(a_job_work(template), 2, [], {})
    assert isinstance(verdict, Incomplete)
    return list(verdict.create)


def assess(handler: Handler, *seen: Manifest) -> Verdict | Unclear:
    return handler.assess(a_job_work(), 2, seen, {})


def failure(handler: Handler, *seen: Manifest) -> Failed:
    verdict = assess(handler, *seen)
    assert isinstance(verdict, Failed)
    return verdict


# -- what is made


def test_an_attempt_is_a_job_of_its_name_that_fails_once_and_ends_in_time(handler: Handler) -> None:
    template = a_job_template(backoffLimit=6, ttlSecondsAfterFinished=1, parallelism=2)
    template["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    before = deepcopy(template)

    [job] = created(handler, template)

    assert job["metadata"]["name"] == NAME
    assert job["spec"] == {
        "parallelism": 2,
        "backoffLimit": 0,
        "activeDeadlineSeconds": 3600,
        "template": {
            "spec": {
                "containers": [{"name": "hello", "image": "busybox"}],
                "restartPolicy": "Never",
            }
        },
    }
    assert template == before


def test_config_maps_keep_their_names_and_come_before_the_job(handler: Handler) -> None:
    objects = created(handler, a_list(a_job_template(), a_config_map(name="settings")))

    assert [(each["kind"], each["metadata"]["name"]) for each in objects] == [
        ("ConfigMap", "settings"),
        ("Job", NAME),
    ]


def test_every_object_says_whose_it_is(handler: Handler) -> None:
    for each in created(handler, a_list(a_job_template(), a_config_map())):
        metadata = each["metadata"]

        assert metadata["namespace"] == "brokkr-agent"
        assert (
            metadata["labels"].items()
            >= {
                "brokkr.io/work-id": str(WORK_ID),
                "brokkr.io/work": f"work-{WORK_ID}-r1",
                "brokkr.io/round": "1",
                "brokkr.io/attempt": "2",
            }.items()
        )
        assert [owner["uid"] for owner in metadata["ownerReferences"]] == [a_work().uid]


@pytest.mark.parametrize(
    ("template", "field"),
    [
        (a_config_map(), "template"),
        (a_list(a_job_template(), a_job_template()), "template"),
        (a_list(a_job_template(), a_config_map(metadata={})), "template"),
        ({**a_job_template(), "spec": {}}, "template.spec.template.spec"),
        (a_job_template(template=["x"]), "template.spec.template.spec"),
        (a_job_template(suspend=True), "template.spec.suspend"),
        *(
            (a_job_template(activeDeadlineSeconds=wrong), "template.spec.activeDeadlineSeconds")
            for wrong in (0, -1, 10**30, "600", True, 1.5)
        ),
    ],
)
def test_a_template_of_which_nothing_comes_is_refused(
    handler: Handler, template: Manifest, field: str
) -> None:
    with pytest.raises(InvalidWork) as refusal:
        created(handler, template)

    assert refusal.value.field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=st.dictionaries(st.sampled_from(["template", "suspend", "x"]), JSON))
def test_whatever_a_template_holds_it_is_refused_or_made(
    handler: Handler, spec: dict[str, Any]
) -> None:
    try:
        [job] = created(handler, {**a_job_template(), "spec": spec})
    except InvalidWork:
        return
    assert job["spec"]["backoffLimit"] == 0


# -- what it has come to


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({}, "waiting for Kubernetes to start the Job"),
        ({"active": 1, "ready": 0}, "the Job's pod is pending"),
        ({"active": 1, "ready": 1}, "the Job is running"),
    ],
)
def test_a_job_runs_until_a_condition_says_otherwise(
    handler: Handler, status: dict[str, int], message: str
) -> None:
    undecided = [a_condition("Failed", status="False"), a_condition("FailureTarget")]

    verdict = assess(handler, a_job(*undecided, **status), a_pod())

    assert verdict == Running(message=message, limit=timedelta(minutes=15))


def test_a_job_that_nobody_has_looked_at_yet_is_waited_for(handler: Handler) -> None:
    job = {key: value for key, value in a_job().items() if key != "status"}

    assert isinstance(assess(handler, job), Running)


def test_a_complete_job_has_succeeded(handler: Handler) -> None:
    job = a_job(a_condition("SuccessCriteriaMet"), a_condition("Complete"))

    assert assess(handler, job) == Succeeded(
        reason="JobCompleted", message="the Job is complete", result={"job": NAME}
    )


@pytest.mark.parametrize(
    ("reason", "retry"),
    [
        ("BackoffLimitExceeded", Retry.ALWAYS),
        ("DeadlineExceeded", Retry.ONCE),
        ("PodFailurePolicy", Retry.NEVER),
        ("SomethingNew", Retry.ONCE),
    ],
)
def test_a_failed_job_is_retried_or_not_by_its_reason(
    handler: Handler, reason: str, retry: Retry
) -> None:
    verdict = failure(handler, a_job(a_condition("Failed", reason=reason, message="because")))

    assert (verdict.reason, verdict.failure_class, verdict.retry) == (reason, reason, retry)
    assert verdict.message.startswith("because (")


def test_a_container_that_failed_is_named_with_its_exit_code(handler: Handler) -> None:
    job = a_job(a_condition("Failed", reason="BackoffLimitExceeded", message="limit reached"))
    end = {"exitCode": 137, "reason": "OOMKilled", "message": "too much"}

    verdict = failure(handler, job, a_pod(phase="Running"), a_pod(terminated=end))

    assert verdict.message == (
        "container hello ended with 137: OOMKilled: too much (a container failed)"
    )
    assert verdict.result == {"job": NAME, "container": "hello", "exit_code": 137}


def test_a_pod_that_was_evicted_is_another_failure_than_one_that_failed(handler: Handler) -> None:
    job = a_job(a_condition("Failed", reason="BackoffLimitExceeded", message="limit reached"))

    verdict = failure(handler, job, a_pod(disrupted=True))

    assert (verdict.reason, verdict.retry) == ("PodDisrupted", Retry.ALWAYS)


def test_a_job_is_stopped_by_deleting_it(handler: Handler) -> None:
    cancellation = handler.cancel([a_job(active=1)])

    assert cancellation is not None
    assert (cancellation.kind, cancellation.name) == ("Job", NAME)
    assert (cancellation.resource_version, cancellation.patch) == ("8", None)


def test_a_job_that_is_over_going_or_not_there_is_left_alone(handler: Handler) -> None:
    going = a_job(active=1)
    going["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"

    for seen in ([], [going], [a_job(a_condition("Complete"))], [a_job(a_condition("Failed"))]):
        assert handler.cancel(seen) is None


# -- what is written about it


def test_the_template_in_the_example_is_one_that_broker_and_agent_take(handler: Handler) -> None:
    template = yaml.safe_load((EXAMPLE / "job.yaml").read_text())

    check_template("job", template, kinds={"job": handler.template_kinds}, namespace="brokkr-agent")
    assert len(created(handler, template)) == 1


def test_the_role_allows_what_the_handler_needs(handler: Handler) -> None:
    role = yaml.safe_load((EXAMPLE / "role.yaml").read_text())
    allowed = {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }

    assert allowed == {
        ("batch", "jobs"): {"get", "list", "watch", "create", "delete"},
        ("", "pods"): {"get", "list", "watch"},
    }
    assert {(each.resource.group, each.resource.plural) for each in handler.related} <= set(allowed)


def test_the_broker_s_setting_in_the_readme_is_what_the_handler_takes(handler: Handler) -> None:
    [block] = re.findall(r"```toml\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    [kinds] = tomllib.loads(re.sub("^ +", "", block, flags=re.MULTILINE))["broker"][
        "work_types"
    ].values()

    assert {tuple(each.split(" ")) for each in kinds} == handler.template_kinds


def unspaced(text: str) -> str:
    """Leave out what the formatter decides: a part stands elsewhere in print than in code."""
    return re.sub(r"\s|,(?=\s*[)\]}])", "", text)


def test_the_guide_shows_the_example_as_it_is() -> None:
    shown = re.findall(r"```(?:python|toml)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    files = [unspaced(path.read_text()) for path in EXAMPLE.rglob("*") if path.suffix in SOURCES]

    assert len(shown) >= 3
    assert [block for block in shown if not any(unspaced(block) in each for each in files)] == []


def test_the_guide_names_every_module_that_the_example_uses() -> None:
    used = {
        str(node.module)
        for path in EXAMPLE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("brokkr.")
    }

    assert used
    assert [each for each in sorted(used) if f"`{each}`" not in GUIDE.read_text()] == []

"""
Tests lie where their subject lies.

``src/brokkr/a/b.py`` is tested by ``tests/unit/a/test_b.py``, or by
``tests/integration/a/test_b.py`` if it is a door to something outside.
"""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ROOT / "src" / "brokkr"
TESTS = ROOT / "tests"

TESTED_ELSEWHERE = {
    "acceptance/test_local_build.py": {
        "local/up.py",
        "local/credentials.py",
    },
    "integration/agent/controller/test_loop.py": {
        "agent/controller/act.py",
        "agent/controller/caches.py",
        "agent/controller/observe.py",
    },
    "integration/cli/test_local.py": {
        "cli/demo.py",
        "local/folder.py",
    },
    "integration/broker/api/test_generators.py": {"broker/db/generators.py"},
    "integration/broker/api/test_health.py": {"broker/api/docs.py"},
    "integration/broker/api/test_hostile_input.py": {"broker/api/connection.py"},
    "integration/broker/api/test_permissions.py": {
        "broker/api/auth.py",
        "broker/api/routes.py",
    },
    "integration/broker/api/test_problems.py": {
        "broker/api/door.py",
        "client/endpoints.py",
    },
    "integration/broker/api/test_agents.py": {"broker/db/agents.py"},
    "integration/broker/api/test_events.py": {"broker/followers.py"},
    "integration/broker/db/test_embedded.py": {"broker/db/postgres_server.py"},
    "integration/broker/maintenance/test_retention.py": {"broker/db/retention.py"},
    "integration/broker/maintenance/test_selectors.py": {"broker/db/memberships.py"},
    "integration/broker/test_metrics.py": {"broker/db/measurements.py"},
    "integration/broker/maintenance/test_statistics.py": {"broker/db/statistics.py"},
    "integration/local/test_build_runner.py": {
        "local/build_runner/admission.py",
        "local/build_runner/commands.py",
        "local/build_runner/executions.py",
        "local/build_runner/image.py",
        "local/build_runner/recorder.py",
        "local/build_runner/references.py",
        "local/build_runner/runner.py",
        "local/build_runner/steps.py",
        "local/build_runner/traces.py",
    },
    "migration/test_migrate.py": {"broker/db/migrate.py"},
    "unit/agent/handlers/build/test_failures.py": {
        "agent/handlers/build/failure_table.py",
        "agent/handlers/build/signs.py",
    },
    "unit/work/test_redaction.py": {"work/credentials.py", "work/secret_names.py"},
    "unit/agent/controller/test_decide.py": {
        "agent/controller/conditions.py",
        "agent/controller/record.py",
    },
    "integration/agent/test_health.py": {"agent/metrics.py"},
    "unit/wire/test_problem.py": {"work/errors.py"},
}
"""Modules whose promises show only together with others', by where they show."""

NOTHING_TO_TEST = {
    "agent/controller/failures.py",
    "agent/controller/plan.py",
    "agent/handlers/protocol.py",
    "agent/handlers/verdict.py",
    "broker/api/state.py",
    "work/fault.py",
    "wire/tenants.py",
    "local/build_runner/job.py",
    "wire/explain.py",
}
"""Shapes: what could be wrong with them, the type checker finds."""

ANOTHER_SIDE = {
    "integration/broker/api/test_crowding.py": "broker/api/routes.py",
    "integration/broker/api/test_hostile_input.py": "broker/api/door.py",
    "integration/broker/api/test_list_work.py": "broker/api/work.py",
    "integration/broker/api/test_openapi.py": "broker/api/routes.py",
    "integration/broker/api/test_permissions.py": "broker/api/routes.py",
    "integration/broker/api/test_strangers.py": "broker/api/auth.py",
    "integration/broker/api/test_replicas.py": "broker/app.py",
    "integration/broker/db/test_query_plans.py": "broker/db/work_queue.py",
    "integration/broker/db/test_guards.py": "broker/db/work_queue.py",
    "integration/broker/db/test_work_queue_model.py": "broker/db/work_queue.py",
    "unit/agent/controller/test_edited_objects.py": "agent/controller/observe.py",
    "integration/agent/controller/test_endless_attempts.py": "agent/controller/decide.py",
    "integration/agent/test_broker_answers.py": "agent/claims.py",
    "integration/agent/controller/test_lost_pods.py": "agent/controller/pods.py",
    "integration/agent/test_hostile_broker.py": "agent/app.py",
    "integration/agent/test_protocol_traps.py": "agent/app.py",
    "integration/broker/test_protocol_traps.py": "broker/db/work_queue.py",
    "integration/local/test_build_runner.py": "local/build_runner/runner.py",
    "unit/agent/controller/test_decide_properties.py": "agent/controller/decide.py",
}
"""Test modules that look at a module, or a package, from one side; and at which."""


def the_modules() -> set[str]:
    return {
        str(path.relative_to(CODE))
        for path in CODE.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }


def the_mirrored() -> dict[str, list[str]]:
    """Return the test modules by the module that their place and name speak of."""
    found: dict[str, list[str]] = {}
    for kind in ("unit", "integration"):
        for path in sorted((TESTS / kind).rglob("test_*.py")):
            test = path.relative_to(TESTS / kind)
            module = str(test.with_name(test.name.removeprefix("test_")))
            found.setdefault(module, []).append(str(path.relative_to(TESTS)))
    return found


def test_every_module_has_its_test_or_a_reason() -> None:
    excused = NOTHING_TO_TEST.union(*TESTED_ELSEWHERE.values())

    assert sorted(the_modules() - set(the_mirrored()) - excused) == []


def test_every_test_module_has_its_module() -> None:
    strays = {
        test
        for module, tests in the_mirrored().items()
        for test in tests
        if module not in the_modules() and test not in ANOTHER_SIDE
    }

    assert sorted(strays) == []


def test_the_exceptions_are_still_true() -> None:
    excused = NOTHING_TO_TEST.union(*TESTED_ELSEWHERE.values())
    tests = [*TESTED_ELSEWHERE, *ANOTHER_SIDE]

    assert sorted((excused | set(ANOTHER_SIDE.values())) - the_modules()) == []
    assert sorted(excused & set(the_mirrored())) == []
    assert [each for each in tests if not (TESTS / each).exists()] == []

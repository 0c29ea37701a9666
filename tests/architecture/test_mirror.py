"""
Tests lie where their subject lies.

``src/brokkr/a/b.py`` is tested by ``tests/unit/a/test_b.py``, or by
``tests/integration/a/test_b.py`` if it is a door to something outside.
"""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ROOT / "src" / "brokkr"
TESTS = ROOT / "tests"

TESTED_ELSEWHERE: dict[str, str] = {}
"""Modules whose promises show only together with others', and where that is."""

NOTHING_TO_TEST: set[str] = set()
"""Shapes and lists: what could be wrong with them, the type checker finds."""

ANOTHER_SIDE: dict[str, str] = {}
"""Further test modules of a module that has its own, by what they look at."""


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
    untested = the_modules() - set(the_mirrored()) - set(TESTED_ELSEWHERE) - NOTHING_TO_TEST

    assert sorted(untested) == []


def test_every_test_module_has_its_module() -> None:
    strays = {
        test
        for module, tests in the_mirrored().items()
        for test in tests
        if module not in the_modules() and test not in ANOTHER_SIDE
    }

    assert sorted(strays) == []


def test_the_exceptions_are_still_true() -> None:
    elsewhere = {module: TESTS / test for module, test in TESTED_ELSEWHERE.items()}
    named = set(elsewhere) | NOTHING_TO_TEST | set(ANOTHER_SIDE.values())
    mirrored = (set(elsewhere) | NOTHING_TO_TEST) & set(the_mirrored())

    assert sorted(named - the_modules()) == []
    assert sorted(mirrored) == []
    assert [str(path) for path in elsewhere.values() if not path.exists()] == []
    assert [test for test in ANOTHER_SIDE if not (TESTS / test).exists()] == []

import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.protocol import Cancellation, Handler, Prerequisite, Related
from brokkr.agent.handlers.registry import GROUP, Installed, find_installed, handlers
from brokkr.agent.handlers.verdict import Running, Verdict
from brokkr.agent.kinds import (
    CONFIG_MAPS,
    NAMESPACES,
    ROLE_BINDINGS,
    SECRETS,
    SERVICE_ACCOUNTS,
    WORKS,
    Resource,
)
from brokkr.work.template import ALLOWED_KINDS

ERRANDS = Resource("example.com", "v1", "Errand", "errands")

Install = Callable[..., None]


class ErrandHandler:
    """All that a handler needs; what is given replaces a part of it."""

    executor: str = "Errand"
    kinds: tuple[Resource, ...] = (ERRANDS, CONFIG_MAPS)
    related: tuple[Related, ...] = ()
    template_kinds: frozenset[tuple[str, str]] = frozenset({("example.com/v1", "Errand")})
    prerequisites: tuple[Prerequisite, ...] = ()

    def __init__(self, **replaced: Any) -> None:
        vars(self).update(replaced)

    def assess(self, work: object, attempt: int, seen: object, evidence: object) -> Verdict:
        return Running(message="on its way")

    def cancel(self, seen: object) -> Cancellation | None:
        return None


async def assess_later(work: object, attempt: int, seen: object, evidence: object) -> None:
    pass


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put packages where Python finds them, as an installer would."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def put(distribution: str, *, code: str = "", **entry_points: str) -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        lines = [f"{name} = {module}:{value}" for name, value in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))

    yield put
    for name in set(sys.modules) - before:
        del sys.modules[name]


GOOD = """
    from brokkr.agent.handlers.verdict import Running
    from brokkr.agent.kinds import Resource

    class Errands:
        executor = "Errand"
        kinds = (Resource("example.com", "v1", "Errand", "errands"),)
        related = ()
        template_kinds = frozenset({("example.com/v1", "Errand")})
        prerequisites = ()

        def assess(self, work, attempt, seen, evidence):
            return Running(message="on its way")

        def cancel(self, seen):
            return None
"""


def problem_with(value: Any) -> str:
    """Return why what an entry point returns is left out; empty if it is not."""
    module = ModuleType("brought")
    vars(module)["make"] = lambda: value
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "brought", module)
        installed = find_installed([EntryPoint("errand", "brought:make", GROUP)])
    return installed.left_out[0].problem if installed.left_out else ""


def found_in(folder: Path) -> Installed:
    """Load what packages in this folder bring, whatever else is installed here."""
    return find_installed(
        entry_point
        for distribution in distributions(path=[str(folder)])
        for entry_point in distribution.entry_points
        if entry_point.group == GROUP
    )


def the_problems(installed: Installed) -> dict[tuple[str, str], str]:
    return {(each.work_type, each.distribution): each.problem for each in installed.left_out}


def test_every_work_type_that_may_be_submitted_has_a_handler() -> None:
    assert handlers(BuildDefaults()).keys() == ALLOWED_KINDS.keys()


def test_what_an_attempt_is_executed_by_is_of_a_kind_that_its_type_allows() -> None:
    for work_type, handler in handlers(BuildDefaults()).items():
        assert handler.executor in {kind for _, kind in ALLOWED_KINDS[work_type]}


def test_a_package_beside_the_agent_brings_a_work_type(install: Install) -> None:
    install("errands", code=GOOD, errand="Errands")

    installed = find_installed().handlers

    assert installed["errand"].executor == "Errand"
    assert handlers(BuildDefaults(), installed=installed).keys() >= {"build", "errand"}


def test_a_package_that_is_of_no_use_is_named_and_the_others_go_on(
    install: Install, tmp_path: Path
) -> None:
    install("errands", code=GOOD, errand="Errands")
    install("no-module", code="import nowhere.to_be_found", a="X")
    install("no-attribute", code="", b="X")
    install("wants-arguments", code="def make(x): pass", c="make")
    install("breaks", code="raise RuntimeError('no licence')", d="X")
    install("leaves", code="import sys; sys.exit(3)", e="X")
    install("returns-text", code="def make(): return 'handler'", f="make")

    installed = found_in(tmp_path)
    problems = the_problems(installed)

    assert installed.handlers.keys() == {"errand"}
    assert problems.keys() == {
        ("a", "no-module"),
        ("b", "no-attribute"),
        ("c", "wants-arguments"),
        ("d", "breaks"),
        ("e", "leaves"),
        ("f", "returns-text"),
    }
    assert "ModuleNotFoundError: No module named 'nowhere'" in problems["a", "no-module"]
    assert "RuntimeError: no licence" in problems["d", "breaks"]
    assert "returns no handler: it has no executor" in problems["f", "returns-text"]


def test_the_built_in_type_cannot_be_replaced(install: Install, tmp_path: Path) -> None:
    install("better-builds", code=GOOD, build="Errands")

    installed = found_in(tmp_path)

    assert installed.handlers == {}
    assert "built in" in the_problems(installed)["build", "better-builds"]


def test_of_two_packages_with_one_type_none_is_used(install: Install, tmp_path: Path) -> None:
    install("errands", code=GOOD, errand="Errands")
    install("other-errands", code=GOOD, errand="Errands", trip="Errands")

    installed = found_in(tmp_path)
    problems = the_problems(installed)

    assert installed.handlers.keys() == {"trip"}
    assert problems.keys() == {("errand", "errands"), ("errand", "other-errands")}
    assert all("errands, other-errands" in each for each in problems.values())


@pytest.mark.parametrize("name", ["", "-x", "two words", "x" * 51, "ä"])
def test_a_name_that_no_work_type_can_have_is_left_out(name: str) -> None:
    installed = find_installed([EntryPoint(name, "brought:make", GROUP)])

    assert [each.distribution for each in installed.left_out] == ["unknown"]
    assert "can have this name" in installed.left_out[0].problem


def test_a_whole_handler_has_no_problem() -> None:
    handler: Handler = ErrandHandler()

    assert problem_with(handler) == ""


@pytest.mark.parametrize(
    ("replaced", "problem"),
    [
        ({"executor": 1}, "executor must be the name of a kind"),
        ({"executor": "Other"}, "executor 'Other' is none of its kinds"),
        ({"kinds": ()}, "kinds must be a tuple"),
        ({"kinds": [ERRANDS]}, "kinds must be a tuple"),
        ({"kinds": ("Errand",)}, "which is no Resource"),
        ({"kinds": (ERRANDS, ERRANDS)}, "two of one name"),
        ({"kinds": (ERRANDS, Resource("", "v1", "X", "pods/exec"))}, "is no word"),
        ({"related": [1]}, "related must be a tuple of Related"),
        ({"related": (ERRANDS,)}, "related must be a tuple of Related"),
        ({"related": (Related(ERRANDS, label=""),)}, "must name a label"),
        ({"template_kinds": {("v1", "ConfigMap")}}, "must be a frozenset"),
        ({"template_kinds": frozenset()}, "must be a frozenset"),
        ({"template_kinds": frozenset({"Errand"})}, "is no pair"),
        ({"template_kinds": frozenset({("v1", "Secret")})}, "no template may bring"),
        ({"template_kinds": frozenset({("brokkr.io/v1alpha1", "Work")})}, "no template may bring"),
        ({"prerequisites": ["x"]}, "prerequisites must be a tuple"),
        ({"assess": None}, "assess must be a method"),
        ({"assess": assess_later}, "must not be async"),
        ({"assess": lambda work, attempt, seen: None}, "assess must take 4 arguments"),
        ({"cancel": lambda: None}, "cancel must take 1 arguments"),
    ],
)
def test_what_a_handler_lacks_is_said(replaced: dict[str, Any], problem: str) -> None:
    assert problem in problem_with(ErrandHandler(**replaced))


def test_a_class_in_the_place_of_a_handler_is_refused() -> None:
    assert "an object of it is needed" in problem_with(ErrandHandler)


@pytest.mark.parametrize(
    "resource",
    [
        WORKS,
        SECRETS,
        SERVICE_ACCOUNTS,
        ROLE_BINDINGS,
        NAMESPACES,
        Resource("", "v1", "Innocent", "secrets"),
        Resource("", "v1", "Secret", "innocents"),
        Resource("brokkr.io", "v2", "Other", "others"),
        Resource("rbac.authorization.k8s.io", "v2", "Other", "others"),
    ],
    ids=str,
)
def test_no_work_type_may_touch_what_gives_permissions_or_is_not_its_namespaces(
    resource: Resource,
) -> None:
    assert str(resource) in problem_with(ErrandHandler(kinds=(ERRANDS, resource)))
    assert str(resource) in problem_with(ErrandHandler(related=(Related(resource, label="x"),)))

"""
What this stand-in cannot do (pure).

What would make another image, or break a promise, is refused; what a build is merely without is
said in its result.  ``docs/reference/local-build-runner.md`` lists all fields.
"""

import platform
from typing import Final

from brokkr.local.build_runner.references import Rejected
from brokkr.work.model import Manifest

BUILDER_ANNOTATION = "local.brokkr.io/builder"

_IGNORED: Final = (
    *("volumes", "nodeSelector", "tolerations", "schedulerName", "runtimeClassName"),
    *("stepResources", "trigger"),
)
_PARAMETERS: Final = ("dockerfile", "build-args")
# Python's names of machines, and Go's.
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def check_feasible(
    spec: Manifest, run: Manifest, strategy: Manifest, values: list[Manifest]
) -> None:
    """
    Refuse what this stand-in cannot do, rather than do something else.

    Raises:
        Rejected: What it is.
    """
    name = strategy["metadata"]["name"]
    if strategy["metadata"].get("annotations", {}).get(BUILDER_ANNOTATION) != "buildah":
        raise Rejected(
            "TaskRunGenerationFailed",
            f"the local build runner cannot run the steps of strategy {name}; it builds with "
            f"buildah if the strategy is annotated {BUILDER_ANNOTATION}: buildah",
        )
    source = spec.get("source") or {}
    if source.get("type") != "Git" or "git" not in source:
        given = f"from {source['type']}" if source.get("type") not in (None, "Git") else "without"
        raise Rejected(
            "TaskRunGenerationFailed", f"the local build runner builds from Git, not {given}"
        )
    unknown = [each["name"] for each in values if each["name"] not in _PARAMETERS]
    if unknown:
        raise Rejected(
            "TaskRunGenerationFailed",
            f"the local build runner knows the parameters {' and '.join(_PARAMETERS)}, and cannot "
            f"do what {', '.join(unknown)} would",
        )
    scan = {**spec["output"], **run.get("output", {})}.get("vulnerabilityScan") or {}
    if scan.get("enabled") and scan.get("failOnFinding"):
        raise Rejected(
            "TaskRunGenerationFailed",
            "the local build runner scans no image, so it cannot promise failOnFinding",
        )
    here = {"kubernetes.io/os": "linux", "kubernetes.io/arch": _architecture()}
    nodes = {**(spec.get("nodeSelector") or {}), **(run.get("nodeSelector") or {})}
    for label, value in here.items():
        if nodes.get(label, value) != value:
            raise Rejected(
                "TaskRunGenerationFailed",
                f"the local build runner builds for {'/'.join(here.values())}; nodeSelector asks "
                f"for {label}={nodes[label]}",
            )


def _architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def what_is_ignored(build: Manifest, run: Manifest, output: Manifest) -> tuple[str, ...]:
    """Name what was asked for, has no effect here, and does not change the image."""
    return (
        *(field for field in _IGNORED if build.get(field) or run.get(field)),
        *(["strategy.stepResources"] if build["strategy"].get("stepResources") else []),
        *(
            ["output.vulnerabilityScan"]
            if output.get("vulnerabilityScan", {}).get("enabled")
            else []
        ),
    )

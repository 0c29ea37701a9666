"""
Is this Build fit to be run?

Pure.  The checks stand in Shipwright's order, and the first that finds something wrong decides the
Build's status.  What they need to know of the cluster is given to them.
"""

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from brokkr.local.build_runner.parameters import Problem, find_problem
from brokkr.local.build_runner.status import words_of
from brokkr.work.build_fields import scheduling_problems
from brokkr.work.labels import problem_with_value
from brokkr.work.model import Manifest

# Environment variables that change which program runs, not what it is told.
_FORBIDDEN_ENV = re.compile(
    r"LD_.*|BASH_FUNC_.*|BASH_ENV|ENV|CDPATH|PYTHONSTARTUP|PERL5OPT|PERLLIB|PERL5LIB|RUBYOPT"
    r"|NODE_OPTIONS"
)


_TIMESTAMPS = ("Zero", "SourceTimestamp", "BuildTimestamp")
_SCHEDULING = {
    "nodeSelector": "NodeSelectorNotValid",
    "tolerations": "TolerationNotValid",
    "schedulerName": "SchedulerNameNotValid",
    "runtimeClassName": "RuntimeClassNameNotValid",
}


@dataclass(frozen=True)
class Registration:
    """What a Build's status says."""

    registered: bool
    reason: str
    message: str

    def status(self) -> Manifest:
        """Render it as the Build's status."""
        return {
            "registered": "True" if self.registered else "False",
            "reason": self.reason,
            "message": self.message,
        }


def refused_for(surprise: Exception) -> Registration:
    """Refuse a Build that the runner can make nothing of."""
    return Registration(
        registered=False, reason="TaskRunGenerationFailed", message=words_of(surprise)
    )


def secrets_of(spec: Manifest) -> dict[str, str]:
    """Name the Secrets that a Build's spec refers to, each with the reason if it is missing."""
    named = {
        "SpecSourceSecretRefNotFound": spec.get("source", {}).get("git", {}).get("cloneSecret"),
        "SpecOutputSecretRefNotFound": spec["output"].get("pushSecret"),
    }
    return {secret: reason for reason, secret in named.items() if secret}


def register(
    name: str,
    namespace: str,
    spec: Manifest,
    *,
    secrets: AbstractSet[str],
    strategy: Manifest | None,
) -> Registration:
    """
    Check a Build.

    Args:
        name: The Build's name.
        namespace: Where it lives.
        spec: Its spec.
        secrets: Those of the Secrets it names that exist.
        strategy: The strategy it names; None if there is none of that name.
    """
    problem = (
        _problem_with_secrets(spec, secrets)
        or _problem_with_strategy(namespace, spec, strategy)
        or _problem_with_output(spec)
        or _problem_with_name(name)
        or problem_with_env(spec.get("env") or [])
        or _problem_with_triggers(spec)
        or problem_with_scheduling(spec)
    )
    if problem is None:
        return Registration(
            registered=True, reason="Succeeded", message="all validations succeeded"
        )
    return Registration(registered=False, reason=problem[0], message=problem[1])


def problem_with_env(env: list[Manifest]) -> Problem | None:
    """Find what is wrong with environment variables, as (reason, message)."""
    for variable in env:
        name = variable.get("name")
        if not name:
            return "SpecEnvNameCanNotBeBlank", "name for environment variable must not be blank"
        if _FORBIDDEN_ENV.fullmatch(name):
            return "SpecEnvNameForbidden", f"environment variable {name} must not be set"
        if variable.get("value") and "valueFrom" in variable:
            return (
                "SpecEnvOnlyOneOfValueOrValueFromMustBeSpecified",
                "only one of value or valueFrom must be specified",
            )
    return None


def _problem_with_secrets(spec: Manifest, secrets: AbstractSet[str]) -> Problem | None:
    missing = {name: reason for name, reason in secrets_of(spec).items() if name not in secrets}
    match list(missing.items()):
        case []:
            return None
        case [(name, reason)]:
            return reason, f"referenced secret {name} not found"
        case _:
            return "MultipleSecretRefNotFound", f"missing secrets are {','.join(sorted(missing))}"


def _problem_with_strategy(
    namespace: str, spec: Manifest, strategy: Manifest | None
) -> Problem | None:
    name = spec["strategy"]["name"]
    kind = spec["strategy"].get("kind", "BuildStrategy")
    if kind not in {"BuildStrategy", "ClusterBuildStrategy"}:
        return "UnknownBuildStrategyKind", f"unknown strategy kind {kind}"
    if strategy is None and kind == "BuildStrategy":
        return (
            "BuildStrategyNotFound",
            f"buildStrategy {name} does not exist in namespace {namespace}",
        )
    if strategy is None:
        return "ClusterBuildStrategyNotFound", f"clusterBuildStrategy {name} does not exist"
    return (
        find_problem(strategy, spec.get("paramValues") or [])
        or problem_with_volumes(spec.get("volumes") or [], strategy)
        or problem_with_steps(spec["strategy"].get("stepResources") or [], strategy)
    )


def problem_with_steps(resources: list[Manifest], strategy: Manifest) -> Problem | None:
    """Find the first step that the strategy does not have, as (reason, message)."""
    known = {step["name"] for step in strategy["spec"].get("steps") or []}
    for name in (each["name"] for each in resources if each["name"] not in known):
        return (
            "UndefinedStepResource",
            f'stepResources references step "{name}" which does not exist in the build strategy',
        )
    return None


def problem_with_scheduling(spec: Manifest) -> Problem | None:
    """Find what is wrong with where a build shall run, as (reason, message)."""
    for field, problem in scheduling_problems(spec):
        return _SCHEDULING[re.split(r"[.\[]", field)[0]], f"{field}: {problem}"
    return None


def problem_with_platforms(output: Manifest, spec: Manifest) -> Problem | None:
    """Find why an image for these platforms cannot be made, as (reason, message)."""
    platforms = output.get("platforms") or []
    for index, each in enumerate(platforms):
        names = (each["os"], each["arch"])
        if not all(re.fullmatch("[a-z0-9]{1,64}", name) for name in names):
            return "InvalidPlatform", f"spec.output.platforms[{index}] must name an os and an arch"
        if names in [(one["os"], one["arch"]) for one in platforms[:index]]:
            told = f"spec.output.platforms[{index}] is a duplicate of {'/'.join(names)}"
            return "InvalidPlatform", told
    for label in ("kubernetes.io/os", "kubernetes.io/arch"):
        if platforms and label in (spec.get("nodeSelector") or {}):
            return (
                "NodeSelectorPlatformConflict",
                f'nodeSelector must not contain "{label}" when spec.output.platforms is set',
            )
    return None


def _problem_with_output(spec: Manifest) -> Problem | None:
    timestamp = spec["output"].get("timestamp") or "Zero"
    if timestamp == "SourceTimestamp" and not spec.get("source"):
        return (
            "OutputTimestampNotSupported",
            "cannot use SourceTimestamp output image setting with an empty build source",
        )
    if timestamp not in _TIMESTAMPS and not re.fullmatch(r"[+-]?[0-9]{1,18}", timestamp):
        words = "Zero, SourceTimestamp, BuildTimestamp, or number"
        return "OutputTimestampNotValid", f"output timestamp value is invalid, must be {words}"
    return problem_with_platforms(spec["output"], spec)


def _problem_with_triggers(spec: Manifest) -> Problem | None:
    needed = {
        "GitHub": ("github", "events", "TriggerInvalidGitHubWebHook"),
        "Image": ("image", "names", "TriggerInvalidImage"),
        "Pipeline": ("objectRef", "status", "TriggerInvalidPipeline"),
    }
    for when in (spec.get("trigger") or {}).get("when") or []:
        name, kind = when["name"], when["type"]
        if not name:
            return "TriggerNameCanNotBeBlank", "name is not set on when trigger condition"
        if kind not in needed:
            return "TriggerInvalidType", f'"{name}" contains an invalid type "{kind}"'
        block, field, reason = needed[kind]
        if not when.get(block):
            return reason, f'"{name}" is missing required attribute `.{block}`'
        if not when[block].get(field):
            return reason, f'"{name}" is missing required attribute `.{block}.{field}`'
    return None


def problem_with_volumes(volumes: list[Manifest], strategy: Manifest) -> Problem | None:
    """Find the first volume that may not be given, as (reason, message)."""
    known = {volume["name"]: volume for volume in strategy["spec"].get("volumes") or []}
    for volume in volumes:
        name = volume["name"]
        if name not in known:
            return "UndefinedVolume", f'Volume "{name}" is not defined in the Strategy'
        if not known[name].get("overridable"):
            return "VolumeNotOverridable", f'Volume "{name}" is not overridable in the Strategy'
    return None


def _problem_with_name(name: str) -> Problem | None:
    problem = problem_with_value(name)
    return None if problem is None else ("BuildNameInvalid", problem)

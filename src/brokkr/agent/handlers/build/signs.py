"""What the objects at hand say of a build that failed: the most specific reason, and where."""

# Note [The most specific reason decides]
#
# A BuildRun's ``Succeeded`` condition often only says that something below it failed.
# So the reason is looked for in this order, each found in the objects themselves:
#
# - ``BuildRegistrationFailed``: the Build's own reason, which stands in the message.
#   The message comes first because the Build may have been validated again since.
# - ``Failed`` and its like: ``failureDetails.reason``, which a step wrote; else what the
#   step left in its TaskRun; else the TaskRun's own condition, for a PipelineRun only
#   says that one of its TaskRuns failed.
# - else the condition's reason.
#
# Where one reason covers several causes, the rows' conditions tell them apart.

import re
from dataclasses import dataclass
from typing import Final

from brokkr.agent.handlers.build.execution import Execution
from brokkr.agent.handlers.build.failure_table import REGISTRATION, SECRET_REASONS, SOME_STEP
from brokkr.agent.handlers.build.reading import condition_of, part_of, text_of
from brokkr.agent.handlers.verdict import LogLookup, ObjectLookup
from brokkr.agent.kinds import (
    BUILD_STRATEGIES,
    BUILDS,
    CLUSTER_BUILD_STRATEGIES,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
)
from brokkr.work.model import Manifest

_INNER_REASON = re.compile(r"\breason: (\w{1,100})")
_EXIT_CODE = re.compile(r"\(exit code (\d{1,3})\)")
_CONFIG_MAP = re.compile(r'\bconfigmaps? "([^"]{1,253})" not found')
# A step may write anything as its reason; only a word can be a condition's reason.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,99}")
# What is looked for becomes part of a path.
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")

_OOM_KILLED: Final = "OOMKilled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What the objects at hand say about a failure.

    Attributes:
        is_told: Whether the message is what the step wrote about itself.
        pod: Whose log may say more; empty if nobody's.
        missing: What is said to be missing, if that can be looked at.
        note: What else is to be said of the verdict.
    """

    reason: str
    message: str = ""
    is_told: bool = False
    pod: str = ""
    container: str = ""
    exit_code: int | None = None
    missing: ObjectLookup | None = None
    note: str = ""

    @property
    def log(self) -> LogLookup | None:
        """Return where the log is to be found."""
        if NAME.fullmatch(self.pod) and NAME.fullmatch(self.container):
            return LogLookup(self.pod, self.container)
        return None


def signs_of_run(execution: Execution, build: Manifest | None) -> Signs:
    """Gather what is known about a BuildRun whose ``Succeeded`` condition is False."""
    run = execution.run
    condition = condition_of(run)
    reason = text_of(condition, "reason") or "Failed"
    message = text_of(condition, "message")
    if reason == REGISTRATION:
        return _signs_of_registration(message, build, execution)
    if reason in SOME_STEP:
        return _signs_of_step(reason, message, execution)
    return _signs_of_reference(reason, message, execution, build)


def signs_of_build(build: Manifest) -> Signs:
    """Gather what is known about a Build that Shipwright refuses to register."""
    return _signs_of_registration("", build, Execution({}, (), ()))


def signs_of_execution(execution: Execution) -> Signs:
    """Gather what Tekton alone says about a run that failed."""
    condition = execution.condition
    reason = text_of(condition, "reason") or "Failed"
    message = text_of(condition, "message")
    if reason in SOME_STEP:
        return _signs_of_step(reason, message, execution)
    return _signs_of_reference(reason, message, execution, None)


def _signs_of_registration(message: str, build: Manifest | None, execution: Execution) -> Signs:
    refusal = part_of(build, "status")
    if refusal.get("registered") != "False":
        refusal = {}
    inner = _INNER_REASON.search(message)
    reason = (inner[1] if inner else text_of(refusal, "reason")) or REGISTRATION
    # The Build says what is wrong with it; the BuildRun only that something is.
    message = text_of(refusal, "message") or message
    if reason in SECRET_REASONS and not refusal:
        message = f"{message}; the Build names: {', '.join(_secrets(build, execution.run))}"
    return _signs_of_reference(reason, message, execution, build)


def _signs_of_step(reason: str, message: str, execution: Execution) -> Signs:
    details = part_of(execution.run, "status", "failureDetails")
    step = execution.failed_step
    given = text_of(details, "reason") or step.reason
    told = text_of(details, "message") or step.message
    is_told = bool(_WORD.fullmatch(given) and told)
    if _WORD.fullmatch(given):
        reason, message = given, told or message
    else:
        # A PipelineRun says only that one of its TaskRuns failed; and Shipwright may not
        # know a reason that Tekton gives since.
        below = condition_of(execution.failed_taskrun)
        if text_of(below, "reason") not in ("", *SOME_STEP):
            return _signs_of_reference(
                text_of(below, "reason"), text_of(below, "message"), execution, None
            )
        if step.ended_as == _OOM_KILLED:  # and before 1.12 nor does Tekton say so
            reason = "StepOOM"
    return Signs(
        reason=reason,
        message=message,
        is_told=is_told,
        pod=step.pod,
        container=step.container,
        exit_code=_exit_code(message) if step.exit_code is None else step.exit_code,
    )


def _signs_of_reference(
    reason: str, message: str, execution: Execution, build: Manifest | None
) -> Signs:
    if not _WORD.fullmatch(reason):
        reason = "Failed"
    if reason == "CreateContainerConfigError" and execution.waits_for not in message:
        message = f"{message}: {execution.waits_for}"
    return Signs(
        reason=reason,
        message=message,
        missing=_missing(reason, message, execution.run, build),
    )


def _missing(
    reason: str, message: str, run: Manifest, build: Manifest | None
) -> ObjectLookup | None:
    # Not Secrets: an agent may not read them.
    match reason:
        case "BuildNotFound":
            resource, name = BUILDS, text_of(run, "spec", "build", "name")
        case "ServiceAccountNotFound":
            resource, name = SERVICE_ACCOUNTS, text_of(run, "spec", "serviceAccount")
        case "BuildStrategyNotFound":
            resource, name = BUILD_STRATEGIES, _strategy(run, build)
        case "ClusterBuildStrategyNotFound":
            resource, name = CLUSTER_BUILD_STRATEGIES, _strategy(run, build)
        case "VolumeDoesNotExist" | "CreateContainerConfigError":
            found = _CONFIG_MAP.search(message)
            resource, name = CONFIG_MAPS, found[1] if found else ""
        case _:
            return None
    return ObjectLookup(resource, name) if NAME.fullmatch(name) else None


def _strategy(run: Manifest, build: Manifest | None) -> str:
    return text_of(run, "status", "buildSpec", "strategy", "name") or text_of(
        build, "spec", "strategy", "name"
    )


def _secrets(build: Manifest | None, run: Manifest) -> list[str]:
    spec = part_of(build, "spec") or part_of(run, "status", "buildSpec")
    named = (
        text_of(spec, "source", "git", "cloneSecret"),
        text_of(spec, "source", "ociArtifact", "pullSecret"),
        text_of(spec, "output", "pushSecret"),
    )
    return [each for each in named if each] or ["none"]


def _exit_code(message: str) -> int | None:
    found = _EXIT_CODE.search(message)
    return int(found[1]) if found else None

"""
Why a build failed, and whether the same build may end differently next time.

The policy is one table, :data:`TABLE`; everything else here finds what is looked up in
it.  ``docs/reference/failures.md`` is the table in print.

Sources: the reasons that Shipwright (v0.17 to v0.20 and main) and Tekton (0.59 to 1.15)
write, and BuildRuns recorded from both.
"""

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
#
# Note [Evidence is asked for by the row that needs it]
#
# Rows are tried in order, and the first that holds is taken.  A row that depends on a log
# or on another object is reached only if nothing before it holds; so what it asks for
# can change the answer, and nothing else is asked for.  What was asked for and cannot be
# had counts as not being there, and the next row is tried: the question always ends.

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from brokkr.agent.handlers.build.execution import Execution
from brokkr.agent.handlers.build.phrases import (
    ANYTHING,
    BUILDER_REFUSED,
    BUILDER_TRANSPORT,
    GIT_CERTIFICATE,
    GIT_NOT_THERE,
    GIT_TRANSPORT,
    GIT_WRONG_CREDENTIALS,
    NO_ANSWER,
    NO_SUCH_IMAGE,
    POD_NOT_ALLOWED,
    POD_NOT_FOUND,
    REGISTRY_REFUSAL,
    REGISTRY_TRANSPORT,
    Phrase,
    last_words,
    printable,
)
from brokkr.agent.handlers.build.reading import condition_of, part_of, text_of
from brokkr.agent.handlers.verdict import (
    Evidence,
    Failed,
    LogLookup,
    Lookup,
    ObjectLookup,
    Retry,
    Unclear,
)
from brokkr.agent.kinds import (
    BUILD_STRATEGIES,
    BUILDS,
    CLUSTER_BUILD_STRATEGIES,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
)
from brokkr.work.model import Manifest

CANCELLATIONS: Final = frozenset({"BuildRunCanceled", "Cancelled", "TaskRunCancelled"})
"""How a build ends that was told to stop, whoever told it."""

POLICY_VIOLATION: Final = "PolicyViolation"
"""A build that the agent's own operator does not allow; Shipwright never hears of it."""

MAX_MESSAGE: Final = 800

SOURCE_STEP: Final = "step-source-default"
UPLOAD_STEP: Final = "step-source-local"
IMAGE_STEP: Final = "step-image-processing"

_EXIT_VULNERABLE: Final = 22
_EXIT_GIT_CREDENTIALS: Final = 110

SOME_STEP: Final = ("Failed", "StepFailed", "PipelineRunFailed")
"""These say that a step failed, and not why."""

_REGISTRATION: Final = "BuildRegistrationFailed"
_SECRET_REASONS: Final = (
    "SpecSourceSecretRefNotFound",
    "SpecOutputSecretRefNotFound",
    "MultipleSecretRefNotFound",
)
_INNER_REASON = re.compile(r"\breason: (\w{1,100})")
_EXIT_CODE = re.compile(r"\(exit code (\d{1,3})\)")
_CONFIG_MAP = re.compile(r'\bconfigmaps? "([^"]{1,253})" not found')
# A step may write anything as its reason; only a word can be a condition's reason.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,99}")
# What is looked for becomes part of a path.
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What to do about some failures.

    Attributes:
        name: The class of failures, which may have several rows; retries are counted by it.
        why: Completes the message; also the last column in print.
        container: The row holds only if this one failed.
        exit_code: Only if it ended with this.
        saying: Only if the message says this.
        log: Only if the container's log says this.
        is_there: Only if what is said to be missing is there after all.
    """

    name: str
    retry: Retry
    why: str
    reasons: tuple[str, ...]
    container: str = ""
    exit_code: int | None = None
    saying: Phrase | None = None
    log: Phrase | None = None
    is_there: bool = False


TABLE: Final = (
    # -- the run as a whole
    Row(
        name="CancelledElsewhere",
        reasons=tuple(sorted(CANCELLATIONS)),
        retry=Retry.NEVER,
        why="cancelled by somebody else, not through Brokkr",
    ),
    Row(
        name="Timeout",
        reasons=("BuildRunTimeout", "PipelineRunTimeout", "TaskRunTimeout"),
        retry=Retry.ALWAYS,
        why="waiting for a node counts too; if it recurs, raise the timeout",
    ),
    Row(
        name="PodEvicted",
        reasons=("PodEvicted",),
        retry=Retry.ALWAYS,
        why="the node ran out of disk or memory for its pods",
    ),
    Row(
        name="ExecutorDeleted",
        reasons=("TaskRunIsMissing",),
        retry=Retry.ALWAYS,
        why="the executor was deleted before it finished",
    ),
    Row(
        name="OutOfMemory",
        reasons=("StepOutOfMemory", "StepOOM", "SidecarOOM", "InitContainerOOM"),
        retry=Retry.NEVER,
        why="the same limit is reached again; raise it with spec.strategy.stepResources",
    ),
    Row(
        name="VulnerabilitiesFound",
        reasons=("VulnerabilitiesFound",),
        retry=Retry.NEVER,
        why="the same image has the same findings",
    ),
    Row(
        name="VulnerabilitiesFound",
        reasons=SOME_STEP,
        container=IMAGE_STEP,
        exit_code=_EXIT_VULNERABLE,
        retry=Retry.NEVER,
        why="the same image has the same findings",
    ),
    Row(
        name="PodLost",
        reasons=SOME_STEP,
        saying=POD_NOT_FOUND,
        retry=Retry.ALWAYS,
        why="the pod or its node was lost before it could be asked",
    ),
    Row(
        name="PolicyViolation",
        reasons=(POLICY_VIOLATION,),
        retry=Retry.NEVER,
        why="the agent's operator does not allow it: see [agent.policy]",
    ),
    # -- fetching the source
    Row(
        name="GitCredentials",
        reasons=(
            "GitAuthInvalidUserOrPass",
            "GitRemoteRepositoryPrivate",
            "GitSSHAuthUnexpected",
            "GitSSHAuthExpected",
            "GitBasicAuthIncomplete",
            "AuthUnexpectedHTTP",
        ),
        retry=Retry.NEVER,
        why="the clone secret is missing or wrong, or of a kind that does not fit the URL",
    ),
    Row(
        name="GitCredentials",
        reasons=("GitError",),
        exit_code=_EXIT_GIT_CREDENTIALS,
        retry=Retry.NEVER,
        why="the clone secret is missing or wrong, or of a kind that does not fit the URL",
    ),
    Row(
        name="GitNotFound",
        reasons=("GitRevisionNotFound", "GitRemoteRepositoryNotFound"),
        retry=Retry.NEVER,
        why="the repository or the revision is not there, or may not be read",
    ),
    Row(
        name="GitNotFound",
        reasons=("GitError",),
        saying=GIT_NOT_THERE,
        retry=Retry.NEVER,
        why="the repository or the revision is not there, or may not be read",
    ),
    Row(
        name="GitCertificate",
        reasons=("GitError",),
        saying=GIT_CERTIFICATE,
        retry=Retry.NEVER,
        why="the repository's certificate is not trusted where the build runs",
    ),
    Row(
        name="GitTransport",
        reasons=("GitError",),
        saying=GIT_TRANSPORT,
        retry=Retry.ALWAYS,
        why="the connection to the repository failed",
    ),
    # Without a reason of its own the step may have fetched from git (a PipelineRun passes
    # no reasons on) or from a registry (an OCI source gives none).
    Row(
        name="GitCredentials",
        reasons=("GitError", "GitAuthInvalidKey", *SOME_STEP),
        container=SOURCE_STEP,
        log=GIT_WRONG_CREDENTIALS,
        retry=Retry.NEVER,
        why="the clone secret is missing or wrong, or of a kind that does not fit the URL",
    ),
    Row(
        name="GitNotFound",
        reasons=("GitError", "GitAuthInvalidKey", *SOME_STEP),
        container=SOURCE_STEP,
        log=GIT_NOT_THERE,
        retry=Retry.NEVER,
        why="the repository or the revision is not there, or may not be read",
    ),
    Row(
        name="GitCertificate",
        reasons=("GitError", *SOME_STEP),
        container=SOURCE_STEP,
        log=GIT_CERTIFICATE,
        retry=Retry.NEVER,
        why="the repository's certificate is not trusted where the build runs",
    ),
    Row(
        name="GitTransport",
        reasons=("GitError", "GitAuthInvalidKey", *SOME_STEP),
        container=SOURCE_STEP,
        log=GIT_TRANSPORT,
        retry=Retry.ALWAYS,
        why="the connection to the repository failed",
    ),
    Row(
        name="SourceRefused",
        reasons=SOME_STEP,
        container=SOURCE_STEP,
        log=REGISTRY_REFUSAL,
        retry=Retry.NEVER,
        why="the registry refuses the source: see the pull secret and the image's name",
    ),
    Row(
        name="SourceTransport",
        reasons=SOME_STEP,
        container=SOURCE_STEP,
        log=REGISTRY_TRANSPORT,
        retry=Retry.ALWAYS,
        why="the registry with the source could not be reached",
    ),
    Row(
        name="SourceUnclear",
        reasons=("GitError", "GitAuthInvalidKey"),
        retry=Retry.ONCE,
        why="may be the network, the key or the repository",
    ),
    Row(
        name="SourceUnclear",
        reasons=SOME_STEP,
        container=SOURCE_STEP,
        retry=Retry.ONCE,
        why="may be the network, the key or the repository",
    ),
    Row(
        name="UploadMissing",
        reasons=SOME_STEP,
        container=UPLOAD_STEP,
        retry=Retry.ALWAYS,
        why="the source was not uploaded in time",
    ),
    # -- pushing and scanning the image, where Shipwright does it
    Row(
        name="PushRefused",
        reasons=SOME_STEP,
        container=IMAGE_STEP,
        log=REGISTRY_REFUSAL,
        retry=Retry.NEVER,
        why="the registry refuses the push: see the push secret and the image's name",
    ),
    Row(
        name="PushTransport",
        reasons=SOME_STEP,
        container=IMAGE_STEP,
        log=REGISTRY_TRANSPORT,
        retry=Retry.ALWAYS,
        why="the registry, or the scanner's database, could not be reached",
    ),
    Row(
        name="PushFailed",
        reasons=SOME_STEP,
        container=IMAGE_STEP,
        log=ANYTHING,
        retry=Retry.ONCE,
        why="what the step said last is not known",
    ),
    Row(
        name="PushUnclear",
        reasons=SOME_STEP,
        container=IMAGE_STEP,
        retry=Retry.ALWAYS,
        why="the push or the scan failed, and its log is not to be had",
    ),
    # -- the steps of a strategy
    Row(
        name="InputRefused",
        reasons=("ContextDirNotFound", "DockerfileNotFound", "InvalidParameterValue"),
        retry=Retry.NEVER,
        why="the same source and parameters give the same answer",
    ),
    Row(
        name="StrategyUnfit",
        reasons=("StrategyImageUnfit",),
        retry=Retry.NEVER,
        why="the image of the build strategy lacks something: see how to install a build strategy",
    ),
    Row(
        name="RegistryRefused",
        reasons=SOME_STEP,
        log=BUILDER_REFUSED,
        retry=Retry.NEVER,
        why="a registry refuses to give a base image or to take the image, or has no such image",
    ),
    Row(
        name="RegistryTransport",
        reasons=SOME_STEP,
        log=BUILDER_TRANSPORT,
        retry=Retry.ALWAYS,
        why="a registry could not be reached, for a base image or for the push",
    ),
    Row(
        name="StepFailed",
        reasons=SOME_STEP,
        retry=Retry.ONCE,
        why="the step gave no reason; mostly it is the Dockerfile or what it runs",
    ),
    # -- getting the pod to run
    Row(
        name="ImageRefused",
        reasons=("TaskRunImagePullFailed",),
        saying=NO_SUCH_IMAGE,
        retry=Retry.NEVER,
        why="an image of the strategy does not exist or may not be pulled",
    ),
    Row(
        name="ImagePull",
        reasons=("TaskRunImagePullFailed",),
        retry=Retry.ALWAYS,
        why="an image of the strategy could not be pulled",
    ),
    Row(
        name="PodRefused",
        reasons=("PodCreationFailed",),
        saying=POD_NOT_ALLOWED,
        retry=Retry.NEVER,
        why="the cluster's policy refuses such a pod",
    ),
    Row(
        name="PodRefused",
        reasons=("PodAdmissionFailed",),
        retry=Retry.NEVER,
        why="the cluster's policy refuses such a pod",
    ),
    Row(
        name="ClusterTrouble",
        reasons=("PodCreationFailed",),
        saying=NO_ANSWER,
        retry=Retry.ALWAYS,
        why="the cluster had trouble around the build, not with it",
    ),
    Row(
        name="ClusterTrouble",
        reasons=(
            "TaskRunStopSidecarFailed",
            "SidecarFailed",
            "InitContainerFailed",
            "CreateRunFailed",
            "CouldntGetTask",
            "CouldntGetPipeline",
            "CouldntGetPipelineResult",
        ),
        retry=Retry.ALWAYS,
        why="the cluster had trouble around the build, not with it",
    ),
    Row(
        name="PodNotCreated",
        reasons=("PodCreationFailed",),
        retry=Retry.ONCE,
        why="the pod could not be made",
    ),
    Row(
        name="RunRefused",
        reasons=(
            "TaskRunValidationFailed",
            "TaskValidationFailed",
            "InvalidParamValue",
            "TaskRunResolutionFailed",
            "ResourceVerificationFailed",
            "PipelineValidationFailed",
            "InvalidTaskRunSpecs",
            "InvalidWorkspaceBindings",
            "ParameterMissing",
            "ParameterTypeMismatch",
            "PipelineInvalidGraph",
        ),
        retry=Retry.NEVER,
        why="Tekton refuses such a run",
    ),
    Row(
        name="ResultTooLarge",
        reasons=("TaskRunResultLargerThanAllowedLimit",),
        retry=Retry.NEVER,
        why="the steps say more than a pod's termination message can hold",
    ),
    Row(
        name="NoStorage",
        reasons=(
            "CouldntCreateWorkspacePVC",
            "ReasonCouldntCreateOrUpdateAffinityAssistantStatefulSet",
        ),
        retry=Retry.ONCE,
        why="a quota is used up, or there is no default StorageClass",
    ),
    Row(
        name="NoSuchNode",
        reasons=("NodePlatformNotFound",),
        retry=Retry.ALWAYS,
        why="no node of this platform is ready now",
    ),
    # -- what the Build or the BuildRun names
    Row(
        name="CacheRace",
        reasons=(
            "BuildNotFound",
            "BuildStrategyNotFound",
            "ClusterBuildStrategyNotFound",
            "CreateContainerConfigError",
            "ServiceAccountNotFound",
            "VolumeDoesNotExist",
        ),
        is_there=True,
        retry=Retry.TWICE,
        why="it is there; Shipwright had not seen it yet",
    ),
    Row(
        name="MissingReference",
        reasons=(
            "BuildNotFound",
            "BuildStrategyNotFound",
            "ClusterBuildStrategyNotFound",
            "CreateContainerConfigError",
            "ServiceAccountNotFound",
            "VolumeDoesNotExist",
            *_SECRET_REASONS,
        ),
        retry=Retry.NEVER,
        why="what the Build names must be in this cluster, in the agent's namespace",
    ),
    Row(
        name="RepositoryUnreachable",
        reasons=("RemoteRepositoryUnreachable",),
        retry=Retry.ALWAYS,
        why="Shipwright could not reach the repository",
    ),
    # -- fields that Shipwright refuses, on a Build or on a BuildRun
    Row(
        name="SpecRefused",
        reasons=(
            "BuildNameInvalid",
            _REGISTRATION,
            "BuildRunAmbiguousBuild",
            "BuildRunBuildFieldOverrideForbidden",
            "BuildRunNameInvalid",
            "BuildRunNoRefOrSpec",
            "EmptyArrayItemParameterValues",
            "ExecutorNotPipelineRun",
            "IncompleteConfigMapValueParameterValues",
            "IncompleteSecretValueParameterValues",
            "InconsistentParameterValues",
            "InvalidPlatform",
            "MissingParameterValues",
            "NodeSelectorNotValid",
            "NodeSelectorPlatformConflict",
            "OutputTimestampNotSupported",
            "OutputTimestampNotValid",
            "PipelineRunGenerationFailed",
            "RestrictedParametersInUse",
            "RuntimeClassNameNotValid",
            "RuntimePathsCanNotBeEmpty",
            "SchedulerNameNotValid",
            "SetOwnerReferenceFailed",
            "SpecBuilderSecretRefNotFound",
            "SpecEnvNameCanNotBeBlank",
            "SpecEnvNameForbidden",
            "SpecEnvOnlyOneOfValueOrValueFromMustBeSpecified",
            "SpecEnvValueCanNotBeBlank",
            "TaskRunGenerationFailed",
            "TolerationNotValid",
            "TriggerInvalidGitHubWebHook",
            "TriggerInvalidImage",
            "TriggerInvalidPipeline",
            "TriggerInvalidType",
            "TriggerNameCanNotBeBlank",
            "UndefinedParameter",
            "UndefinedStepResource",
            "UndefinedVolume",
            "UnknownBuildStrategyKind",
            "UnknownStrategyKind",
            "VolumeNotOverridable",
            "WrongParameterValueType",
        ),
        retry=Retry.NEVER,
        why="the same spec is refused again",
    ),
)
"""The first row that holds is taken; :data:`UNLISTED` if there is none."""

UNLISTED: Final = Row(name="Unlisted", reasons=(), retry=Retry.ONCE, why="this reason is not known")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What the objects at hand say about a failure.

    Attributes:
        pod: Whose log may say more; empty if nobody's.
        missing: What is said to be missing, if that can be looked at.
    """

    reason: str
    message: str = ""
    pod: str = ""
    container: str = ""
    exit_code: int | None = None
    missing: ObjectLookup | None = None

    @property
    def log(self) -> LogLookup | None:
        """Return where the log is to be found."""
        if _NAME.fullmatch(self.pod) and _NAME.fullmatch(self.container):
            return LogLookup(self.pod, self.container)
        return None


def signs_of_run(execution: Execution, build: Manifest | None) -> Signs:
    """Gather what is known about a BuildRun whose ``Succeeded`` condition is False."""
    run = execution.run
    condition = condition_of(run)
    reason = text_of(condition, "reason") or "Failed"
    message = text_of(condition, "message")
    if reason == _REGISTRATION:
        return _signs_of_registration(message, build, run)
    if reason in SOME_STEP:
        return _signs_of_step(reason, message, execution)
    return _signs_of_reference(reason, message, run, build)


def signs_of_build(build: Manifest) -> Signs:
    """Gather what is known about a Build that Shipwright refuses to register."""
    return _signs_of_registration("", build, {})


def signs_of_execution(execution: Execution) -> Signs:
    """Gather what Tekton alone says about a run that failed."""
    condition = execution.condition
    reason = text_of(condition, "reason") or "Failed"
    message = text_of(condition, "message")
    if reason in SOME_STEP:
        return _signs_of_step(reason, message, execution)
    return _signs_of_reference(reason, message, execution.run, None)


def judge(signs: Signs, evidence: Evidence) -> Failed | Unclear:
    """Find the row that holds, or what has to be looked at to find it."""
    for row in TABLE:
        if not _may_hold(row, signs):
            continue
        lookup = signs.log if row.log is not None else signs.missing if row.is_there else None
        if lookup is None:
            if row.log is None and not row.is_there:
                return _failed(row, signs, evidence)
        elif lookup not in evidence:
            return Unclear(look_at=(lookup,))
        elif _is_borne_out(row, evidence[lookup]):
            return _failed(row, signs, evidence)
    return _failed(UNLISTED, signs, evidence)


def judge_now(signs: Signs, evidence: Evidence) -> Failed:
    """Judge by what there is; what could still be looked at counts as not being there."""
    known: dict[Lookup, Manifest | str | None] = dict(evidence)
    while isinstance(verdict := judge(signs, known), Unclear):
        known |= dict.fromkeys(verdict.look_at)
    return verdict


def _may_hold(row: Row, signs: Signs) -> bool:
    """Say whether the row holds but for what has to be looked at."""
    return (
        signs.reason in row.reasons
        and row.container in ("", signs.container)
        and row.exit_code in (None, signs.exit_code)
        and (row.saying is None or row.saying.find_in(signs.message) is not None)
    )


def _is_borne_out(row: Row, found: Manifest | str | None) -> bool:
    if row.log is None:
        return isinstance(found, Mapping)
    return isinstance(found, str) and row.log.find_in(found) is not None


def _failed(row: Row, signs: Signs, evidence: Evidence) -> Failed:
    said = _what_the_log_says(row, signs, evidence) or signs.message
    said = printable(said[:MAX_MESSAGE])
    return Failed(
        reason=signs.reason,
        message=f"{said} ({row.why})" if said else row.why,
        retry=row.retry,
        failure_class=row.name,
    )


def _what_the_log_says(row: Row, signs: Signs, evidence: Evidence) -> str:
    """Return the line that decided; if none did, the step's last, which is the best guess."""
    log = evidence.get(signs.log) if signs.log is not None else None
    if not isinstance(log, str):
        return ""
    line = (row.log.find_in(log) if row.log is not None else None) or last_words(log)
    return f"{signs.container}: {line}" if line else ""


def _signs_of_registration(message: str, build: Manifest | None, run: Manifest) -> Signs:
    refusal = part_of(build, "status")
    if refusal.get("registered") != "False":
        refusal = {}
    inner = _INNER_REASON.search(message)
    reason = (inner[1] if inner else text_of(refusal, "reason")) or _REGISTRATION
    # The Build says what is wrong with it; the BuildRun only that something is.
    message = text_of(refusal, "message") or message
    if reason in _SECRET_REASONS and not refusal:
        message = f"{message}; the Build names: {', '.join(_secrets(build, run))}"
    return _signs_of_reference(reason, message, run, build)


def _signs_of_step(reason: str, message: str, execution: Execution) -> Signs:
    details = part_of(execution.run, "status", "failureDetails")
    step = execution.failed_step
    given = text_of(details, "reason") or step.reason
    if _WORD.fullmatch(given):
        reason = given
        message = text_of(details, "message") or step.message or message
    else:
        # A PipelineRun says only that one of its TaskRuns failed; and Shipwright may not
        # know a reason that Tekton gives since.
        below = condition_of(execution.failed_taskrun)
        if text_of(below, "reason") not in ("", *SOME_STEP):
            return _signs_of_reference(
                text_of(below, "reason"), text_of(below, "message"), execution.run, None
            )
    return Signs(
        reason=reason,
        message=message,
        pod=step.pod,
        container=step.container,
        exit_code=_exit_code(message) if step.exit_code is None else step.exit_code,
    )


def _signs_of_reference(reason: str, message: str, run: Manifest, build: Manifest | None) -> Signs:
    if not _WORD.fullmatch(reason):
        reason = "Failed"
    return Signs(reason=reason, message=message, missing=_missing(reason, message, run, build))


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
    return ObjectLookup(resource, name) if _NAME.fullmatch(name) else None


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

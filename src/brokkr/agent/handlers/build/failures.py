"""
Why a build failed, and whether the same build may end differently next time.

The policy is one table, :data:`TABLE`; everything else here finds the words that are
looked up in it.  ``docs/reference/failures.md`` is the table in print.

Sources: the reasons that Shipwright (v0.20 and main) and Tekton (0.68 to 1.15) write,
and BuildRuns recorded from both.
"""

# Note [The most specific reason decides]
#
# A BuildRun's ``Succeeded`` condition often only says that something below it failed.
# So the reason is looked for in this order, each found in the objects themselves:
#
# - ``BuildRegistrationFailed``: the Build's own reason, which stands in the message.
#   The message comes first because the Build may have been validated again since.
# - ``Failed`` and ``PipelineRunFailed``: ``failureDetails.reason``, which a step wrote.
# - else the condition's reason.
#
# Where one reason covers several causes, rows with `saying` tell them apart by the
# message.  A step that writes no reason leaves its cause in the pod's log alone; such a
# failure is retried once, and a push that failed as often as the Work allows.

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from brokkr.agent.handlers.verdict import Failed, Retry
from brokkr.work.model import Manifest

CANCELLATIONS: Final = frozenset({"BuildRunCanceled", "Cancelled", "TaskRunCancelled"})
"""How a build ends that was told to stop, whoever told it."""

MAX_MESSAGE: Final = 800

_INNER_REASON = re.compile(r"\breason: (\w+)")
# A step may write anything as its reason; only a word can be a condition's reason.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What to do about some reasons.

    Attributes:
        why: Completes the message; also the last column in print.
        saying: The row holds only if the message matches; rows without it are last.
    """

    reasons: tuple[str, ...]
    retry: Retry
    why: str
    saying: re.Pattern[str] | None = None


TABLE: Final = (
    # -- the run as a whole
    Row(
        reasons=tuple(sorted(CANCELLATIONS)),
        retry=Retry.NEVER,
        why="cancelled by somebody else, not through Brokkr",
    ),
    Row(
        reasons=("BuildRunTimeout",),
        retry=Retry.ALWAYS,
        why="waiting for a node counts too; if it recurs, raise the timeout",
    ),
    Row(
        reasons=("PodEvicted",),
        retry=Retry.ALWAYS,
        why="the node ran out of disk or memory for its pods",
    ),
    Row(
        reasons=("TaskRunIsMissing",),
        retry=Retry.ALWAYS,
        why="the executor was deleted before it finished",
    ),
    Row(
        reasons=("StepOutOfMemory", "SidecarOOM", "InitContainerOOM"),
        retry=Retry.NEVER,
        why="the same limit is reached again; raise it with stepResources",
    ),
    Row(
        reasons=("Failed",),
        saying=re.compile(r"\bpod \S+ not found"),
        retry=Retry.ALWAYS,
        why="the pod or its node was lost before it could be asked",
    ),
    Row(
        reasons=("Failed", "PipelineRunFailed"),
        saying=re.compile(r"\bstep-image-processing\b"),
        retry=Retry.ALWAYS,
        why="the push or the scan failed; the registry may be away, or refuse the credentials",
    ),
    Row(
        reasons=("Failed", "PipelineRunFailed"),
        retry=Retry.ONCE,
        why="the step gave no reason; its log has it",
    ),
    Row(
        reasons=("VulnerabilitiesFound",),
        retry=Retry.NEVER,
        why="the same image has the same findings",
    ),
    # -- fetching the source
    Row(
        reasons=("GitError",),
        saying=re.compile(r"\(exit code 110\)"),
        retry=Retry.NEVER,
        why="the kind of credentials does not fit the URL",
    ),
    Row(
        reasons=("GitError",),
        saying=re.compile(
            r"not our ref|unable to read tree|did not match any file"
            r"|returned error: 40[134]|repository '.*' not found"
        ),
        retry=Retry.NEVER,
        why="the repository or the revision does not exist, or may not be read",
    ),
    Row(
        reasons=("GitError",),
        saying=re.compile(
            r"Could not resolve host|Failed to connect|timed out|Connection reset"
            r"|returned error: (?:5\d\d|429)|early EOF|RPC failed|hung up|TLS|SSL"
        ),
        retry=Retry.ALWAYS,
        why="the connection to the repository failed",
    ),
    Row(
        reasons=("GitError", "GitAuthInvalidKey"),
        retry=Retry.ONCE,
        why="may be the network or the repository; the step's log tells",
    ),
    Row(
        reasons=(
            "GitAuthInvalidUserOrPass",
            "GitRemoteRepositoryPrivate",
            "GitSSHAuthUnexpected",
            "GitSSHAuthExpected",
            "GitBasicAuthIncomplete",
            "AuthUnexpectedHTTP",
        ),
        retry=Retry.NEVER,
        why="the clone secret is missing or wrong",
    ),
    Row(
        reasons=("GitRevisionNotFound", "GitRemoteRepositoryNotFound"),
        retry=Retry.NEVER,
        why="what the Build asks for is not there",
    ),
    Row(
        reasons=("ContextDirNotFound", "DockerfileNotFound", "InvalidParameterValue"),
        retry=Retry.NEVER,
        why="the same source and parameters give the same answer",
    ),
    # -- getting the pod to run
    Row(
        reasons=("TaskRunImagePullFailed",),
        saying=re.compile(r"InvalidImageName|manifest unknown|unauthorized"),
        retry=Retry.NEVER,
        why="the strategy's image does not exist or may not be pulled",
    ),
    Row(
        reasons=("TaskRunImagePullFailed",),
        retry=Retry.ALWAYS,
        why="the strategy's image could not be pulled",
    ),
    Row(
        reasons=("CreateContainerConfigError",),
        retry=Retry.NEVER,
        why="a Secret or ConfigMap, or a key in it, is missing",
    ),
    Row(
        reasons=("PodCreationFailed",),
        saying=re.compile(r"LimitRange|forbidden|is invalid"),
        retry=Retry.NEVER,
        why="the cluster refuses such a pod",
    ),
    Row(
        reasons=("PodCreationFailed",),
        saying=re.compile(r"context deadline exceeded|time[d ]*out"),
        retry=Retry.ALWAYS,
        why="the cluster did not answer in time",
    ),
    Row(
        reasons=("PodCreationFailed",),
        retry=Retry.ONCE,
        why="the pod could not be made",
    ),
    Row(
        reasons=(
            "PodAdmissionFailed",
            "TaskRunValidationFailed",
            "TaskValidationFailed",
            "InvalidParamValue",
            "TaskRunResolutionFailed",
            "ResourceVerificationFailed",
            "PipelineValidationFailed",
            "InvalidTaskRunSpecs",
            "ParameterMissing",
            "ParameterTypeMismatch",
            "PipelineInvalidGraph",
        ),
        retry=Retry.NEVER,
        why="Tekton or the cluster's policy refuses such a run",
    ),
    Row(
        reasons=("TaskRunResultLargerThanAllowedLimit",),
        retry=Retry.NEVER,
        why="the steps say more than a pod's termination message can hold",
    ),
    Row(
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
        reasons=(
            "CouldntCreateWorkspacePVC",
            "ReasonCouldntCreateOrUpdateAffinityAssistantStatefulSet",
        ),
        retry=Retry.ONCE,
        why="a quota is used up, or there is no default StorageClass",
    ),
    Row(
        reasons=("NodePlatformNotFound",),
        retry=Retry.ALWAYS,
        why="no node of this platform is ready now",
    ),
    # -- what the Build or the BuildRun names
    Row(
        reasons=(
            "BuildStrategyNotFound",
            "ClusterBuildStrategyNotFound",
            "UnknownBuildStrategyKind",
            "UnknownStrategyKind",
        ),
        retry=Retry.NEVER,
        why="install the strategy in this cluster, or name another",
    ),
    Row(
        reasons=(
            "SpecSourceSecretRefNotFound",
            "SpecOutputSecretRefNotFound",
            "MultipleSecretRefNotFound",
        ),
        retry=Retry.NEVER,
        why="create the secret in this cluster, in the agent's namespace",
    ),
    Row(
        reasons=("RemoteRepositoryUnreachable",),
        retry=Retry.ALWAYS,
        why="Shipwright could not reach the repository",
    ),
    Row(
        reasons=("BuildNotFound",),
        retry=Retry.ONCE,
        why="the attempt's Build was deleted or not seen yet; the next one brings its own",
    ),
    Row(
        reasons=("ServiceAccountNotFound",),
        retry=Retry.NEVER,
        why="create the service account in this cluster, in the agent's namespace",
    ),
    Row(
        reasons=("VolumeDoesNotExist",),
        saying=re.compile(r"\bconfigmaps? "),
        retry=Retry.ONCE,
        why="a ConfigMap of the template may be newer than what Shipwright has seen",
    ),
    Row(
        reasons=("VolumeDoesNotExist",),
        retry=Retry.NEVER,
        why="create what the volume names in this cluster, in the agent's namespace",
    ),
    # -- fields that Shipwright refuses, on a Build or on a BuildRun
    Row(
        reasons=(
            "BuildNameInvalid",
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
            "VolumeNotOverridable",
            "WrongParameterValueType",
        ),
        retry=Retry.NEVER,
        why="the same spec is refused again",
    ),
)
"""For each reason the first row that holds; :data:`UNLISTED` if there is none."""

UNLISTED: Final = Row(reasons=(), retry=Retry.ONCE, why="this reason is not known")


def classify_run(run: Manifest, build: Manifest | None) -> Failed:
    """Judge a BuildRun whose ``Succeeded`` condition is False."""
    status = run.get("status") or {}
    condition = condition_of(run)
    details = status.get("failureDetails") or {}
    reason = condition.get("reason") or "Failed"
    message = condition.get("message") or ""
    if reason == "BuildRegistrationFailed":
        refusal = _refusal(build)
        inner = _INNER_REASON.search(message)
        reason = inner[1] if inner else refusal.get("reason") or reason
        # The Build says what is wrong with it; the BuildRun only that something is.
        message = refusal.get("message") or message
    elif reason in ("Failed", "PipelineRunFailed"):
        if _WORD.fullmatch(details.get("reason") or ""):
            reason = details["reason"]
        message = details.get("message") or message
    return _judge(reason, message)


def classify_build(build: Manifest) -> Failed:
    """Judge a Build that Shipwright refuses to register."""
    refusal = _refusal(build)
    reason = refusal.get("reason") or "BuildRegistrationFailed"
    return _judge(reason, refusal.get("message") or "")


def condition_of(run: Manifest) -> Manifest:
    """Return a BuildRun's one condition; empty before Shipwright has seen the run."""
    conditions: Iterable[Manifest] = (run.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == "Succeeded"), {})


def row_for(reason: str, message: str) -> Row:
    """Find the row of the table that holds."""
    for row in TABLE:
        if reason in row.reasons and (row.saying is None or row.saying.search(message)):
            return row
    return UNLISTED


def _judge(reason: str, message: str) -> Failed:
    row = row_for(reason, message)
    said = message[:MAX_MESSAGE]
    return Failed(
        reason=reason,
        message=f"{said} ({row.why})" if said else row.why,
        retry=row.retry,
    )


def _refusal(build: Manifest | None) -> dict[str, Any]:
    """Return the status of a Build that is refused now; empty if it is not."""
    status: dict[str, Any] = (build or {}).get("status") or {}
    return status if status.get("registered") == "False" else {}

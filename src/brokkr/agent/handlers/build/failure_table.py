"""
The policy for builds that failed: one row for each way to tell a class of failures.

``docs/reference/failures.md`` is this table in print.

Sources: the reasons that Shipwright (v0.17 to v0.20 and main) and Tekton (0.59 to 1.15)
write, the reasons of Pods and their conditions that Kubernetes documents ("Pod
disruptions", "Node-pressure eviction"), and BuildRuns recorded from all three.
"""

# Note [Whose words decide]
#
# The log of a strategy's step is mostly written by the user's own programs, which may print
# anything, "unauthorized" and "no such host" included.  The builder speaks last: it says
# why it gives up after its programs have ended.  So of such a log only the last line
# decides (`ending`), and the first question is whether the builder says that a RUN failed,
# for then that line repeats what the user wrote.  Where the last line says nothing that is
# known, the failure is unclear and retried once, whatever stands above.  Shipwright's own
# steps run nothing of the user's, so of their logs any line may decide (`log`).

from dataclasses import dataclass
from typing import Final

from brokkr.agent.handlers.build.phrases import (
    ANYTHING,
    BUILDER_REFUSED,
    BUILDER_TRANSPORT,
    BUILDER_UNKNOWN_HOST,
    DOCKERFILE_INVALID,
    GIT_CERTIFICATE,
    GIT_NOT_THERE,
    GIT_TRANSPORT,
    GIT_UNKNOWN_HOST,
    GIT_WRONG_CREDENTIALS,
    NAMESPACE_TERMINATING,
    NO_ANSWER,
    NO_ROOM_IN_QUOTA,
    NO_SUCH_IMAGE,
    OVER_OWN_LIMIT,
    POD_NOT_ALLOWED,
    POD_NOT_FOUND,
    QUOTA_WANTS_REQUESTS,
    REGISTRY_REFUSAL,
    REGISTRY_TRANSPORT,
    REGISTRY_UNKNOWN_HOST,
    REPOSITORY_NOT_THERE,
    RUN_FAILED,
    Phrase,
)
from brokkr.agent.handlers.verdict import Retry
from brokkr.work.fault import Fault

CANCELLATIONS: Final = frozenset({"BuildRunCanceled", "Cancelled", "TaskRunCancelled"})
"""How a build ends that was told to stop, whoever told it."""

TIMEOUTS: Final = ("BuildRunTimeout", "PipelineRunTimeout", "TaskRunTimeout")

POLICY_VIOLATION: Final = "PolicyViolation"
"""A build that the agent's own operator does not allow; Shipwright never hears of it."""

INTERRUPTED: Final = "Interrupted"
"""All that is known: the containers were ended together, and nobody saw by whom."""

POD_DELETED: Final = "PodDeleted"
"""The Pod was deleted, and no condition of it says why."""

UNSCHEDULABLE: Final = "Unschedulable"
"""The time ran out, and no node had taken the Pod."""

CONTAINER_UNKNOWN: Final = "ContainerStatusUnknown"
"""The container's own node does not know how it ended: it was lost in mid-run."""

SOURCE_STEP: Final = "step-source-default"
UPLOAD_STEP: Final = "step-source-local"
IMAGE_STEP: Final = "step-image-processing"

_EXIT_VULNERABLE: Final = 22
_EXIT_GIT_CREDENTIALS: Final = 110

SOME_STEP: Final = ("Failed", "StepFailed", "PipelineRunFailed")
"""These say that a step failed, and not why."""

REGISTRATION: Final = "BuildRegistrationFailed"
SECRET_REASONS: Final = (
    "SpecSourceSecretRefNotFound",
    "SpecOutputSecretRefNotFound",
    "MultipleSecretRefNotFound",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What to do about some failures.

    Attributes:
        name: The class of failures, which may have several rows; retries are counted by it.
        fault: Whose failure it is; also decides which budget pays for a retry.
        why: Completes the message; also the last column in print.
        container: The row holds only if this one failed.
        exit_code: Only if it ended with this.
        saying: Only if the message says this.
        log: Only if the container's log says this, in any of its last lines.
        ending: Only if the very last line says this: see Note [Whose words decide].
        quotes_log: The log decides nothing, but its last line is shown.
        is_there: Only if what is said to be missing is there after all.
    """

    name: str
    retry: Retry
    fault: Fault
    why: str
    reasons: tuple[str, ...]
    container: str = ""
    exit_code: int | None = None
    saying: Phrase | None = None
    log: Phrase | None = None
    ending: Phrase | None = None
    quotes_log: bool = False
    is_there: bool = False


TABLE: Final = (
    # -- the run as a whole
    Row(
        name="CancelledElsewhere",
        reasons=tuple(sorted(CANCELLATIONS)),
        retry=Retry.NEVER,
        fault=Fault.UNCLEAR,
        why="cancelled by somebody else, not through Brokkr",
    ),
    Row(
        name="Timeout",
        reasons=TIMEOUTS,
        retry=Retry.ALWAYS,
        fault=Fault.UNCLEAR,
        why="waiting for a node counts too; if it recurs, raise the timeout",
    ),
    Row(
        name="Unschedulable",
        reasons=(UNSCHEDULABLE,),
        retry=Retry.ONCE,
        fault=Fault.CLUSTER,
        why="no node took the pod before the timeout: add room, or ask for less",
    ),
    # -- the pod or its node was taken away
    Row(
        name="StorageExceeded",
        reasons=("PodEvicted", "Evicted"),
        saying=OVER_OWN_LIMIT,
        retry=Retry.NEVER,
        fault=Fault.USER,
        why="the same limit is reached again; raise it with "
        "spec.strategy.stepResources, or write less",
    ),
    Row(
        name="PodEvicted",
        reasons=("PodEvicted", "Evicted", "TerminationByKubelet"),
        retry=Retry.ALWAYS,
        fault=Fault.NODE,
        why="the node ran out of disk or memory for its pods, or was shut down",
    ),
    Row(
        name="PodPreempted",
        reasons=("PreemptionByScheduler", "Preempting"),
        retry=Retry.ALWAYS,
        fault=Fault.CLUSTER,
        why="a pod of a higher priority needed its place",
    ),
    Row(
        name="NodeDrained",
        reasons=("EvictionByEvictionAPI",),
        retry=Retry.ALWAYS,
        fault=Fault.NODE,
        why="the pod was evicted by request, as when a node is drained or scaled away",
    ),
    Row(
        name="NodeLost",
        reasons=(
            "DeletionByTaintManager",
            "DeletionByPodGC",
            "NodeLost",
            "NodeShutdown",
            "Shutdown",
            "Terminated",
            CONTAINER_UNKNOWN,
        ),
        retry=Retry.ALWAYS,
        fault=Fault.NODE,
        why="the node was lost, restarted or shut down while it built",
    ),
    Row(
        name="PodRejected",
        reasons=(
            "NodeAffinity",
            "OutOfcpu",
            "OutOfmemory",
            "OutOfephemeral-storage",
            "OutOfpods",
            "UnexpectedAdmissionError",
        ),
        retry=Retry.ALWAYS,
        fault=Fault.NODE,
        why="the node had no room when the pod came",
    ),
    Row(
        name="PodDeleted",
        reasons=(POD_DELETED,),
        retry=Retry.ALWAYS,
        fault=Fault.CLUSTER,
        why="somebody deleted the pod before it ended",
    ),
    Row(
        name="Interrupted",
        reasons=(INTERRUPTED,),
        retry=Retry.ONCE,
        fault=Fault.NODE,
        why="its containers were ended together, as when a pod is lost; nobody saw why, so the "
        "next time it counts as a failed step",
    ),
    Row(
        name="ExecutorDeleted",
        reasons=("TaskRunIsMissing",),
        retry=Retry.ALWAYS,
        fault=Fault.CLUSTER,
        why="the executor was deleted before it finished",
    ),
    Row(
        name="OutOfMemory",
        reasons=("StepOutOfMemory", "StepOOM", "SidecarOOM", "InitContainerOOM"),
        retry=Retry.NEVER,
        fault=Fault.USER,
        why="the same limit is reached again; raise it with spec.strategy.stepResources",
    ),
    Row(
        name="VulnerabilitiesFound",
        reasons=("VulnerabilitiesFound",),
        retry=Retry.NEVER,
        fault=Fault.DOCKERFILE,
        why="the same image has the same findings",
    ),
    Row(
        name="VulnerabilitiesFound",
        reasons=SOME_STEP,
        container=IMAGE_STEP,
        exit_code=_EXIT_VULNERABLE,
        retry=Retry.NEVER,
        fault=Fault.DOCKERFILE,
        why="the same image has the same findings",
    ),
    Row(
        name="PodLost",
        reasons=SOME_STEP,
        saying=POD_NOT_FOUND,
        retry=Retry.ALWAYS,
        fault=Fault.NODE,
        why="the pod or its node was lost before it could be asked",
    ),
    Row(
        name="PolicyViolation",
        reasons=(POLICY_VIOLATION,),
        retry=Retry.NEVER,
        fault=Fault.USER,
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
        quotes_log=True,
        retry=Retry.NEVER,
        fault=Fault.SOURCE,
        why="the clone secret is missing or wrong, or of a kind that does not fit the URL",
    ),
    Row(
        name="GitCredentials",
        reasons=("GitError",),
        quotes_log=True,
        exit_code=_EXIT_GIT_CREDENTIALS,
        retry=Retry.NEVER,
        fault=Fault.SOURCE,
        why="the clone secret is missing or wrong, or of a kind that does not fit the URL",
    ),
    Row(
        name="GitNotFound",
        reasons=("GitRevisionNotFound", "GitRemoteRepositoryNotFound"),
        retry=Retry.NEVER,
        fault=Fault.SOURCE,
        why="the repository or the revision is not there, or may not be read",
    ),
    Row(
        name="GitNotFound",
        reasons=("GitError",),
        saying=GIT_NOT_THERE,
        retry=Retry.NEVER,
        fault=Fault.SOURCE,
        why="the repository or the revision is not there, or may not be read",
    ),
    Row(
        name="GitCertificate",
        reasons=("GitError",),
        saying=GIT_CERTIFICATE,
        retry=Retry.NEVER,
        fault=Fault.SOURCE,
        why="the repository's certificate is not trusted where the build runs",
    ),
    Row(
        name="GitHostUnknown",
        reasons=("GitError",),
        saying=GIT_UNKNOWN_HOST,
        retry=Retry.ONCE,
        fault=Fault.SOURCE,
        why="the host of the repository is not known where the build runs",
    ),
    Row(
        name="GitTransport",
        reasons=("GitError",),
        saying=GIT_TRANSPORT,
        retry=Retry.ALWAYS,
        fault=Fault.SOURCE,
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
        fault=Fault.SOURCE,
        why="the clone secret is missing or wrong, or of a kind that does not fit the URL",
    ),
    Row(
        name="GitNotFound",
        reasons=("GitError", "GitAuthInvalidKey", *SOME_STEP),
        container=SOURCE_STEP,
        log=GIT_NOT_THERE,
        retry=Retry.NEVER,
        fault=Fault.SOURCE,
        why="the repository or the revision is not there, or may not be read",
    ),
    Row(
        name="GitCertificate",
        reasons=("GitError", *SOME_STEP),
        container=SOURCE_STEP,
        log=GIT_CERTIFICATE,
        retry=Retry.NEVER,
        fault=Fault.SOURCE,
        why="the repository's certificate is not trusted where the build runs",
    ),
    Row(
        name="GitHostUnknown",
        reasons=("GitError", "GitAuthInvalidKey", *SOME_STEP),
        container=SOURCE_STEP,
        log=GIT_UNKNOWN_HOST,
        retry=Retry.ONCE,
        fault=Fault.SOURCE,
        why="the host of the repository is not known where the build runs",
    ),
    Row(
        name="GitTransport",
        reasons=("GitError", "GitAuthInvalidKey", *SOME_STEP),
        container=SOURCE_STEP,
        log=GIT_TRANSPORT,
        retry=Retry.ALWAYS,
        fault=Fault.SOURCE,
        why="the connection to the repository failed",
    ),
    Row(
        name="SourceRefused",
        reasons=SOME_STEP,
        container=SOURCE_STEP,
        log=REGISTRY_REFUSAL,
        retry=Retry.NEVER,
        fault=Fault.SOURCE,
        why="the registry refuses the source: see the pull secret and the image's name",
    ),
    Row(
        name="RegistryUnknown",
        reasons=SOME_STEP,
        container=SOURCE_STEP,
        log=REGISTRY_UNKNOWN_HOST,
        retry=Retry.ONCE,
        fault=Fault.REGISTRY,
        why="the host of the registry is not known where the build runs",
    ),
    Row(
        name="SourceTransport",
        reasons=SOME_STEP,
        container=SOURCE_STEP,
        log=REGISTRY_TRANSPORT,
        retry=Retry.ALWAYS,
        fault=Fault.SOURCE,
        why="the registry with the source could not be reached",
    ),
    Row(
        name="SourceUnclear",
        reasons=("GitError", "GitAuthInvalidKey"),
        retry=Retry.ONCE,
        fault=Fault.SOURCE,
        why="may be the network, the key or the repository",
    ),
    Row(
        name="SourceUnclear",
        reasons=SOME_STEP,
        container=SOURCE_STEP,
        retry=Retry.ONCE,
        fault=Fault.SOURCE,
        why="may be the network, the key or the repository",
    ),
    Row(
        name="UploadMissing",
        reasons=SOME_STEP,
        container=UPLOAD_STEP,
        retry=Retry.ALWAYS,
        fault=Fault.USER,
        why="the source was not uploaded in time",
    ),
    # -- pushing and scanning the image, where Shipwright does it
    Row(
        name="PushRefused",
        reasons=SOME_STEP,
        container=IMAGE_STEP,
        log=REGISTRY_REFUSAL,
        retry=Retry.NEVER,
        fault=Fault.REGISTRY,
        why="the registry refuses the push: see the push secret and the image's name",
    ),
    Row(
        name="RegistryUnknown",
        reasons=SOME_STEP,
        container=IMAGE_STEP,
        log=REGISTRY_UNKNOWN_HOST,
        retry=Retry.ONCE,
        fault=Fault.REGISTRY,
        why="the host of the registry is not known where the build runs",
    ),
    Row(
        name="PushTransport",
        reasons=SOME_STEP,
        container=IMAGE_STEP,
        log=REGISTRY_TRANSPORT,
        retry=Retry.ALWAYS,
        fault=Fault.REGISTRY,
        why="the registry, or the scanner's database, could not be reached",
    ),
    Row(
        name="PushFailed",
        reasons=SOME_STEP,
        container=IMAGE_STEP,
        log=ANYTHING,
        retry=Retry.ONCE,
        fault=Fault.UNCLEAR,
        why="what the step said last is not known",
    ),
    Row(
        name="PushUnclear",
        reasons=SOME_STEP,
        container=IMAGE_STEP,
        retry=Retry.ALWAYS,
        fault=Fault.UNCLEAR,
        why="the push or the scan failed, and its log is not to be had",
    ),
    # -- the steps of a strategy
    Row(
        name="InputRefused",
        reasons=("ContextDirNotFound", "DockerfileNotFound", "InvalidParameterValue"),
        retry=Retry.NEVER,
        fault=Fault.USER,
        why="the same source and parameters give the same answer",
    ),
    Row(
        name="StrategyUnfit",
        reasons=("StrategyImageUnfit",),
        retry=Retry.NEVER,
        fault=Fault.CLUSTER,
        why="the image of the build strategy lacks something: see how to install a build strategy",
    ),
    # See Note [Whose words decide].
    Row(
        name="RunFailed",
        reasons=SOME_STEP,
        ending=RUN_FAILED,
        retry=Retry.ONCE,
        fault=Fault.DOCKERFILE,
        why="a RUN of the Dockerfile ended with an error",
    ),
    Row(
        name="DockerfileInvalid",
        reasons=SOME_STEP,
        ending=DOCKERFILE_INVALID,
        retry=Retry.NEVER,
        fault=Fault.DOCKERFILE,
        why="the builder refuses the Dockerfile",
    ),
    Row(
        name="RegistryRefused",
        reasons=SOME_STEP,
        ending=BUILDER_REFUSED,
        retry=Retry.NEVER,
        fault=Fault.REGISTRY,
        why="a registry refuses to give a base image or to take the image, or has no such image",
    ),
    Row(
        name="RegistryUnknown",
        reasons=SOME_STEP,
        ending=BUILDER_UNKNOWN_HOST,
        retry=Retry.ONCE,
        fault=Fault.REGISTRY,
        why="the host of the registry is not known where the build runs",
    ),
    Row(
        name="RegistryTransport",
        reasons=SOME_STEP,
        ending=BUILDER_TRANSPORT,
        retry=Retry.ALWAYS,
        fault=Fault.REGISTRY,
        why="a registry could not be reached, for a base image or for the push",
    ),
    Row(
        name="StepFailed",
        reasons=SOME_STEP,
        retry=Retry.ONCE,
        fault=Fault.UNCLEAR,
        why="unclear: the step gave no reason; mostly it is the Dockerfile or what it runs",
    ),
    # -- getting the pod to run
    Row(
        name="ImageRefused",
        reasons=("TaskRunImagePullFailed",),
        saying=NO_SUCH_IMAGE,
        retry=Retry.NEVER,
        fault=Fault.CLUSTER,
        why="an image of the strategy does not exist or may not be pulled",
    ),
    Row(
        name="ImagePull",
        reasons=("TaskRunImagePullFailed",),
        retry=Retry.ALWAYS,
        fault=Fault.CLUSTER,
        why="an image of the strategy could not be pulled",
    ),
    Row(
        name="NamespaceTerminating",
        reasons=("PodCreationFailed",),
        saying=NAMESPACE_TERMINATING,
        retry=Retry.NEVER,
        fault=Fault.CLUSTER,
        why="the namespace of the builds is being deleted; nothing more is made in it",
    ),
    Row(
        name="QuotaRefused",
        reasons=("PodCreationFailed",),
        saying=QUOTA_WANTS_REQUESTS,
        retry=Retry.NEVER,
        fault=Fault.CLUSTER,
        why="the namespace's quota wants what the steps do not have: add a LimitRange, or "
        "spec.strategy.stepResources",
    ),
    Row(
        name="QuotaExceeded",
        reasons=("PodCreationFailed",),
        saying=NO_ROOM_IN_QUOTA,
        retry=Retry.ONCE,
        fault=Fault.CLUSTER,
        why="the namespace's resource quota leaves no room for the build",
    ),
    Row(
        name="PodRefused",
        reasons=("PodCreationFailed",),
        saying=POD_NOT_ALLOWED,
        retry=Retry.NEVER,
        fault=Fault.CLUSTER,
        why="the cluster's policy refuses such a pod",
    ),
    Row(
        name="PodRefused",
        reasons=("PodAdmissionFailed",),
        retry=Retry.NEVER,
        fault=Fault.CLUSTER,
        why="the cluster's policy refuses such a pod",
    ),
    Row(
        name="ClusterTrouble",
        reasons=("PodCreationFailed",),
        saying=NO_ANSWER,
        retry=Retry.ALWAYS,
        fault=Fault.CLUSTER,
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
        fault=Fault.CLUSTER,
        why="the cluster had trouble around the build, not with it",
    ),
    Row(
        name="PodNotCreated",
        reasons=("PodCreationFailed",),
        retry=Retry.ONCE,
        fault=Fault.CLUSTER,
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
        fault=Fault.USER,
        why="Tekton refuses such a run",
    ),
    Row(
        name="ResultTooLarge",
        reasons=("TaskRunResultLargerThanAllowedLimit",),
        retry=Retry.NEVER,
        fault=Fault.USER,
        why="the steps say more than a pod's termination message can hold",
    ),
    Row(
        name="NoStorage",
        reasons=(
            "CouldntCreateWorkspacePVC",
            "ReasonCouldntCreateOrUpdateAffinityAssistantStatefulSet",
        ),
        retry=Retry.ONCE,
        fault=Fault.CLUSTER,
        why="a quota is used up, or there is no default StorageClass",
    ),
    Row(
        name="NoSuchNode",
        reasons=("NodePlatformNotFound",),
        retry=Retry.ALWAYS,
        fault=Fault.CLUSTER,
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
        fault=Fault.CLUSTER,
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
            *SECRET_REASONS,
        ),
        retry=Retry.NEVER,
        fault=Fault.USER,
        why="what the Build names must be in this cluster, in the agent's namespace",
    ),
    Row(
        name="RepositoryMissing",
        reasons=("RemoteRepositoryUnreachable",),
        saying=REPOSITORY_NOT_THERE,
        retry=Retry.NEVER,
        fault=Fault.SOURCE,
        why="the repository is not there, or may not be read without credentials",
    ),
    Row(
        name="RepositoryUnreachable",
        reasons=("RemoteRepositoryUnreachable",),
        retry=Retry.ALWAYS,
        fault=Fault.SOURCE,
        why="Shipwright could not reach the repository",
    ),
    # -- fields that Shipwright refuses, on a Build or on a BuildRun
    Row(
        name="SpecRefused",
        reasons=(
            "BuildNameInvalid",
            REGISTRATION,
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
        fault=Fault.USER,
        why="the same spec is refused again",
    ),
)
"""The first row that holds is taken; :data:`UNLISTED` if there is none."""

UNLISTED: Final = Row(
    name="Unlisted",
    reasons=(),
    retry=Retry.ONCE,
    fault=Fault.UNCLEAR,
    why="this reason is not known",
)

"""
May this BuildRun run, and what would it build?

Reads all that a BuildRun refers to from the API server and either rejects it, with the
reasons that Shipwright gives and in its order, or makes a job of it.  Writes nothing.
"""

from dataclasses import dataclass
from datetime import timedelta

from brokkr.agent.kinds import (
    BUILD_STRATEGIES,
    BUILDS,
    CLUSTER_BUILD_STRATEGIES,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.local.build_runner.job import BuildJob
from brokkr.local.build_runner.parameters import (
    find_missing,
    find_problem,
    merge_by_name,
    value_of,
)
from brokkr.local.build_runner.references import AcceptedBuild, References, Rejected
from brokkr.local.build_runner.registration import (
    Registration,
    problem_with_env,
    register,
    secrets_of,
)
from brokkr.local.build_runner.status import is_cancel_requested
from brokkr.work.durations import parse_duration
from brokkr.work.labels import problem_with_value
from brokkr.work.model import Manifest

BUILDER_ANNOTATION = "local.brokkr.io/builder"

# Tekton's, which Shipwright relies on.
_DEFAULT_TIMEOUT = timedelta(hours=1)

# Asks Shipwright for a service account of the BuildRun's name.
_GENERATED = ".generate"

# What an embedded Build leaves no room for: it says these itself.
_OVERRIDES = (
    *("output", "paramValues", "env", "timeout", "nodeSelector", "tolerations"),
    *("schedulerName", "runtimeClassName", "stepResources"),
)
_IGNORED = (
    *("volumes", "nodeSelector", "tolerations", "schedulerName", "runtimeClassName"),
    *("stepResources", "trigger"),
)
_IGNORED_OUTPUT = ("timestamp", "vulnerabilityScan", "platforms")


@dataclass(frozen=True)
class Admitted:
    """
    A BuildRun that may run.

    Attributes:
        strategy_labels: Which strategy, in Shipwright's labels.
        service_account: As whom it would run in a cluster.
        timeout: None is none.
    """

    build: AcceptedBuild
    strategy_labels: dict[str, str]
    service_account: str
    job: BuildJob
    timeout: timedelta | None


async def check_build(kube: KubeClient, build: Manifest) -> Registration:
    """Look up what a Build refers to, and check it."""
    metadata, spec = build["metadata"], build["spec"]
    namespace = metadata["namespace"]
    secrets = {
        name for name in secrets_of(spec) if await kube.find(SECRETS, namespace, name) is not None
    }
    return register(
        metadata["name"],
        namespace,
        spec,
        secrets=secrets,
        strategy=await _find_strategy(kube, namespace, spec),
    )


async def admit(kube: KubeClient, run: Manifest) -> Admitted:
    """
    Make a job of a BuildRun whose Build, if it is named, has been checked.

    Raises:
        Rejected: Why it cannot run.
    """
    build = await _accept_build(kube, run)
    if is_cancel_requested(run):
        raise Rejected("BuildRunCanceled", "the BuildRun is marked canceled.")
    try:
        return await _admit(kube, run, build)
    except Rejected as rejected:
        rejected.build = build
        raise


async def _accept_build(kube: KubeClient, run: Manifest) -> AcceptedBuild:
    """Find the Build, named or embedded, and insist that it is registered."""
    metadata, spec = run["metadata"], run["spec"]
    name, embedded = spec["build"].get("name"), spec["build"].get("spec")
    _check_shape(metadata["name"], spec)
    if embedded is not None:
        registration = await check_build(kube, {"metadata": metadata, "spec": embedded})
        if not registration.registered:
            raise Rejected("BuildRegistrationFailed", registration.message)
        return AcceptedBuild(embedded)

    build = await kube.find(BUILDS, metadata["namespace"], name)
    if build is None:
        raise Rejected("BuildNotFound", f'build.shipwright.io "{name}" not found')
    status = build["status"]
    if status["registered"] != "True":
        raise Rejected(
            "BuildRegistrationFailed",
            f"the Build is not registered correctly, build: {name}, "
            f"registered status: {status['registered']}, reason: {status['reason']}",
        )
    labels = {
        "build.shipwright.io/name": name,
        "build.shipwright.io/generation": str(build["metadata"]["generation"]),
    }
    return AcceptedBuild(build["spec"], labels)


def _check_shape(name: str, spec: Manifest) -> None:
    problem = problem_with_value(name)
    if problem is not None:
        raise Rejected("BuildRunNameInvalid", problem)
    build = spec["build"]
    if not build.get("name") and "spec" not in build:
        raise Rejected("BuildRunNoRefOrSpec", "no build referenced or specified")
    if build.get("name") and "spec" in build:
        raise Rejected("BuildRunAmbiguousBuild", "both a build's name and its spec are given")
    overridden = [field for field in _OVERRIDES if field in spec]
    if "spec" in build and overridden:
        raise Rejected(
            "BuildRunBuildFieldOverrideForbidden",
            f"cannot override {', '.join(overridden)} of an embedded build",
        )
    problem_in_env = problem_with_env(spec.get("env") or [])
    if problem_in_env is not None:
        raise Rejected(*problem_in_env)


async def _admit(kube: KubeClient, run: Manifest, build: AcceptedBuild) -> Admitted:
    namespace, spec = run["metadata"]["namespace"], run["spec"]
    account = spec.get("serviceAccount")
    is_generated = account == _GENERATED
    if (
        account
        and not is_generated
        and await kube.find(SERVICE_ACCOUNTS, namespace, account) is None
    ):
        raise Rejected("ServiceAccountNotFound", f"service account {account} not found")

    strategy = await _find_strategy(kube, namespace, build.spec)
    kind = build.spec["strategy"].get("kind", "BuildStrategy")
    if strategy is None:
        raise Rejected(f"{kind}NotFound", f"{build.spec['strategy']['name']} does not exist")
    values = merge_by_name(build.spec.get("paramValues") or [], spec.get("paramValues") or [])
    problem = find_problem(strategy, values) or find_missing(strategy, values)
    if problem is not None:
        raise Rejected(*problem)
    _check_feasible(build.spec, strategy)
    timeout = spec.get("timeout") or build.spec.get("timeout")
    prefix, metadata = f"{kind.lower()}.shipwright.io", strategy["metadata"]
    return Admitted(
        build,
        {
            f"{prefix}/name": metadata["name"],
            f"{prefix}/generation": str(metadata["generation"]),
        },
        run["metadata"]["name"] if is_generated else account or "default",
        await _make_job(References(kube, namespace), build.spec, spec, strategy, values),
        (parse_duration(timeout) or None) if timeout else _DEFAULT_TIMEOUT,
    )


def _check_feasible(spec: Manifest, strategy: Manifest) -> None:
    """Refuse what this stand-in cannot do, rather than do something else."""
    name = strategy["metadata"]["name"]
    if strategy["metadata"].get("annotations", {}).get(BUILDER_ANNOTATION) != "buildah":
        raise Rejected(
            "TaskRunGenerationFailed",
            f"the local build runner cannot run the steps of strategy {name}; it builds with "
            f"buildah if the strategy is annotated {BUILDER_ANNOTATION}: buildah",
        )
    kind = spec.get("source", {}).get("type")
    if kind != "Git":
        raise Rejected(
            "TaskRunGenerationFailed", f"the local build runner builds from Git, not from {kind}"
        )


async def _find_strategy(kube: KubeClient, namespace: str, spec: Manifest) -> Manifest | None:
    name = spec["strategy"]["name"]
    match spec["strategy"].get("kind", "BuildStrategy"):
        case "BuildStrategy":
            return await kube.find(BUILD_STRATEGIES, namespace, name)
        case "ClusterBuildStrategy":
            return await kube.find(CLUSTER_BUILD_STRATEGIES, None, name)
        case _:
            return None


async def _make_job(
    references: References,
    build: Manifest,
    run: Manifest,
    strategy: Manifest,
    values: list[Manifest],
) -> BuildJob:
    """
    Merge what Build and BuildRun say.

    Raises:
        Rejected: A Secret, a ConfigMap or a key in one is missing.
    """
    git, output = build["source"]["git"], {**build["output"], **run.get("output", {})}
    merged = {
        key: {**build["output"].get(key, {}), **output.get(key, {})}
        for key in ("labels", "annotations")
    }
    env = merge_by_name(build.get("env") or [], run.get("env") or [])
    dockerfile = value_of(strategy, values, "dockerfile") or [{"value": "Dockerfile"}]
    return BuildJob(
        url=git["url"],
        revision=git.get("revision") or None,
        depth=git.get("depth", 1),
        context_dir=build["source"].get("contextDir") or ".",
        dockerfile=await references.item(dockerfile[0]),
        build_args=tuple(
            [await references.item(one) for one in value_of(strategy, values, "build-args")]
        ),
        image=output["image"],
        insecure=output.get("insecure", False),
        labels=merged["labels"],
        annotations=merged["annotations"],
        env={variable["name"]: await references.variable(variable) for variable in env},
        clone_secret=await references.secret(git.get("cloneSecret")),
        # The Build's: Shipwright mounts no other one where it pushes.
        push_secret=await references.secret(build["output"].get("pushSecret")),
        unsupported=(
            *(field for field in _IGNORED if build.get(field) or run.get(field)),
            *(f"output.{field}" for field in _IGNORED_OUTPUT if output.get(field)),
        ),
    )

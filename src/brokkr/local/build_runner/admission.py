"""
May this BuildRun run, and what would it build?

Reads all that a BuildRun refers to from the API server and either rejects it, with the
reasons that Shipwright gives and in its order, or makes a job of it.  Writes nothing.
"""

import re
from collections.abc import Mapping
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
from brokkr.local.build_runner.definitions import without_nulls
from brokkr.local.build_runner.feasible import check_feasible, what_is_ignored
from brokkr.local.build_runner.job import BuildJob
from brokkr.local.build_runner.parameters import (
    find_missing,
    find_problem,
    find_refused,
    merge_by_name,
    value_of,
)
from brokkr.local.build_runner.references import AcceptedBuild, NeverStarts, References, Rejected
from brokkr.local.build_runner.registration import (
    Registration,
    problem_with_env,
    problem_with_platforms,
    problem_with_scheduling,
    problem_with_steps,
    problem_with_volumes,
    register,
    secrets_of,
)
from brokkr.local.build_runner.status import is_cancel_requested
from brokkr.work.durations import parse_duration
from brokkr.work.labels import problem_with_value
from brokkr.work.model import Manifest

# Tekton's, which Shipwright relies on.
_DEFAULT_TIMEOUT = timedelta(hours=1)

# Asks Shipwright for a service account of the BuildRun's name.
_GENERATED = ".generate"

# What an embedded Build leaves no room for: it says these itself.
_OVERRIDES = (
    *("output", "paramValues", "env", "timeout", "nodeSelector", "tolerations"),
    *("schedulerName", "runtimeClassName", "stepResources"),
)
_REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")


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
    metadata, spec = build["metadata"], without_nulls(build["spec"])
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
        NeverStarts: Nothing will ever come of it, and Shipwright does not say so.
    """
    run = {**run, "spec": without_nulls(run["spec"])}
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
    return AcceptedBuild(without_nulls(build["spec"]), labels)


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
    problem = (
        find_problem(strategy, values)
        or find_missing(strategy, values)
        or problem_with_volumes(spec.get("volumes") or [], strategy)
        or problem_with_steps(spec.get("stepResources") or [], strategy)
        or problem_with_scheduling(spec)
        or _problem_with_platforms(build.spec, spec)
        or _problem_with_strategy_env(build.spec, spec, strategy)
    )
    if problem is not None:
        raise Rejected(*problem)
    timeout = _timeout(spec.get("timeout") or build.spec.get("timeout"), build)
    refused = find_refused(values)
    if refused is not None:
        raise NeverStarts(refused, build)
    check_feasible(build.spec, spec, strategy, values)
    prefix, metadata = f"{kind.lower()}.shipwright.io", strategy["metadata"]
    return Admitted(
        build,
        {
            f"{prefix}/name": metadata["name"],
            f"{prefix}/generation": str(metadata["generation"]),
        },
        run["metadata"]["name"] if is_generated else account or "default",
        await _make_job(References(kube, namespace), build.spec, spec, strategy, values),
        timeout,
    )


def _timeout(given: str | None, build: AcceptedBuild) -> timedelta | None:
    """Read how long a build may take: none is Tekton's default, and zero is for ever."""
    if not given:
        return _DEFAULT_TIMEOUT
    try:
        return parse_duration(given) or None
    except ValueError as error:
        # Kubernetes' validator takes negative ones, and units that Go's decoder does not know.
        raise NeverStarts(str(error), build) from error


def _problem_with_platforms(build: Manifest, run: Manifest) -> tuple[str, str] | None:
    output = {**build["output"], **run.get("output", {})}
    if not output.get("platforms"):
        return None
    return problem_with_platforms(output, run) or (
        "ExecutorNotPipelineRun",
        'multi-arch builds require PipelineRun executor mode, current executor mode: "TaskRun"',
    )


def _problem_with_strategy_env(
    build: Manifest, run: Manifest, strategy: Manifest
) -> tuple[str, str] | None:
    given = {each["name"] for part in (build, run) for each in part.get("env") or []}
    for step in strategy["spec"].get("steps") or []:
        for name in given & {each["name"] for each in step.get("env") or []}:
            return "TaskRunGenerationFailed", f'environment variable "{name}" already exists'
    return None


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
        timestamp=output.get("timestamp") or "",
        insecure=output.get("insecure", False),
        labels=merged["labels"],
        annotations=merged["annotations"],
        env=_expanded({variable["name"]: await references.variable(variable) for variable in env}),
        clone_secret=await references.secret(git.get("cloneSecret")),
        # The Build's: Shipwright mounts no other one where it pushes.
        push_secret=await references.secret(build["output"].get("pushSecret")),
        unsupported=what_is_ignored(build, run, output),
    )


def _expanded(env: Mapping[str, str | None]) -> dict[str, str]:
    """Put in what a variable says of those before it, as a kubelet does: ``$(NAME)``."""
    done: dict[str, str] = {}
    for name, value in env.items():
        if value is not None:
            done[name] = _REFERENCE.sub(
                lambda found: "$" if found[0] == "$$" else done.get(found[1], found[0]), value
            )
    return done

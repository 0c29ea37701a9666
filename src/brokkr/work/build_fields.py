"""
What the fields of a Build may say: those that a BuildRun has too, and its source.

The types of the fields have been checked: see :mod:`brokkr.work.shipwright`.  Each function
raises :class:`~brokkr.work.errors.InvalidWork` with the path of the field.

Sources of the rules: Shipwright's validation (``pkg/validate``, v0.20), Tekton's webhook for
TaskRuns, and Kubernetes' validation of Pods.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from brokkr.work.durations import parse_duration
from brokkr.work.errors import InvalidWork
from brokkr.work.git_source import leaves_source, problem_with_revision, problem_with_url
from brokkr.work.images import problem_with_image
from brokkr.work.labels import is_dns_name, problem_with_key, problem_with_value
from brokkr.work.model import Manifest

LONGEST: Final = timedelta(hours=2_562_047)
"""The longest duration that Kubernetes can store."""

_TIMESTAMPS: Final = ("", "Zero", "SourceTimestamp", "BuildTimestamp")
_VALUES: Final = ("value", "configMapValue", "secretValue")
# The names that Shipwright keeps for itself.
_RESERVED: Final = ("BUILDER_IMAGE", "DOCKERFILE", "CONTEXT_DIR")
_BLOCKS: Final = {"Git": "git", "OCI": "ociArtifact", "Local": "local"}


def check_timeout(given: object, path: str) -> timedelta:
    """
    Read how long a build may run.

    Raises:
        InvalidWork: It is no duration, or would never end a build.
    """
    advice = "say how long, such as 30m, or leave it out for the agent's own"
    try:
        timeout = parse_duration(str(given))
    except ValueError as error:
        raise InvalidWork(path, f"{error}; {advice}") from error
    if not timedelta(0) < timeout <= LONGEST:
        raise InvalidWork(path, f"{given} would never end a build; {advice}")
    return timeout


def check_source(source: Manifest, path: str) -> None:
    """Check where the sources are."""
    # Shipwright registers a Build whose source type and block disagree, and then runs it
    # without any source step; so this is the only place that can say so.
    block = _BLOCKS.get(source["type"])
    if block is None:
        raise InvalidWork(f"{path}.type", f"{source['type']!r} is unknown; it must be Git or OCI")
    if block == "local":
        raise InvalidWork(f"{path}.type", "Local waits for an upload that nobody would make")
    given = [each for each in _BLOCKS.values() if source.get(each) is not None]
    if given != [block]:
        raise InvalidWork(
            f"{path}.{block}",
            f"type {source['type']} needs this block and no other; given: {given}",
        )
    folder = source.get("contextDir") or ""
    if leaves_source(folder) or "\n" in folder:
        raise InvalidWork(
            f"{path}.contextDir", f"{folder[:80]!r} must be a folder inside the sources"
        )
    if block == "git":
        _check_git(source["git"], f"{path}.git")
    else:
        _check_image(source["ociArtifact"]["image"], f"{path}.ociArtifact.image")
        _check_secret(source["ociArtifact"], "pullSecret", f"{path}.ociArtifact")


def _check_git(git: Manifest, path: str) -> None:
    problem = problem_with_url(git["url"])
    if problem is not None:
        raise InvalidWork(f"{path}.url", problem)
    problem = problem_with_revision(git.get("revision") or "")
    if problem is not None:
        raise InvalidWork(f"{path}.revision", problem)
    if (git.get("depth") or 0) < 0:
        raise InvalidWork(
            f"{path}.depth", "must be 0 for the whole history, or a number of commits"
        )
    _check_secret(git, "cloneSecret", path)


def check_common(spec: Manifest, path: str) -> None:
    """Check what a Build and a BuildRun both have."""
    if spec.get("output") is not None:
        _check_output(spec["output"], spec, f"{path}.output")
    if spec.get("timeout") is not None:
        check_timeout(spec["timeout"], f"{path}.timeout")
    if spec.get("paramValues"):
        _check_parameters(spec["paramValues"], f"{path}.paramValues")
    if spec.get("env"):
        _check_env(spec["env"], f"{path}.env")
    if spec.get("volumes"):
        _check_volumes(spec["volumes"], f"{path}.volumes")
    for field in ("ttlAfterFailed", "ttlAfterSucceeded"):
        _check_duration((spec.get("retention") or {}).get(field), f"{path}.retention.{field}")
    for problem in scheduling_problems(spec):
        raise InvalidWork(f"{path}.{problem[0]}", problem[1])
    if spec.get("serviceAccount") not in (None, "", ".generate"):
        check_name(spec["serviceAccount"], f"{path}.serviceAccount", "ServiceAccount")


def _check_output(output: Manifest, spec: Manifest, path: str) -> None:
    _check_image(output["image"], f"{path}.image", with_digest=False)
    _check_secret(output, "pushSecret", path)
    timestamp = output.get("timestamp") or ""
    if timestamp not in _TIMESTAMPS and not timestamp.removeprefix("-").isdecimal():
        raise InvalidWork(
            f"{path}.timestamp",
            f"{timestamp[:40]!r} must be Zero, SourceTimestamp, BuildTimestamp, or seconds since "
            "1970",
        )
    if timestamp == "SourceTimestamp" and "strategy" in spec and spec.get("source") is None:
        raise InvalidWork(f"{path}.timestamp", "SourceTimestamp needs a source")
    platforms = output.get("platforms") or []
    for index, each in enumerate(platforms):
        for field in ("os", "arch"):
            name = each[field]
            if not (name.isascii() and name.isalnum() and name == name.lower() and len(name) < 64):
                raise InvalidWork(
                    f"{path}.platforms[{index}].{field}",
                    f"{name[:40]!r} must be the value that nodes have for kubernetes.io/{field}",
                )
    if len({(each["os"], each["arch"]) for each in platforms}) < len(platforms):
        raise InvalidWork(f"{path}.platforms", "must not name a platform twice")


def _check_parameters(parameters: list[Manifest], path: str) -> None:
    seen: set[str] = set()
    for index, each in enumerate(parameters):
        name = each["name"]
        if not name:
            raise InvalidWork(f"{path}[{index}].name", "must not be empty")
        if name in _RESERVED or name.startswith("shp-"):
            told = f"{name!r} is a parameter that Shipwright sets itself"
            raise InvalidWork(f"{path}[{index}].name", told)
        if name in seen:
            # Tekton refuses such a TaskRun for ever, and the BuildRun says nothing.
            raise InvalidWork(f"{path}[{index}].name", f"{name!r} is given twice")
        seen.add(name)
        if len(each) > 2 or "value" not in each:
            _check_parameter(each, f"{path}[{index}]")


def _check_parameter(parameter: Manifest, path: str) -> None:
    single, values = _sources(parameter), parameter.get("values")
    if single and values is not None:
        raise InvalidWork(
            f"{path}.values", f"must not stand beside {single[0]}: values is for array parameters"
        )
    _check_value(parameter, path)
    for index, item in enumerate(values or []):
        if item.keys() == {"value"} and item["value"] is not None:
            continue
        if not _sources(item):
            raise InvalidWork(f"{path}.values[{index}]", f"needs one of {', '.join(_VALUES)}")
        _check_value(item, f"{path}.values[{index}]")


def _sources(value: Manifest) -> list[str]:
    return [each for each in _VALUES if value.get(each) is not None]


def _check_value(value: Manifest, path: str) -> None:
    given = _sources(value)
    if len(given) > 1:
        raise InvalidWork(path, f"must have one of {' and '.join(given)}, not both")
    for source in given:
        if source == "value":
            continue
        for field in ("name", "key"):
            if not value[source][field]:
                raise InvalidWork(f"{path}.{source}.{field}", "must not be empty")


def _check_env(env: list[Manifest], path: str) -> None:
    for index, each in enumerate(env):
        name = each["name"]
        # Kubernetes 1.32 and newer takes all of this, older ones take less.
        if not (name and name.isascii() and name.isprintable() and "=" not in name):
            raise InvalidWork(
                f"{path}[{index}].name",
                f"{name[:80]!r} must be the name of an environment variable: printable ASCII "
                "without '='",
            )
        source = each.get("valueFrom")
        if source is not None and each.get("value"):
            raise InvalidWork(f"{path}[{index}]", "must have value or valueFrom, not both")
        if source is not None and len(source) != 1:
            raise InvalidWork(
                f"{path}[{index}].valueFrom",
                f"must have one source, such as secretKeyRef; given: {sorted(source)}",
            )


def _check_volumes(volumes: list[Manifest], path: str) -> None:
    names = set()
    for index, each in enumerate(volumes):
        here, given = f"{path}[{index}]", sorted(each.keys() - {"name"})
        if each["name"] in names:
            raise InvalidWork(f"{here}.name", f"{each['name']!r} is given twice")
        names.add(each["name"])
        if len(given) != 1:
            raise InvalidWork(here, f"must have one source, such as configMap; given: {given}")


def scheduling_problems(spec: Manifest) -> Iterator[tuple[str, str]]:
    """Shipwright's own rules for where a build runs."""
    for key, value in (spec.get("nodeSelector") or {}).items():
        problem = problem_with_key(key) or problem_with_value(value or "")
        if problem is not None:
            yield f"nodeSelector.{key}", problem
    for index, each in enumerate(spec.get("tolerations") or []):
        for field, problem in _toleration_problems(each):
            yield f"tolerations[{index}].{field}", problem
    scheduler, runtime = spec.get("schedulerName"), spec.get("runtimeClassName")
    problem = None if scheduler is None else problem_with_key(scheduler)
    if problem is not None:
        yield "schedulerName", problem
    if runtime is not None and not is_dns_name(runtime):
        yield "runtimeClassName", f"{runtime[:80]!r} is not a Kubernetes name"


def _toleration_problems(toleration: Manifest) -> Iterator[tuple[str, str]]:
    problem = problem_with_key(toleration.get("key") or "")
    if problem is not None:
        yield "key", problem
    if toleration.get("operator") not in ("Exists", "Equal"):
        yield "operator", "must be Exists or Equal"
    problem = problem_with_value(toleration.get("value") or "")
    if problem is not None:
        yield "value", problem
    if toleration.get("effect") not in (None, "", "NoSchedule"):
        yield "effect", "must be NoSchedule: Shipwright supports no other"
    if toleration.get("tolerationSeconds") is not None:
        yield "tolerationSeconds", "must be left out: Shipwright does not support it"


def _check_duration(given: object, path: str) -> None:
    if given is None:
        return
    try:
        parse_duration(str(given))
    except ValueError as error:
        raise InvalidWork(path, str(error)) from error


def _check_image(name: str, path: str, *, with_digest: bool = True) -> None:
    problem = problem_with_image(name, with_digest=with_digest)
    if problem is not None:
        raise InvalidWork(path, f"{name[:120]!r} {problem}")


def _check_secret(block: Manifest, field: str, path: str) -> None:
    if block.get(field) is not None:
        check_name(block[field], f"{path}.{field}", "Secret")


def check_name(name: Any, path: str, kind: str) -> None:
    """Check the name of an object in the cluster."""
    if not (isinstance(name, str) and is_dns_name(name)):
        raise InvalidWork(path, f"{name!r} cannot be the name of a {kind}"[:200])

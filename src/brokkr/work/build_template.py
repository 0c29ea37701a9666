"""
What a template of the type ``build`` may say, as far as the template alone shows it.

Shipwright's API server knows the types of fields; its controllers know the rest, and some of
it nobody says: a build then waits for a timeout.  What is wrong for sure is refused here,
before a Work is queued.  What depends on the cluster is not: strategies, Secrets, parameters.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from brokkr.work.build_fields import check_common, check_name, check_source
from brokkr.work.errors import InvalidWork
from brokkr.work.labels import problem_with_key, problem_with_value
from brokkr.work.model import Manifest
from brokkr.work.shapes import Fields, closest, find_misfit
from brokkr.work.shipwright import BUILD_RUN_SPEC, BUILD_SPEC, CONFIG_MAP, METADATA

_DOCUMENT: Final = ("apiVersion", "kind", "metadata", "spec", "status")


def check_build(found: Sequence[tuple[str, Manifest]]) -> None:
    """
    Refuse documents that could not become a build.

    Args:
        found: Each with its path in the template.

    Raises:
        InvalidWork: Names the field, what is wrong with it and what would be right.
    """
    builds = [each for each in found if each[1]["kind"] == "Build"]
    runs = [each for each in found if each[1]["kind"] == "BuildRun"]
    if len(builds) != 1:
        raise InvalidWork("template", f"needs exactly one Build; it has {len(builds)}")
    if len(runs) > 1:
        raise InvalidWork("template", f"may have one BuildRun as the pattern; it has {len(runs)}")
    for path, document in found:
        _check_metadata(document, path)
    for path, run in runs:
        spec = run.get("spec") or {}
        _check_build_of_run(spec, path, build=(builds[0][1].get("metadata") or {}).get("name"))
        # The agent names the Build.
        _check_document({**run, "spec": {"build": {}, **spec}}, BUILD_RUN_SPEC, path)
        check_common(spec, f"{path}.spec")
    for path, config_map in found:
        if config_map["kind"] == "ConfigMap":
            _check_config_map(config_map, path)
    path, build = builds[0]
    _check_document(build, BUILD_SPEC, path)
    _check_build_spec(build.get("spec") or {}, f"{path}.spec")


def _check_document(document: Manifest, shape: Fields, path: str) -> None:
    _check_top(document, _DOCUMENT, path)
    spec = document.get("spec") or {}
    misfit = find_misfit(shape, spec, f"{path}.spec")
    if misfit is None:
        return
    if misfit[0] == f"{path}.spec.strategy":
        raise InvalidWork(f"{path}.spec.strategy.name", "a Build must name its strategy")
    if misfit[0] in (f"{path}.spec.output", f"{path}.spec.output.image"):
        raise InvalidWork(f"{path}.spec.output.image", "a Build must name the image it makes")
    raise InvalidWork(*misfit)


def _check_top(document: Manifest, known: tuple[str, ...], path: str) -> None:
    for name in document:
        if name in known:
            continue
        meant = closest(name, known)
        if meant is not None:
            raise InvalidWork(f"{path}.{name}", f"is not a field here; did you mean {meant}?")
        if "spec" in known and name in BUILD_SPEC.known:
            raise InvalidWork(
                f"{path}.{name}", f"is not a field here; it belongs under {path}.spec"
            )


def _check_metadata(document: Manifest, path: str) -> None:
    metadata = document.get("metadata") or {}
    misfit = find_misfit(METADATA, metadata, f"{path}.metadata")
    if misfit is not None:
        raise InvalidWork(*misfit)
    for key, value in (metadata.get("labels") or {}).items():
        problem = problem_with_key(key) or problem_with_value(value or "")
        if problem is not None:
            raise InvalidWork(f"{path}.metadata.labels.{key}", problem)
    for key in metadata.get("annotations") or {}:
        problem = problem_with_key(key)
        if problem is not None:
            raise InvalidWork(f"{path}.metadata.annotations.{key}", problem)


def _check_config_map(config_map: Manifest, path: str) -> None:
    if not (config_map.get("metadata") or {}).get("name"):
        raise InvalidWork(f"{path}.metadata.name", "each ConfigMap needs a name")
    _check_top(config_map, ("apiVersion", "kind", "metadata", *CONFIG_MAP.known), path)
    content = {name: config_map[name] for name in CONFIG_MAP.known if name in config_map}
    misfit = find_misfit(CONFIG_MAP, content, path)
    if misfit is not None:
        raise InvalidWork(*misfit)


def _check_build_of_run(spec: Manifest, path: str, *, build: str | None) -> None:
    given = spec.get("build") or {}
    if not isinstance(given, Mapping):
        raise InvalidWork(f"{path}.spec.build", "must be an object")
    if "spec" in given:
        raise InvalidWork(
            f"{path}.spec.build.spec",
            "a BuildRun with an embedded Build is not supported: give the Build as a "
            "document of its own",
        )
    if given.get("name") not in (None, build):
        raise InvalidWork(
            f"{path}.spec.build.name", f"{given['name']!r} is not the Build given here: {build!r}"
        )
    if "source" in spec:
        raise InvalidWork(
            f"{path}.spec.source", "a BuildRun can only wait for an upload that nobody would make"
        )
    if "state" in spec:
        raise InvalidWork(f"{path}.spec.state", "must not be given: cancel the work instead")


def _check_build_spec(spec: Manifest, path: str) -> None:
    strategy = spec["strategy"]
    check_name(strategy.get("name"), f"{path}.strategy.name", "strategy")
    if strategy.get("kind") not in (None, "BuildStrategy", "ClusterBuildStrategy"):
        raise InvalidWork(
            f"{path}.strategy.kind",
            f"{strategy['kind']!r} is not a kind of strategy; it must be ClusterBuildStrategy, or "
            "BuildStrategy, the default",
        )
    if spec.get("source") is not None:
        check_source(spec["source"], f"{path}.source")
    check_common(spec, path)

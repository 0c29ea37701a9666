"""
The objects of one attempt: ConfigMaps, a Build and a BuildRun.

They are the user's, with their specs carried whole, fields unknown to this project
included.  Changed are only the names, what says whose they are, and what the agent
must have its own way for the result to be read (see the notes).

The templates given here have passed :func:`brokkr.work.template.check_template`.
"""

# Note [A Build of its own for each attempt]
#
# Shipwright validates a Build once and does not look at strategies again, so a refusal
# sticks to the object; and two Works may bring Builds of the same name.  So each
# attempt has a Build under the attempt's name, next to its one BuildRun.
#
# Note [Retention is the agent's]
#
# Retention could delete a BuildRun before its result is read.  So the times to live go
# onto the BuildRun, where they win over the Build's, and are never shorter than the
# agent's.  The rest of a Build's ``retention`` is left out: a limit on how many
# BuildRuns are kept has nothing to count where each Build has one, and
# ``atBuildDeletion`` would tie the BuildRun to an object that may go first.
#
# Note [An empty array is the strategy's default]
#
# Shipwright makes a null parameter of ``values: []``, and Tekton's webhook refuses the TaskRun
# for ever: the BuildRun gets no condition, and no timeout runs.  So the empty list is left out
# of what is created.  The parameter stays, without a value: so a BuildRun can still take back
# what the Build gave.  Then the strategy's default counts, or Shipwright says that the value
# is missing.  For Shipwright an empty list and none are the same: its own clients send none,
# and ``status.buildSpec`` shows none.
#
# Note [A build ends]
#
# A timeout of zero is none at all in Tekton, and what cannot be read is refused by the API
# server only once an attempt has begun.  So both are refused before, with advice.

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from brokkr.agent.handlers.attempt_objects import attempt_metadata
from brokkr.agent.handlers.build.reading import part_of, parts_of
from brokkr.work.durations import parse_duration, render_duration
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest, Work
from brokkr.work.names import attempt_name
from brokkr.work.template import documents

ANNOTATION_BUILD_NAME: Final = "brokkr.io/build-name"
"""On a Build and its BuildRun: the name that the user gave the Build."""

_LONGEST: Final = timedelta(hours=2_562_047)
"""What Kubernetes can store as a duration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildDefaults:
    """What the agent fills in where the user left it open.

    Attributes:
        service_account: None leaves the choice to Shipwright.
        retention_succeeded: How long a BuildRun is kept at least; the same for failed.
        deadline_grace: How much longer than its timeout an attempt may take in all: the
            timeout does not run before Shipwright and Tekton have accepted the build.
        start_within: How long an attempt may wait until they have.
    """

    service_account: str | None = "builder-sa"
    timeout: timedelta = timedelta(minutes=15)
    retention_succeeded: timedelta = timedelta(hours=1)
    retention_failed: timedelta = timedelta(hours=24)
    deadline_grace: timedelta = timedelta(minutes=1)
    start_within: timedelta = timedelta(minutes=10)


def render_config_maps(work: Work, attempt: int) -> list[Manifest]:
    """Render the template's ConfigMaps, under the names that its parameters refer to."""
    return [
        {**each, "metadata": _metadata(each, work, attempt, name=each["metadata"]["name"])}
        for each in documents(work.template)
        if each["kind"] == "ConfigMap"
    ]


def render_build(work: Work, attempt: int, defaults: BuildDefaults) -> Manifest:
    """
    Render the Build of an attempt.

    Raises:
        InvalidWork: A timeout of the template has no end, or cannot be understood.
    """
    # Before the first object is made, for what is wrong with the BuildRun too.
    timeout_of_template(work, defaults)
    build = _document(work, "Build")
    # See Note [Retention is the agent's].
    spec = {key: value for key, value in build["spec"].items() if key != "retention"}
    if work.status.retries < work.max_retries:
        spec = _keep_bundle(spec)
    spec = _without_empty_arrays(spec)
    name = attempt_name(work.name, attempt)
    return {**build, "metadata": _metadata(build, work, attempt, name=name), "spec": spec}


def render_build_run(work: Work, attempt: int, defaults: BuildDefaults) -> Manifest:
    """
    Render the BuildRun of an attempt, from the template's own if it has one.

    Raises:
        InvalidWork: The template's retention cannot be understood.
    """
    build_spec = _document(work, "Build")["spec"]
    run = _document(work, "BuildRun")
    name = attempt_name(work.name, attempt)
    spec = _without_empty_arrays({**run.get("spec", {}), "build": {"name": name}})
    if spec.get("serviceAccount") is None and defaults.service_account is not None:
        spec["serviceAccount"] = defaults.service_account
    if spec.get("timeout") is None and build_spec.get("timeout") is None:
        spec["timeout"] = render_duration(defaults.timeout)
    spec["retention"] = _retention(build_spec, spec, defaults)
    return {
        "apiVersion": "shipwright.io/v1beta1",
        "kind": "BuildRun",
        "metadata": _metadata(run, work, attempt, name=name),
        "spec": spec,
    }


def timeout_of_template(work: Work, defaults: BuildDefaults) -> timedelta:
    """
    Return how long an attempt at this Work may run.

    Raises:
        InvalidWork: A timeout of the template has no end, or cannot be understood.
    """
    # See Note [A build ends].
    given = [
        _timeout(_document(work, kind).get("spec", {}).get("timeout"), defaults)
        for kind in ("BuildRun", "Build")
    ]
    return next((each for each in given if each is not None), defaults.timeout)


def timeout_of(run: Manifest, build: Manifest | None, defaults: BuildDefaults) -> timedelta:
    """Return how long a BuildRun that exists may run."""
    places = (run, {"spec": part_of(run, "status", "buildSpec")}, build)
    for each in places:
        try:
            timeout = _timeout(part_of(each, "spec").get("timeout"), defaults)
        except InvalidWork:
            continue  # somebody has changed it since
        if timeout is not None:
            return timeout
    return defaults.timeout


def _document(work: Work, kind: str) -> Manifest:
    """Return the template's one document of a kind; empty if it has none."""
    return next((each for each in documents(work.template) if each["kind"] == kind), {})


def _metadata(document: Manifest, work: Work, attempt: int, *, name: str) -> dict[str, Any]:
    metadata = attempt_metadata(document, work, attempt, name=name)
    given_name = _document(work, "Build").get("metadata", {}).get("name")
    if given_name is not None:
        metadata["annotations"][ANNOTATION_BUILD_NAME] = given_name
    return metadata


def _keep_bundle(spec: dict[str, Any]) -> dict[str, Any]:
    """Stop Shipwright from deleting an OCI source that the next attempt would need."""
    source = spec.get("source") or {}
    artifact = source.get("ociArtifact")
    if not isinstance(artifact, Mapping) or artifact.get("prune") != "AfterPull":
        return spec
    return {**spec, "source": {**source, "ociArtifact": {**artifact, "prune": "Never"}}}


def _without_empty_arrays(spec: dict[str, Any]) -> dict[str, Any]:
    """See Note [An empty array is the strategy's default]."""
    if not any("values" in each for each in parts_of(spec, "paramValues")):
        return spec
    return {**spec, "paramValues": [_without_empty_array(each) for each in spec["paramValues"]]}


def _without_empty_array(parameter: Any) -> Any:
    if not isinstance(parameter, Mapping) or parameter.get("values") != []:
        return parameter
    return {key: value for key, value in parameter.items() if key != "values"}


def _timeout(given: Any, defaults: BuildDefaults) -> timedelta | None:
    if given is None:
        return None
    advice = f"leave it out for {render_duration(defaults.timeout)}, or say how long, as in 30m"
    try:
        timeout = parse_duration(str(given))
    except ValueError as error:
        raise InvalidWork("template.spec.timeout", f"{error}; {advice}") from error
    if not timedelta(0) < timeout <= _LONGEST:
        raise InvalidWork("template.spec.timeout", f"{given} would never end a build; {advice}")
    return timeout


def _retention(build_spec: Manifest, run_spec: Manifest, defaults: BuildDefaults) -> Manifest:
    """See Note [Retention is the agent's]."""
    of_run, of_build = run_spec.get("retention") or {}, build_spec.get("retention") or {}
    if not (isinstance(of_run, Mapping) and isinstance(of_build, Mapping)):
        raise InvalidWork("template.spec.retention", "must be an object")
    at_least = {
        "ttlAfterSucceeded": defaults.retention_succeeded,
        "ttlAfterFailed": defaults.retention_failed,
    }
    return {
        field: _longer(of_run.get(field, of_build.get(field)), floor, field=field)
        for field, floor in at_least.items()
    }


def _longer(given: Any, floor: timedelta, *, field: str) -> str:
    if given is None:
        return render_duration(floor)
    try:
        return render_duration(max(parse_duration(str(given)), floor))
    except ValueError as error:
        raise InvalidWork(f"template.spec.retention.{field}", str(error)) from error

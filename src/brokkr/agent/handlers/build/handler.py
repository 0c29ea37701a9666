"""
What an attempt at a container image build has come to.

An attempt is a Build and, once Shipwright has registered it, a BuildRun.  Only the
BuildRun's ``Succeeded`` condition ends an attempt: neither times nor anything that
happens to the Build afterwards do.
"""

# Note [What stopping may leave behind]
#
# A BuildRun can be stuck between a stop and its end: Shipwright tells the executor first,
# Tekton refuses changes to one that is done, and the BuildRun stays Unknown for ever.
# Then the executor's own condition says what the build came to.
#
# The other way round, Shipwright ends a BuildRun that has a PipelineRun as cancelled while
# the PipelineRun goes on and may still push.  Then it is not over before that is.

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Final, TypeVar

from brokkr.agent.handlers.build.disruption import with_disruption, with_end
from brokkr.agent.handlers.build.execution import Execution, execution_of
from brokkr.agent.handlers.build.failure_table import CANCELLATIONS, INTERRUPTED, POLICY_VIOLATION
from brokkr.agent.handlers.build.failures import judge, judge_now
from brokkr.agent.handlers.build.manifests import (
    BuildDefaults,
    render_build,
    render_build_run,
    render_config_maps,
    timeout_of,
    timeout_of_template,
)
from brokkr.agent.handlers.build.phrases import printable
from brokkr.agent.handlers.build.policy import ANYTHING_GOES, BuildPolicy, check_policy
from brokkr.agent.handlers.build.reading import condition_of, has_ended, parts_of, text_of
from brokkr.agent.handlers.build.result import fails_on_finding, result_of, vulnerabilities_of
from brokkr.agent.handlers.build.signs import (
    Signs,
    signs_of_build,
    signs_of_execution,
    signs_of_run,
)
from brokkr.agent.handlers.protocol import Cancellation, Prerequisite, Related
from brokkr.agent.handlers.verdict import (
    Cancelled,
    Evidence,
    Failed,
    Incomplete,
    Running,
    Succeeded,
    Unclear,
    Verdict,
)
from brokkr.agent.kinds import (
    BUILD_RUNS,
    BUILD_STRATEGIES,
    BUILDS,
    CLUSTER_BUILD_STRATEGIES,
    CONFIG_MAPS,
    PIPELINE_RUNS,
    TASK_RUNS,
    Resource,
)
from brokkr.work.model import Manifest, Work
from brokkr.work.template import ALLOWED_KINDS

_STOP: Final = "BuildRunCanceled"
_MAX_MESSAGE: Final = 300

_WAITING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "": "waiting for Shipwright to start the build",
        "Pending": "the build's pod is pending",
        "Started": "the build is starting",
        "Running": "the build is running",
        "BuildRunCanceled": "the build is being cancelled",
        "ExceededNodeResources": "no node has room for the build's pod",
        "ExceededResourceQuota": "the namespace's resource quota leaves no room for the build",
        "PullImageFailed": "an image of the build strategy cannot be pulled",
    }
)
"""What a condition that is neither True nor False says by its reason."""

_NOT_BEGUN: Final = frozenset({"", "ExceededResourceQuota"})
"""Then there is no ``startTime``, so no timeout of Shipwright's or Tekton's runs."""
_WITH_CAUSE: Final = frozenset(
    {"ExceededNodeResources", "ExceededResourceQuota", "PullImageFailed"}
)
"""Reasons whose message says what is missing."""

_INSTALL_SHIPWRIGHT: Final = "install Shipwright Build v0.17.0 or newer"
_BUILD_RUN_LABEL: Final = "buildrun.shipwright.io/name"


def _shipwright(resource: Resource, *field: str) -> Prerequisite:
    return Prerequisite(
        definition=str(resource), version=resource.version, field=field, cure=_INSTALL_SHIPWRIGHT
    )


class BuildHandler:
    """Container image builds with Shipwright."""

    executor: str = BUILD_RUNS.kind
    kinds: tuple[Resource, ...] = (BUILDS, BUILD_RUNS, CONFIG_MAPS)
    related: tuple[Related, ...] = (
        Related(TASK_RUNS, _BUILD_RUN_LABEL),
        Related(PIPELINE_RUNS, _BUILD_RUN_LABEL),
    )
    # Tekton hands it on: from a PipelineRun to its TaskRuns, and from those to Pods.
    pods_label: str = _BUILD_RUN_LABEL
    template_kinds: frozenset[tuple[str, str]] = ALLOWED_KINDS["build"]
    prerequisites: tuple[Prerequisite, ...] = (
        _shipwright(BUILDS),
        # The executor is named since v0.17.
        _shipwright(BUILD_RUNS, "status", "executor"),
        _shipwright(BUILD_STRATEGIES),
        _shipwright(CLUSTER_BUILD_STRATEGIES),
        Prerequisite(
            definition=str(TASK_RUNS),
            version=TASK_RUNS.version,
            release_label="pipeline.tekton.dev/release",
            oldest_release="v0.59.0",
            cure="install Tekton Pipelines v0.59.0 or newer",
        ),
    )

    def __init__(self, defaults: BuildDefaults, policy: BuildPolicy = ANYTHING_GOES) -> None:
        self._defaults = defaults
        self._policy = policy

    def assess(
        self, work: Work, attempt: int, seen: Sequence[Manifest], evidence: Evidence
    ) -> Verdict | Unclear:
        """Say what the Build and the BuildRun of this attempt have come to."""
        build, run = _find(seen, "Build"), _find(seen, "BuildRun")
        if run is not None:
            return self._assess_run(work, execution_of(run, seen), build, evidence)
        violation = check_policy(work.template, self._policy)
        if violation is not None:
            return judge_now(Signs(reason=POLICY_VIOLATION, message=str(violation)), {})
        if build is None:
            # The Build comes last: where it exists, the ConfigMaps do too.
            return Incomplete(
                create=(
                    *render_config_maps(work, attempt),
                    render_build(work, attempt, self._defaults),
                ),
                message="creating the Build",
            )
        match text_of(build, "status", "registered"):
            case "True":
                return Incomplete(
                    create=(render_build_run(work, attempt, self._defaults),),
                    message="starting the build",
                )
            case "False":
                verdict = judge(signs_of_build(build), evidence)
                return _with_result(verdict, work, execution_of({}, ()), build)
            case _:
                # A BuildRun made now might be refused: its Build is not yet known.
                limit = self._limit(timeout_of_template(work, self._defaults))
                return Running(
                    message="waiting for Shipwright to validate the Build",
                    limit=min(limit, self._defaults.start_within),
                    is_begun=False,
                )

    def cancel(self, seen: Sequence[Manifest]) -> Cancellation | None:
        """Ask Shipwright to stop the BuildRun, if it runs and was not asked already."""
        run = _find(seen, "BuildRun")
        # To cancel a BuildRun that has ended can turn its success into a failure.
        if run is None or has_ended(run) or _is_stopping(run):
            return None
        return Cancellation(
            kind=BUILD_RUNS.kind,
            name=run["metadata"]["name"],
            resource_version=run["metadata"]["resourceVersion"],
            patch={"spec": {"state": _STOP}},
        )

    def _assess_run(
        self, work: Work, execution: Execution, build: Manifest | None, evidence: Evidence
    ) -> Verdict | Unclear:
        run = execution.run
        condition = condition_of(run)
        reason, message = text_of(condition, "reason"), text_of(condition, "message")
        limit = self._limit(timeout_of(run, build, self._defaults))
        if not has_ended(run):
            is_begun = reason not in _NOT_BEGUN
            return Running(
                message=_what_it_does(reason, message, execution, build),
                step=execution.running_step,
                limit=limit if is_begun else min(limit, self._defaults.start_within),
                is_begun=is_begun,
                if_stuck=_end_of_a_stuck_one(work, execution, build, evidence),
            )
        if condition["status"] == "True":
            return _success(work, execution, build)
        if reason in CANCELLATIONS:
            # See Note [What stopping may leave behind].
            if execution.pipelineruns and not execution.is_over:
                return Running(message="waiting for the PipelineRun to stop", limit=limit)
            return _cancellation(work, execution, build, signs_of_run(execution, build))
        ended = with_end(execution, evidence)
        if isinstance(ended, Unclear):
            return ended
        execution = ended
        signs = with_disruption(
            signs_of_run(execution, build),
            execution,
            evidence,
            was_interrupted=any(each.failure_class == INTERRUPTED for each in work.status.attempts),
        )
        verdict = signs if isinstance(signs, Unclear) else judge(signs, evidence)
        return _with_result(verdict, work, execution, build)

    def _limit(self, timeout: timedelta) -> timedelta:
        return timeout + self._defaults.deadline_grace


def _find(seen: Sequence[Manifest], kind: str) -> Manifest | None:
    return next((each for each in seen if each.get("kind") == kind), None)


def _what_it_does(reason: str, message: str, execution: Execution, build: Manifest | None) -> str:
    """Say what a build that has not ended is doing, or what it waits for."""
    if execution.is_over:
        return "Tekton has ended the build, and Shipwright has not taken note of it yet"
    said = _WAITING.get(reason) or f"{reason}: {message}"
    if reason in _WITH_CAUSE:
        said = f"{said}: {message}"
    elif reason in ("Pending", "Running") and (cause := execution.unscheduled):
        said = f"the build's pod has no node yet: {cause}"
    elif reason == "Pending" and execution.waits_for:
        said = f"{said}: {execution.waits_for}"
    elif not reason and (names := _empty_arrays(execution.run, build)):
        said = f"{said}; Tekton refuses the empty list of the parameter {names}"
    return printable(said[:_MAX_MESSAGE])


def _empty_arrays(*objects: Manifest | None) -> str:
    parameters = [each for one in objects for each in parts_of(one, "spec", "paramValues")]
    return ", ".join(text_of(each, "name") for each in parameters if each.get("values") == [])


def _is_stopping(run: Manifest) -> bool:
    return text_of(run, "spec", "state") == _STOP


def _end_of_a_stuck_one(
    work: Work, execution: Execution, build: Manifest | None, evidence: Evidence
) -> Succeeded | Failed | Cancelled | None:
    """See Note [What stopping may leave behind]."""
    if not (_is_stopping(execution.run) and execution.is_over):
        return None
    condition = execution.condition
    if condition.get("status") == "True":
        return _success(work, execution, build)
    signs = signs_of_execution(execution)
    if text_of(condition, "reason") in CANCELLATIONS:
        return _cancellation(work, execution, build, signs)
    return _with_result(judge_now(signs, evidence), work, execution, build)


def _success(work: Work, execution: Execution, build: Manifest | None) -> Succeeded | Failed:
    findings = vulnerabilities_of(execution.run)
    if findings and fails_on_finding(execution.run, build):
        # Shipwright keeps this promise only where it pushes the image itself.
        signs = Signs(
            reason="VulnerabilitiesFound",
            message=f"the image has {len(findings)} vulnerabilities, the worst of them "
            f"{findings[0].get('id')} ({findings[0].get('severity')}); it was pushed all the same",
        )
        return _with_result(judge_now(signs, {}), work, execution, build)
    result = result_of(work, execution, build, is_usable=True)
    built = result.get("digest") or f"{result.get('image')} (its strategy tells no digest)"
    return Succeeded(
        reason="BuildCompleted", message=f"Image built successfully: {built}", result=result
    )


def _cancellation(
    work: Work, execution: Execution, build: Manifest | None, signs: Signs
) -> Cancelled:
    unasked = _with_result(judge_now(signs, {}), work, execution, build)
    return Cancelled(message=printable(signs.message[:_MAX_MESSAGE]), unasked=unasked)


_Judged = TypeVar("_Judged", Failed, Failed | Unclear)


def _with_result(
    verdict: _Judged, work: Work, execution: Execution, build: Manifest | None
) -> _Judged:
    if isinstance(verdict, Unclear):
        return verdict
    return replace(verdict, result=result_of(work, execution, build, is_usable=False))

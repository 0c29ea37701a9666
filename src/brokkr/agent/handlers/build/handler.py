"""
What an attempt at a container image build has come to.

An attempt is a Build and, once Shipwright has registered it, a BuildRun.  Only the
BuildRun's ``Succeeded`` condition ends an attempt: neither times nor anything that
happens to the Build afterwards do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from brokkr.agent.handlers.build.failures import (
    CANCELLATIONS,
    classify_build,
    classify_run,
    condition_of,
)
from brokkr.agent.handlers.build.manifests import (
    BuildDefaults,
    render_build,
    render_build_run,
    render_config_maps,
)
from brokkr.agent.handlers.protocol import Cancellation
from brokkr.agent.handlers.verdict import (
    Cancelled,
    Incomplete,
    Running,
    Succeeded,
    Verdict,
)
from brokkr.work.model import Manifest, Work
from brokkr.work.template import check_template

MAX_VULNERABILITIES: Final = 50
_MAX_TEXT: Final = 200
_STOP: Final = "BuildRunCanceled"

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


class BuildHandler:
    """Container image builds with Shipwright."""

    executor: str = "BuildRun"

    def __init__(self, defaults: BuildDefaults) -> None:
        self._defaults = defaults

    def assess(self, work: Work, attempt: int, seen: Sequence[Manifest]) -> Verdict:
        """Say what the Build and the BuildRun of this attempt have come to."""
        build, run = _find(seen, "Build"), _find(seen, "BuildRun")
        if run is not None:
            return _assess_run(work, run, build)

        # Checked where objects are about to be made: the broker's word is not enough.
        check_template(work.work_type, work.template, namespace=work.namespace)
        if build is None:
            # The Build comes last: where it exists, the ConfigMaps do too.
            return Incomplete(
                create=(*render_config_maps(work, attempt), render_build(work, attempt)),
                message="creating the Build",
            )
        match (build.get("status") or {}).get("registered"):
            case "True":
                return Incomplete(
                    create=(render_build_run(work, attempt, self._defaults),),
                    message="starting the build",
                )
            case "False":
                return classify_build(build)
            case _:
                # A BuildRun made now might be refused: its Build is not yet known.
                return Running(message="waiting for Shipwright to validate the Build")

    def cancel(self, seen: Sequence[Manifest]) -> Cancellation | None:
        """Ask Shipwright to stop the BuildRun, if it runs and was not asked already."""
        run = _find(seen, "BuildRun")
        # To cancel a BuildRun that has ended can turn its success into a failure.
        if run is None or _has_ended(run) or _is_stopping(run):
            return None
        return Cancellation(
            kind="BuildRun", name=run["metadata"]["name"], patch={"spec": {"state": _STOP}}
        )


def _find(seen: Sequence[Manifest], kind: str) -> Manifest | None:
    return next((each for each in seen if each.get("kind") == kind), None)


def _has_ended(run: Manifest) -> bool:
    return condition_of(run).get("status") in ("True", "False")


def _is_stopping(run: Manifest) -> bool:
    return (run.get("spec") or {}).get("state") == _STOP


def _assess_run(work: Work, run: Manifest, build: Manifest | None) -> Verdict:
    condition = condition_of(run)
    reason, message = condition.get("reason") or "", condition.get("message") or ""
    if not _has_ended(run):
        return Running(message=_WAITING.get(reason) or f"{reason}: {message}")
    if condition["status"] == "True":
        result = _result(run)
        built = result.get("digest") or f"{result.get('image')} (its strategy tells no digest)"
        return Succeeded(
            reason="BuildCompleted",
            message=f"Image built successfully: {built}",
            result=result,
        )
    if work.cancel_requested and reason in CANCELLATIONS:
        return Cancelled(message=message)
    return replace(classify_run(run, build), result=_result(run))


def _result(run: Manifest) -> dict[str, Any]:
    """
    Gather what is worth keeping of a BuildRun that has ended; absent is left out.

    ::

        build_run        its name
        executor         {kind, name}: the TaskRun or PipelineRun that ran
        git              {commit_sha, commit_author, branch}; the branch only if the
                         Build named no revision
        image            as the Build's or the BuildRun's output names it
        digest           sha256:…, as Shipwright or the strategy reported it
        image_ref        name@digest: this very image, whatever becomes of its tag
        size             of the compressed image, in bytes
        vulnerabilities  [{id, severity}], at most 50, worst first
        step             {container, pod}: where it failed

    A build that failed may have a digest too (``VulnerabilitiesFound``); but no image
    was made that could be pulled, so it has no image_ref.
    """
    status = run.get("status") or {}
    git = (status.get("source") or {}).get("git") or {}
    output = status.get("output") or {}
    image, digest = _image(run), output.get("digest")
    succeeded = condition_of(run).get("status") == "True"
    result = {
        "build_run": run["metadata"]["name"],
        "executor": _pick(status.get("executor"), kind="kind", name="name"),
        "git": _pick(
            git, commit_sha="commitSha", commit_author="commitAuthor", branch="branchName"
        ),
        "image": image,
        "digest": digest,
        "image_ref": _by_digest(image, digest) if succeeded and image and digest else None,
        "size": output.get("size"),
        "vulnerabilities": [
            _pick(each, id="id", severity="severity")
            for each in (output.get("vulnerabilities") or ())[:MAX_VULNERABILITIES]
        ],
        "step": _pick(
            (status.get("failureDetails") or {}).get("location"), container="container", pod="pod"
        ),
    }
    return {key: value for key, value in result.items() if value}


def _image(run: Manifest) -> str | None:
    override = (run.get("spec") or {}).get("output") or {}
    built = ((run.get("status") or {}).get("buildSpec") or {}).get("output") or {}
    image: str | None = override.get("image") or built.get("image")
    return image


def _by_digest(image: str, digest: str) -> str:
    """Put a digest in the place of an image's tag; a port's colon is none."""
    host, slash, name = image.partition("@")[0].rpartition("/")
    return f"{host}{slash}{name.partition(':')[0]}@{digest}"


def _pick(given: Manifest | None, **names: str) -> dict[str, str]:
    """Take some texts under names of ours, none of them longer than is sensible."""
    found = {ours: (given or {}).get(theirs) for ours, theirs in names.items()}
    return {ours: str(text)[:_MAX_TEXT] for ours, text in found.items() if text}

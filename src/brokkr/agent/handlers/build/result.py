"""What is kept of a build that has ended."""

from collections.abc import Mapping
from typing import Any, Final

from brokkr.agent.handlers.build.execution import Execution
from brokkr.agent.handlers.build.phrases import printable
from brokkr.agent.handlers.build.reading import part_of, parts_of, text_of
from brokkr.work.model import Manifest, Work

MAX_VULNERABILITIES: Final = 50
_MAX_TEXT: Final = 200
_MAX_WARNINGS: Final = 20

ANNOTATION_WARNINGS: Final = "brokkr.io/warnings"
"""On a BuildRun: what the one that runs it has not done of what was asked, a sentence a line."""

ONE_PLATFORM: Final = (
    "Shipwright validates output.platforms and builds one image, for one platform: "
    "see docs/how-to/build-for-several-platforms.md"
)


def result_of(
    work: Work, execution: Execution, build: Manifest | None, *, is_usable: bool
) -> dict[str, Any]:
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
        warnings         sentences: what was asked for and has no effect

    A build that failed may have a digest too (``VulnerabilitiesFound``); but no image
    was made that should be used, so it has no image_ref.

    What the BuildRun does not say yet is taken from the TaskRun's results.

    Args:
        is_usable: Whether the image is what was asked for.
    """
    run, told = execution.run, execution.results
    git = part_of(run, "status", "source", "git")
    output = part_of(run, "status", "output")
    given = _output_of(run, build, "image")
    image = given[:_MAX_TEXT] if isinstance(given, str) else ""
    digest = (text_of(output, "digest") or told.get("shp-image-digest", ""))[:_MAX_TEXT]
    result: dict[str, Any] = {
        "build_run": text_of(run, "metadata", "name"),
        "executor": _texts(part_of(run, "status", "executor"), kind="kind", name="name"),
        "git": _texts(
            git, commit_sha="commitSha", commit_author="commitAuthor", branch="branchName"
        )
        or _texts(
            told,
            commit_sha="shp-source-default-commit-sha",
            commit_author="shp-source-default-commit-author",
            branch="shp-source-default-branch-name",
        ),
        "image": image,
        "digest": digest,
        "image_ref": _by_digest(image, digest) if is_usable and image and digest else "",
        "size": _size(output.get("size"), told.get("shp-image-size", "")),
        "vulnerabilities": vulnerabilities_of(run),
        "step": _texts(
            part_of(run, "status", "failureDetails", "location"), container="container", pod="pod"
        ),
        "warnings": _warnings(work, run),
    }
    return {key: value for key, value in result.items() if value}


def vulnerabilities_of(run: Manifest) -> list[dict[str, str]]:
    """Return the findings, the worst first; Shipwright has left out the ignored ones."""
    found = parts_of(run, "status", "output", "vulnerabilities")
    return [_texts(each, id="id", severity="severity") for each in found[:MAX_VULNERABILITIES]]


def fails_on_finding(run: Manifest, build: Manifest | None) -> bool:
    """Say whether a build with findings shall count as failed."""
    scan = _output_of(run, build, "vulnerabilityScan")
    return part_of(scan).get("failOnFinding") is True


def _output_of(run: Manifest, build: Manifest | None, field: str) -> object:
    """Return a field of the output as it was in effect: the BuildRun's own wins."""
    places = (
        part_of(run, "spec", "output"),
        part_of(run, "status", "buildSpec", "output"),
        part_of(build, "spec", "output"),
    )
    return next((each[field] for each in places if each.get(field)), None)


def _warnings(work: Work, run: Manifest) -> list[str]:
    documents = parts_of(work.template, "items") or [work.template]
    told = part_of(run, "metadata", "annotations").get(ANNOTATION_WARNINGS)
    lines = told.splitlines()[:_MAX_WARNINGS] if isinstance(told, str) else []
    return [
        *(
            [ONE_PLATFORM]
            if any(parts_of(d, "spec", "output", "platforms") for d in documents)
            else []
        ),
        *(text for line in lines if (text := printable(line[:_MAX_TEXT]))),
    ]


def _size(given: object, told: str) -> int | None:
    if isinstance(given, int):
        return given
    return int(told) if told.isascii() and told.isdigit() and len(told) < 20 else None


def _by_digest(image: str, digest: str) -> str:
    """Put a digest in the place of an image's tag; a port's colon is none."""
    host, slash, name = image.partition("@")[0].rpartition("/")
    return f"{host}{slash}{name.partition(':')[0]}@{digest}"


def _texts(given: Mapping[str, Any], **names: str) -> dict[str, str]:
    """Take some texts under names of ours, none of them longer than is sensible."""
    found = {ours: text_of(given, theirs) for ours, theirs in names.items()}
    return {ours: text[:_MAX_TEXT] for ours, text in found.items() if text}

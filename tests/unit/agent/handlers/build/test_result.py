from typing import Any

import pytest

from brokkr.agent.handlers.build.execution import Execution
from brokkr.agent.handlers.build.result import ONE_PLATFORM, fails_on_finding, result_of
from brokkr.work.model import Manifest
from support.factories import a_work
from support.templates import a_build, a_build_run, a_list


def a_run(*, spec: Manifest | None = None, **status: Any) -> Manifest:
    return {"metadata": {"name": "work-1-r1-a1"}, "spec": spec or {}, "status": status}


def results(**values: str) -> Manifest:
    given = [{"name": name.replace("_", "-"), "value": value} for name, value in values.items()]
    return {"kind": "TaskRun", "status": {"results": given}}


def result(
    run: Manifest,
    *taskruns: Manifest,
    is_usable: bool = True,
    template: Manifest | None = None,
    build: Manifest | None = None,
) -> dict[str, Any]:
    work = a_work(template=template)
    return result_of(work, Execution(run, taskruns, []), build, is_usable=is_usable)


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("hello", "hello@sha256:1"),
        ("hello:1", "hello@sha256:1"),
        ("localhost:5000/hello", "localhost:5000/hello@sha256:1"),
        ("localhost:5000/a/hello:1", "localhost:5000/a/hello@sha256:1"),
        ("r/hello:1@sha256:0", "r/hello@sha256:1"),
    ],
)
def test_an_image_reference_has_the_digest_in_the_place_of_the_tag(
    image: str, reference: str
) -> None:
    run = a_run(buildSpec={"output": {"image": image}}, output={"digest": "sha256:1"})

    assert result(run)["image_ref"] == reference
    assert "image_ref" not in result(run, is_usable=False)


def test_the_build_runs_output_wins_over_what_was_recorded_of_the_builds_and_that_over_it() -> None:
    build = a_build(spec={"output": {"image": "of-the-build"}})
    recorded = {"buildSpec": {"output": {"image": "as-recorded"}}}
    override = {"output": {"image": "r:5000/other:2"}}

    assert result(a_run(spec=override, **recorded), build=build)["image"] == "r:5000/other:2"
    assert result(a_run(**recorded), build=build)["image"] == "as-recorded"
    assert result(a_run(), build=build)["image"] == "of-the-build"


def test_what_the_build_run_does_not_say_is_taken_from_the_task_runs_results() -> None:
    told = results(
        shp_image_digest="sha256:2",
        shp_image_size="7",
        shp_source_default_commit_sha="c0ffee",
        shp_source_default_commit_author="ann",
        shp_source_default_branch_name="main",
    )

    from_results = result(a_run(), told)
    from_status = result(
        a_run(output={"digest": "sha256:1", "size": 5}, source={"git": {"commitSha": "abc"}}), told
    )

    assert from_results == {
        "build_run": "work-1-r1-a1",
        "digest": "sha256:2",
        "size": 7,
        "git": {"commit_sha": "c0ffee", "commit_author": "ann", "branch": "main"},
    }
    assert (from_status["digest"], from_status["size"]) == ("sha256:1", 5)
    assert from_status["git"] == {"commit_sha": "abc"}


@pytest.mark.parametrize("size", ["", "much", "-1", "1e3", "٣", "9" * 5000])
def test_a_size_that_is_none_is_left_out(size: str) -> None:
    assert "size" not in result(a_run(), results(shp_image_size=size))


PLATFORMS = {"output": {"image": "r/hello:1", "platforms": [{"os": "linux", "arch": "arm64"}]}}


@pytest.mark.parametrize(
    "template",
    [a_build(spec=PLATFORMS), a_list(a_build(), a_build_run(spec=PLATFORMS))],
)
@pytest.mark.parametrize("is_usable", [True, False])
def test_platforms_are_warned_about_for_they_change_nothing(
    template: Manifest, is_usable: bool
) -> None:
    assert result(a_run(), template=template, is_usable=is_usable)["warnings"] == [ONE_PLATFORM]


def test_without_platforms_there_is_nothing_to_warn_about() -> None:
    assert "warnings" not in result(a_run(), template=a_build())


def test_a_scan_of_the_build_run_replaces_that_of_the_build() -> None:
    strict = {"output": {"vulnerabilityScan": {"failOnFinding": True}}}
    lenient = {"output": {"vulnerabilityScan": {"enabled": True}}}

    assert fails_on_finding(a_run(buildSpec=strict), None)
    assert fails_on_finding(a_run(), a_build(spec=strict))
    assert not fails_on_finding(a_run(spec=lenient, buildSpec=strict), None)

"""Whatever a template and a target are given as, the broker gets one form."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from brokkr.client.submission import TemplateSource, submission_of
from brokkr.wire.bodies import TargetBody
from brokkr.work.errors import InvalidInput, MalformedBody
from support.templates import a_build, a_config_map, a_list

BUILD = a_build()
SEVERAL = [a_config_map(), a_build()]
GPU = {"gpu": "true"}


def template_of(source: TemplateSource) -> Any:
    return submission_of(source, GPU).template


@pytest.mark.parametrize("source", [BUILD, [BUILD], yaml.safe_dump(BUILD)])
def test_one_object_is_the_template_however_it_is_given(source: TemplateSource) -> None:
    assert template_of(source) == BUILD


@pytest.mark.parametrize("source", [SEVERAL, yaml.safe_dump_all(SEVERAL)])
def test_several_objects_are_a_list(source: TemplateSource) -> None:
    assert template_of(source) == a_list(*SEVERAL)


def test_a_path_is_read(tmp_path: Path) -> None:
    file = tmp_path / "work.yaml"
    file.write_text(yaml.safe_dump_all(SEVERAL))

    assert template_of(file) == a_list(*SEVERAL)


def test_the_name_of_a_file_as_text_is_refused_and_not_read(tmp_path: Path) -> None:
    file = tmp_path / "work.yaml"
    file.write_text(yaml.safe_dump(BUILD))

    with pytest.raises(InvalidInput, match="template: each document must be an object"):
        template_of(str(file))


@pytest.mark.parametrize("source", ["", [], "- a\n", "a: b\n---\njust text\n"])
def test_what_holds_no_objects_is_refused(source: TemplateSource) -> None:
    with pytest.raises(InvalidInput, match="template: "):
        template_of(source)


def test_what_is_not_yaml_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedBody, match=r"^template: not valid YAML"):
        template_of("a: [")
    with pytest.raises(InvalidInput, match="nowhere: No such file"):
        template_of(tmp_path / "nowhere")


def test_a_mapping_is_the_labels_that_the_agent_must_have() -> None:
    assert submission_of(BUILD, GPU).target == TargetBody(match_labels=GPU)


def test_all_that_a_target_can_say_may_be_said() -> None:
    one, other = TargetBody(agents=["edge-1"]), TargetBody(match_annotations={"team": "ml"})

    assert submission_of(BUILD, one).target == one
    assert submission_of(BUILD, [one, other]).target == [one, other]


@pytest.mark.parametrize(
    ("target", "fields", "where"),
    [
        ({}, {}, "empty target"),
        ({"gpu": 1}, {}, r"match_labels\.gpu"),
        (GPU, {"max_retries": -1}, "max_retries"),
        (GPU, {"retries": 1}, "retries"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(
    target: Any, fields: dict[str, Any], where: str
) -> None:
    with pytest.raises(InvalidInput, match=where):
        submission_of(BUILD, target, **fields)


def test_what_is_not_said_is_not_sent() -> None:
    sent = submission_of(BUILD, GPU, priority=5).model_dump(exclude_unset=True)

    assert sent == {
        "work_type": "build",
        "template": BUILD,
        "target": {"match_labels": GPU},
        "priority": 5,
    }

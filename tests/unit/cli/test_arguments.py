"""Words of the command line become values, or an error that names the word."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from brokkr.cli.arguments import parse_changes, parse_pairs, read_template
from brokkr.work.errors import InvalidInput, MalformedBody


def test_pairs_are_split_at_the_first_equals_sign() -> None:
    assert parse_pairs(["a=b", "c=d=e", "f="], option="--x") == {"a": "b", "c": "d=e", "f": ""}


@pytest.mark.parametrize("words", [["gpu"], ["=true"], ["gpu=a", "gpu=b"]])
def test_words_that_are_no_pairs_are_refused_by_option(words: list[str]) -> None:
    with pytest.raises(InvalidInput, match="--target"):
        parse_pairs(words, option="--target")


def test_changes_set_and_remove() -> None:
    assert parse_changes(["gpu=true", "zone-", "odd-key=x-"]) == {
        "gpu": "true",
        "zone": None,
        "odd-key": "x-",
    }


@pytest.mark.parametrize("words", [["gpu=true", "gpu-"], ["gpu"]])
def test_changes_that_contradict_or_say_nothing_are_refused(words: list[str]) -> None:
    with pytest.raises(InvalidInput, match="label: "):
        parse_changes(words)


def test_several_documents_become_one_list(tmp_path: Path) -> None:
    file = tmp_path / "work.yaml"
    file.write_text("kind: Build\n---\nkind: BuildRun\n")

    assert [each["kind"] for each in read_template(file)["items"]] == ["Build", "BuildRun"]


def test_json_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "work.json"
    file.write_text('{\n\t"kind": "Build"\n}')

    assert read_template(file) == {"kind": "Build"}


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"kind: Build")))

    assert read_template(Path("-")) == {"kind": "Build"}


@pytest.mark.parametrize("content", ["", "# nothing\n", "just text\n", "- a\n- b\n"])
def test_a_file_without_objects_is_refused_by_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "work.yaml"
    file.write_text(content)

    with pytest.raises(InvalidInput, match=r"work\.yaml"):
        read_template(file)


def test_a_file_that_is_not_yaml_is_refused_by_name_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "work.yaml"
    file.write_text("a: [\n")

    with pytest.raises(MalformedBody, match=r"^\S*work\.yaml: [^\n]+$"):
        read_template(file)


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="missing: No such file"):
        read_template(tmp_path / "missing")
    with pytest.raises(InvalidInput, match="directory"):
        read_template(tmp_path)

"""The broker's settings: which work types there are, and what is refused at start-up."""

from pathlib import Path

import pytest

from brokkr.broker.settings import BrokerSettings
from brokkr.cli.settings import Settings
from brokkr.configuration import InvalidConfiguration, load
from brokkr.work.template import ALLOWED_KINDS

JOB = frozenset({("batch/v1", "Job")})
BOTH = JOB | {("v1", "ConfigMap")}
PREFIX = "BROKKR__BROKER__WORK_TYPES__"


def from_file(folder: Path, text: str) -> BrokerSettings:
    file = folder / "brokkr.toml"
    file.write_text(f"[broker.work_types]\n{text}\n")
    return load(Settings, file=file, environment={}).broker


def from_environment(folder: Path, name: str, value: str) -> BrokerSettings:
    file = folder / "empty.toml"
    file.touch()
    return load(Settings, file=file, environment={PREFIX + name: value}).broker


def test_without_any_configured_the_built_in_types_are_all() -> None:
    assert BrokerSettings().kinds == ALLOWED_KINDS


@pytest.mark.parametrize("name", ["job", "db-backup", "Backup.v2", "x" * 50])
def test_a_file_names_types_and_their_kinds(tmp_path: Path, name: str) -> None:
    settings = from_file(tmp_path, f'"{name}" = ["batch/v1 Job", "v1 ConfigMap"]')

    assert settings.kinds == {**ALLOWED_KINDS, name: BOTH}


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ('["batch/v1 Job"]', JOB),
        ('["batch/v1 Job", "v1 ConfigMap"]', BOTH),
        ("batch/v1 Job", JOB),
        ("batch/v1 Job, v1 ConfigMap", BOTH),
    ],
)
def test_the_environment_names_them_as_json_or_with_commas(
    tmp_path: Path, value: str, kinds: frozenset[tuple[str, str]]
) -> None:
    assert from_environment(tmp_path, "JOB", value).kinds["job"] == kinds


def test_the_environment_replaces_a_type_of_the_file_and_keeps_the_others(tmp_path: Path) -> None:
    file = tmp_path / "brokkr.toml"
    file.write_text('[broker.work_types]\njob = ["v1 Pod"]\nconfig = ["v1 ConfigMap"]\n')

    settings = load(Settings, file=file, environment={f"{PREFIX}JOB": "batch/v1 Job"}).broker

    assert settings.kinds == {
        **ALLOWED_KINDS,
        "job": JOB,
        "config": frozenset({("v1", "ConfigMap")}),
    }


@pytest.mark.parametrize(
    ("line", "key", "problem"),
    [
        ('build = ["batch/v1 Job"]', "build", "is built in"),
        (f'{"x" * 51} = ["batch/v1 Job"]', "x" * 51, "at most 50"),
        ('"a b" = ["batch/v1 Job"]', "a b", "is no name of a work type"),
        ('"" = ["batch/v1 Job"]', "", "is no name of a work type"),
        ('"-a" = ["batch/v1 Job"]', "-a", "is no name of a work type"),
        ('job = ["batch/v1 Job", "v1 Secret"]', "job.1", "is never allowed"),
        ('job = ["brokkr.io/v1alpha1 Work"]', "job.0", "is never allowed"),
        ('job = ["Job"]', "job.0", "is not an apiVersion, a blank and a kind"),
        ("job = [7]", "job.0", "valid string"),
        ("job = []", "job", "at least 1 item"),
        ("job = 7", "job", "valid list"),
        ("job.kinds = 'batch/v1 Job'", "job", "valid list"),
    ],
)
def test_a_type_that_may_not_be_is_refused_by_its_key(
    tmp_path: Path, line: str, key: str, problem: str
) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        from_file(tmp_path, line)

    [said] = caught.value.problems
    assert said.startswith(f"{tmp_path / 'brokkr.toml'}: broker.work_types.{key}: ")
    assert problem in said


@pytest.mark.parametrize("value", ["", "batch/v1 Job,", '["batch/v1 Job"', "[batch/v1 Job]"])
def test_a_list_that_cannot_be_read_is_refused_by_its_variable(tmp_path: Path, value: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        from_environment(tmp_path, "JOB", value)

    assert caught.value.problems[0].startswith(f"{PREFIX}JOB: broker.work_types.job")

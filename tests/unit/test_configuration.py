"""Flags over environment over file over defaults; every error says where it comes from."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from brokkr.configuration import InvalidConfiguration, find_file, load


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Build(Section):
    account: str = "builder"


class Crd(Section):
    namespace: str = "default"
    interval_seconds: float = Field(default=10, gt=0)
    build: Build = Build()


class Settings(Section):
    crd: Crd = Crd()
    url: str | None = None
    enabled: bool = True


def a_file(folder: Path, text: str) -> Path:
    file = folder / "some.toml"
    file.write_text(text)
    return file


def problems_of(**arguments: Any) -> list[str]:
    with pytest.raises(InvalidConfiguration) as caught:
        load(Settings, **{"environment": {}, **arguments})
    return caught.value.problems


@pytest.fixture(autouse=True)
def an_empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


def test_without_anything_the_defaults_hold() -> None:
    assert load(Settings, environment={"XDG_CONFIG_HOME": "/nowhere"}) == Settings()


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = a_file(
        tmp_path, 'url = "file"\n[crd]\nnamespace = "file"\n[crd.build]\naccount = "file"\n'
    )
    environment = {"BROKKR__URL": "env", "BROKKR__CRD__NAMESPACE": "env"}

    settings = load(Settings, file=file, environment=environment, flags={"url": "flag"})

    assert (settings.url, settings.crd.namespace, settings.crd.build.account) == (
        "flag",
        "env",
        "file",
    )


def test_the_environment_reaches_nested_keys_and_is_read_as_what_the_key_is() -> None:
    environment = {
        "BROKKR__CRD__BUILD__ACCOUNT": "robot",
        "BROKKR__CRD__INTERVAL_SECONDS": "2.5",
        "BROKKR__ENABLED": "false",
        "BROKKR_URL": "not a setting: one underscore",
    }

    settings = load(Settings, environment=environment)

    assert settings.crd == Crd(interval_seconds=2.5, build=Build(account="robot"))
    assert settings.enabled is False
    assert settings.url is None


def test_a_flag_that_was_not_given_changes_nothing() -> None:
    assert load(Settings, environment={"BROKKR__URL": "x"}, flags={"url": None}).url == "x"


def test_the_working_folder_s_file_comes_before_the_user_s(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "brokkr").mkdir(parents=True)
    (home / "brokkr/brokkr.toml").write_text('url = "user"')
    environment = {"XDG_CONFIG_HOME": str(home)}

    assert load(Settings, environment=environment).url == "user"
    Path("brokkr.toml").write_text('url = "folder"')
    assert load(Settings, environment=environment).url == "folder"
    assert find_file(environment) == Path("brokkr.toml")


def test_a_folder_that_cannot_be_looked_into_has_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert find_file({"XDG_CONFIG_HOME": "/" + "x" * 5000}) is None


def test_an_account_without_a_home_has_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)

    assert find_file({}) is None


def test_an_unknown_key_of_the_file_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    file = a_file(tmp_path, '[crd]\nnamspace = "x"\n')

    assert problems_of(file=file) == [f"{file}: crd.namspace is not known; did you mean namespace?"]


def test_an_unknown_variable_is_named() -> None:
    environment = {"BROKKR__CRD__BIULD__ACCOUNT": "x"}

    assert problems_of(environment=environment) == [
        "BROKKR__CRD__BIULD__ACCOUNT: crd.biuld is not known; did you mean build?"
    ]


def test_an_unknown_key_like_no_other_is_answered_with_the_known_ones() -> None:
    assert problems_of(environment={"BROKKR__ZZZ": "x"}) == [
        "BROKKR__ZZZ: zzz is not known; known are crd, url, enabled"
    ]


def test_an_unknown_empty_section_is_not_overlooked(tmp_path: Path) -> None:
    assert len(problems_of(file=a_file(tmp_path, "[agnet]\n"))) == 1


def test_wrong_values_are_all_named_with_where_they_stand(tmp_path: Path) -> None:
    file = a_file(tmp_path, "[crd]\ninterval_seconds = -1\n")

    found = problems_of(file=file, environment={"BROKKR__ENABLED": "perhaps"})

    assert [each.split(": ")[:2] for each in found] == [
        [str(file), "crd.interval_seconds"],
        ["BROKKR__ENABLED", "enabled"],
    ]


def test_a_value_is_not_repeated_in_the_error() -> None:
    assert "s3cret" not in problems_of(environment={"BROKKR__ENABLED": "s3cret"})[0]


def test_a_wrong_flag_is_said_to_be_one() -> None:
    assert problems_of(flags={"crd.interval_seconds": 0})[0].startswith("command line: crd.")


def test_a_section_that_is_no_table_is_an_error(tmp_path: Path) -> None:
    file = a_file(tmp_path, "crd = 3\n")

    assert problems_of(file=file)[0].startswith(f"{file}: crd: ")


@pytest.mark.parametrize("text", ["[crd", "a = \n", "x = \xff"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(text.encode("latin-1"))

    assert problems_of(file=file)[0].startswith(f"{file}: not valid TOML: ")


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"

    assert problems_of(file=missing) == [f"{missing}: No such file or directory"]


SENT_TO = {"key": ("url", "crd.namespace"), "PGPASSWORD": ("url",)}


class Keyed(Settings):
    key: str | None = None


@pytest.mark.parametrize("key", ["url", "crd.namespace"])
@pytest.mark.parametrize("place", ["flag", "environment", "variable"])
def test_a_secret_does_not_go_where_the_file_of_the_working_folder_says(
    key: str, place: str
) -> None:
    Path("brokkr.toml").write_text(f'{key} = "https://evil.example"\n')
    environment = {"environment": {"BROKKR__KEY": "s3"}, "variable": {"PGPASSWORD": "s3"}}
    flags = {"key": "s3"} if place == "flag" else {}
    sent_to = {"key": SENT_TO["key"], "PGPASSWORD": SENT_TO["key"]}

    with pytest.raises(InvalidConfiguration) as caught:
        load(Keyed, environment=environment.get(place, {}), flags=flags, sent_to=sent_to)

    (problem,) = caught.value.problems
    assert problem.startswith(f"./brokkr.toml: {key}: ")
    assert "--config brokkr.toml" in problem
    assert "s3" not in problem


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        # The URL comes from somewhere else, or is the default.
        ('url = "https://evil.example"', {"flags": {"key": "s3", "url": "https://good.example"}}),
        (
            'url = "https://evil.example"',
            {"environment": {"BROKKR__KEY": "s3", "BROKKR__URL": "x"}},
        ),
        ("enabled = false", {"flags": {"key": "s3"}}),
        # The file's own key; no key; the file was named.
        ('url = "https://evil.example"\nkey = "theirs"', {}),
        ('url = "https://evil.example"', {}),
        ('url = "https://fine.example"', {"flags": {"key": "s3"}, "file": Path("brokkr.toml")}),
    ],
)
def test_a_secret_goes_where_its_owner_says(text: str, arguments: dict[str, Any]) -> None:
    Path("brokkr.toml").write_text(text)

    load(Keyed, **{"environment": {}, **arguments}, sent_to=SENT_TO)


def test_a_secret_goes_where_the_users_file_says(tmp_path: Path) -> None:
    (tmp_path / "brokkr").mkdir()
    (tmp_path / "brokkr/brokkr.toml").write_text('url = "https://mine.example"')
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "BROKKR__KEY": "s3"}

    assert load(Keyed, environment=environment, sent_to=SENT_TO).url == "https://mine.example"


def test_the_working_folder_of_the_image_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "empty" / "brokkr.toml"
    file.write_text('url = "https://broker.example"')
    monkeypatch.setattr("brokkr.configuration.SYSTEM_FILE", file.resolve())

    settings = load(Keyed, environment={"BROKKR__KEY": "s3"}, sent_to=SENT_TO)

    assert settings.url == "https://broker.example"

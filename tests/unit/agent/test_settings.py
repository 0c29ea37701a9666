"""The agent's settings: the defaults that are promised, and what is refused."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from brokkr.agent.settings import AgentSettings
from brokkr.configuration import load


def test_the_defaults_are_the_documented_ones() -> None:
    settings = AgentSettings()

    assert settings.work_queue.enabled is True
    assert settings.work_queue.poll_interval_seconds == 30
    assert settings.work_crd.namespace == "brokkr-agent"
    assert settings.work_crd.reconcile_interval_seconds == 10
    assert settings.work_crd.retry_base_delay_seconds == 60
    assert settings.work_crd.build.service_account == "builder-sa"
    assert settings.work_crd.build.default_timeout == timedelta(minutes=15)
    assert settings.work_crd.build.build_retention_succeeded == timedelta(hours=1)
    assert settings.work_crd.build.build_retention_failed == timedelta(hours=24)


def test_durations_are_written_as_shipwright_writes_them() -> None:
    settings = AgentSettings.model_validate({"work_crd": {"build": {"default_timeout": "1h30m"}}})

    assert settings.work_crd.build.default_timeout == timedelta(hours=1, minutes=30)


@pytest.mark.parametrize(
    "wrong",
    [
        {"wrok_queue": {}},
        {"work_queue": {"poll_interval_seconds": 0}},
        {"work_crd": {"retry_base_delay_seconds": -1}},
        {"work_crd": {"build": {"default_timeout": "soon"}}},
        {"work_queue": {"max_concurrent": "many"}},
    ],
)
def test_what_is_misspelt_or_senseless_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AgentSettings.model_validate(wrong)


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("a.example, b.example/team-*", ("a.example", "b.example/team-*")),
        ('["a.example"]', ("a.example",)),
        ("[]", ()),
        ("", ()),  # to be on the safe side: what was meant cannot be told
    ],
)
def test_a_list_of_the_policy_can_come_by_environment(
    text: str, patterns: tuple[str, ...], tmp_path: Path
) -> None:
    class Everything(BaseModel):
        agent: AgentSettings = AgentSettings()

    environment = {"BROKKR__AGENT__POLICY__REGISTRIES": text, "XDG_CONFIG_HOME": str(tmp_path)}
    policy = load(Everything, environment=environment).agent.policy

    assert policy.registries == patterns
    assert policy.git_hosts is None


@pytest.mark.parametrize(
    "wrong",
    [
        '["a.example"',
        "https://a.example",
        "git@a.example",
        "a b",
        "[1]",
        [""],
        ["a" * 301],
        {"a": 1},
    ],
)
def test_a_pattern_that_could_match_nothing_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        AgentSettings.model_validate({"policy": {"registries": wrong}})


def test_the_key_does_not_show_when_the_settings_are_printed() -> None:
    settings = AgentSettings.model_validate({"key": "brokkr_agt_hidden"})

    assert "hidden" not in repr(settings)

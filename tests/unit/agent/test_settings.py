"""The agent's settings: the defaults that are promised, and what is refused."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from brokkr.agent.settings import AgentSettings


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


def test_the_key_does_not_show_when_the_settings_are_printed() -> None:
    settings = AgentSettings.model_validate({"key": "brokkr_agt_secret"})

    assert "secret" not in repr(settings).replace("SecretStr", "")

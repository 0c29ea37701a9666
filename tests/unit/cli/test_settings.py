"""One file for all, and the client that it speaks of."""

from pathlib import Path

import pytest

from brokkr.cli.settings import Settings, connect
from brokkr.configuration import load
from brokkr.work.errors import Unauthenticated


def test_one_file_configures_broker_agent_and_client(tmp_path: Path) -> None:
    file = tmp_path / "brokkr.toml"
    file.write_text(
        "[broker]\nport = 4000\n"
        "[database]\nurl = 'postgresql://db/brokkr'\n"
        "[agent.work_crd.build]\ndefault_timeout = '20m'\n"
        "[client]\nkey = 'k'\n"
    )

    settings = load(Settings, file=file, environment={"BROKKR__BROKER__HOST": "::1"})

    assert (settings.broker.host, settings.broker.port) == ("::1", 4000)
    assert settings.database.url == "postgresql://db/brokkr"
    assert settings.agent.work_crd.build.default_timeout.total_seconds() == 1200
    assert settings.client.key is not None


def test_keys_do_not_show_in_what_is_printed_of_settings() -> None:
    settings = load(
        Settings, environment={"BROKKR__AGENT__KEY": "s3cret", "BROKKR__CLIENT__KEY": "s3cret"}
    )

    assert "s3cret" not in repr(settings)


def test_without_a_key_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROKKR__CLIENT__KEY", raising=False)
    (tmp_path / "empty.toml").touch()

    with pytest.raises(Unauthenticated):
        connect("http://127.0.0.1:1", None, tmp_path / "empty.toml")

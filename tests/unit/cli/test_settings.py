"""One file for all, and the client that it speaks of."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from brokkr.cli.main import tree
from brokkr.cli.settings import Settings, connect, is_sent_in_the_clear
from brokkr.configuration import InvalidConfiguration, load
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


@pytest.mark.parametrize("key", [None, "brokkr_adm"])
async def test_a_checkout_cannot_have_the_key_sent_to_its_url(
    key: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKKR__CLIENT__KEY", "brokkr_adm")
    (tmp_path / "brokkr.toml").write_text('[client]\nurl = "https://evil.example"\n')

    with pytest.raises(InvalidConfiguration, match=r"^\./brokkr\.toml: client\.url: "):
        connect(None, key, None)

    async with connect("https://good.example", key, None):
        pass
    async with connect(None, key, Path("brokkr.toml")):
        pass


@pytest.mark.parametrize(
    ("command", "variable", "setting"),
    [
        ("agent run", "BROKKR__AGENT__KEY", "agent.broker_url"),
        ("agent run", "BROKKR__AGENT__KEY", "agent.kubeconfig"),
        ("broker serve", "PGPASSWORD", "database.url"),
        ("broker migrate", "PGPASSWORD", "database.url"),
        ("broker create-admin-key", "PGPASSWORD", "database.url"),
        ("work list", "BROKKR_KEY", "client.url"),
        ("key list", "BROKKR__CLIENT__KEY", "client.url"),
    ],
)
def test_no_command_sends_a_secret_where_a_checkout_says(
    command: str, variable: str, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    section, key = setting.split(".")
    (tmp_path / "brokkr.toml").write_text(f'[{section}]\n{key} = "postgresql://127.0.0.1:1/x"\n')

    done = CliRunner().invoke(
        tree(command.split(maxsplit=1)[0]), command.split(), env={variable: "hunter2"}
    )

    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: ./brokkr.toml: {setting}: ")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("url", "is_so"),
    [
        ("http://127.0.0.1:3000", False),
        ("http://localhost:3000", False),
        ("http://[::1]:3000", False),
        ("https://broker.example", False),
        ("http://broker.example", True),
        ("http://brokkr-broker.brokkr-system.svc:3000", True),
        ("http://10.0.0.1", True),
    ],
)
def test_a_key_by_http_can_be_read_on_its_way_to_another_machine(url: str, is_so: bool) -> None:
    assert is_sent_in_the_clear(url) == is_so


async def test_a_key_that_is_sent_in_the_clear_is_warned_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with connect("http://broker.example", "brokkr_adm", None):
        pass

    assert capsys.readouterr().err == (
        "warning: the key is sent unencrypted to http://broker.example\n"
    )

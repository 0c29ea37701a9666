import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from brokkr.agent.kube.credentials import ExecPlugin, TokenFile
from brokkr.agent.kube.errors import KubeConfigInvalid


def a_plugin(tmp_path: Path, *, lives_for: timedelta | None = None, **more: Any) -> ExecPlugin:
    """A plugin whose n-th run gives the token ``n``."""
    expiry = None if lives_for is None else (datetime.now(UTC) + lives_for).isoformat()
    program = f"""
import json, os, pathlib
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["kind"] == "ExecCredential" and info["apiVersion"] == "client.authentication.k8s.io/v1"
runs = pathlib.Path({str(tmp_path / "runs")!r})
n = int(runs.read_text()) + 1 if runs.exists() else 1
runs.write_text(str(n))
status = {{"token": os.environ.get("PREFIX", "") + str(n), "expirationTimestamp": {expiry!r}}}
print(json.dumps({{"kind": "ExecCredential", "status": status}}))
"""
    spec = {"command": sys.executable, "args": ["-c", program], **more}
    return ExecPlugin({"apiVersion": "client.authentication.k8s.io/v1", **spec})


async def test_a_plugins_token_is_kept_until_it_expires(tmp_path: Path) -> None:
    plugin = a_plugin(tmp_path, lives_for=timedelta(hours=1))

    assert [await plugin.token(), await plugin.token()] == ["1", "1"]


async def test_a_plugin_runs_again_before_its_token_expires(tmp_path: Path) -> None:
    plugin = a_plugin(tmp_path, lives_for=timedelta(seconds=10))

    assert [await plugin.token(), await plugin.token()] == ["1", "2"]


async def test_a_plugin_runs_again_when_its_token_was_refused(tmp_path: Path) -> None:
    plugin = a_plugin(tmp_path)

    assert await plugin.token() == "1"
    plugin.forget()
    assert await plugin.token() == "2"


async def test_a_plugin_gets_the_environment_that_it_asks_for(tmp_path: Path) -> None:
    plugin = a_plugin(tmp_path, env=[{"name": "PREFIX", "value": "token-"}])

    assert await plugin.token() == "token-1"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"command": "no-such-plugin", "installHint": "brew it"}, "does not start.*brew it"),
        ({"command": "sh", "args": ["-c", "echo who are you >&2; exit 3"]}, "who are you"),
        ({"command": "echo", "args": ["hello"]}, "no ExecCredential"),
        ({"command": "echo", "args": [json.dumps({"status": {}})]}, "no ExecCredential"),
    ],
)
async def test_a_plugin_that_fails_is_named(spec: dict[str, Any], problem: str) -> None:
    with pytest.raises(KubeConfigInvalid, match=problem):
        await ExecPlugin(spec).token()


async def test_a_token_file_is_read_again_when_its_token_was_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old\n")
    file = TokenFile(path)
    assert await file.token() == "old"

    path.write_text("new\n")
    assert await file.token() == "old"
    file.forget()
    assert await file.token() == "new"


async def test_a_token_file_is_read_again_after_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("brokkr.agent.kube.credentials.time.monotonic", lambda: now)
    path = tmp_path / "token"
    path.write_text("old")
    file = TokenFile(path)
    assert await file.token() == "old"

    path.write_text("new")
    now = 61.0

    assert await file.token() == "new"


async def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KubeConfigInvalid, match="token cannot be read"):
        await TokenFile(tmp_path / "token").token()

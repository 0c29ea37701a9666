import base64
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from brokkr.agent.kube import config
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeConfigInvalid


@pytest.fixture(autouse=True)
def no_cluster_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def a_kubeconfig(
    path: Path,
    *,
    name: str = "one",
    cluster: dict[str, Any] | None = None,
    user: dict[str, Any] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}"} | (cluster or {})}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.write_text(yaml.safe_dump(document))
    return path


async def test_the_file_that_is_asked_for_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = a_kubeconfig(tmp_path / "asked", name="asked", user={"token": "t"})
    monkeypatch.setenv("KUBECONFIG", str(a_kubeconfig(tmp_path / "variable", name="variable")))
    a_kubeconfig(tmp_path / "home/.kube/config", name="home")

    loaded = KubeConfig.load(asked)

    assert loaded.server == "http://asked"
    assert await loaded.credentials.token() == "t"


def test_then_the_variable_then_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_kubeconfig(tmp_path / "home/.kube/config", name="home")
    assert KubeConfig.load().server == "http://home"

    monkeypatch.setenv("KUBECONFIG", str(a_kubeconfig(tmp_path / "variable", name="variable")))
    assert KubeConfig.load().server == "http://variable"


def test_of_several_files_the_first_word_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = a_kubeconfig(tmp_path / "first", cluster={"server": "http://first"})
    second = a_kubeconfig(tmp_path / "second", cluster={"server": "http://second"})
    monkeypatch.setenv("KUBECONFIG", f"{first}{os.pathsep}{second}")

    assert KubeConfig.load().server == "http://first"


async def test_a_pod_uses_its_service_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("from the kubelet\n")
    (tmp_path / "ca.crt").write_text(ssl.DER_cert_to_PEM_cert(_some_authority()))
    (tmp_path / "namespace").write_text("brokkr-system")
    monkeypatch.setattr(config, "_SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")

    loaded = KubeConfig.load()

    assert loaded.server == "https://[fd00::1]:6443"
    assert loaded.own_namespace == "brokkr-system"
    assert await loaded.credentials.token() == "from the kubelet"


async def test_paths_begin_at_the_files_own_folder(tmp_path: Path) -> None:
    path = a_kubeconfig(tmp_path / "sub/config", user={"tokenFile": "token"})
    (tmp_path / "sub/token").write_text("abc")

    assert await KubeConfig.load(path).credentials.token() == "abc"


def test_verification_can_be_switched_off_only_on_purpose(tmp_path: Path) -> None:
    trusting = KubeConfig.load(
        a_kubeconfig(
            tmp_path / "a", cluster={"server": "https://a", "insecure-skip-tls-verify": True}
        )
    )
    careful = KubeConfig.load(a_kubeconfig(tmp_path / "b", cluster={"server": "https://b"}))

    assert trusting.tls is not None
    assert trusting.tls.verify_mode is ssl.CERT_NONE
    assert careful.tls is not None
    assert careful.tls.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("cluster", "user", "problem"),
    [
        ({"server": ""}, {}, "no server"),
        ({"server": "https://a", "certificate-authority": "gone.crt"}, {}, "gone.crt cannot be"),
        ({"server": "https://a", "certificate-authority-data": "%"}, {}, "not base64"),
        (
            {"server": "https://a", "certificate-authority-data": base64.b64encode(b"x").decode()},
            {},
            "certificate is not usable",
        ),
        ({}, {"auth-provider": {"name": "gcp"}}, "'auth-provider' is not supported"),
        ({}, {"username": "admin", "password": "p"}, "'username' is not supported"),
        ({}, {"exec": {"args": []}}, "has no command"),
    ],
)
def test_what_cannot_be_used_is_said_plainly(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], problem: str
) -> None:
    path = a_kubeconfig(tmp_path / "config", cluster=cluster, user=user)

    with pytest.raises(KubeConfigInvalid, match=problem):
        KubeConfig.load(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("just words", "not a kubeconfig"),
        ("{", "not YAML"),
        ("{}", "no current-context"),
        ("current-context: nobody", "no 'nobody' among its contexts"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)

    with pytest.raises(KubeConfigInvalid, match=problem):
        KubeConfig.load(path)


def test_without_any_configuration_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(KubeConfigInvalid, match="set KUBECONFIG"):
        KubeConfig.load()
    with pytest.raises(KubeConfigInvalid, match="cannot be read"):
        KubeConfig.load(tmp_path / "missing")


def _some_authority() -> bytes:
    """Any certificate that this machine trusts."""
    context = ssl.create_default_context()
    certificates = context.get_ca_certs(binary_form=True)
    if not certificates:
        pytest.skip("this machine trusts no certificate authority")
    return certificates[0]

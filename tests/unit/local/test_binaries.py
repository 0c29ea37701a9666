import os
from pathlib import Path

import pytest

from brokkr.local import binaries
from brokkr.local.binaries import ProgramsMissing, ensure_programs, kubernetes_programs


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; there are no assets and no cache, and no root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return folder


def a_program(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def say_nothing(_: str) -> None:
    pass


async def test_programs_are_taken_from_the_path(path: Path) -> None:
    git = a_program(path, "git")

    assert await ensure_programs(["git"], say_nothing) == {"git": git}


async def test_an_ordinary_user_is_told_the_command(path: Path) -> None:
    a_program(path, "apt-get")
    a_program(path, "git")

    with pytest.raises(ProgramsMissing) as caught:
        await ensure_programs(["git", "skopeo", "busybox"], say_nothing)

    assert str(caught.value).endswith("sudo apt-get install --yes --no-install-recommends skopeo")


async def test_without_apt_the_packages_are_named(path: Path) -> None:
    with pytest.raises(ProgramsMissing, match="Debian's packages with them are called buildah"):
        await ensure_programs(["buildah"], say_nothing)


async def test_assets_come_before_the_path_and_the_path_before_the_cache(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = tmp_path / "assets"
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    etcd = a_program(assets, "etcd")
    a_program(path, "etcd")
    api_server = a_program(path, "kube-apiserver")
    a_program(binaries.cache_folder(), "kube-apiserver")
    manager = a_program(binaries.cache_folder(), "kube-controller-manager")

    found = await kubernetes_programs(say_nothing)

    assert (found.etcd, found.api_server, found.controller_manager) == (etcd, api_server, manager)


async def test_where_kubernetes_cannot_be_compiled_the_error_names_the_variable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {"ID": "fedora", "VERSION_ID": "42", "PRETTY_NAME": "Fedora Linux 42"}
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: elsewhere)

    with pytest.raises(ProgramsMissing, match=r"this is Fedora Linux 42\..*KUBEBUILDER_ASSETS"):
        await kubernetes_programs(say_nothing)

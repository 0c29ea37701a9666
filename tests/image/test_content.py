"""What is in the image, and what is not."""

import re
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from datetime import datetime

import pytest

from brokkr import __version__
from support.image import ROOT, MadeImage, UnpackedImage, inspect

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]

PINNED = re.compile(r"^([a-z0-9_.-]+)(?:\[.*\])?==(\S+)", re.MULTILINE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

SHELLS = {"sh", "ash", "bash", "busybox", "dash", "perl"}
MEBIBYTES = 2**20


def files_of(image: UnpackedImage) -> Iterator[tuple[str, int, int]]:
    """Yield the path, mode and owner of all that is in the image but its root."""
    for path in image.root.rglob("*"):
        found = path.lstat()
        yield f"/{path.relative_to(image.root)}", found.st_mode, found.st_uid


def distributions_of(image: UnpackedImage) -> dict[str, str]:
    """Return the version of each Python package by its name."""
    names = [each.name for each in image.root.glob("opt/brokkr/lib/*/site-packages/*.dist-info")]
    pairs = [name.removesuffix(".dist-info").rsplit("-", 1) for name in names]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~ ]", each)[0].lower() for each in requirements}


def test_all_of_it_takes_less_than_150_mib(image: UnpackedImage) -> None:
    size = sum(path.lstat().st_size for path in image.root.rglob("*") if path.is_file())

    assert size < 150 * MEBIBYTES


def test_there_is_no_shell_and_no_program_but_python_and_brokkr(image: UnpackedImage) -> None:
    programs = {
        path.name
        for folder in ("usr/bin", "usr/sbin", "usr/local/bin", "opt/brokkr/bin")
        for path in image.root.glob(f"{folder}/*")
    }

    assert programs == {"brokkr", "python", "python3", "python3.11"}
    assert SHELLS & {path.rpartition("/")[2] for path, _, _ in files_of(image)} == set()


def test_no_file_lends_its_owner_s_rights(image: UnpackedImage) -> None:
    lending = stat.S_ISUID | stat.S_ISGID

    assert [path for path, mode, _ in files_of(image) if mode & lending] == []


def test_everybody_may_write_to_tmp_alone(image: UnpackedImage) -> None:
    writable = {
        path for path, mode, _ in files_of(image) if mode & stat.S_IWOTH and not stat.S_ISLNK(mode)
    }

    assert writable == {"/tmp"}


def test_the_user_owns_its_data_folder_alone(image: UnpackedImage) -> None:
    owners = {path: owner for path, _, owner in files_of(image) if owner != 0}

    assert owners == {"/var/lib/brokkr": 10001}


def test_its_packages_are_those_of_the_lock_file_and_none_is_for_development(
    image: UnpackedImage,
) -> None:
    installed = distributions_of(image)
    locked = dict(PINNED.findall((ROOT / "requirements.lock").read_text()))
    extras = PROJECT["optional-dependencies"]

    assert installed.pop("brokkr") == __version__
    assert {name: locked.get(name) for name in installed} == installed
    assert names_of([*PROJECT["dependencies"], *extras["otel"]]) <= set(installed)
    unwanted = {*names_of([*extras["dev"], *extras["embedded"]]), "pip", "setuptools"}
    assert unwanted & set(installed) == set()


def test_scanners_find_the_versions_of_its_debian_packages(image: UnpackedImage) -> None:
    noted = {path.name: path.read_text() for path in image.root.glob("var/lib/dpkg/status.d/*")}

    assert {"libc6", "libssl3", "python3.11-minimal"} <= set(noted)
    assert all(re.search(r"^Version: \S+$", each, re.MULTILINE) for each in noted.values())


def test_its_labels_say_what_it_is_and_of_which_commit(made: MadeImage) -> None:
    labels = inspect(f"oci:{made.layout}")["Labels"]
    ours = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in labels.items()
        if name.startswith("org.opencontainers.image.")
    }
    revision, committed_at = _git("log", "-1", "--format=%H %cI").split()
    created = datetime.fromisoformat(ours.pop("created"))

    assert ours == {
        "title": "Brokkr",
        "description": PROJECT["description"],
        "licenses": PROJECT["license"],
        "version": __version__,
        "revision": revision + ("-dirty" if _git("status", "--porcelain") else ""),
        "source": "",
    }
    assert created == datetime.fromisoformat(committed_at)


def test_its_program_is_brokkr_and_its_user_is_a_number(image: UnpackedImage) -> None:
    assert image.config["Entrypoint"] == ["brokkr"]
    # Kubernetes can tell only of a number that it is not root.
    assert image.config["User"] == "10001:10001"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()

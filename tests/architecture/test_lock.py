"""What is installed is what the lock file says, and what builds the project is in it too."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text().replace("\\\n", " ")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()


def the_locked() -> dict[str, str]:
    """Return the version of each package in the lock, each of which has hashes."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; .*)? \\\n +--hash=", LOCK, re.MULTILINE))


def test_every_installation_of_make_is_of_the_lock_or_builds_with_what_it_holds() -> None:
    lines = [line for line in MAKEFILE.splitlines() if "pip install" in line]

    assert len(lines) == 2
    for line in lines:
        from_lock = "--require-hashes -r requirements.lock" in line
        project = "--no-deps" in line and "--no-build-isolation" in line
        assert from_lock or project, line


def test_the_image_builds_with_what_the_lock_holds() -> None:
    script = (ROOT / "deploy/image/make_image.py").read_text()

    assert '"pip", "wheel", "--quiet", "--no-deps"' in script
    assert '"--no-build-isolation"' in script


def test_what_builds_the_project_and_writes_the_lock_is_in_the_lock() -> None:
    needed = [*PYPROJECT["build-system"]["requires"], "editables", "uv"]

    for requirement in needed:
        name, _, version = requirement.partition("==")
        assert name in the_locked()
        assert version in {"", the_locked()[name]}

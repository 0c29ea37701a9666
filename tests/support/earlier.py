"""The sources of the version before, which the changes since have to live with."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION_BEFORE = "5a2099b"
"""The revision that the changes since are compatible with, as long as no release has a tag."""


def git(*arguments: str) -> str | None:
    """Return what git says; None if it cannot say it."""
    said = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    return said.stdout.strip() if said.returncode == 0 else None


def sources_of_earlier(folder: Path) -> Path:
    """
    Unpack the sources of the earlier revision, and return what goes on the import path.

    It is the last tag, or else :data:`VERSION_BEFORE`; ``UPGRADE_FROM=<revision>`` names
    another.  Where there is no history, the test that asks is skipped.
    """
    asked = os.environ.get("UPGRADE_FROM")
    revision = asked or git("describe", "--tags", "--abbrev=0") or VERSION_BEFORE
    if git("cat-file", "-e", f"{revision}:src/brokkr") is None:
        if asked:
            pytest.fail(f"there is no revision {revision} here")
        pytest.skip(f"there is no revision {revision} here: the history is not there")
    unpacked = folder / "earlier"
    unpacked.mkdir()
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", revision, "src"], capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(unpacked)], input=archive.stdout, check=True)
    return unpacked / "src"

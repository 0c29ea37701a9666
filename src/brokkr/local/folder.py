"""
The folder that a local system works in: used by one, and emptied by nobody else.

Data is not kept, so the folder is emptied; a lock file in it says that it may be.
"""

import asyncio
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Final

LOCK: Final = "brokkr-local.lock"

_LAST_WRITES_SECONDS: Final = 5
_LAST_WRITES_PAUSE_SECONDS: Final = 0.02


class AlreadyRunning(Exception):
    """Another local system uses the folder."""


class FolderNotOurs(Exception):
    """The folder holds something else."""


@contextmanager
def sole_use_of(folder: Path) -> Iterator[None]:
    """
    Lock the folder, and empty it before and after; what fails leaves its logs there.

    Raises:
        AlreadyRunning: The folder is in use.
        FolderNotOurs: The folder holds something that is not to be deleted.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / LOCK).exists():
        raise FolderNotOurs(
            f"{folder} holds files that no local system has put there, and would be emptied; "
            "give --folder one that is empty or new"
        )
    with (folder / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise AlreadyRunning(
                f"a local system runs in {folder} already (process {lock.read().strip()}); "
                "use that one, stop it with Ctrl-C, or give another --folder"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        _empty(folder)
        try:
            yield
        except asyncio.CancelledError:
            _empty(folder)
            raise
        _empty(folder)


def write_private(path: Path, text: str) -> None:
    """
    Write a file that only its owner may read, from its first byte on.

    Whoever reads it meanwhile reads the old one, or the whole new one.
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def _empty(folder: Path) -> None:
    """Remove all but the lock; processes that a killed predecessor left may still write."""
    deadline = monotonic() + _LAST_WRITES_SECONDS
    while rest := [each for each in folder.iterdir() if each.name != LOCK]:
        for each in rest:
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=monotonic() < deadline)
            else:
                each.unlink(missing_ok=True)
        sleep(_LAST_WRITES_PAUSE_SECONDS)

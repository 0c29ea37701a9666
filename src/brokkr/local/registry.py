"""
A container registry on loopback: Debian's docker-registry.

It speaks plain http, so Builds that push to it say ``output.insecure: true``.
"""

import asyncio
import re
import secrets
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from brokkr.local.binaries import program_path
from brokkr.local.credentials import Credentials
from brokkr.local.process import running

_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
_SALT_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Registry:
    """A running registry; `host` is what image names begin with: ``127.0.0.1:5000``."""

    host: str


@asynccontextmanager
async def registry(
    folder: Path, *, port: int = 0, credentials: Credentials | None = None
) -> AsyncIterator[Registry]:
    """
    Run a registry for the length of the block.

    Args:
        folder: For its images, which a later run still has, its settings and its log.
        port: Where it listens; 0 is any free one.
        credentials: Who may pull and push; None is everybody.

    Raises:
        ServerFailed: It does not start; the port may be taken.
    """
    password = await _bcrypt(credentials.password) if credentials else ""
    log, settings = _prepare(folder, port, credentials, password)

    # Also the only way to learn which port it was given.
    async def is_ready() -> bool:
        return _LISTENING.search(log.read_text()) is not None

    async with running(
        "docker-registry",
        [program_path("docker-registry"), "serve", settings],
        log=log,
        is_ready=is_ready,
    ):
        listening = _LISTENING.search(log.read_text())
        assert listening is not None
        yield Registry(host=f"127.0.0.1:{listening[1]}")


def _prepare(
    folder: Path, port: int, credentials: Credentials | None, hashed_password: str
) -> tuple[Path, Path]:
    """Write the settings, and make room for a log of this run alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if credentials is not None:
        passwords = folder / "htpasswd"
        passwords.touch(mode=0o600)
        passwords.write_text(f"{credentials.user}:{hashed_password}\n")
        settings["auth"] = {"htpasswd": {"realm": "registry", "path": str(passwords)}}
    path, log = folder / "settings.yaml", folder / "registry.log"
    path.write_text(yaml.safe_dump(settings))
    log.unlink(missing_ok=True)
    return log, path


async def _bcrypt(password: str) -> str:
    """Hash a password in the only way that the registry knows."""
    # Perl is on every Debian and calls the C library's crypt, which Python is losing.
    salt = "$2b$05$" + "".join(secrets.choice(_SALT_LETTERS) for _ in range(21)) + "O"
    process = await asyncio.create_subprocess_exec(
        *("perl", "-e", "local $/; print crypt(<STDIN>, $ARGV[0])", salt),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    hashed, _ = await process.communicate(password.encode())
    return hashed.decode()

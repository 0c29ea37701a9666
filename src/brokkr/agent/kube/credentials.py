"""
Where a bearer token comes from: a word, a file that somebody renews, or a program.

What a token is good for is the API server's business; when one is refused, the client
says :meth:`Credentials.forget` and asks again, once.
"""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from brokkr.agent.kube.errors import KubeConfigInvalid

_FILE_REREAD_AFTER = timedelta(minutes=1)
_EXEC_TIMEOUT = timedelta(seconds=60)
_EXPIRY_MARGIN = timedelta(seconds=30)


class Credentials(Protocol):
    """Where a bearer token comes from."""

    async def token(self) -> str | None:
        """Return a token that is good now; None if TLS alone says who we are."""

    def forget(self) -> None:
        """Take note that the last token was refused."""


class FixedToken:
    """A token that is written in the configuration, or none."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def token(self) -> str | None:
        """Return it."""
        return self._token

    def forget(self) -> None:
        """Do nothing: there is no other."""


class TokenFile:
    """A token that somebody else renews in place, as the kubelet does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._read_at: float | None = None

    async def token(self) -> str:
        """
        Return what the file holds, read at most a minute ago.

        Raises:
            KubeConfigInvalid: It cannot be read.
        """
        now = time.monotonic()
        if self._read_at is None or now - self._read_at > _FILE_REREAD_AFTER.total_seconds():
            try:
                self._token = self._path.read_text().strip()
            except OSError as error:
                raise KubeConfigInvalid(f"{self._path} cannot be read: {error.strerror}") from error
            self._read_at = now
        return self._token

    def forget(self) -> None:
        """Read the file again next time."""
        self._read_at = None


class ExecPlugin:
    """A program that prints an ``ExecCredential``, as cloud providers have."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._spec = spec
        self._token: str | None = None
        self._expires_at: datetime | None = None
        self._lock = asyncio.Lock()

    async def token(self) -> str:
        """
        Return the plugin's token; run it when there is none or it is about to expire.

        Raises:
            KubeConfigInvalid: The plugin failed, or gave no token.
        """
        async with self._lock:
            now = datetime.now(UTC)
            if self._token is None or (
                self._expires_at is not None and now + _EXPIRY_MARGIN > self._expires_at
            ):
                self._token, self._expires_at = self._status(await self._run())
            return self._token

    def forget(self) -> None:
        """Run the plugin again next time."""
        self._token = None

    async def _run(self) -> bytes:
        command = [self._spec["command"], *(self._spec.get("args") or ())]
        env = {each["name"]: each["value"] for each in self._spec.get("env") or ()}
        info = {
            "apiVersion": self._spec.get("apiVersion"),
            "kind": "ExecCredential",
            "spec": {"interactive": False},
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=os.environ | env | {"KUBERNETES_EXEC_INFO": json.dumps(info)},
            )
        except OSError as error:
            hint = self._spec.get("installHint") or ""
            raise KubeConfigInvalid(
                f"the exec plugin {command[0]!r} does not start: {error.strerror}. {hint}".strip()
            ) from error
        try:
            async with asyncio.timeout(_EXEC_TIMEOUT.total_seconds()):
                out, err = await process.communicate()
        except TimeoutError:
            raise KubeConfigInvalid(f"the exec plugin {command[0]!r} does not answer") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise KubeConfigInvalid(
                f"the exec plugin {command[0]!r} failed: {err.decode(errors='replace').strip()}"
            )
        return out

    def _status(self, out: bytes) -> tuple[str, datetime | None]:
        try:
            status = json.loads(out)["status"]
            expiry = status.get("expirationTimestamp")
            return status["token"], expiry and datetime.fromisoformat(expiry)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise KubeConfigInvalid(
                f"the exec plugin {self._spec['command']!r} printed no ExecCredential with a "
                "token (client certificates from plugins are not supported)"
            ) from error

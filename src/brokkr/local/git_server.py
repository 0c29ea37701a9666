"""
A git server on loopback: bare repositories over smart HTTP, to be read only.

git's own ``http-backend`` does the work; this is the web server around it, and
:func:`publish`, which makes a repository of a plain folder.
"""

import asyncio
import hmac
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from aiohttp import web

from brokkr.local.credentials import Credentials
from brokkr.local.process import tethered

_CHUNK_BYTES = 64 * 1024
_FOLDER: web.AppKey[Path] = web.AppKey("folder", Path)
_CREDENTIALS: web.AppKey[Credentials] = web.AppKey("credentials", Credentials)

# The same files shall be the same commit on every machine.
_FIXED = MappingProxyType(
    {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "Brokkr",
        "GIT_AUTHOR_EMAIL": "brokkr@localhost",
        "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
        "GIT_COMMITTER_NAME": "Brokkr",
        "GIT_COMMITTER_EMAIL": "brokkr@localhost",
        "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    }
)


class GitFailed(Exception):
    """git could not do what it was asked; the message has its words."""


@dataclass(frozen=True)
class GitServer:
    """A running server; repository ``name`` is at ``{url}/name.git``."""

    url: str


@asynccontextmanager
async def git_server(
    folder: Path, *, port: int = 0, credentials: Credentials | None = None
) -> AsyncIterator[GitServer]:
    """
    Serve the bare repositories in a folder for the length of the block.

    Args:
        folder: Holds them as ``name.git``; more may be published meanwhile.
        port: Where it listens; 0 is any free one.
        credentials: Who may read; None is everybody.

    Raises:
        OSError: The port is taken.
    """
    app = web.Application()
    app[_FOLDER] = folder
    if credentials is not None:
        app[_CREDENTIALS] = credentials
    app.router.add_route("*", "/{path:.*}", _serve)
    # Whoever is still cloning at the end is not waited for.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        host, bound, *_ = runner.addresses[0]
        yield GitServer(url=f"http://{host}:{bound}")
    finally:
        await runner.cleanup()


async def publish(
    files: Path, repositories: Path, name: str, *, more: Mapping[str, Path] | None = None
) -> str:
    """
    Make ``name.git`` in `repositories` of a folder of files, on branch ``main``.

    A repository of this name gets another commit if the files have changed.

    Args:
        files: The folder; what is in it, not it, is the root of the repository.
        repositories: What :func:`git_server` serves.
        name: Of the repository, without ``.git``.
        more: Further files by their path in the repository, such as programs of this machine.

    Returns:
        The commit that ``main`` is at.

    Raises:
        GitFailed: git refused.
    """
    bare = repositories / f"{name}.git"
    if not bare.exists():
        await _git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        # A build may name a commit that is no branch's or tag's.
        await _git("-C", str(bare), "config", "uploadpack.allowAnySHA1InWant", "true")
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        shutil.copytree(files, tree, symlinks=True)
        for path, source in (more or {}).items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tree / path)
        here = (f"--git-dir={bare}", f"--work-tree={tree}")
        await _git(*here, "add", "--all")
        if await _git(*here, "status", "--porcelain"):
            await _git(*here, "commit", "--quiet", "--message", f"Publish {name}")
    return (await _git("-C", str(bare), "rev-parse", "main")).strip()


async def _git(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *("git", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **_FIXED},
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise GitFailed(f"git {' '.join(arguments)}: {errors.decode(errors='replace').strip()}")
    return output.decode()


async def _serve(request: web.Request) -> web.StreamResponse:
    """Hand one request to git, and its answer back, both as they come."""
    credentials = request.app.get(_CREDENTIALS)
    if credentials is not None:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), credentials.authorization.encode()):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})

    process = await asyncio.create_subprocess_exec(
        *tethered(["git", "http-backend"]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=_cgi_environment(request),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    sending = asyncio.create_task(_send_body(request, process.stdin))
    response = web.StreamResponse()
    try:
        await _relay(request, process.stdout, response)
    except ConnectionError:  # the client has left
        process.terminate()
    finally:
        sending.cancel()
        # The process counts as ended only when its output has been read.
        while await process.stdout.read(_CHUNK_BYTES):
            pass
        await process.wait()
    return response


def _cgi_environment(request: web.Request) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "GIT_PROJECT_ROOT": str(request.app[_FOLDER]),
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "REQUEST_METHOD": request.method,
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query_string,
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        # No length and no encoding: what we pass on ends at its end, and is unpacked already.
    }


async def _send_body(request: web.Request, backend: asyncio.StreamWriter) -> None:
    try:
        async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
            backend.write(chunk)
            await backend.drain()
    except ConnectionError:  # git has read enough, or the client has left
        pass
    finally:
        backend.close()


async def _relay(
    request: web.Request, backend: asyncio.StreamReader, response: web.StreamResponse
) -> None:
    """Read git's headers, which end at an empty line, then stream the rest."""
    while line := (await backend.readline()).decode().strip():
        name, _, value = line.partition(":")
        if name.lower() == "status":
            response.set_status(int(value.split()[0]))
        else:
            response.headers[name] = value.strip()
    await response.prepare(request)
    while chunk := await backend.read(_CHUNK_BYTES):
        await response.write(chunk)
    await response.write_eof()

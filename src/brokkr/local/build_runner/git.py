"""
The step that fetches the sources: ``step-source-default``.

Runs git as Shipwright's step does, and sorts git's complaints into the reasons that
Shipwright knows.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, urlsplit

from brokkr.local.build_runner.commands import Commands
from brokkr.local.build_runner.job import BuildJob, Commit, StepFailed

STEP = "step-source-default"

# What git must not do on this machine: ask, read the host's settings, or clone the host's files.
ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ALLOW_PROTOCOL": "http:https:ssh:git",
    # ssh finds the keys of whoever runs this by the user database, not by HOME.  Shipwright's
    # step has none but the Secret's, which this stand-in does not read.
    "GIT_SSH_COMMAND": (
        "ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityFile=none "
        "-o IdentityAgent=none -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=accept-new "
        "-o LogLevel=ERROR"
    ),
}

_SHA = re.compile(r"[0-9a-f]{7,40}")
_NOT_FOUND = re.compile(
    r"^(remote|error):.*(repository|project) .*found", re.IGNORECASE | re.MULTILINE
)
_LINE = re.compile(r"^(fatal|error|remote|warning):(.*)", re.IGNORECASE)
_MAX_MESSAGE = 300

# Shipwright's words, which clients may look for.
_REFUSED = (
    "Basic authentication has failed. Check your username or password. "
    "Note: GitHub requires a personal access token instead of your regular password."
)
_PRIVATE = "The source repository does not exist, or you have insufficient permission to access it."

# Shipwright's exit code for a URL and a Secret that do not belong together.
_MISMATCH = 110


async def fetch_source(commands: Commands, job: BuildJob, source: Path) -> Commit:
    """
    Clone the revision into `source`.

    Raises:
        StepFailed: git could not; the reason is one of Shipwright's.
    """
    credentials = _store_credentials(job, commands.folder)
    depth = ["--depth", str(job.depth)] if job.depth else []
    by_sha = job.revision is not None and _SHA.fullmatch(job.revision)
    if by_sha:
        wanted = ["--no-checkout"]
    else:
        branch = ["--branch", job.revision] if job.revision else []
        wanted = ["--single-branch", *branch, *depth]

    async def git(*arguments: str) -> str:
        exit_code, output = await commands.run("git", *credentials, *arguments)
        if exit_code:
            raise StepFailed(STEP, *classify(output, exit_code), exit_code=exit_code)
        return output

    await git("clone", "--quiet", "--no-tags", *wanted, "--", job.url, str(source))
    here = ("-C", str(source))
    if by_sha and job.revision:
        await git(*here, "checkout", "--quiet", job.revision)
    await git(*here, "submodule", "--quiet", "update", "--init", "--recursive", *depth)
    told = await git(*here, "log", "-1", "--format=%H%n%an%n%ct")
    sha, author, seconds = told.removesuffix("\n").split("\n")[-3:]
    branch_name = None
    if job.revision is None:
        branch_name = (await git(*here, "rev-parse", "--abbrev-ref", "HEAD")).split()[-1]
    large = await git(*here, "ls-files", "--", ":(attr:filter=lfs)")
    if large:
        # The files would hold the names of their contents, and the image with them.
        told = f"{len(large.splitlines())} files are in Git LFS, such as {large.splitlines()[0]}"
        commands.say(f"{told}; the local build runner has no git-lfs")
        raise StepFailed(STEP, "GitError", f"the local build runner has no git-lfs, and {told}")
    return Commit(sha, author, _time(int(seconds)), branch_name)


def _time(seconds: int) -> datetime:
    """Read a time that anybody may have set, to anything."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def classify(output: str, exit_code: int) -> tuple[str, str]:
    """Turn git's last words into Shipwright's (reason, message)."""
    if "Authentication failed for" in output or "Invalid username or password" in output:
        return (
            "GitAuthInvalidUserOrPass",
            _REFUSED,
        )
    if "fatal: Could not read from remote" in output:
        return (
            "GitAuthInvalidKey",
            "The repository could not be read with this key, or not reached.",
        )
    if "terminal prompts disabled" in output:
        return (
            "GitRemoteRepositoryPrivate",
            _PRIVATE,
        )
    if _NOT_FOUND.search(output):
        return "GitRemoteRepositoryNotFound", "The source repository does not exist."
    if re.search(r"Remote branch .* not found", output):
        return (
            "GitRevisionNotFound",
            "The remote revision does not exist. Check your revision argument.",
        )
    lines = (_LINE.match(line) for line in output.splitlines())
    told = "\n".join(f"{line[1]}: {line[2]}" for line in lines if line)
    return "GitError", f"{told} (exit code {exit_code})"[:_MAX_MESSAGE]


def _store_credentials(job: BuildJob, folder: Path) -> list[str]:
    """Put the Secret where git, and nobody else, finds it; return git's options for that."""
    if job.clone_secret is None:
        return []
    user, password = _basic_auth(job.clone_secret)
    url = urlsplit(job.url)
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.hostname)):
        raise _mismatch("a Secret with username and password needs an https URL")
    path = folder / "git-credentials"
    path.touch(mode=0o600)
    path.write_text(f"{url.scheme}://{quote(user, '')}:{quote(password, '')}@{url.netloc}\n")
    return ["-c", "credential.helper=", "-c", f"credential.helper=store --file {path}"]


def _basic_auth(secret: Mapping[str, bytes]) -> tuple[str, str]:
    try:
        return secret["username"].decode(), secret["password"].decode()
    except KeyError:
        raise _mismatch("the local build runner needs a Secret of username and password") from None


def _mismatch(message: str) -> StepFailed:
    message = f"{message} (exit code {_MISMATCH})"
    return StepFailed(STEP, "GitError", message, exit_code=_MISMATCH)


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False

"""Run the steps of one build in a folder of its own, and leave nothing but the log."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from brokkr.local.build_runner.commands import Commands, contained
from brokkr.local.build_runner.git import ENVIRONMENT, fetch_source
from brokkr.local.build_runner.image import Workspace, build_image, push_image
from brokkr.local.build_runner.job import BuildJob, Commit, PushedImage


async def run_steps(
    job: BuildJob, *, folder: Path, log: Path, on_commit: Callable[[Commit], None]
) -> PushedImage:
    """
    Fetch, build and push.

    Args:
        job: What to build.
        folder: A folder for this build alone; it is removed at the end.
        log: Where the steps' output goes.
        on_commit: Told what is being built, as soon as that is known.

    Raises:
        StepFailed: Which step, and why.
    """
    workspace = Workspace(folder)
    commands = _prepare(workspace, log)
    commands.say("This build is run by the local build runner, a stand-in for Shipwright.")
    for field in job.unsupported:
        commands.say(f"The stand-in ignores {field}.")
    try:
        commands.say(f"===== step-source-default: {job.url} {job.revision or '(default branch)'}")
        commit = await fetch_source(commands, job, workspace.source)
        on_commit(commit)
        commands.say(f"===== step-build: {job.dockerfile} at {commit.sha}")
        await build_image(commands, job, workspace)
        commands.say(f"===== step-image-processing: {job.image}")
        return await push_image(commands, job, workspace)
    finally:
        await asyncio.shield(remove(folder))


def _prepare(workspace: Workspace, log: Path) -> Commands:
    temporary = workspace.folder / "tmp"
    temporary.mkdir(mode=0o700, parents=True)
    workspace.folder.chmod(0o700)
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.touch(mode=0o600)
    # No credentials but those of the Secrets: not what somebody logged in with here.
    registry = {"REGISTRY_AUTH_FILE": str(workspace.auth_file), "TMPDIR": str(temporary)}
    return Commands(workspace.folder, {**ENVIRONMENT, **registry}, log)


async def remove(*folders: Path) -> None:
    """Remove the folders of builds, whoever owns the files of the images in them."""
    # Not shutil: for an ordinary user they belong to other ids of its user namespace.
    command = contained("rm", "-rf", "--", *map(str, folders))
    process = await asyncio.create_subprocess_exec(*command)
    await process.wait()

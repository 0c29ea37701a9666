"""Run the steps of one build in a folder of its own, and leave nothing but the logs."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

from brokkr.local.build_runner.commands import Commands, contained
from brokkr.local.build_runner.git import ENVIRONMENT, fetch_source
from brokkr.local.build_runner.git import STEP as SOURCE_STEP
from brokkr.local.build_runner.image import (
    BUILD_STEP,
    PUSH_STEP,
    Workspace,
    build_image,
    push_image,
)
from brokkr.local.build_runner.job import BuildJob, Commit, PushedImage, StepFailed

STEPS: Final = (SOURCE_STEP, BUILD_STEP, PUSH_STEP)
"""The steps in their order, by the names of the containers that they would be."""

OnStep: TypeAlias = Callable[[str, Commit | PushedImage | None], Awaitable[None]]
"""Told of each step that has ended well, and of what it has found out."""


async def run_steps(job: BuildJob, *, folder: Path, logs: Path, on_step: OnStep) -> PushedImage:
    """
    Fetch, build and push.

    Args:
        job: What to build.
        folder: A folder for this build alone; it is removed at the end.
        logs: Where each step's output goes, into a file of its own.
        on_step: Awaited between the steps.

    Raises:
        StepFailed: Which step, and why.
    """
    workspace = Workspace(folder)
    source, build, push = _prepare(workspace, logs)
    source.say("This build is run by the local build runner, a stand-in for Shipwright.")
    for field in job.unsupported:
        source.say(f"The stand-in ignores {field}.")
    try:
        source.say(f"Fetching {job.url} {job.revision or '(default branch)'}")
        commit = await fetch_source(source, job, workspace.source)
        await on_step(SOURCE_STEP, commit)
        build.say(f"Building {job.dockerfile} at {commit.sha}")
        await build_image(build, job, commit, workspace)
        await on_step(BUILD_STEP, None)
        push.say(f"Pushing {job.image}")
        image = await push_image(push, job, workspace)
        await on_step(PUSH_STEP, image)
    except StepFailed as failure:
        for skipped in (source, build, push)[STEPS.index(failure.step) + 1 :]:
            skipped.say("Skipping step because a previous step failed")
        raise
    else:
        return image
    finally:
        await asyncio.shield(remove(folder))


def log_of(logs: Path, step: str) -> Path:
    """Return the file that has this step's output, in the folder of its build's logs."""
    return logs / f"{step}.log"


def _prepare(workspace: Workspace, logs: Path) -> list[Commands]:
    """Make the folders, and what runs the programs of each step."""
    temporary = workspace.folder / "tmp"
    temporary.mkdir(mode=0o700, parents=True)
    workspace.folder.chmod(0o700)
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    # No credentials but those of the Secrets: not what somebody logged in with here.
    registry = {"REGISTRY_AUTH_FILE": str(workspace.auth_file), "TMPDIR": str(temporary)}
    files = [log_of(logs, step) for step in STEPS]
    for file in files:
        file.touch(mode=0o600)
    return [Commands(workspace.folder, {**ENVIRONMENT, **registry}, file) for file in files]


async def remove(*folders: Path) -> None:
    """Remove the folders of builds, whoever owns the files of the images in them."""
    # Not shutil: for an ordinary user they belong to other ids of its user namespace.
    command = contained("rm", "-rf", "--", *map(str, folders))
    process = await asyncio.create_subprocess_exec(*command)
    await process.wait()

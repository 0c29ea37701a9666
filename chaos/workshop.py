"""What real builds need, on this machine: a git repository, a registry, and that one succeeds."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from brokkr.local.binaries import ProgramsMissing, ensure_programs
from brokkr.local.build_runner.commands import NotContained, check_containment
from brokkr.local.build_runner.job import BuildJob, Commit, PushedImage, StepFailed
from brokkr.local.build_runner.steps import run_steps
from brokkr.local.git_server import git_server, publish
from brokkr.local.registry import registry
from chaos.stream import Workshop

_PROGRAMS: Final = ("buildah", "busybox", "docker-registry", "git", "skopeo")
# It sleeps so that a runner that is killed has a build with all its processes under way.
_DOCKERFILE: Final = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sleep", "1"]
"""


class CannotBuild(Exception):
    """No image can be built on this machine; the message says why."""


async def open_workshop(stack: AsyncExitStack, folder: Path) -> Workshop:
    """
    Run a git server and a registry until the stack ends, and build once.

    Raises:
        CannotBuild: It did not succeed.
    """
    try:
        programs = await ensure_programs(_PROGRAMS, print)
        await check_containment()
    except (ProgramsMissing, NotContained) as error:
        raise CannotBuild(str(error)) from error
    sources, repositories = folder / "sources", folder / "git"
    for each in (sources, repositories):
        each.mkdir(parents=True)
    (sources / "Dockerfile").write_text(_DOCKERFILE)
    await publish(sources, repositories, "chaos", more={"busybox": programs["busybox"]})
    git = await stack.enter_async_context(git_server(repositories))
    images = await stack.enter_async_context(registry(folder / "registry"))
    workshop = Workshop(source=f"{git.url}/chaos.git", registry=images.host)
    await _try(workshop, folder)
    return workshop


async def _try(workshop: Workshop, folder: Path) -> None:
    async def on_step(_step: str, _found: Commit | PushedImage | None) -> None:
        pass

    job = BuildJob(
        url=workshop.source,
        revision=None,
        depth=1,
        context_dir=".",
        dockerfile="Dockerfile",
        build_args=(),
        image=workshop.image_of("trial"),
        insecure=True,
    )
    logs = folder / "trial-logs"
    try:
        await run_steps(job, folder=folder / "trial", logs=logs, on_step=on_step)
    except StepFailed as failure:
        said = (logs / f"{failure.step}.log").read_text(errors="replace").strip()
        raise CannotBuild(f"{failure}: {said.splitlines()[-1]}") from failure

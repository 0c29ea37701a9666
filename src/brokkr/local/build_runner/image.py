"""
The steps that make and push the image: ``step-build`` and ``step-image-processing``.

buildah builds into a storage of this build alone and writes the image to a folder; from
there it is pushed as it is.  So the size and the digest that are reported are those of the
bytes that the registry got.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from brokkr.local.build_runner.commands import Commands
from brokkr.local.build_runner.job import BuildJob, Commit, PushedImage, StepFailed

BUILD_STEP = "step-build"
PUSH_STEP = "step-image-processing"

_DOCKER_HUB = "https://index.docker.io/v1/"

# How skopeo says what a registry has answered.
_REFUSAL = re.compile(r'\b(unauthorized|denied|(?:name|manifest) (?:unknown|invalid)): ([^"\n]*)')


@dataclass(frozen=True)
class Workspace:
    """The folders of one build."""

    folder: Path

    @property
    def source(self) -> Path:
        """Where git puts the sources."""
        return self.folder / "source"

    @property
    def layout(self) -> Path:
        """Where buildah puts the image, as an OCI layout."""
        return self.folder / "image"

    @property
    def auth_file(self) -> Path:
        """The registry's credentials, in the form that buildah and skopeo read."""
        return self.folder / "auth.json"


async def build_image(
    commands: Commands, job: BuildJob, commit: Commit, workspace: Workspace
) -> None:
    """
    Build the Dockerfile.

    Raises:
        StepFailed: There is no Dockerfile or context folder, or buildah failed.
    """
    context, dockerfile = _find_context(commands, job, workspace.source)
    path = workspace.auth_file
    path.touch(mode=0o600)
    path.write_bytes((job.push_secret or {}).get(".dockerconfigjson", b'{"auths": {}}'))

    # One storage per build: nothing is shared, so nothing needs locks or cleaning but rm.
    storage = workspace.folder / "storage"
    folders = ("--root", str(storage / "root"), "--runroot", str(storage / "run"))
    buildah = ("buildah", "--storage-driver", "vfs", *folders)
    options = [
        *(f"--build-arg={argument}" for argument in job.build_args),
        *(f"--label={key}={value}" for key, value in job.labels.items()),
        *(f"--annotation={key}={value}" for key, value in job.annotations.items()),
        *_timestamp(job, commit),
    ]
    bud = Commands(commands.folder, {**job.env, **commands.env}, commands.log)
    exit_code, _ = await bud.run(
        *(*buildah, "bud", "--isolation", "chroot", "--format", "oci", *options),
        *("--authfile", str(workspace.auth_file), "--tag", "localhost/built"),
        *("--file", str(dockerfile), str(context)),
    )
    if not exit_code:
        exit_code, _ = await commands.run(
            *buildah, "push", "--quiet", "localhost/built", f"oci:{workspace.layout}"
        )
    if exit_code:
        raise StepFailed(BUILD_STEP, exit_code=exit_code)


async def push_image(commands: Commands, job: BuildJob, workspace: Workspace) -> PushedImage:
    """
    Push the image that :func:`build_image` made.

    Raises:
        StepFailed: The registry is away or refuses; the log says why, as in a cluster.
    """
    if job.push_secret is not None:
        _check_push_secret(commands, job)
    digest = workspace.folder / "digest"
    exit_code, output = await commands.run(
        *("skopeo", "copy", "--quiet", f"--dest-tls-verify={str(not job.insecure).lower()}"),
        *("--dest-authfile", str(workspace.auth_file), "--digestfile", str(digest)),
        *(f"oci:{workspace.layout}", f"docker://{job.image}"),
    )
    if exit_code:
        if refusal := _REFUSAL.search(output):
            # Shipwright's step, which is another program, has the codes as they were sent.
            code = refusal[1].upper().replace(" ", "_")
            commands.say(f"Failed to push the image: {code}: {refusal[2]}")
        raise StepFailed(PUSH_STEP, exit_code=exit_code)
    image = PushedImage(digest.read_text().strip(), _size_bytes(workspace.layout))
    commands.say(f"Image {job.image}@{image.digest} pushed")
    return image


def _timestamp(job: BuildJob, commit: Commit) -> list[str]:
    match job.timestamp:
        case "" | "BuildTimestamp":
            return []
        case "Zero":
            return ["--timestamp=0"]
        case "SourceTimestamp":
            return [f"--timestamp={round(commit.committed_at.timestamp())}"]
        case seconds:
            return [f"--timestamp={int(seconds)}"]


def _find_context(commands: Commands, job: BuildJob, source: Path) -> tuple[Path, Path]:
    """Find context folder and Dockerfile, neither of which may lie outside the sources."""
    # As in a cluster, a path that begins with a slash begins at the sources, too.
    context = (source / job.context_dir.lstrip("/")).resolve()
    if not (context.is_relative_to(source.resolve()) and context.is_dir()):
        reason = "ContextDirNotFound"
        message = f"The context directory '{job.context_dir}' does not exist."
    else:
        dockerfile = (context / job.dockerfile.lstrip("/")).resolve()
        if dockerfile.is_relative_to(source.resolve()) and dockerfile.is_file():
            return context, dockerfile
        reason = "DockerfileNotFound"
        message = f"The Dockerfile '{job.dockerfile}' does not exist."
    commands.say(message)
    raise StepFailed(BUILD_STEP, reason, message)


def _check_push_secret(commands: Commands, job: BuildJob) -> None:
    """Insist, as Shipwright does, that the Secret has an entry for exactly this registry."""
    host, _, path = job.image.partition("/")
    if not path or not ("." in host or ":" in host or host == "localhost"):
        host = _DOCKER_HUB
    try:
        known = list(json.loads((job.push_secret or {})[".dockerconfigjson"])["auths"])
    except (KeyError, ValueError, TypeError):
        known = []
    if host not in known:
        commands.say(
            f"failed to find registry credentials for {host}, available configurations: "
            f"{', '.join(known) or 'none'}"
        )
        raise StepFailed(PUSH_STEP)


def _size_bytes(layout: Path) -> int:
    index = json.loads((layout / "index.json").read_text())
    algorithm, _, name = index["manifests"][0]["digest"].partition(":")
    manifest = json.loads((layout / "blobs" / algorithm / name).read_text())
    parts = [manifest["config"], *manifest["layers"]]
    return sum(part["size"] for part in parts)

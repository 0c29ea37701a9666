"""What one build needs and what comes out of it, free of Kubernetes' shapes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class BuildJob:
    """
    Everything that the steps of one build need to know.

    Attributes:
        depth: Commits to fetch; 0 fetches all.
        clone_secret: The data of the Secret for git; None if none is named.
        push_secret: The data of the Secret for the registry; None if none is named.
        timestamp: As the Build's output says it; empty leaves it to buildah.
        insecure: The registry may be spoken to without TLS.
        env: The environment of the buildah process (not of RUN, as in Shipwright).
        unsupported: What was asked for and is not stood in for; said in the log.
    """

    url: str
    revision: str | None
    depth: int
    context_dir: str
    dockerfile: str
    build_args: tuple[str, ...]
    image: str
    timestamp: str = ""
    insecure: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    clone_secret: Mapping[str, bytes] | None = field(default=None, repr=False)
    push_secret: Mapping[str, bytes] | None = field(default=None, repr=False)
    unsupported: tuple[str, ...] = ()


@dataclass(frozen=True)
class Commit:
    """The commit that was built; `branch` only if no revision was asked for."""

    sha: str
    author: str
    committed_at: datetime
    branch: str | None = None


@dataclass(frozen=True)
class PushedImage:
    """An image in the registry; the size is that of its compressed layers and its config."""

    digest: str
    size_bytes: int


class StepFailed(Exception):
    """
    A step of the build ended badly.

    Attributes:
        step: Which one, by the name of the container that it would be in a cluster.
        reason: Its class, where Shipwright's steps know one; else empty.
        exit_code: That of the program that failed; 1 where the step itself has found fault.
    """

    def __init__(
        self, step: str, reason: str = "", message: str = "", *, exit_code: int = 1
    ) -> None:
        super().__init__(message or f"{step} failed")
        self.step = step
        self.reason = reason
        self.message = message
        self.exit_code = exit_code

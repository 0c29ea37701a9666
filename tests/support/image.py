"""
The project's image, built and unpacked, and its programs run as a cluster runs them.

There is no container runtime in this: the image's files are mounted read-only, with an
empty /tmp, in a mount namespace of their own, and its program is started in them as the
image's user, with the image's environment and without any privilege.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brokkr.local.process import Server, running
from support.command_line import Outcome

ROOT = Path(__file__).parents[2]
MAKE_IMAGE = ROOT / "deploy" / "image" / "make_image.py"

# Mounts that the kernel removes with the last process in them.  The shell is this machine's.
_ENTER = """
root=$1 user=$2 group=$3 folder=$4
shift 4
mount --bind "$root" "$root"
mount -o remount,bind,ro,nosuid "$root"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    mkdir "$root$2"
    mount --bind "$1" "$root$2"
    shift 2
done
exec setpriv --no-new-privs unshare --root="$root" --wd="$folder" \
    --setgid="$group" --setuid="$user" "$@"
"""


@dataclass(frozen=True)
class MadeImage:
    """
    An image as `make image` leaves it.

    Attributes:
        layout: Where it is, as an OCI layout.
        digest: What was printed as its digest.
        printed: All that was printed.
    """

    layout: Path
    digest: str
    printed: str


@dataclass(frozen=True)
class UnpackedImage:
    """
    An image whose programs can be run.

    Attributes:
        root: Its files.
        config: What it says of itself: user, environment, labels.
    """

    root: Path
    config: Mapping[str, Any]

    async def run(
        self, *arguments: str, entrypoint: tuple[str, ...] | None = None, stdin: str = ""
    ) -> Outcome:
        """Run its program, or another one of it, to its end."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *self._command(arguments, entrypoint=entrypoint),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=self._environment({}),
        )
        out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Outcome(process.returncode, out.decode(), err.decode())

    @asynccontextmanager
    async def running(
        self,
        *arguments: str,
        log: Path,
        settings: Mapping[str, str],
        mounts: Mapping[Path, str] | None = None,
    ) -> AsyncIterator[Server]:
        """Run its program with settings of ``brokkr`` for the length of the block."""
        async with running(
            " ".join(arguments),
            self._command(arguments, mounts=mounts),
            log=log,
            env=self._environment({f"BROKKR__{k}": v for k, v in settings.items()}),
        ) as server:
            yield server

    def _command(
        self,
        arguments: tuple[str, ...],
        *,
        entrypoint: tuple[str, ...] | None = None,
        mounts: Mapping[Path, str] | None = None,
    ) -> list[str]:
        user, _, group = self.config["User"].partition(":")
        places = [str(each) for pair in (mounts or {}).items() for each in pair]
        return [
            *("unshare", "--mount", "--propagation", "private"),
            *("/bin/sh", "-euc", _ENTER, "sh"),
            *(str(self.root), user, group, self.config["WorkingDir"], *places, "--"),
            *(entrypoint or self.config["Entrypoint"]),
            *arguments,
        ]

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        own = dict(each.split("=", 1) for each in self.config["Env"])
        # Behind the image's own folders, where mount and unshare are.
        path = f"{own['PATH']}:/usr/sbin:/usr/bin:/sbin:/bin"
        return {**own, "PATH": path, **more}


def make_image(to: Path, *options: str) -> MadeImage:
    """Build the image of this checkout."""
    done = subprocess.run(
        [sys.executable, MAKE_IMAGE, "--to", to, *options],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    (digest,) = [line.split()[1] for line in done.stdout.splitlines() if line[:6] == "digest"]
    return MadeImage(to, digest, done.stdout)


@contextmanager
def unpacked(layout: Path, scratch: Path) -> Iterator[UnpackedImage]:
    """Unpack an image for the length of the block."""
    storage, runs = scratch / "storage", scratch / "run"
    buildah = ("buildah", "--storage-driver", "vfs", "--root", storage, "--runroot", runs)
    _output(
        *("skopeo", "copy", "--quiet", f"oci:{layout}"),
        f"containers-storage:[vfs@{storage}+{runs}]localhost/brokkr",
    )
    container = _output(*buildah, "from", "--pull-never", "localhost/brokkr")
    root = Path(_output(*buildah, "mount", container))
    try:
        yield UnpackedImage(root, inspect(f"oci:{layout}", "--config")["config"])
    finally:
        _output(*buildah, "rm", container)


def inspect(image: str, *options: str) -> dict[str, Any]:
    """Read what an image says of itself with a tool that is not ours."""
    inspected: dict[str, Any] = json.loads(
        _output("skopeo", "inspect", "--tls-verify=false", *options, image)
    )
    return inspected


def _output(*command: str | Path) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

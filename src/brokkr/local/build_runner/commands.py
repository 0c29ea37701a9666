"""
Run one program of a build so that nothing of it outlives the build, or the runner.

Each program is the first process of a PID namespace of its own: when it is killed, so is all
that it started, and the kernel kills it when the runner dies, ``kill -9`` included.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brokkr.local.process import tethered


@dataclass(frozen=True)
class Commands:
    """
    Runs programs with one environment and one log.

    Attributes:
        folder: Where they run, and their home.
        env: Their whole environment, but for PATH and HOME.
        log: The file that takes their output.
    """

    folder: Path
    env: Mapping[str, str]
    log: Path

    async def run(self, *command: str) -> tuple[int, str]:
        """
        Run a program to its end; it is killed if the caller is cancelled.

        Returns:
            Its exit code, and what it wrote to the log.
        """
        begin = self.log.stat().st_size
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *contained(*command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.env},
            )
            try:
                exit_code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        with self.log.open("rb") as log:
            log.seek(begin)
            return exit_code, log.read().decode(errors="replace")

    def say(self, line: str) -> None:
        """Write a line of our own to the log."""
        with self.log.open("a") as log:
            log.write(f"{line}\n")


class NotContained(Exception):
    """A build's processes cannot be kept together on this machine."""


async def check_containment() -> None:
    """
    Try what every program of a build is run in.

    Raises:
        NotContained: It cannot be had; the message says why.
    """
    process = await asyncio.create_subprocess_exec(
        *contained("true"), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    if process.returncode:
        raise NotContained(
            "builds need PID and mount namespaces of their own, and this machine refuses them "
            f"(a container has to be a privileged one): {errors.decode().strip()}"
        )


def contained(*command: str) -> list[str]:
    """Extend a command so that it dies with us, and takes all that it started along."""
    # An ordinary user needs a user namespace to make the other ones, with the user's
    # subordinate ids mapped into it: images hold files of more than one owner.
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user", "--map-auto"]
    namespaces = [*user, "--pid", "--fork", "--kill-child", "--mount-proc"]
    return tethered(["unshare", *namespaces, "--", *command])

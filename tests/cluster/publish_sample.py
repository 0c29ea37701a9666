"""Make the bare repository that the suite builds from: ``sample.git`` in the folder given."""

import asyncio
import sys
import tempfile
from pathlib import Path

from brokkr.local.binaries import ensure_programs
from brokkr.local.git_server import publish
from support.local import write_sample


async def main(folder: Path) -> None:
    """Write it, or its next commit if it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    programs = await ensure_programs(["busybox", "git"], print)
    with tempfile.TemporaryDirectory() as scratch:
        files = write_sample(Path(scratch, "sample"))
        await publish(files, folder, "sample", more={"busybox": programs["busybox"]})
    print(folder / "sample.git")  # noqa: T201 - it is what is asked for


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

"""
Install Brokkr into /opt/brokkr; the one step of the Containerfile's first stage.

It is Python because the base may have no shell.  pip comes as a wheel, as the base may have
none of it either.
"""

import os
import subprocess
import venv
from pathlib import Path

ROOT = Path("/opt/brokkr")
WHEELS = Path("/wheels")
DIST = Path("/dist")

USER = "brokkr:x:10001:10001:Brokkr:/var/lib/brokkr:/usr/sbin/nologin\n"
GROUP = "brokkr:x:10001:\n"


def main() -> None:
    """Make a virtual environment with Brokkr, and nothing in it that only an installer needs."""
    # Sets are marshalled in the order of their hashes.
    os.environ["PYTHONHASHSEED"] = "0"
    venv.create(ROOT, symlinks=True, with_pip=False)
    python = ROOT / "bin" / "python"
    (pip,) = WHEELS.glob("pip-*.whl")
    (project,) = DIST.glob("brokkr-*.whl")
    subprocess.run(
        [
            *(python, pip / "pip", "install", "--quiet", "--no-index", "--no-cache-dir"),
            *("--no-compile", "--only-binary", ":all:", "--find-links", WHEELS),
            f"brokkr[{os.environ['EXTRAS']}] @ {project.as_uri()}",
        ],
        check=True,
    )
    for each in (ROOT / "bin").iterdir():
        if each.name != "brokkr" and not each.name.startswith("python"):
            each.unlink()
    subprocess.run(
        [*(python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"), ROOT],
        check=True,
    )
    with Path("/etc/passwd").open("a") as passwd, Path("/etc/group").open("a") as group:
        passwd.write(USER)
        group.write(GROUP)
    Path("/var/lib/brokkr").mkdir(parents=True, mode=0o700)


if __name__ == "__main__":
    main()

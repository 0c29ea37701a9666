"""The example of a work type from outside, installed as an installer would."""

import shutil
import tomllib
from pathlib import Path

from brokkr.agent.handlers.registry import GROUP

EXAMPLE = Path(__file__).parents[2] / "examples" / "work-type-job"


def install_example(folder: Path) -> str:
    """Put the example into a folder of packages; return the package's name."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    package = str(project["name"]).replace("-", "_")
    shutil.copytree(EXAMPLE / package, folder / package)
    info = folder / f"{package}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\n")
    entry_points = "".join(
        f"{name} = {value}\n" for name, value in project["entry-points"][GROUP].items()
    )
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entry_points}")
    return package

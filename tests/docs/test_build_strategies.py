"""
The strategies in ``deploy`` are of the form that Shipwright's API has, and whole.

What a step refers to is declared, or is one of the names that Shipwright provides.  The script of
the step is run by a real buildah; its pod is not.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from brokkr.agent.handlers.build.failure_table import TABLE
from brokkr.local.binaries import ensure_programs
from support.local import EXAMPLE

FOLDER = Path(__file__).parents[2] / "deploy" / "build-strategies"
FILES = sorted(FOLDER.glob("*.yaml"))

RunStep = Callable[..., subprocess.CompletedProcess[str]]

REFERENCE = re.compile(r"\$\((params|results)\.([\w-]+)(\[\*\]|\.path)?\)")
PROVIDED = {
    "params": {
        "shp-source-root",
        "shp-source-context",
        "shp-output-directory",
        "shp-output-image",
        "shp-output-insecure",
    },
    "results": {"shp-error-reason", "shp-error-message", "shp-image-digest", "shp-image-size"},
}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class Parameter(Strict):
    name: str
    description: str
    type: Literal["string", "array"] = "string"
    default: str | None = None
    defaults: list[str] | None = None


class Volume(Strict):
    name: str
    description: str = ""
    overridable: bool = False
    empty_dir: dict[str, Any] | None = None


class Variable(Strict):
    name: str
    value: str


class Mount(Strict):
    name: str
    mount_path: str


class Step(Strict):
    """What of a Kubernetes container a step has."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    image: str
    working_dir: str = ""
    command: list[str]
    args: list[str] = []
    env: list[Variable] = []
    resources: dict[Literal["requests", "limits"], dict[str, str]] = {}
    security_context: dict[str, Any]
    volume_mounts: list[Mount] = []


class User(Strict):
    run_as_user: int
    run_as_group: int


class Spec(Strict):
    security_context: User
    parameters: list[Parameter] = []
    volumes: list[Volume] = []
    steps: list[Step] = Field(min_length=1)


class Metadata(Strict):
    name: str


class Strategy(Strict):
    api_version: Literal["shipwright.io/v1beta1"]
    kind: Literal["ClusterBuildStrategy"]
    metadata: Metadata
    spec: Spec


def the_strategy(file: Path) -> Strategy:
    return Strategy.model_validate(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_strategy_has_the_form_of_shipwright_s_api_and_the_name_of_its_file(file: Path) -> None:
    assert the_strategy(file).metadata.name == file.stem


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_what_a_strategy_refers_to_is_declared(file: Path) -> None:
    spec = the_strategy(file).spec
    arrays = {each.name for each in spec.parameters if each.type == "array"}
    declared = {"params": {each.name for each in spec.parameters}, "results": set[str]()}
    missing = [
        name
        for kind, name, _ in REFERENCE.findall(file.read_text())
        if name not in PROVIDED[kind] | declared[kind]
    ]
    expanded = {name for _, name, how in REFERENCE.findall(file.read_text()) if how == "[*]"}
    mounted = {mount.name for step in spec.steps for mount in step.volume_mounts}

    assert missing == []
    assert expanded == arrays
    assert mounted == {each.name for each in spec.volumes}


def test_the_rootless_strategy_is_not_run_by_root_nor_privileged() -> None:
    rootless = the_strategy(FOLDER / "buildah-rootless.yaml").spec
    rootful = the_strategy(FOLDER / "buildah-rootful.yaml").spec

    assert rootless.security_context.run_as_user != 0
    assert not any(step.security_context.get("privileged") for step in rootless.steps)
    assert rootful.security_context.run_as_user == 0


@pytest.fixture
async def run_step(tmp_path: Path) -> RunStep:
    """Run the script of a strategy's step with the buildah of this machine, on the example."""
    programs = await ensure_programs(["buildah", "busybox"], print)
    shutil.copytree(EXAMPLE, tmp_path / "source")
    shutil.copy(programs["busybox"], tmp_path / "source" / "busybox")
    storage = tmp_path / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "vfs"\nrunroot = "{tmp_path}/run"\ngraphroot = "{tmp_path}/graph"\n'
    )
    environment = {
        **os.environ,
        "CONTAINERS_STORAGE_CONF": str(storage),
        "BUILDAH_ISOLATION": "chroot",
    }

    def run(
        file: Path, *arguments: str, programs: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        (step,) = the_strategy(file).spec.steps
        script = step.args[1].replace("$(results.", f"{tmp_path}/").replace(".path)", "")
        return subprocess.run(
            ["bash", "-c", script, "--", *arguments],
            cwd=tmp_path,
            env=environment | ({"PATH": f"{programs}:{os.environ['PATH']}"} if programs else {}),
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.build
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_the_step_leaves_an_image_for_shipwright_to_push(
    file: Path, run_step: RunStep, tmp_path: Path
) -> None:
    built = run_step(file, "source", "Dockerfile", f"{tmp_path}/image", "GREETING=Hello there")

    assert built.returncode == 0, built.stderr
    assert len(json.loads((tmp_path / "image" / "index.json").read_text())["manifests"]) == 1


@pytest.mark.build
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        (("nowhere", "Dockerfile"), "ContextDirNotFound"),
        (("source", "Nofile"), "DockerfileNotFound"),
    ],
)
def test_what_is_missing_is_told_in_a_word_that_the_agent_knows(
    file: Path, missing: tuple[str, str], reason: str, run_step: RunStep, tmp_path: Path
) -> None:
    built = run_step(file, *missing, f"{tmp_path}/image")

    assert built.returncode == 1
    assert (tmp_path / "shp-error-reason").read_text() == reason
    assert any(reason in row.reasons for row in TABLE)


MAPPED = "0 1000 1\n1 100000 65536"
UNMAPPED = "0 1000 1"


def an_image(folder: Path, *, setuid: str = "", uids: str = MAPPED, gids: str = MAPPED) -> Path:
    """Make the programs that the image of a strategy has for user 1000, in a folder."""
    folder.mkdir()
    maps = f'case "$3" in */uid_map) echo "{uids}";; */gid_map) echo "{gids}";; esac'
    programs = {
        "id": "echo 1000",
        "buildah": f'case "$1" in unshare) {maps};; *) exit 7;; esac',
        "newuidmap": "exit 1",
        "newgidmap": "exit 1",
    }
    for name, script in programs.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o4755 if name == setuid else 0o755)
    return folder


@pytest.mark.build
@pytest.mark.parametrize(
    ("image", "missing"),
    [
        ({"setuid": "newuidmap"}, ("newuidmap is setuid", "cap_setuid+ep")),
        ({"setuid": "newgidmap"}, ("newgidmap is setuid", "cap_setgid+ep")),
        ({"uids": UNMAPPED}, ("newuidmap needs", "cap_setuid+ep", "/etc/subuid")),
        ({"gids": UNMAPPED}, ("newgidmap needs", "cap_setgid+ep", "/etc/subgid")),
        ({"gids": ""}, ("newgidmap needs", "cap_setgid+ep", "/etc/subgid")),
    ],
)
def test_an_image_that_cannot_map_ids_is_told_so_before_it_builds(
    image: dict[str, str], missing: tuple[str, ...], run_step: RunStep, tmp_path: Path
) -> None:
    programs = an_image(tmp_path / "programs", **image)
    rootless = FOLDER / "buildah-rootless.yaml"
    built = run_step(rootless, "source", "Dockerfile", f"{tmp_path}/image", programs=programs)

    assert built.returncode == 1
    assert (tmp_path / "shp-error-reason").read_text() == "StrategyImageUnfit"
    message = (tmp_path / "shp-error-message").read_text()
    assert all(each in message for each in missing), message
    assert any("StrategyImageUnfit" in row.reasons for row in TABLE)


@pytest.mark.build
def test_an_image_that_maps_ids_goes_on_to_build(run_step: RunStep, tmp_path: Path) -> None:
    programs = an_image(tmp_path / "programs")
    rootless = FOLDER / "buildah-rootless.yaml"
    built = run_step(rootless, "source", "Dockerfile", f"{tmp_path}/image", programs=programs)

    assert built.returncode == 7  # what this buildah says to a build

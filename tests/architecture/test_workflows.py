"""The workflows for other hosts, which are not run here, name what there is, and no host."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.any_cluster import INSECURE, VARIABLES

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CLUSTER = ROOT / ".github" / "workflows" / "cluster.yml"
PAIRS = ROOT / "docs" / "how-to" / "install-shipwright-and-tekton.md"

TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
MADE = re.compile(r"\bmake ([a-z-]+)")
FILE = re.compile(r"(?<![\w/$.])(?:\.ci|deploy|tests|docs|src|charts)/[\w./-]+")
HOST = re.compile(r"https?://|\b[\w-]+\.(?:com|dev|io|net|org)\b")
GIVEN = re.compile(r"\b(BROKKR_TEST_\w+)=")


def the_jobs(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(path.read_text())["jobs"].values())


def the_commands(path: Path) -> str:
    steps = [step for job in the_jobs(path) for step in job["steps"]]
    assert all(("run" in each) != ("uses" in each) for each in steps)
    return "\n".join(each["run"] for each in steps if "run" in each)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_targets_and_files_that_a_workflow_names_exist(path: Path) -> None:
    commands = the_commands(path)
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    files = FILE.findall(commands)

    assert [each for each in MADE.findall(commands) if each not in targets] == []
    assert [each for each in files if not (ROOT / each).is_file()] == []
    assert MADE.findall(commands) or files


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_names_no_host_and_says_which_variables_it_takes(path: Path) -> None:
    text = path.read_text()
    without_kinds = text.replace("kubernetes.io/ssh-auth", "")  # a Secret's type

    assert HOST.findall(without_kinds) == []
    head = text[: text.index("\nname:")]
    assert [each for each in re.findall(r"vars\.(\w+)", text) if each not in head] == []


def test_the_cluster_workflow_tells_the_suite_all_that_it_has_to_be_told() -> None:
    commands = the_commands(CLUSTER)

    assert set(GIVEN.findall(commands)) == {*VARIABLES, INSECURE} - {"KUBECONFIG"}
    assert "make test-cluster KUBECONFIG=" in commands


def test_the_cluster_workflow_installs_pairs_that_the_guide_publishes() -> None:
    rows = re.findall(
        r"^\| v(0\.\d+) \| (.+?) \| (.+?) to (.+?) \|$", PAIRS.read_text(), re.MULTILINE
    )
    published = {
        release: (tekton.split(", "), _number(least), _number(most))
        for release, tekton, least, most in rows
    }
    (job,) = the_jobs(CLUSTER)
    for pair in job["strategy"]["matrix"]["include"]:
        tekton, least, most = published[_minor(pair["shipwright"])]
        assert _minor(pair["tekton"]) in tekton
        assert least <= _number(_minor(pair["kubernetes"])) <= most


def _minor(version: str) -> str:
    return version.rpartition(".")[0]


def _number(minor: str) -> tuple[int, ...]:
    return tuple(map(int, minor.split(".")))

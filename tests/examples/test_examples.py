"""
Every example does what its README says.

Those that local mode can run are run by the README's own command, all at once, and print what
stands there.  The others need a cluster with strategies that local mode has not: they are
checked as broker, agent and API server check them.
"""

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
import yaml

from brokkr.agent.kinds import BUILD_RUNS, BUILDS, CONFIG_MAPS
from brokkr.agent.kube.client import KubeClient
from brokkr.cli.demo import USUAL_GIT, USUAL_REGISTRY
from brokkr.client import WorkBody, WorkState
from brokkr.client.submission import read_template
from brokkr.local.binaries import ensure_programs
from brokkr.local.git_server import publish
from brokkr.local.process import free_port
from brokkr.local.registry import registry
from brokkr.local.up import CLONE_SECRET, PUSH_SECRET
from brokkr.wire.bodies import RelabelAgent
from brokkr.work.model import Manifest
from brokkr.work.template import check_template, documents
from support.command_line import CommandLine, Outcome
from support.local import Local, inspect
from support.signals import eventually

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
KINDS: Final = {each.kind: each for each in (BUILDS, BUILD_RUNS, CONFIG_MAPS)}


@dataclass(frozen=True, kw_only=True)
class Builds:
    """
    An example that local mode builds.

    Attributes:
        labels: Some of the image's.
        run: Some fields of the BuildRun's spec.
        is_published: Whether the sources are the example's own folder.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    run: Manifest = field(default_factory=dict)
    is_published: bool = False


@dataclass(frozen=True, kw_only=True)
class IsAccepted:
    """
    An example for a cluster; what it shows must be in its Build.

    Attributes:
        shows: A path into the Build's spec.
    """

    shows: str


class HasItsOwnTest:
    """An example that takes more than one command."""


EXPECTED: Final = {
    "hello-image": Builds(labels={"org.opencontainers.image.title": "hello-image"}),
    "git-build": Builds(
        labels={"org.opencontainers.image.vendor": "Platform Team"}, is_published=True
    ),
    "build-args": Builds(
        labels={"org.opencontainers.image.version": "1.4.2", "channel": "stable"},
        is_published=True,
    ),
    "several-documents": Builds(labels={"release": "2026.1"}, is_published=True),
    "private-repository": Builds(),
    "private-registry": Builds(),
    "retention": Builds(
        run={"retention": {"ttlAfterSucceeded": "3600s", "ttlAfterFailed": "259200s"}}
    ),
    "multi-arch": IsAccepted(shows="paramValues"),
    "build-cache": IsAccepted(shows="paramValues"),
    "vulnerability-scan": IsAccepted(shows="output.vulnerabilityScan.failOnFinding"),
    "hand-over": HasItsOwnTest(),
    "gpu-cluster": HasItsOwnTest(),
    "ci-job": HasItsOwnTest(),  # test_ci_job.py
    "work-type-job": HasItsOwnTest(),  # test_work_type_job.py
}
BUILT: Final = {name: each for name, each in EXPECTED.items() if isinstance(each, Builds)}
ACCEPTED: Final = {name: each for name, each in EXPECTED.items() if isinstance(each, IsAccepted)}
MANIFESTS: Final = sorted(EXAMPLES.glob("*/work.yaml"))


def test_every_example_has_an_expectation_and_says_what_it_is() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}

    assert folders == set(EXPECTED)
    assert [each for each in sorted(folders) if not (EXAMPLES / each / "README.md").exists()] == []


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda path: path.parent.name)
def test_broker_and_agent_take_every_manifest(file: Path) -> None:
    check_template("build", read_template(file), namespace="brokkr-agent")


@pytest.mark.kube
@pytest.mark.parametrize("file", MANIFESTS, ids=lambda path: path.parent.name)
async def test_the_api_server_takes_every_manifest(
    kube: KubeClient, namespace: str, file: Path
) -> None:
    for document in documents(read_template(file)):
        # The agent gives its own name to what has none.
        metadata = {
            key: each for key, each in document["metadata"].items() if key != "generateName"
        }
        named = {**document, "metadata": {"name": "example", **metadata}}
        await kube.create(KINDS[document["kind"]], namespace, named)


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_an_example_shows_is_in_it_and_its_command_can_be_given(name: str) -> None:
    build = read_template(EXAMPLES / name / "work.yaml")
    shown: Any = build["spec"]
    for part in ACCEPTED[name].shows.split("."):
        shown = shown[part]

    assert shown
    assert f"examples/{name}/work.yaml" in commands_of(name)[0]


# -- built for real


class Run:
    """A session's local mode, told to run what stands in READMEs."""

    def __init__(self, local: Local, folder: Path) -> None:
        self.local = local
        self.command_line = CommandLine(
            folder, BROKKR_URL=local.system.broker_url, BROKKR_KEY=local.system.admin_key
        )

    async def __call__(
        self, command: str, *, registry_host: str | None = None, **placeholders: str
    ) -> Outcome:
        """Run a command of a README, on a manifest with this system's addresses."""
        words = shlex.split(command)
        assert words.pop(0) == "brokkr"
        words = [self._moved(word, registry_host) for word in words]
        return await self.command_line(*(placeholders.get(word, word) for word in words))

    def _moved(self, word: str, registry_host: str | None) -> str:
        """Copy a manifest for a system whose ports are others, and which asks for passwords."""
        if not word.endswith("/work.yaml"):
            return word
        text = (ROOT / word).read_text()
        text = text.replace(USUAL_GIT, self.local.system.git_url)
        text = text.replace(USUAL_REGISTRY, registry_host or self.local.system.registry)
        copies = [each for each in yaml.safe_load_all(text) if each]
        for build in (each for each in copies if each["kind"] == "Build"):
            build["spec"]["source"]["git"]["cloneSecret"] = CLONE_SECRET
            if registry_host is None:
                build["spec"]["output"]["pushSecret"] = PUSH_SECRET
        file = self.command_line.folder / word.replace("/", "-")
        file.write_text(yaml.safe_dump_all(copies))
        return str(file)


def commands_of(name: str) -> list[str]:
    """Return the commands of an example's README that are ours."""
    text = (EXAMPLES / name / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if line.startswith(("brokkr work ", "brokkr agent "))]


def outputs_of(name: str) -> list[str]:
    """Return what an example's README says that its commands print."""
    text = (EXAMPLES / name / "README.md").read_text()
    blocks = re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)
    return [content for language, content in blocks if not language]


_CHANGES: Final = (
    (r"^ +[\d.]+ s  attempt.*\n", ""),  # how often it is looked at is chance
    (r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID"),
    (r"(TaskRun \S+)-\w{5}$", r"\1"),
    (r"\b[0-9a-f]{40,64}\b", "HASH"),
    (r"127\.0\.0\.1:\d+", "HOST"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME"),
    (r"^ +[\d.]+ s ", "TIME"),
    (r"\b[\d.]+ (?:KiB|MiB|B)(?: \(\d+ bytes\))?", "SIZE"),
    (r"Failed: .* connection refused", "CONNECTION REFUSED"),  # skopeo's words
    (r"\b(?:no agent|\d) of \d|\d more", "SOME"),
    (r" +", " "),
)


def steady(text: str) -> list[str]:
    """Leave out what differs from run to run."""
    for pattern, word in _CHANGES:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text.splitlines()


def work_of(done: Outcome) -> UUID:
    found = re.search(r"work ([0-9a-f-]{36})", done.out)
    assert found is not None, done.err
    return UUID(found[1])


@pytest.mark.build
@pytest.mark.kube
@pytest.mark.postgres
async def test_a_build_for_gpus_waits_for_an_agent_that_has_them(
    local: Local, tmp_path: Path
) -> None:
    run = Run(local, tmp_path)
    submit, explain, label, follow = commands_of("gpu-cluster")
    try:
        submitted = await run(submit)
        work_id = work_of(submitted)
        outcomes = [submitted, await run(explain, ID=str(work_id))]
        outcomes += [await run(label), await run(follow, ID=str(work_id))]
    finally:
        await local.broker.relabel_agent("local", RelabelAgent(labels={"gpu": None}))
    work: WorkBody = await local.broker.get_work(work_id)

    assert (work.status, work.agent) == (WorkState.SUCCEEDED, "local")
    assert [steady(each.out) for each in outcomes] == [
        steady(each) for each in outputs_of("gpu-cluster")
    ]


@asynccontextmanager
async def labelled(local: Local, agents: list[str], **labels: str) -> AsyncIterator[None]:
    """Label agents for the length of the block."""
    for agent in agents:
        await local.broker.relabel_agent(agent, RelabelAgent(labels=dict(labels)))
    try:
        yield
    finally:
        for agent in agents:
            await local.broker.relabel_agent(agent, RelabelAgent(labels=dict.fromkeys(labels)))


async def hand_over(run: Run, folder: Path) -> Outcome:
    """Run the example of this name, with a registry that is there only for the second agent."""
    (command,) = commands_of("hand-over")
    port = free_port()
    async with labelled(run.local, ["local", "quick"], pool="builds"):
        running = asyncio.create_task(run(command, registry_host=f"127.0.0.1:{port}"))

        async def is_handed_on() -> bool:
            page = await run.local.broker.list_work(label="example=hand-over")
            return bool(page.items and page.items[0].handoffs)

        await eventually(is_handed_on, within=60)
        async with registry(folder, port=port):
            return await running


@pytest.fixture(scope="module")
async def built(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """What the commands of the examples print that local mode can run at once."""
    folder = tmp_path_factory.mktemp("examples")
    run = Run(local, folder)
    busybox = await ensure_programs(["busybox"], print)
    for name in (name for name, each in BUILT.items() if each.is_published):
        await publish(EXAMPLES / name, local.system.folder / "git", name, more=busybox)
    handed_over = asyncio.create_task(hand_over(run, folder))  # waits for most of its time
    done = await asyncio.gather(*(run(commands_of(name)[0]) for name in BUILT))
    return {**dict(zip(BUILT, done, strict=True)), "hand-over": await handed_over}


@pytest.mark.build
@pytest.mark.kube
@pytest.mark.postgres
@pytest.mark.timeout(240)  # the first waits for all builds
@pytest.mark.parametrize("name", BUILT)
async def test_an_example_builds_and_prints_what_its_readme_says(
    local: Local, built: Mapping[str, Outcome], name: str
) -> None:
    done, expected = built[name], BUILT[name]

    assert done.code == 0, done.out + done.err
    assert steady(done.out) == steady(outputs_of(name)[0])
    work = await local.broker.get_work(work_of(done))
    assert work.result is not None
    image = await inspect(str(work.result["image"]))
    assert image["Digest"] == work.result["digest"]
    assert (image["Labels"] or {}).items() >= expected.labels.items()
    (build_run,) = await local.build_runs_of(work)
    assert build_run["spec"].items() >= expected.run.items()


@pytest.mark.build
@pytest.mark.kube
@pytest.mark.postgres
async def test_a_build_that_one_agent_cannot_push_is_handed_to_another(
    local: Local, built: Mapping[str, Outcome]
) -> None:
    done = built["hand-over"]
    work = await local.broker.get_work(work_of(done))

    assert work.status is WorkState.SUCCEEDED, done.out
    assert (work.handoffs, work.retries_attempted) == (1, 0)
    agents = re.findall(r"(?:claimed|handed on) by (\w+)", done.out)
    assert agents == [agents[0], agents[0], work.agent]
    assert agents[0] != work.agent
    (shown,) = outputs_of("hand-over")
    names = r"\b(local|quick)\b"
    assert steady(re.sub(names, "A", done.out)) == steady(re.sub(names, "A", shown))

"""``brokkr agent`` against a real broker."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
import yaml

from brokkr.client import BrokerClient
from brokkr.wire.bodies import Capabilities, Capacity, Heartbeat, Unable
from support.broker import RunningBroker
from support.command_line import CommandLine
from support.signals import eventually


async def test_the_key_of_a_new_agent_is_the_last_line_and_opens_the_broker(
    brokkr: CommandLine, broker: RunningBroker
) -> None:
    words = ("--cluster-name", "edge", "--label", "gpu=true", "--annotation", "team=ml")
    done = await brokkr("agent", "create", "edge-1", *words)

    async with BrokerClient(broker.url, done.out.splitlines()[-1]) as client:
        agent = await client.get_agent("self")
    assert (agent.name, agent.cluster_name) == ("edge-1", "edge")
    assert (agent.labels, agent.annotations) == ({"gpu": "true"}, {"team": "ml"})


async def test_a_program_gets_the_key_as_a_field(brokkr: CommandLine) -> None:
    done = await brokkr("agent", "create", "edge-1", "-o", "json")

    assert json.loads(done.out)["key"].startswith("brokkr_agt")


async def test_a_taken_name_and_a_bad_label_are_errors_in_words(brokkr: CommandLine) -> None:
    await brokkr("agent", "create", "edge-1")

    taken = await brokkr("agent", "create", "edge-1")
    bad = await brokkr("agent", "create", "edge-2", "--label", "gpu=not valid")

    assert (taken.code, taken.err) == (1, "error: an agent named 'edge-1' exists already\n")
    assert bad.code == 2
    assert bad.err.startswith("error: labels.gpu: ")


async def test_labels_are_set_and_removed(brokkr: CommandLine) -> None:
    await brokkr("agent", "create", "edge-1", "--label", "gpu=true", "--label", "zone=a")

    await brokkr("agent", "label", "edge-1", "gpu=false", "zone-", "env=test")
    listed = await brokkr("agent", "list", "-o", "yaml")

    (agent,) = yaml.safe_load(listed.out)["items"]
    assert agent["labels"] == {"gpu": "false", "env": "test"}


async def test_the_list_has_a_line_for_each_agent_by_name(brokkr: CommandLine) -> None:
    for name in ("b", "a"):
        await brokkr("agent", "create", name, "--label", f"is={name}")

    listed = await brokkr("agent", "list")

    assert [line.split()[0] for line in listed.out.splitlines()] == ["NAME", "a", "b"]
    assert "is=a" in listed.out.splitlines()[1]


async def test_an_agent_shows_what_it_said_of_itself(
    brokkr: CommandLine, broker: RunningBroker
) -> None:
    created = json.loads((await brokkr("agent", "create", "edge-1", "-o", "json")).out)
    beat = Heartbeat(
        incarnation=uuid4(),
        capacity=Capacity(max_concurrent=4, free=3),
        capabilities=Capabilities(types=["build", "test"], version="1.2"),
    )
    async with BrokerClient(broker.url, created["key"]) as client:
        await client.heartbeat(created["id"], beat)

    shown = (await brokkr("agent", "get", "edge-1")).out
    listed = (await brokkr("agent", "list")).out

    facts = dict(re.split(r"  +", line, maxsplit=1) for line in shown.splitlines())
    expected = {
        "id": created["id"],
        "work types": "build,test",
        "version": "1.2",
        "holds": "0",
        "free slots": "3 of 4",
    }
    assert facts | expected == facts
    assert re.split(r"  +", listed.splitlines()[1])[4:8] == ["build,test", "0", "3 of 4", "no"]


async def test_what_an_agent_cannot_execute_now_is_marked_and_said_with_its_reason(
    brokkr: CommandLine, broker: RunningBroker
) -> None:
    created = json.loads((await brokkr("agent", "create", "edge-1", "-o", "json")).out)
    capabilities = Capabilities(
        types=["test"],
        unavailable={"build": "the cluster has\nno Shipwright"},
        strategies=["buildah (cluster)", "kaniko"],
    )
    beat = Heartbeat(incarnation=uuid4(), capabilities=capabilities)
    async with BrokerClient(broker.url, created["key"]) as client:
        await client.heartbeat(created["id"], beat)

    shown = (await brokkr("agent", "get", "edge-1")).out
    listed = (await brokkr("agent", "list")).out

    facts = dict(re.split(r"  +", line, maxsplit=1) for line in shown.splitlines())
    expected = {
        "work types": "test",
        "build unavailable": "the cluster has no Shipwright",
        "strategies": "buildah (cluster), kaniko",
    }
    assert facts | expected == facts
    assert re.split(r"  +", listed.splitlines()[1])[4] == "test,build (unavailable)"


async def test_an_agent_that_cannot_work_in_its_cluster_is_shown_with_the_cause(
    brokkr: CommandLine, broker: RunningBroker
) -> None:
    created = json.loads((await brokkr("agent", "create", "edge-1", "-o", "json")).out)
    cause = "cannot create works.brokkr.io in namespace builds"
    capabilities = Capabilities(
        types=[],
        unavailable={"build": f"the agent cannot work in its cluster: {cause}"},
        unable=Unable(reason="forbidden", cause=cause, seconds=90),
    )
    beat = Heartbeat(incarnation=uuid4(), capabilities=capabilities)
    async with BrokerClient(broker.url, created["key"]) as client:
        await client.heartbeat(created["id"], beat)

    shown = (await brokkr("agent", "get", "edge-1")).out
    listed = (await brokkr("agent", "list")).out

    assert re.search(rf"^unable +{cause} \(since 20.*\)$", shown, re.MULTILINE)
    assert "build unavailable" not in shown
    assert re.split(r"  +", listed.splitlines()[1])[4] == "build (unable: forbidden)"


async def test_an_agent_is_drained_and_undrained(brokkr: CommandLine) -> None:
    await brokkr("agent", "create", "edge-1")

    drained = await brokkr("agent", "drain", "edge-1")
    shown = (await brokkr("agent", "get", "edge-1")).out
    listed = (await brokkr("agent", "list")).out
    undrained = await brokkr("agent", "undrain", "edge-1", "-o", "json")

    assert drained.out == "agent edge-1 is drained; it holds nothing\n"
    assert re.search(r"^drained since  20", shown, re.MULTILINE)
    assert re.split(r"  +", listed.splitlines()[1])[7] == "yes"
    assert json.loads(undrained.out)["drained_at"] is None


@pytest.mark.parametrize(
    "words", [("label", "nobody", "a=b"), ("get", "nobody"), ("drain", "nobody")]
)
async def test_an_unknown_agent_ends_with_5(brokkr: CommandLine, words: tuple[str, ...]) -> None:
    done = await brokkr("agent", *words)

    assert (done.code, done.err) == (5, "error: there is no agent nobody\n")


async def test_the_definition_of_the_work_resource_is_printed(tmp_path: Path) -> None:
    done = await CommandLine(tmp_path)("agent", "crd")

    assert yaml.safe_load(done.out)["metadata"]["name"] == "works.brokkr.io"


async def test_the_permissions_are_printed_for_the_names_that_are_given(tmp_path: Path) -> None:
    words = ("--namespace", "builds", "--agent-namespace", "agents", "--service-account", "edge")
    done = await CommandLine(tmp_path)("agent", "rbac", *words)

    printed = list(yaml.safe_load_all(done.out))
    subject = {"kind": "ServiceAccount", "name": "edge", "namespace": "agents"}
    assert [each["kind"] for each in printed] == [
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ClusterRole",
        "ClusterRoleBinding",
    ]
    assert [each["metadata"].get("namespace") for each in printed[:3]] == [
        "agents",
        "builds",
        "builds",
    ]
    assert [each["subjects"] for each in printed if "subjects" in each] == [[subject], [subject]]


async def test_an_agent_without_a_cluster_says_so(tmp_path: Path) -> None:
    done = await CommandLine(tmp_path)("agent", "run", "--kubeconfig", "none", "--key", "k")

    assert done.code == 3
    assert done.err.splitlines()[-1].startswith("error: the cluster: ")
    assert "Traceback" not in done.err


def away(folder: Path, health_port: int = 0) -> CommandLine:
    """Return the command, told of a cluster and a broker that are away."""
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    return CommandLine(
        folder,
        BROKKR__AGENT__BROKER_URL="http://127.0.0.1:1",
        BROKKR__AGENT__KEY="k",
        BROKKR__AGENT__KUBECONFIG="kubeconfig",
        BROKKR__AGENT__HEALTH__PORT=str(health_port),
    )


async def test_an_agent_whose_log_cannot_be_written_goes_on(
    tmp_path: Path, unused_port: int
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    async with away(tmp_path, unused_port).started("agent", "run", stderr=full) as process:
        os.close(full)

        async def lost_lines() -> bool:
            assert process.returncode is None
            try:
                async with aiohttp.request(
                    "GET", f"http://127.0.0.1:{unused_port}/metrics"
                ) as answer:
                    text = await answer.text()
            except aiohttp.ClientError:
                return False
            return "brokkr_agent_log_lines_lost_total 0.0" not in text

        await eventually(lost_lines)
        process.send_signal(signal.SIGTERM)
        await process.communicate()

    assert process.returncode == 0


async def test_an_agent_that_is_told_to_stop_ends_well(tmp_path: Path) -> None:
    async with away(tmp_path).started("agent", "run") as process:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while b"broker not reached" not in await process.stderr.readline():
                assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        await process.communicate()

    assert process.returncode == 0

"""``brokkr work`` against a real broker; the test plays the agent."""

import json
import re
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import yaml

from brokkr.client import BrokerClient
from brokkr.wire.bodies import RegisterAgent
from brokkr.wire.tenants import CreateGenerator
from support.broker import RunningBroker
from support.command_line import CommandLine
from support.played_agent import PlayedAgent
from support.templates import a_build, a_config_map

RESULT = {
    "image": "registry.example/hello:1",
    "digest": "sha256:abc",
    "size": 1536,
    "git": {"commit_sha": "f00", "commit_author": "Ada", "branch": "main"},
}


@pytest.fixture
async def agent(broker: RunningBroker) -> AsyncIterator[PlayedAgent]:
    registered = await broker.admin.register_agent(
        RegisterAgent(name="edge-1", labels={"gpu": "true"})
    )
    async with BrokerClient(broker.url, registered.key) as client:
        yield PlayedAgent(client, registered.id)


@pytest.fixture(autouse=True)
def a_file(brokkr: CommandLine) -> None:
    (brokkr.folder / "build.yaml").write_text(yaml.safe_dump(a_build()))


async def submitted(brokkr: CommandLine, *words: str) -> str:
    done = await brokkr(
        "work", "submit", "build.yaml", "--target", "gpu=true", "-o", "json", *words
    )
    assert done.code == 0, done.err
    work_id: str = json.loads(done.out)["id"]
    return work_id


async def test_submit_is_a_part_of_the_trace_that_it_runs_in(
    brokkr: CommandLine, broker: RunningBroker
) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    brokkr.environment["TRACEPARENT"] = traceparent
    traced = await broker.admin.get_work(UUID(await submitted(brokkr)))
    brokkr.environment["TRACEPARENT"] = "not a trace"
    untraced = await broker.admin.get_work(UUID(await submitted(brokkr)))

    assert (traced.traceparent, untraced.traceparent) == (traceparent, None)


@pytest.mark.setting("client.url", "client.key")
async def test_submit_says_the_id_and_how_many_agents_match(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    matching = await brokkr("work", "submit", "build.yaml", "--target", "gpu=true")
    nobody = await brokkr("work", "submit", "build.yaml", "--target", "gpu=false")

    assert matching.out.endswith("is PENDING; 1 agent matches its target\n")
    assert nobody.out.endswith("is PENDING; no agent matches its target now\n")


async def test_submit_sends_everything_that_was_given(brokkr: CommandLine) -> None:
    work_id = await submitted(
        brokkr,
        *("--target", "zone=a", "--agent", "edge-1", "--annotation", "team=ml"),
        *("--max-retries", "1", "--priority", "5", "--claim-timeout", "90"),
    )

    work = json.loads((await brokkr("work", "get", work_id, "-o", "json")).out)
    assert work["target"] == [
        {
            "agents": ["edge-1"],
            "match_labels": {"gpu": "true", "zone": "a"},
            "match_annotations": {"team": "ml"},
        }
    ]
    assert (work["max_retries"], work["priority"], work["claim_timeout_seconds"]) == (1, 5, 90)


async def test_submit_sends_when_it_may_start_and_how_it_is_found(brokkr: CommandLine) -> None:
    words = (
        *("--label", "app=shop", "--label", "team=ml", "--max-handoffs", "2"),
        *("--not-before", "2100-01-31T12:00:00Z", "--start-within", "60"),
        *("--idempotency-key", "build-17"),
    )
    work_id = await submitted(brokkr, *words)
    again = await submitted(brokkr, *words)
    other = await brokkr("work", "submit", "build.yaml", "--agent", "a", *words)

    work = json.loads((await brokkr("work", "get", work_id, "-o", "json")).out)
    assert again == work_id
    assert (other.code, "build-17" in other.err) == (1, True)
    assert (work["labels"], work["max_handoffs"]) == ({"app": "shop", "team": "ml"}, 2)
    assert (work["not_before"], work["start_deadline"]) == (
        "2100-01-31T12:00:00Z",
        "2100-01-31T12:01:00Z",
    )


async def test_submit_takes_several_documents_from_standard_input(brokkr: CommandLine) -> None:
    text = yaml.safe_dump_all([a_build(), a_config_map()])

    done = await brokkr("work", "submit", "-", "--agent", "x", "-o", "yaml", stdin=text)

    template = yaml.safe_load(done.out)["resource"]["spec"]["template"]
    assert [each["kind"] for each in template["items"]] == ["Build", "ConfigMap"]


async def test_a_followed_work_that_succeeds_is_told_and_ends_with_its_image(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    words = ("work", "submit", "build.yaml", "--target", "gpu=true", "--follow")
    async with brokkr.started(*words) as process:
        lines = process.stdout
        assert lines is not None
        assert (await lines.readline()).startswith(b"work ")
        assert (await lines.readline()).endswith(b" s  queued\n")
        claim = await agent.claim()
        assert (await lines.readline()).endswith(b" s  claimed by edge-1\n")
        await agent.progress(claim, phase="Running", step="build")
        assert (await lines.readline()).endswith(b" s  attempt 1 running, step build\n")
        retry_at = datetime.now(UTC) + timedelta(seconds=1)
        await agent.progress(
            claim, phase="Pending", attempt=2, retries=1, retry_at=retry_at, message="evicted"
        )
        assert (await lines.readline()).endswith(f"evicted; retry at {retry_at:%X} UTC\n".encode())
        await agent.complete(claim, "succeeded", retries=1, result=RESULT)
        out, err = await process.communicate()

    assert out.decode().splitlines()[0].endswith(" s  succeeded")
    assert out.decode().splitlines()[1:] == [
        "image   registry.example/hello:1",
        "digest  sha256:abc",
        "size    1.5 KiB (1536 bytes)",
        "commit  f00, Ada, main",
    ]
    assert (process.returncode, err) == (0, b"")


async def test_a_followed_work_that_fails_ends_with_1(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    words = ("work", "submit", "build.yaml", "--target", "gpu=true", "--follow")
    async with brokkr.started(*words) as process:
        await agent.complete(await agent.claim(), "failed", message="no such revision")
        out, _ = await process.communicate()

    assert out.decode().splitlines()[-1].endswith(" s  failed: no such revision")
    assert process.returncode == 1


async def test_for_a_program_only_the_finished_work_is_on_standard_output(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    words = ("work", "submit", "build.yaml", "--target", "gpu=true", "--follow", "-o", "json")
    async with brokkr.started(*words) as process:
        await agent.complete(await agent.claim(), "succeeded", result=RESULT)
        out, err = await process.communicate()

    work = json.loads(out)
    assert (work["status"], work["result"]) == ("SUCCEEDED", RESULT)
    assert b" s  claimed by edge-1\n" in err


async def test_ctrl_c_ends_the_following_and_not_the_work(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    words = ("work", "submit", "build.yaml", "--target", "gpu=true", "--follow")
    async with brokkr.started(*words) as process:
        assert process.stdout is not None
        work_id = (await process.stdout.readline()).decode().split()[1]
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()

    assert process.returncode == 130
    assert f"brokkr work get {work_id} --follow" in out.decode()
    assert err == b""
    assert str((await agent.claim()).id) == work_id


async def test_a_finished_work_can_still_be_followed(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    work_id = await submitted(brokkr)
    await agent.complete(await agent.claim(), "failed", message="no")

    done = await brokkr("work", "get", work_id, "--follow")

    assert done.code == 1
    assert [line.split(" s  ")[1] for line in done.out.splitlines()] == [
        "queued",
        "claimed by edge-1",
        "failed: no",
    ]


async def test_get_shows_one_work_in_words(brokkr: CommandLine, agent: PlayedAgent) -> None:
    work_id = await submitted(brokkr)
    await agent.complete(await agent.claim(), "succeeded", retries=2, result=RESULT)

    shown = (await brokkr("work", "get", work_id)).out

    facts = dict(re.split(r"  +", line, maxsplit=1) for line in shown.splitlines())
    expected = {
        "id": work_id,
        "status": "SUCCEEDED",
        "agent": "edge-1",
        "retries": "2 of 3",
        "digest": "sha256:abc",
    }
    assert facts | expected == facts


async def test_list_shows_the_newest_first_and_filters(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    ids = [await submitted(brokkr) for _ in range(3)]
    await agent.complete(await agent.claim(), "failed", message="two\nlines")

    everything = await brokkr("work", "list")
    failed = await brokkr("work", "list", "--status", "failed", "--agent", "edge-1")
    page = await brokkr("work", "list", "--limit", "2")
    rest = await brokkr("work", "list", "--cursor", page.err.split()[-1])

    assert [line.split()[0] for line in everything.out.splitlines()] == ["ID", *ids[::-1]]
    assert failed.out.splitlines()[1].split()[0] == ids[0]
    assert failed.out.splitlines()[1].endswith("two lines")
    assert len(failed.out.splitlines()) == 2
    assert rest.out.splitlines()[1].split()[0] == ids[0]


async def test_list_finds_work_by_its_labels_its_generator_and_its_end(
    brokkr: CommandLine, broker: RunningBroker, agent: PlayedAgent
) -> None:
    generator = await broker.admin.create_generator(CreateGenerator(name="ci"))
    mine = await submitted(brokkr, "--label", "app=shop", "--label", "team=ml")
    await submitted(brokkr, "--label", "app=shop")
    theirs = await submitted(brokkr, "--key", generator.key)
    await agent.complete(await agent.claim(), "failed", message="no")

    async def found(*words: str) -> list[str]:
        listed = await brokkr("work", "list", *words)
        return [line.split()[0] for line in listed.out.splitlines()[1:]]

    assert await found("--label", "app=shop", "--label", "team=ml") == [mine]
    assert await found("--generator", "ci") == [theirs]
    assert await found("--outcome", "failed", "--since", "2026-01-01T00:00:00Z") == [mine]
    assert await found("--outcome", "succeeded") == []
    shown = (await brokkr("work", "get", theirs)).out
    assert re.search(r"^generator +ci$", shown, re.MULTILINE)


async def test_events_are_listed_in_words_and_for_programs(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    work_id = await submitted(brokkr)
    await agent.complete(await agent.claim(), "failed", message="no such revision")

    shown = await brokkr("work", "events", work_id)
    page = json.loads((await brokkr("work", "events", work_id, "-o", "json")).out)

    kinds = ["submitted", "claimed", "completed"]
    rows = [re.split(r"  +", line) for line in shown.out.splitlines()]
    assert [row[0] for row in rows] == ["NUMBER", "1", "2", "3"]
    assert [row[2] for row in rows[1:]] == kinds
    assert rows[3][3:] == ["agent:edge-1", "failed: no such revision"]
    assert [each["kind"] for each in page["items"]] == kinds


async def test_followed_events_are_printed_as_they_happen_one_in_a_line(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    work_id = await submitted(brokkr)
    words = ("work", "events", work_id, "--follow", "-o", "json")
    async with brokkr.started(*words) as process:
        assert process.stdout is not None
        first = json.loads(await process.stdout.readline())
        claim = await agent.claim()
        second = json.loads(await process.stdout.readline())
        await agent.complete(claim, "succeeded")
        out, err = await process.communicate()
    as_yaml = await brokkr("work", "events", work_id, "--follow", "-o", "yaml")
    as_text = await brokkr("work", "events", work_id, "--follow")

    assert [first["kind"], second["kind"]] == ["submitted", "claimed"]
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["completed"]
    assert (process.returncode, err) == (0, b"")
    assert [each["number"] for each in yaml.safe_load_all(as_yaml.out)] == [1, 2, 3]
    assert as_text.out.splitlines()[1].endswith("  claimed  agent:edge-1  claimed by edge-1")


async def test_explain_says_what_work_waits_for(brokkr: CommandLine, agent: PlayedAgent) -> None:
    work_id = await submitted(brokkr)
    await brokkr("agent", "create", "edge-2")

    shown = await brokkr("work", "explain", work_id)
    one = json.loads(
        (await brokkr("work", "explain", work_id, "--agent", "edge-2", "-o", "json")).out
    )
    unknown = await brokkr("work", "explain", work_id, "--agent", "edge-3")

    lines = shown.out.splitlines()
    assert lines[0] == "Nobody can claim it now: of 1 agent for it, 1 not heard of."
    assert [re.split(r"  +", line) for line in lines[3:]] == [
        ["edge-1", "not_seen", "-", "was never heard of"],
        ["edge-2", "does_not_match", "-", "has no label gpu, wanted 'true'"],
    ]
    assert [each["name"] for each in one["waiting"]["agents"]] == ["edge-2"]
    assert (unknown.code, unknown.err) == (5, "error: there is no agent edge-3\n")


async def test_work_is_taken_from_its_agent_and_queued_again(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    work_id = await submitted(brokkr)
    await agent.claim()

    released = await brokkr(
        "work", "release", work_id, "--reason", "edge-1 hangs", "--delay", "3600"
    )
    again = await brokkr("work", "release", work_id)
    shown = json.loads((await brokkr("work", "events", work_id, "-o", "json")).out)

    assert (released.code, released.err) == (0, "")
    assert released.out.startswith(f"work {work_id}: queued again, not before 20")
    assert (again.code, again.err) == (
        1,
        f"error: nobody holds work {work_id}: it is pending already\n",
    )
    assert shown["items"][-1]["detail"]["message"] == "edge-1 hangs"


async def test_finished_work_is_queued_again_with_its_history(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    work_id = await submitted(brokkr)
    early = await brokkr("work", "requeue", work_id)
    await agent.complete(await agent.claim(), "failed", message="disk full")

    requeued = await brokkr("work", "requeue", work_id, "--reason", "the disk is larger")
    shown = await brokkr("work", "events", work_id)

    assert (early.code, early.err) == (
        1,
        f"error: work {work_id} is not finished: it is PENDING\n",
    )
    assert requeued.out == f"work {work_id}: queued again\n"
    assert shown.out.splitlines()[-1].endswith(": the disk is larger")
    assert str((await agent.claim()).id) == work_id


async def test_cancel_ends_pending_work_and_asks_the_agent_of_claimed_work(
    brokkr: CommandLine, agent: PlayedAgent
) -> None:
    claimed = await submitted(brokkr)
    await agent.claim()
    pending = await submitted(brokkr)

    over = await brokkr("work", "cancel", pending)
    asked = await brokkr("work", "cancel", claimed)
    late = await brokkr("work", "cancel", pending)

    assert over.out == f"work {pending}: cancelled\n"
    assert asked.out == f"work {claimed}: cancel requested; edge-1 will stop it\n"
    assert (over.code, asked.code, late.code) == (0, 0, 1)
    assert late.err == f"error: work {pending} is finished: cancelled\n"


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("submit", "none.yaml", "--agent", "a"), 2, "none.yaml: No such file"),
        (("submit", "build.yaml"), 2, "target: say who may claim the Work"),
        (("submit", "build.yaml", "--target", "gpu"), 2, "--target: 'gpu' must be written"),
        (("submit", "build.yaml", "--agent", "a", "--priority", "999"), 2, "priority: "),
        (("submit", "build.yaml", "--agent", "a", "--type", "teleport"), 2, "work_type: "),
        (("submit", "secret.yaml", "--agent", "a"), 2, "template"),
        (("get", "00000000-0000-7000-8000-000000000000"), 5, "there is no work 00000000-"),
        (("list", "--agent", "nobody"), 5, "there is no agent nobody"),
        (("list", "--since", "yesterday"), 2, "since: "),
        (("list", "--label", "app"), 2, "label: "),
        (("list", "--outcome", "well"), 2, "outcome: "),
        (("list", "--generator", "nobody"), 5, "there is no generator nobody"),
        (("submit", "build.yaml", "--agent", "a", "--label", "app"), 2, "--label: 'app' must"),
        (("submit", "build.yaml", "--agent", "a", "--not-before", "noon"), 2, "not_before: "),
        (("submit", "build.yaml", "--agent", "a", "--max-handoffs", "-1"), 2, "max_handoffs: "),
        (("release", "00000000-0000-7000-8000-000000000000"), 5, "there is no work 00000000-"),
        (
            ("release", "00000000-0000-7000-8000-000000000000", "--delay", "-1"),
            2,
            "delay_seconds: ",
        ),
        (("requeue", "00000000-0000-7000-8000-000000000000"), 5, "there is no work 00000000-"),
        (("explain", "00000000-0000-7000-8000-000000000000"), 5, "there is no work 00000000-"),
        (("events", "00000000-0000-7000-8000-000000000000"), 5, "there is no work 00000000-"),
        (
            ("events", "00000000-0000-7000-8000-000000000000", "--follow"),
            5,
            "there is no work 00000000-",
        ),
        (("list", "--key", "wrong"), 4, "this API key is not known"),
        (("list", "--url", "http://127.0.0.1:1"), 3, "no answer from http://127.0.0.1:1"),
        (("list", "--config", "none.toml"), 2, "none.toml: No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_is_wrong_is_said_in_one_line_with_an_exit_code(
    brokkr: CommandLine, words: tuple[str, ...], code: int, error: str
) -> None:
    (brokkr.folder / "secret.yaml").write_text("apiVersion: v1\nkind: Secret\n")

    done = await brokkr("work", *words)

    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"error: {error}")
    assert [
        line for line in done.err.splitlines() if line[:7] not in ("error: ", "hint: a", "hint: i")
    ] == []


async def test_a_usage_error_ends_with_2(brokkr: CommandLine) -> None:
    assert (await brokkr("work", "get", "not-an-id")).code == 2

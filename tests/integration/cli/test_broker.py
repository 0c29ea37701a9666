"""``brokkr broker``, on a database that is given and on its own."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from brokkr.client import BrokerClient
from brokkr.work.errors import BrokerUnavailable
from support.broker import RunningBroker
from support.command_line import CommandLine
from support.disks import a_small_disk
from support.postgres import servers_of
from support.signals import eventually

pytestmark = pytest.mark.postgres


@pytest.fixture
def own_database(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, BROKKR__BROKER__DATA_DIR=str(tmp_path / "data"))


@pytest.mark.setting("broker.data_dir")
async def test_an_admin_key_can_be_made_before_the_broker_runs_and_while_it_runs(
    own_database: CommandLine, unused_port: int
) -> None:
    before = await own_database("broker", "create-admin-key")
    assert (own_database.folder / "data" / "postgres").is_dir()
    async with own_database.started("broker", "serve", "--port", str(unused_port)) as serving:
        keys = [before.out.splitlines()[-1]]
        await until_served(unused_port, keys[0])
        during = await own_database("broker", "create-admin-key")
        keys.append(during.out.splitlines()[-1])

        assert keys[0] != keys[1]
        for key in keys:
            await until_served(unused_port, key)
        serving.send_signal(signal.SIGTERM)
        await serving.communicate()

    assert serving.returncode == 0
    assert servers_of(own_database.folder / "data") == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_broker_takes_the_database_over_from_the_one_that_ran_it(
    own_database: CommandLine, unused_tcp_port_factory: Callable[[], int], end: signal.Signals
) -> None:
    first_port, second_port = unused_tcp_port_factory(), unused_tcp_port_factory()
    key = (await own_database("broker", "create-admin-key")).out.splitlines()[-1]
    seen: dict[str, set[tuple[int, str | None]]] = {}

    async def watch(path: str) -> None:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{second_port}") as http:
            while True:
                headers = {"Authorization": f"Bearer {key}"}
                async with http.get(path, headers=headers) as answer:
                    said = (answer.status, answer.headers.get("Retry-After"))
                    seen.setdefault(path, set()).add(said)
                await asyncio.sleep(0.02)

    async with own_database.started("broker", "serve", "--port", str(first_port)) as first:
        await until_served(first_port, key)
        async with own_database.started("broker", "serve", "--port", str(second_port)) as second:
            await until_served(second_port, key)
            watching = [
                asyncio.create_task(watch(each)) for each in ("/healthz", "/readyz", "/api/v1/work")
            ]
            await until_served(second_port, key)
            former = servers_of(own_database.folder / "data")
            first.send_signal(end)
            await first.communicate()
            await asyncio.sleep(0.2)
            await until_served(second_port, key)
            assert not set(former) & set(servers_of(own_database.folder / "data"))
            await asyncio.sleep(0.2)
            for each in watching:
                assert not each.done()
                each.cancel()
            second.send_signal(signal.SIGTERM)
            _, log = await second.communicate()

    assert seen["/healthz"] == {(200, None)}
    assert (200, None) in seen["/readyz"]
    assert seen["/readyz"] | seen["/api/v1/work"] == {(200, None), (503, "5")}
    assert b"embedded postgres taken over" in log
    assert second.returncode == 0
    assert servers_of(own_database.folder / "data") == []


async def test_admin_keys_can_be_made_whoever_runs_the_database_meanwhile(
    own_database: CommandLine, unused_port: int
) -> None:
    # Each may be the one that runs it, and ends while others use it.
    making = [asyncio.create_task(own_database("broker", "create-admin-key")) for _ in range(4)]
    async with own_database.started("broker", "serve", "--port", str(unused_port)):
        made = [await each for each in making]

        assert [(each.code, each.err.count("error:")) for each in made] == [(0, 0)] * 4
        for each in made:
            await until_served(unused_port, each.out.splitlines()[-1])


@pytest.mark.parametrize("log", ["full", "closed pipe", "closed"])
async def test_a_log_that_cannot_be_written_ends_nothing(
    own_database: CommandLine, unused_port: int, log: str
) -> None:
    key = (await own_database("broker", "create-admin-key")).out.splitlines()[-1]
    reading, writing = os.pipe()
    if log == "full":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    words = ["broker", "serve", "--port", str(unused_port)]
    run = own_database.started(*words, stderr=writing, is_stderr_closed=log == "closed")
    async with run as serving:
        os.close(writing)
        os.close(reading)
        await until_served(unused_port, key)
        os.kill(min(servers_of(own_database.folder / "data")), signal.SIGKILL)  # much to be said
        await until_served(unused_port, key)
        async with aiohttp.request("GET", f"http://127.0.0.1:{unused_port}/metrics") as answer:
            text = await answer.text()
        assert log == "closed" or "brokkr_broker_log_lines_lost_total 0.0" not in text
        assert serving.returncode is None
        serving.send_signal(signal.SIGTERM)
        await serving.communicate()

    assert serving.returncode == 0
    assert servers_of(own_database.folder / "data") == []


async def test_a_log_on_the_full_disk_of_the_database_ends_nothing_and_goes_on(
    tmp_path: Path, unused_port: int
) -> None:
    with a_small_disk(tmp_path / "disk", megabytes=120) as disk:
        own_database = CommandLine(tmp_path, BROKKR__BROKER__DATA_DIR=str(disk.folder / "data"))
        key = (await own_database("broker", "create-admin-key")).out.splitlines()[-1]
        log = disk.folder / "broker.log"
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        words = ["broker", "serve", "--port", str(unused_port)]
        async with own_database.started(*words, stderr=output) as serving:
            os.close(output)
            await until_served(unused_port, key)
            async with aiohttp.ClientSession(
                f"http://127.0.0.1:{unused_port}", headers={"Authorization": f"Bearer {key}"}
            ) as http:
                disk.fill()
                body = {"name": "x", "annotations": {"filler": os.urandom(2000).hex()}}
                seen = []
                for number in range(200):
                    async with http.post(
                        "/api/v1/agents", json={**body, "name": f"agent-{number}"}
                    ) as answer:
                        seen.append(answer.status)
                written = log.stat().st_size
                disk.free()

                async def is_registered() -> bool:
                    async with http.post("/api/v1/agents", json=body) as answer:
                        seen.append(answer.status)
                        return answer.status == 201

                await eventually(is_registered)
            serving.send_signal(signal.SIGTERM)
            await serving.communicate()

        assert set(seen) <= {201, 503}
        assert 503 in seen
        assert serving.returncode == 0
        lines = [json.loads(line) for line in log.read_text()[written:].splitlines()[1:]]
        assert lines[-1]["event"] == "broker stopped"
        assert any(line.get("lines_lost_before") for line in lines)


async def test_a_port_that_is_taken_is_said_in_one_line(
    command_line: CommandLine, broker: RunningBroker
) -> None:
    port = broker.url.rpartition(":")[2]

    done = await command_line(
        "broker", "serve", "--port", port, "--database-url", broker.database_url
    )

    assert done.code == 3
    assert done.err.splitlines()[-1].startswith(f"error: cannot listen on 127.0.0.1:{port}")


async def test_migrate_says_what_it_did(own_database: CommandLine) -> None:
    first = await own_database("broker", "migrate")
    second = await own_database("broker", "migrate")

    assert first.out.splitlines()[0].startswith("0001")
    assert second.out == "the schema is up to date\n"


async def test_a_database_that_is_away_ends_with_3(command_line: CommandLine) -> None:
    url = "postgresql://brokkr@127.0.0.1:1/brokkr"

    done = await command_line("broker", "create-admin-key", "--database-url", url)

    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("error: the database is not available")


async def test_a_misspelt_setting_is_named_and_nothing_is_started(
    command_line: CommandLine,
) -> None:
    (command_line.folder / "brokkr.toml").write_text("[broker]\nprot = 3\n")

    done = await command_line("broker", "serve")

    assert done.code == 2
    assert done.err == "error: brokkr.toml: broker.prot is not known; did you mean port?\n"


async def until_served(port: int, key: str) -> None:
    async def is_served() -> bool:
        async with BrokerClient(f"http://127.0.0.1:{port}", key) as client:
            try:
                await client.list_work()
            except BrokerUnavailable:
                return False
            return True

    assert await eventually(is_served)

"""``brokkr key`` against a real broker."""

import json

from brokkr.client import BrokerClient
from support.broker import RunningBroker
from support.command_line import CommandLine


async def test_a_new_key_is_the_last_line_and_opens_the_broker(
    brokkr: CommandLine, broker: RunningBroker
) -> None:
    done = await brokkr("key", "create", "viewer", "wall display")

    async with BrokerClient(broker.url, done.out.splitlines()[-1]) as client:
        assert (await client.list_agents()).items == []


async def test_a_revoked_key_is_left_out_of_the_list_unless_asked_for(brokkr: CommandLine) -> None:
    made = json.loads((await brokkr("key", "create", "viewer", "wall", "-o", "json")).out)
    assert (await brokkr("key", "revoke", made["short_id"])).code == 0

    assert "wall" not in (await brokkr("key", "list")).out
    assert "wall" in (await brokkr("key", "list", "--revoked")).out
    refused = await brokkr("agent", "list", "--key", made["key"])
    assert refused.code == 4


async def test_a_key_that_is_unknown_and_a_role_that_is_not_made_here_are_errors_in_words(
    brokkr: CommandLine,
) -> None:
    unknown = await brokkr("key", "revoke", "aaaaaaaaaa")
    role = await brokkr("key", "create", "agent", "edge-7")
    nameless = await brokkr("key", "create", "viewer", "")

    assert (unknown.code, unknown.err) == (5, "error: there is no key aaaaaaaaaa\n")
    assert role.code == 2
    assert nameless.code == 2
    assert nameless.err.startswith("error: name: ")

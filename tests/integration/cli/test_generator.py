"""``brokkr generator`` against a real broker."""

import json

from brokkr.client import BrokerClient
from support.broker import RunningBroker
from support.command_line import CommandLine


async def test_the_key_of_a_new_generator_is_the_last_line_and_opens_the_broker(
    brokkr: CommandLine, broker: RunningBroker
) -> None:
    done = await brokkr("generator", "create", "team", "--max-pending", "5")

    async with BrokerClient(broker.url, done.out.splitlines()[-1]) as client:
        assert (await client.list_work()).items == []
    assert (await broker.admin.get_generator("team")).max_pending == 5


async def test_a_program_gets_the_key_as_a_field_and_the_old_one_is_replaced(
    brokkr: CommandLine,
) -> None:
    created = json.loads((await brokkr("generator", "create", "team", "-o", "json")).out)
    rotated = json.loads((await brokkr("generator", "rotate-key", "team", "-o", "json")).out)

    assert created["id"] == rotated["id"]
    assert created["key"] != rotated["key"]
    assert (await brokkr("work", "list", "--key", created["key"])).code == 4
    assert (await brokkr("work", "list", "--key", rotated["key"])).code == 0


async def test_limits_are_set_and_removed(brokkr: CommandLine, broker: RunningBroker) -> None:
    await brokkr("generator", "create", "team", "--max-pending", "5")

    done = await brokkr("generator", "limit", "team", "--max-per-minute", "60")
    assert "60" in done.out
    await brokkr("generator", "limit", "team", "--max-pending", "none")

    generator = await broker.admin.get_generator("team")
    assert (generator.max_pending, generator.max_submissions_per_minute) == (None, 60)


async def test_a_limit_that_is_none_is_refused_in_words(brokkr: CommandLine) -> None:
    await brokkr("generator", "create", "team")

    nothing = await brokkr("generator", "limit", "team")
    letters = await brokkr("generator", "limit", "team", "--max-pending", "many")
    too_few = await brokkr("generator", "create", "other", "--max-per-minute", "0")

    for done, field in ((nothing, "limit"), (letters, "max_pending")):
        assert done.code == 2
        assert done.err.startswith(f"error: {field}: ")
    assert too_few.code == 2
    assert too_few.err.startswith("error: max_submissions_per_minute: ")


async def test_the_list_has_a_line_for_each_generator_by_name(brokkr: CommandLine) -> None:
    for name in ("b", "a"):
        await brokkr("generator", "create", name)

    listed = await brokkr("generator", "list")

    assert [line.split()[0] for line in listed.out.splitlines()] == ["NAME", "a", "b"]


async def test_a_deleted_generator_is_unknown_and_ends_with_5(brokkr: CommandLine) -> None:
    await brokkr("generator", "create", "team")

    assert (await brokkr("generator", "delete", "team")).code == 0
    again = await brokkr("generator", "delete", "team")

    assert (again.code, again.err) == (5, "error: there is no generator team\n")

"""Keys over HTTP: made, listed, revoked; and how soon that counts everywhere."""

import asyncio
from uuid import UUID

import pytest

from brokkr.broker.db.callers import LIFETIME
from brokkr.broker.settings import BrokerSettings
from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimSome, SubmitWork, TargetBody
from brokkr.wire.tenants import CreateGenerator, CreateKey
from brokkr.work.errors import KeyNotFound, LastAdminKey, NotPermitted, Unauthenticated
from support.broker import serving
from support.factories import a_build_template
from support.signals import eventually

from .conftest import Served


async def test_a_viewer_reads_and_changes_nothing(served: Served) -> None:
    key = await served.admin.create_key(CreateKey(role="viewer", name="wall display"))
    viewer = await served.client(key.key)

    assert (await viewer.list_agents()).items == []
    with pytest.raises(NotPermitted):
        await viewer.create_key(CreateKey(role="admin", name="me"))


async def test_the_list_says_whose_each_key_is_and_not_the_key(served: Served) -> None:
    await served.an_agent("edge-7")
    await served.admin.create_generator(CreateGenerator(name="team"))
    made = await served.admin.create_key(CreateKey(role="viewer", name="wall"))
    await served.admin.revoke_key(made.short_id)

    status, page = await served.request("GET", "/api/v1/keys")

    assert status == 200
    assert [(each["role"], each["name"]) for each in page["items"]] == [
        ("viewer", "wall"),
        ("generator", "team"),
        ("agent", "edge-7"),
        ("admin", ""),
    ]
    assert [each["revoked_at"] is not None for each in page["items"]] == [True, False, False, False]
    assert "key" not in page["items"][0]
    assert made.key[-43:] not in str(page)


async def test_keys_are_listed_in_pages(served: Served) -> None:
    for number in range(3):
        await served.admin.create_key(CreateKey(role="viewer", name=str(number)))

    first = await served.admin.list_keys(limit=2)
    second = await served.admin.list_keys(limit=2, cursor=first.next_cursor)

    assert [each.name for each in [*first.items, *second.items]] == ["2", "1", "0", ""]


async def test_a_revoked_key_opens_nothing_from_the_next_request_on(served: Served) -> None:
    agent, client = await served.an_agent()
    short_id = agent.key[len("brokkr_agt") :][:10]
    await client.get_agent("self")

    await served.admin.revoke_key(short_id)

    with pytest.raises(Unauthenticated):
        await client.get_agent("self")
    with pytest.raises(KeyNotFound):
        await served.admin.revoke_key(short_id)


async def test_an_admin_can_revoke_its_own_key_unless_it_is_the_last(served: Served) -> None:
    own = served.admin_key[len("brokkr_adm") :][:10]
    with pytest.raises(LastAdminKey):
        await served.admin.revoke_key(own)

    await served.admin.create_key(CreateKey(role="admin", name="successor"))
    await served.admin.revoke_key(own)

    with pytest.raises(Unauthenticated):
        await served.admin.list_keys()


async def test_what_one_replica_revokes_another_refuses_within_the_lifetime(
    served: Served, database_url: str
) -> None:
    agent, client = await served.an_agent()
    async with (
        serving(BrokerSettings(), database_url) as other,
        BrokerClient(other.url, agent.key) as elsewhere,
    ):
        await eventually(lambda: answers(elsewhere))
        await served.admin.rotate_agent_key(agent.id)
        revoked_at = asyncio.get_running_loop().time()

        with pytest.raises(Unauthenticated):
            await client.get_agent("self")

        async def is_refused() -> bool:
            return not await answers(elsewhere)

        await eventually(is_refused)
        took = asyncio.get_running_loop().time() - revoked_at

    assert took <= LIFETIME.total_seconds() + 1


async def answers(client: BrokerClient) -> bool:
    try:
        await client.get_agent("self")
    except Unauthenticated:
        return False
    return True


async def test_a_poll_whose_key_was_revoked_meanwhile_gets_nothing(served: Served) -> None:
    agent, client = await served.an_agent()
    poll = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=30)))

    async def is_parked() -> bool:
        return served.broker.dispatcher.waiting == 1

    await eventually(is_parked)
    rotated = await served.admin.rotate_agent_key(agent.id)
    work_id = await submit(served, agent.name)

    with pytest.raises(Unauthenticated):
        await poll
    successor = await served.client(rotated.key)
    [claim] = await successor.claim_some(agent.id, ClaimSome(wait=5))
    assert claim.id == work_id


async def submit(served: Served, agent: str) -> UUID:
    target = TargetBody(agents=[agent])
    body = SubmitWork(work_type="build", template=a_build_template(), target=target)
    return (await served.admin.submit_work(body)).id

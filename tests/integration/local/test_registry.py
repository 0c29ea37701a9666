from pathlib import Path

import aiohttp
import pytest

from brokkr.local.credentials import Credentials
from brokkr.local.process import ServerFailed
from brokkr.local.registry import Registry, registry

pytestmark = pytest.mark.build


async def ask(server: Registry, credentials: Credentials | None = None) -> int:
    headers = {"Authorization": credentials.authorization} if credentials else {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{server.host}/v2/", headers=headers) as response,
    ):
        return response.status


async def test_an_open_registry_answers_everybody(images: Registry) -> None:
    assert await ask(images) == 200


@pytest.mark.parametrize("password", ["secret", "with spaces, ü and $signs"])
async def test_a_closed_registry_answers_only_those_who_know_the_password(
    tmp_path: Path, password: str
) -> None:
    right = Credentials("user", password)

    async with registry(tmp_path, credentials=right) as server:
        assert await ask(server, right) == 200
        assert await ask(server, Credentials("user", "wrong")) == 401
        assert await ask(server) == 401


async def test_a_port_that_is_taken_is_an_error_that_says_so(
    images: Registry, tmp_path: Path
) -> None:
    taken = int(images.host.rpartition(":")[2])

    with pytest.raises(ServerFailed, match="address already in use"):
        async with registry(tmp_path, port=taken):
            pytest.fail("two servers on one port")


async def test_a_registry_is_gone_when_its_block_is_left(tmp_path: Path) -> None:
    async with registry(tmp_path) as server:
        pass

    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(server)

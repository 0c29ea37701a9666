"""The command, told where a running broker is."""

import socket
from pathlib import Path

import pytest

from brokkr.broker.db.keys import create_admin_key
from support.broker import RunningBroker
from support.command_line import CommandLine


@pytest.fixture
async def brokkr(broker: RunningBroker, tmp_path: Path) -> CommandLine:
    """The command with the address and an admin's key of a running broker."""
    key = await create_admin_key(broker.database_url)
    return CommandLine(tmp_path, BROKKR_URL=broker.url, BROKKR_KEY=key)


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    """The command, told nothing."""
    return CommandLine(tmp_path)


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port

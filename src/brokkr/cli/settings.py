"""
The whole configuration file, and what the command line adds to it.

One file serves broker, agent and client alike, so all of it is checked by each command.
"""

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from brokkr.agent.settings import AgentSettings
from brokkr.broker.settings import BrokerSettings, DatabaseSettings
from brokkr.client import BrokerClient
from brokkr.client.asynchronous import DEFAULT_URL
from brokkr.configuration import load
from brokkr.work.errors import Unauthenticated
from brokkr.work.redaction import redact

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file; default: ./brokkr.toml, else brokkr/brokkr.toml in the user's "
        "configuration folder.",
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", envvar="BROKKR_URL", help="Where the broker is."),
]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="BROKKR_KEY", help="The API key to use."),
]


class ClientSettings(BaseModel):
    """``[client]``: which broker the command line talks to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(default=DEFAULT_URL, description="Where the broker is, without /api/v1.")
    key: SecretStr | None = Field(default=None, description="The API key to use.")


class Settings(BaseModel):
    """All sections."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    broker: BrokerSettings = BrokerSettings()
    database: DatabaseSettings = DatabaseSettings()
    agent: AgentSettings = AgentSettings()
    client: ClientSettings = ClientSettings()


def is_sent_in_the_clear(url: str) -> bool:
    """Say whether a key sent to a URL can be read on the way: by http to another machine."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        return False
    host = parts.hostname or ""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def connect(url: str | None, key: str | None, config: Path | None) -> BrokerClient:
    """
    Make the client that flags, environment and file speak of.

    Raises:
        Unauthenticated: There is no key anywhere.
        InvalidConfiguration: Names all that is wrong.
    """
    settings = load(
        Settings,
        file=config,
        flags={"client.url": url, "client.key": key},
        sent_to={"client.key": ("client.url",)},
    ).client
    if settings.key is None:
        raise Unauthenticated("no key was given")
    if is_sent_in_the_clear(settings.url):
        print(f"warning: the key is sent unencrypted to {redact(settings.url)}", file=sys.stderr)
    return BrokerClient(settings.url, settings.key.get_secret_value())

"""
API keys: ``brokkr_<kind><short id>_<secret>``.

The short id finds the row; of the secret only the SHA-256 is stored.  The secret is 256
random bits, so a fast digest is enough: there is nothing to guess.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from brokkr.broker.db.migrate import migrate
from brokkr.broker.db.pool import Connection, connect
from brokkr.broker.db.statements import fetch_one, fetch_value

_KEY = re.compile(r"brokkr_(?:adm|agt)([a-z2-7]{10})_([A-Za-z0-9_-]{43})")


class Role(StrEnum):
    """What a key is for."""

    ADMIN = "admin"
    AGENT = "agent"


_KIND: Final = {Role.ADMIN: "adm", Role.AGENT: "agt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose key it is; ``agent_id`` and ``agent_name`` are an agent's.

    Attributes:
        short_id: Names the key itself; the key cannot be made from it.
    """

    role: Role
    short_id: str
    agent_id: UUID | None = None
    agent_name: str | None = None

    @property
    def actor(self) -> str:
        """Return how the audit trail names the caller."""
        return f"{self.role}:{self.agent_name or self.short_id}"


async def issue_key(db: Connection, role: Role, *, agent_id: UUID | None = None) -> str:
    """Make a key, store its digest, and return it: it is never to be had again."""
    short_id = base64.b32encode(secrets.token_bytes(7))[:10].decode().lower()
    secret = secrets.token_urlsafe(32)
    await fetch_value(
        db,
        "insert_key",
        short_id=short_id,
        secret_sha256=_digest(secret),
        role=role.value,
        agent_id=agent_id,
    )
    return f"brokkr_{_KIND[role]}{short_id}_{secret}"


async def find_caller(db: Connection, key: str) -> Caller | None:
    """Say whose key this is; None if it opens nothing."""
    parts = _KEY.fullmatch(key)
    if parts is None:
        return None
    row = await fetch_one(db, "find_key", short_id=parts[1])
    if row is None or not hmac.compare_digest(row["secret_sha256"], _digest(parts[2])):
        return None
    return Caller(
        role=Role(row["role"]),
        short_id=parts[1],
        agent_id=row["agent_id"],
        agent_name=row["agent_name"],
    )


async def revoke_agent_keys(db: Connection, agent_id: UUID) -> None:
    """Close all keys of an agent."""
    await fetch_value(db, "revoke_agent_keys", agent_id=agent_id)


async def create_admin_key(url: str) -> str:
    """
    Make an admin key in the database at ``url``, and its schema if need be.

    Raises:
        DatabaseUnavailable: The database does not let us in.
    """
    await migrate(url)
    async with connect(url) as db:
        return await issue_key(db, Role.ADMIN)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()

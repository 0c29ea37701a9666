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
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from brokkr.broker.db.migrate import migrate
from brokkr.broker.db.notifications import tell_revoked
from brokkr.broker.db.pool import Connection, connect
from brokkr.broker.db.statements import fetch_all, fetch_one, fetch_value
from brokkr.wire.tenants import CreatedKey, KeyBody
from brokkr.work.errors import InvalidInput, KeyNotFound, LastAdminKey


class Role(StrEnum):
    """What a key is for."""

    ADMIN = "admin"
    GENERATOR = "generator"
    AGENT = "agent"
    VIEWER = "viewer"


_KIND: Final = {
    Role.ADMIN: "adm",
    Role.GENERATOR: "gen",
    Role.AGENT: "agt",
    Role.VIEWER: "vwr",
}
_KEY = re.compile(rf"brokkr_(?:{'|'.join(_KIND.values())})([a-z2-7]{{10}})_([A-Za-z0-9_-]{{43}})")
_NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose key it is: an agent's or a generator's has an id and a name, no other has.

    Attributes:
        short_id: Names the key itself; the key cannot be made from it.
    """

    role: Role
    short_id: str
    agent_id: UUID | None = None
    agent_name: str | None = None
    generator_id: UUID | None = None
    generator_name: str | None = None

    @property
    def actor(self) -> str:
        """Return how the audit trail names the caller."""
        return f"{self.role}:{self.agent_name or self.generator_name or self.short_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SentKey:
    """A key as somebody has sent it: well-formed, and perhaps good for something."""

    short_id: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A living key as it is stored."""

    digest: bytes
    caller: Caller

    def is_opened_by(self, sent: SentKey) -> bool:
        """Compare the secrets, in a time that says nothing about them."""
        return hmac.compare_digest(self.digest, sent.digest)


def parse_key(text: str) -> SentKey | None:
    """Read what was sent as a key; None if no key looks like that."""
    parts = _KEY.fullmatch(text)
    if parts is None:
        return None
    return SentKey(short_id=parts[1], digest=_digest(parts[2]))


async def issue_key(
    db: Connection,
    role: Role,
    *,
    agent_id: UUID | None = None,
    generator_id: UUID | None = None,
    name: str = "",
) -> CreatedKey:
    """Make a key and store its digest; what is returned is never to be had again."""
    short_id = base64.b32encode(secrets.token_bytes(7))[:10].decode().lower()
    secret = secrets.token_urlsafe(32)
    created_at = await fetch_value(
        db,
        "insert_key",
        short_id=short_id,
        secret_sha256=_digest(secret),
        role=role.value,
        agent_id=agent_id,
        generator_id=generator_id,
        name=name,
    )
    return CreatedKey(
        short_id=short_id,
        role=role,
        name=name,
        created_at=created_at,
        key=f"brokkr_{_KIND[role]}{short_id}_{secret}",
    )


async def find_key(db: Connection, sent: SentKey) -> StoredKey | None:
    """Return the living key that was sent; None if it opens nothing."""
    row = await fetch_one(db, "find_key", short_id=sent.short_id)
    if row is None:
        hmac.compare_digest(_NO_DIGEST, sent.digest)  # whether an id exists takes no longer
        return None
    key = StoredKey(
        digest=row["secret_sha256"],
        caller=Caller(
            role=Role(row["role"]),
            short_id=sent.short_id,
            agent_id=row["agent_id"],
            agent_name=row["agent_name"],
            generator_id=row["generator_id"],
            generator_name=row["generator_name"],
        ),
    )
    return key if key.is_opened_by(sent) else None


async def list_keys(db: Connection, *, before: str | None, limit: int) -> list[KeyBody]:
    """List all keys ever made, newest first, from behind the key ``before`` on."""
    rows = await fetch_all(db, "list_keys", before=before, limit=limit)
    return [KeyBody.model_validate(dict(row)) for row in rows]


async def revoke_key(db: Connection, short_id: str) -> None:
    """
    Close a key.

    Raises:
        KeyNotFound: No living key has this short id.
        LastAdminKey: Nobody could make another one after that.
    """
    row = await fetch_one(db, "revoke_key", short_id=short_id)
    assert row is not None
    if row["is_revoked"]:
        await tell_revoked(db, [short_id])
        return
    raise LastAdminKey(short_id) if row["is_living_admin"] else KeyNotFound(short_id)


async def revoke_agent_keys(db: Connection, agent_id: UUID) -> None:
    """Close all keys of an agent."""
    rows = await fetch_all(db, "revoke_agent_keys", agent_id=agent_id)
    await tell_revoked(db, [row["short_id"] for row in rows])


async def revoke_generator_keys(db: Connection, generator_id: UUID) -> None:
    """Close all keys of a generator."""
    rows = await fetch_all(db, "revoke_generator_keys", generator_id=generator_id)
    await tell_revoked(db, [row["short_id"] for row in rows])


async def note_key_use(db: Connection, short_ids: Sequence[str]) -> None:
    """Note that keys are in use, of those for which that was not noted lately."""
    await fetch_value(db, "note_key_use", short_ids=short_ids)


async def create_admin_key(url: str) -> str:
    """
    Make an admin key in the database at ``url``, and its schema if need be.

    Raises:
        DatabaseUnavailable: The database does not let us in.
    """
    await migrate(url)
    async with connect(url) as db:
        return (await issue_key(db, Role.ADMIN)).key


async def keep_admin_key(db: Connection, text: str) -> None:
    """
    Store an admin's key that somebody else has made; one that was revoked stays so.

    Raises:
        InvalidInput: It is not formed like one.
    """
    sent = parse_key(text)
    if sent is None or not text.startswith(f"brokkr_{_KIND[Role.ADMIN]}"):
        raise InvalidInput(
            "broker.admin_key",
            "is no admin key: 'brokkr_adm', 10 of a-z and 2-7, '_', 43 of A-Z, a-z, 0-9, - and _",
        )
    await fetch_value(db, "insert_admin_key", short_id=sent.short_id, secret_sha256=sent.digest)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()

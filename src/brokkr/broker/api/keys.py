"""Keys: of admins and viewers to be made, of everybody to be listed and revoked."""

from typing import Annotated

from fastapi import Query

from brokkr.broker.api.call import Call
from brokkr.broker.api.work import Limit
from brokkr.broker.db import keys
from brokkr.broker.db.keys import Role
from brokkr.broker.db.pool import transaction
from brokkr.wire.tenants import CreatedKey, CreateKey, KeyPage


async def create_key(call: Call, body: CreateKey) -> CreatedKey:
    """Make a key for an admin or a viewer.  It is shown this once."""
    async with transaction(call.database) as db:
        return await keys.issue_key(db, Role(body.role), name=body.name)


async def list_keys(
    call: Call,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(max_length=10)] = None,
) -> KeyPage:
    """List all keys, newest first: agents' and generators' too, revoked ones too."""
    async with call.search() as share, transaction(share) as db:
        items = await keys.list_keys(db, before=cursor, limit=limit)
    return KeyPage(items=items, next_cursor=items[-1].short_id if len(items) == limit else None)


async def revoke_key(call: Call, short_id: str) -> None:
    """Revoke a key, whosever it is; the last admin key stays."""
    async with transaction(call.database) as db:
        await keys.revoke_key(db, short_id)
    call.broker.callers.forget()

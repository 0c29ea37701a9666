"""Generators: tenants who submit Work and see their own; admins make and limit them."""

from typing import Annotated

from fastapi import Query

from brokkr.broker.api.call import Call
from brokkr.broker.api.work import Limit
from brokkr.broker.db import generators
from brokkr.broker.db.pool import transaction
from brokkr.wire.tenants import (
    CreatedGenerator,
    CreateGenerator,
    GeneratorBody,
    GeneratorPage,
    LimitGenerator,
)
from brokkr.work.errors import InvalidInput
from brokkr.work.labels import problem_with_name


async def create_generator(call: Call, body: CreateGenerator) -> CreatedGenerator:
    """Create a generator.  The answer holds its key, which is shown this once."""
    problem = problem_with_name(body.name)
    if problem is not None:
        raise InvalidInput("name", problem)
    async with transaction(call.database) as db:
        created = await generators.create_generator(db, body)
    call.location = f"/api/v1/generators/{created.id}"
    return created


async def list_generators(
    call: Call,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(max_length=63)] = None,
) -> GeneratorPage:
    """List generators by name."""
    async with call.search() as share, transaction(share) as db:
        items = await generators.list_generators(db, after=cursor, limit=limit)
    return GeneratorPage(items=items, next_cursor=items[-1].name if len(items) == limit else None)


async def get_generator(call: Call, ref: str) -> GeneratorBody:
    """Show one generator, by id or name, with how much of its Work is pending."""
    async with transaction(call.database) as db:
        return await generators.get_generator(db, ref)


async def limit_generator(call: Call, ref: str, body: LimitGenerator) -> GeneratorBody:
    """Set limits, and remove those that are null; they hold from the next submission on."""
    async with transaction(call.database) as db:
        return await generators.limit_generator(db, ref, body)


async def delete_generator(call: Call, ref: str) -> None:
    """Delete a generator: its key is revoked, its name is free, and its Work goes on."""
    async with transaction(call.database) as db:
        await generators.delete_generator(db, ref)
    call.broker.callers.forget()


async def rotate_generator_key(call: Call, ref: str) -> CreatedGenerator:
    """Make a new key for a generator, and revoke the old one."""
    async with transaction(call.database) as db:
        rotated = await generators.rotate_generator_key(db, ref)
    call.broker.callers.forget()
    return rotated

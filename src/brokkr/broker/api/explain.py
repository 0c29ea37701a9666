"""Why a Work is where it is."""

from typing import Annotated
from uuid import UUID

from fastapi import Query

from brokkr.broker.api.auth import check_sees
from brokkr.broker.api.call import Call
from brokkr.broker.db import execution_log, explain
from brokkr.broker.db.keys import Role
from brokkr.broker.db.pool import transaction
from brokkr.wire.explain import Explanation


async def explain_work(
    call: Call,
    work_id: UUID,
    agent: Annotated[
        str | None, Query(max_length=63, description="One agent to look at, by name or id.")
    ] = None,
) -> Explanation:
    """Say why a Work is where it is: of pending Work, what keeps each agent from claiming it."""
    async with call.search() as share, transaction(share) as db:
        work = await execution_log.get_work(db, work_id)
        check_sees(call.caller, work)
        is_tenant = call.caller.role is Role.GENERATOR
        return await explain.explain_work(db, work, agent=agent, for_tenant=is_tenant)

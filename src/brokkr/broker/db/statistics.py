"""What the planner knows of the queue's tables."""

# Note [Plans for an empty queue]
#
# Plans are kept (see :data:`brokkr.broker.db.pool.SESSION`).  For an empty table one index is
# as good as any other, so a plan that was made then may read a whole one to find a row by its
# id.  A hundred thousand Works later each claim takes 100 ms, until the server gets round to
# its statistics, which takes it a minute.  So the broker looks after them itself.

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.statements import fetch_value


async def refresh_statistics(db: Connection) -> bool:
    """Let everybody plan anew if the queue has grown a lot; say whether it has."""
    has_grown: bool = await fetch_value(db, "find_outgrown_statistics")
    if has_grown:
        await fetch_value(db, "refresh_statistics")
    return has_grown

"""
Which targets are lanes: how many there may be, and when one comes to rest.

Every claim, every parked poll and every relabelled agent pays for each lane, so a target is a
lane only while Work is queued for it, and for some minutes after.  Its selector stays for as long
as the execution log refers to it; so does whom it selected last.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeAlias
from uuid import UUID

from brokkr.broker.db.pool import Connection
from brokkr.broker.db.selectors import wake_selector
from brokkr.broker.db.statements import fetch_all, fetch_one, fetch_value
from brokkr.work.errors import LimitReached

REST_AFTER: Final = timedelta(minutes=3)
"""For so long nothing is queued in a lane before it rests."""
_RETRY_SECONDS: Final = 60

Lane: TypeAlias = tuple[bytes, str]
"""The digest of a target, and a work type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """How many targets may have Work queued at once.

    Attributes:
        each: Of one generator; None for an admin.
        total: Of all together.  As many more as are stored at the same moment are let in.
    """

    each: int | None = None
    total: int = 20_000


@dataclass(slots=True, kw_only=True)
class Room:
    """How many more targets may become lanes in this transaction.

    Attributes:
        lanes: Those that are lanes already.
        mine: How many more the generator may have; None if it has no limit.
        others: How many more there may be.
    """

    limits: LaneLimits
    lanes: set[Lane] = field(default_factory=set)
    mine: int | None = None
    others: int = 0

    def problem(self, lane: Lane) -> LimitReached | None:
        """Say which limit keeps a target from becoming a lane; None if there is room."""
        if lane in self.lanes:
            return None
        if self.mine is not None and self.mine < 1:
            return LimitReached(
                f"you have Work queued for {self.limits.each} distinct targets, the maximum; use "
                "one of those targets, or wait until one has had nothing queued for a few minutes, "
                "or ask for a higher broker.max_targets_per_generator",
                retry_after=_RETRY_SECONDS,
            )
        if self.others < 1:
            return LimitReached(
                f"Work is queued for {self.limits.total} distinct targets, the maximum; use a "
                "target that has Work queued, or wait until another has had nothing queued for a "
                "few minutes, or ask for a higher broker.max_targets",
                retry_after=_RETRY_SECONDS,
            )
        return None

    def take(self, lane: Lane) -> None:
        """Count a target as a lane."""
        if lane not in self.lanes:
            self.lanes.add(lane)
            self.others -= 1
            if self.mine is not None:
                self.mine -= 1


async def find_room(
    db: Connection, lanes: Collection[Lane], *, generator_id: UUID | None, limits: LaneLimits
) -> Room:
    """
    Say how many of some targets may become lanes.

    No other submission of this generator makes lanes until the transaction ends; other
    generators' do.
    """
    if generator_id is not None:
        await fetch_value(db, "lock_targets", generator_id=generator_id)
    rows = await fetch_all(
        db,
        "list_known_lanes",
        digests=[digest for digest, _ in lanes],
        work_types=[work_type for _, work_type in lanes],
    )
    counted = await fetch_one(
        db, "count_lanes", generator_id=generator_id, enough=max(limits.total, limits.each or 0)
    )
    assert counted is not None
    has_limit = generator_id is not None and limits.each is not None
    return Room(
        limits=limits,
        lanes={(row["digest"], row["work_type"]) for row in rows},
        mine=(limits.each or 0) - counted["of_generator"] if has_limit else None,
        others=limits.total - counted["of_all"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at the next few lanes has come to.

    Attributes:
        last: The id of the last one that was looked at; None if there are no more.
        may_rest: Those in which nothing has been queued for long enough.
    """

    last: int | None
    may_rest: list[int]


async def note_idle_lanes(
    db: Connection, *, after: int, limit: int, age: timedelta = REST_AFTER
) -> Look:
    """Note since when nothing is queued in the next few lanes, by id."""
    rows = await fetch_all(db, "note_idle_lanes", after=after, limit=limit, age=age)
    return Look(
        last=rows[-1]["id"] if len(rows) == limit else None,
        may_rest=[row["id"] for row in rows if row["may_rest"]],
    )


async def rest_lanes(db: Connection, selector_ids: Sequence[int]) -> list[int]:
    """Let those of some lanes rest in which still nothing is queued; return which do."""
    # Shared, as for a new selector: who relabels an agent puts it into those that it has read.
    await fetch_value(db, "lock_selectors_shared")
    rows = await fetch_all(db, "lock_selector_rows", ids=selector_ids)
    # A statement of its own: only what begins after the lock sees all that came before it.
    rested = await fetch_all(db, "rest_lanes", ids=[row["id"] for row in rows])
    return [row["id"] for row in rested]


async def wake_lost_lanes(db: Connection, *, limit: int) -> list[int]:
    """Make those selectors lanes again that rest although Work is queued for them."""
    lost = await fetch_all(db, "list_lost_lanes", limit=limit)
    if not lost:
        return []
    await fetch_value(db, "lock_selectors_shared")
    for row in lost:
        lane: Lane = row["digest"], row["work_type"]
        await wake_selector(db, *lane, targets=row["targets"])
        if row["excluded"]:  # a narrower one, of which that was the whole
            await fetch_value(
                db,
                "wake_selector",
                digest=row["digest"],
                work_type=row["work_type"],
                excluded=row["excluded"],
                generator_id=None,
            )
            await fetch_all(db, "refresh_narrower_selectors", selector_id=row["id"])
    return [row["id"] for row in lost]


async def drop_strays(db: Connection, *, after: int, limit: int) -> int:
    """
    Delete members of the next few selectors that rest, by id.

    Returns:
        The id behind which to go on; 0 if these were the last.
    """
    row = await fetch_one(db, "drop_strays", after=after, limit=limit)
    assert row is not None
    return row["last"] or 0

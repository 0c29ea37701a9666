"""
Tell a Work's story while it happens, one line for each change.

What is told is made of what the broker says of the Work, times included, so a story
that is picked up late is the same story.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final
from uuid import UUID

from brokkr.cli.output import plain
from brokkr.client import BrokerClient
from brokkr.wire.bodies import Progress, WorkBody, WorkState
from brokkr.work.errors import BrokerUnavailable

LOOK_SECONDS: Final = 0.3
PATIENCE_SECONDS: Final = 120.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Chapter:
    """
    One thing that happened.

    Attributes:
        round: In which claim's time; the same text may come again in the next one.
        at: When, if the broker says so.
    """

    text: str
    round: int = 0
    at: datetime | None = None


async def follow(client: BrokerClient, work: WorkBody, *, say: Say) -> WorkBody:
    """
    Tell what happens to a Work until it is finished, and return it then.

    Raises:
        BrokerUnavailable: The broker has not answered for :data:`PATIENCE_SECONDS`.
    """
    told: set[tuple[str, int]] = set()
    latest = 0.0
    try:
        while True:
            for chapter in story(work):
                if (chapter.text, chapter.round) not in told:
                    told.add((chapter.text, chapter.round))
                    at = chapter.at or datetime.now(UTC)
                    latest = max(latest, (at - work.created_at).total_seconds())
                    say(f"{latest:7.1f} s  {plain(chapter.text)}")
            if work.status.is_finished:
                return work
            await asyncio.sleep(LOOK_SECONDS)
            work = await _look(client, work.id, say=say)
    except asyncio.CancelledError:
        say(
            f"not followed any more; the work goes on\n"
            f"  to follow it again:  brokkr work get {work.id} --follow\n"
            f"  to cancel it:        brokkr work cancel {work.id}"
        )
        raise


def story(work: WorkBody) -> Iterator[Chapter]:
    """Yield what is known of a Work's life, in order."""
    yield Chapter("queued", at=work.created_at)
    if work.status is WorkState.PENDING:
        if work.lost_claims:
            yield Chapter(f"queued again: lost by its agent ({work.lost_claims})")
        if work.eligible_agents == 0:
            yield Chapter("waiting: no agent matches the target")
    if work.claimed_at is not None:
        name = work.agent or work.claimed_by
        yield Chapter(f"claimed by {name}", round=work.round, at=work.claimed_at)
    if work.progress is not None and work.status is WorkState.CLAIMED:
        text = _attempt(work.progress, of=work.max_retries + 1)
        yield Chapter(text, round=work.round, at=work.progress.reported_at)
    if work.cancel_requested_at is not None:
        yield Chapter("cancel requested", at=work.cancel_requested_at)
    if work.status.is_finished:
        why = "" if work.success or not work.result_message else f": {work.result_message}"
        yield Chapter(f"{work.status.lower()}{why}", round=work.round, at=work.completed_at)


def _attempt(progress: Progress, *, of: int) -> str:
    number = progress.attempt
    if progress.retry_at is not None:
        failed = progress.message or f"attempt {progress.retries} failed"
        return f"{failed}; retry at {progress.retry_at.astimezone(UTC):%H:%M:%S} UTC"
    detail = progress.message.removeprefix(f"attempt {number} of {of}").removeprefix(": ")
    return f"attempt {number} {progress.phase.lower()}" + (f": {detail}" if detail else "")


async def _look(client: BrokerClient, work_id: UUID, *, say: Say) -> WorkBody:
    """Ask for the Work; a broker that is being restarted is waited for."""
    away_since = None
    while True:
        try:
            return await client.get_work(work_id)
        except BrokerUnavailable as error:
            if away_since is None:
                away_since = monotonic()
                say(f"the broker does not answer; asking again ({error})")
            elif monotonic() - away_since > PATIENCE_SECONDS:
                raise
        await asyncio.sleep(1)

"""A Work's story, told of what the broker says."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from brokkr.cli.follow import follow, story
from brokkr.wire.bodies import Progress, WorkBody, WorkState
from brokkr.work.errors import BrokerUnavailable

START = datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def a_work(status: WorkState = WorkState.PENDING, **fields: Any) -> WorkBody:
    return WorkBody.model_validate(
        {
            "id": UUID(int=1),
            "work_type": "build",
            "status": status,
            "created_at": START,
            "max_retries": 3,
            "claim_timeout_seconds": 60,
            **fields,
        }
    )


def claimed(progress: Progress | None = None, **fields: Any) -> WorkBody:
    given = {"claimed_at": after(1), "agent": "edge-1", "round": 1, "progress": progress}
    return a_work(WorkState.CLAIMED, **{**given, **fields})


def progress(phase: str, attempt: int, message: str = "", **fields: Any) -> Progress:
    return Progress(
        phase=phase,
        attempt=attempt,
        retries=attempt - 1,
        message=message,
        reported_at=after(2),
        **fields,
    )


def texts(work: WorkBody) -> list[str]:
    return [each.text for each in story(work)]


@pytest.mark.parametrize(
    ("work", "last"),
    [
        (a_work(eligible_agents=1), "queued"),
        (a_work(eligible_agents=0), "waiting: no agent matches the target"),
        (a_work(lost_claims=2), "queued again: lost by its agent (2)"),
        (claimed(), "claimed by edge-1"),
        (claimed(progress("Running", 1)), "attempt 1 running"),
        (
            claimed(progress("Running", 2, "attempt 2 of 4: pulling")),
            "attempt 2 running: pulling",
        ),
        (
            claimed(progress("Pending", 2, "attempt 1 failed: evicted", retry_at=after(10))),
            "attempt 1 failed: evicted; retry at 03:04:10 UTC",
        ),
        (claimed(cancel_requested_at=after(3)), "cancel requested"),
        (a_work(WorkState.SUCCEEDED, success=True, result_message="built"), "succeeded"),
        (a_work(WorkState.FAILED, success=False, result_message="no git"), "failed: no git"),
        (a_work(WorkState.QUARANTINED, success=False), "quarantined"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_last_chapter_is_what_happened_last(work: WorkBody, last: str) -> None:
    assert texts(work)[-1] == last


def test_a_finished_work_is_told_from_its_beginning() -> None:
    work = a_work(
        WorkState.SUCCEEDED,
        claimed_at=after(1),
        agent="edge-1",
        completed_at=after(9),
        success=True,
    )

    assert [(each.text, each.at) for each in story(work)] == [
        ("queued", after(0)),
        ("claimed by edge-1", after(1)),
        ("succeeded", after(9)),
    ]


class Script:
    """Plays a broker that says one thing after the other."""

    def __init__(self, *answers: WorkBody | BrokerUnavailable) -> None:
        self.answers = list(answers)

    async def get_work(self, work_id: UUID) -> WorkBody:
        answer = self.answers.pop(0)
        if isinstance(answer, BrokerUnavailable):
            raise answer
        return answer


async def test_each_change_is_said_once_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokkr.cli.follow.LOOK_SECONDS", 0)
    running = claimed(progress("Running", 1))
    done = a_work(
        WorkState.SUCCEEDED,
        claimed_at=after(1),
        agent="edge-1",
        round=1,
        completed_at=after(65.25),
        success=True,
    )
    lines: list[str] = []

    finished = await follow(
        Script(a_work(), claimed(), running, running, done),  # type: ignore[arg-type]
        a_work(),
        say=lines.append,
    )

    assert finished == done
    assert lines == [
        "    0.0 s  queued",
        "    1.0 s  claimed by edge-1",
        "    2.0 s  attempt 1 running",
        "   65.2 s  succeeded",
    ]


async def test_a_second_claim_is_told_like_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokkr.cli.follow.LOOK_SECONDS", 0)
    lines: list[str] = []
    again = claimed(round=2, claimed_at=after(100))
    done = a_work(WorkState.FAILED, success=False, round=2, completed_at=after(101))

    await follow(Script(again, done), claimed(), say=lines.append)  # type: ignore[arg-type]

    assert [line.split("s  ")[1] for line in lines].count("claimed by edge-1") == 2


async def test_a_broker_that_stays_away_ends_the_following(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brokkr.cli.follow.LOOK_SECONDS", 0)
    monkeypatch.setattr("brokkr.cli.follow.PATIENCE_SECONDS", 0)
    away = BrokerUnavailable("no answer")
    lines: list[str] = []

    with pytest.raises(BrokerUnavailable):
        await follow(Script(away, away), a_work(), say=lines.append)  # type: ignore[arg-type]

    assert lines[-1] == "the broker does not answer; asking again (no answer)"

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from brokkr.broker.db import outage
from brokkr.broker.db.outage import Outage
from brokkr.work.errors import DatabaseUnavailable

AWAY, REFUSED = DatabaseUnavailable("away"), DatabaseUnavailable("wrong password")


def said(view: Outage, *errors: DatabaseUnavailable) -> Sequence[str]:
    with capture_logs() as logs:
        for error in errors:
            view.note(error)
    return [line["error"] for line in logs]


def test_the_same_is_said_once_and_another_thing_at_once() -> None:
    assert said(Outage(), AWAY, AWAY, REFUSED, REFUSED) == ["away", "wrong password"]


def test_who_reminds_says_it_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(outage, "monotonic", lambda: now)
    reminding, other = Outage(reminds=True), Outage()
    said(reminding, AWAY)
    said(other, AWAY)

    now = 59
    assert said(reminding, AWAY) == []
    now = 61
    assert said(reminding, AWAY, AWAY) == ["away"]
    assert said(other, AWAY) == []


def test_the_end_is_said_once_if_there_was_an_outage() -> None:
    view = Outage(where="here")
    with capture_logs() as logs:
        view.end()
        view.note(AWAY)
        view.end()
        view.end()
        view.note(AWAY)

    assert [line["event"] for line in logs] == [
        "database not reached",
        "database reached again",
        "database not reached",
    ]
    assert all(line["where"] == "here" for line in logs)


def test_a_mistake_is_told_with_its_traceback_and_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([0.0, 1, 59, 61, 62])
    monkeypatch.setattr(outage, "monotonic", lambda: next(times))
    view, mistake = Outage(job="a job"), ZeroDivisionError("so")

    with capture_logs() as logs:
        for _ in range(4):
            view.note(mistake)
        view.end()
        view.note(AWAY)

    assert [(line["event"], line.get("exc_info")) for line in logs] == [
        ("job failed", mistake),
        ("job failed", mistake),
        ("job done again", None),
        ("database not reached", None),
    ]

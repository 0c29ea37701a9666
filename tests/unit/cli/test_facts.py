"""What people are shown of a Work."""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from brokkr.cli.facts import list_facts, render_events, render_explanation
from brokkr.wire.bodies import WorkBody
from brokkr.wire.events import WorkEvent
from brokkr.wire.explain import AgentStanding, Counted, Explanation, Waiting
from brokkr.work.explain import Rule

START = datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC)


def a_work(status: str, **fields: Any) -> WorkBody:
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


def test_whose_it_is_and_how_long_it_took_is_shown() -> None:
    work = a_work(
        "SUCCEEDED",
        generator="ci",
        labels={"team": "ml", "app": "shop"},
        handoffs=1,
        max_handoffs=2,
        queue_seconds=2.25,
        run_seconds=3725,
        not_before=START,
    )

    facts = {name: value for name, value in list_facts(work) if value}

    expected = {
        "generator": "ci",
        "labels": "app=shop,team=ml",
        "hand-offs": "1 of 2",
        "waited": "2.2 s",
        "ran": "1 h 2 min",
    }
    assert facts | expected == facts
    assert "not before" not in facts  # that is over


def test_what_a_pending_work_waits_for_is_shown() -> None:
    facts = dict(list_facts(a_work("PENDING", not_before=START, start_deadline=START)))

    assert facts["not before"] == facts["start deadline"] == "2026-01-02 03:04:00Z"


def test_a_result_is_shown_with_the_history_of_its_attempts() -> None:
    result = {
        "executor": {"kind": "TaskRun", "name": "r-x7k2p"},
        "git": {"commit_sha": "5952cc5a", "commit_author": "rig"},
        "vulnerabilities": [{"id": f"CVE-{n}", "severity": "high"} for n in range(4)],
        "warnings": ["it builds one image"],
        "attempts": [
            {
                "number": 1,
                "reason": "GitError",
                "class": "GitTransport",
                "fault": "source",
                "message": "hung up",
            },
            {"number": 2, "reason": "BuildCompleted", "message": "built"},
        ],
    }

    facts = dict(list_facts(a_work("SUCCEEDED", result=result)))

    expected = {
        "executor": "TaskRun r-x7k2p",
        "commit": "5952cc5a, rig",
        "vulnerabilities": "4: CVE-0 high, CVE-1 high, CVE-2 high, ...",
        "warning": "it builds one image",
        "attempt 1": "GitError (GitTransport, fault: source): hung up",
        "attempt 2": "BuildCompleted: built",
    }
    assert facts | expected == facts


@pytest.mark.parametrize("junk", [None, 7, "text", [7], {"a": "b"}, [{}], [[]]])
def test_a_result_of_another_shape_is_no_reason_to_fail(junk: Any) -> None:
    fields = (
        *("git", "executor", "vulnerabilities", "warnings", "attempts", "size", "image"),
        *("fault", "infrastructure_retries"),
    )

    assert list_facts(a_work("SUCCEEDED", result=dict.fromkeys(fields, junk)))


def test_whose_failure_it_was_and_what_the_cluster_lost_is_shown() -> None:
    result = {"fault": "registry", "infrastructure_retries": 2, "attempts": []}

    facts = dict(list_facts(a_work("FAILED", result=result)))
    progress = {**PROGRESS, "infrastructure_retries": 1}
    meanwhile = dict(list_facts(a_work("CLAIMED", progress=progress)))

    assert (facts["fault"], facts["infrastructure retries"]) == ("registry", "2")
    assert (meanwhile["fault"], meanwhile["infrastructure retries"]) == ("", "1")


PROGRESS = {"phase": "Running", "attempt": 1, "retries": 0, "reported_at": START}


@pytest.mark.parametrize(
    ("status", "step", "shown"),
    [
        ("CLAIMED", "build", "attempt 1 running, step build"),
        ("CLAIMED", None, "attempt 1 running"),
        ("FAILED", "build", ""),
    ],
)
def test_what_its_holder_is_at_is_shown_while_it_is_held(
    status: str, step: str | None, shown: str
) -> None:
    work = a_work(status, progress={**PROGRESS, "step": step})

    assert dict(list_facts(work))["progress"] == shown


def test_of_work_that_nothing_is_said_of_no_progress_is_shown() -> None:
    assert dict(list_facts(a_work("CLAIMED")))["progress"] == ""


def test_events_have_a_line_each() -> None:
    event = WorkEvent(number=2, at=START, kind="claimed", actor="agent:edge-1", detail={})

    assert re.split(r"  +", render_events([event]).splitlines()[1]) == [
        *("2", "2026-01-02 03:04:00Z", "claimed", "agent:edge-1", "claimed by edge-1"),
    ]


def a_standing(name: str, rule: Rule, ahead: Counted | None = None) -> AgentStanding:
    return AgentStanding(id=UUID(int=2), name=name, rule=rule, sentence="why not", ahead=ahead)


def test_an_explanation_is_a_sentence_and_a_line_for_each_agent() -> None:
    found = Explanation(
        work=a_work("PENDING"),
        summary="All in one.",
        waiting=Waiting(
            ahead=Counted(count=0, is_exact=True),
            counts={Rule.MAY_CLAIM: 1, Rule.DRAINED: 41},
            agents=[
                a_standing("a", Rule.MAY_CLAIM, Counted(count=1000, is_exact=False)),
                a_standing("b", Rule.DRAINED),
            ],
        ),
    )

    lines = render_explanation(found).splitlines()

    assert lines[0] == "All in one."
    assert [line.split() for line in lines[2:5]] == [
        ["AGENT", "RULE", "AHEAD", "WHY"],
        ["a", "may_claim", "1000+", "why", "not"],
        ["b", "drained", "-", "why", "not"],
    ]
    assert lines[5] == "and 40 more; --agent NAME tells of one of them"


def test_of_work_that_does_not_wait_the_sentence_is_all() -> None:
    assert render_explanation(Explanation(work=a_work("CLAIMED"), summary="Held.")) == "Held."

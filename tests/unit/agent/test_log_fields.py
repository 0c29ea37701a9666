"""What every log line about a Work says of it."""

from dataclasses import replace

from brokkr.agent.log_fields import about, about_claim
from brokkr.work.model import WorkStatus
from brokkr.work.trace import TraceContext
from support.factories import WORK_ID, a_work


def test_a_work_is_named_by_id_round_and_attempt() -> None:
    work = a_work(status=WorkStatus(retries=2))

    assert about(work) == {"work_id": str(WORK_ID), "round": 1, "attempt": 3}


def test_a_work_of_a_trace_names_that_too() -> None:
    trace = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", is_sampled=False)
    work = replace(a_work(), trace=trace)

    assert about(work)["trace_id"] == trace.trace_id
    assert about_claim(WORK_ID, round=2, span=trace) == {
        "work_id": str(WORK_ID),
        "round": 2,
        "trace_id": trace.trace_id,
    }

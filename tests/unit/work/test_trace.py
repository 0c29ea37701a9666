"""The rules of W3C Trace Context, Level 1, as its text gives them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.work.trace import TraceContext

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"


def test_the_recommendation_s_own_example_is_read() -> None:
    assert TraceContext.parse(VALID) == TraceContext(TRACE, SPAN, is_sampled=True)


@pytest.mark.parametrize(
    ("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)]
)
def test_of_the_flags_only_the_sampled_one_counts(flags: str, is_sampled: bool) -> None:
    trace = TraceContext.parse(f"00-{TRACE}-{SPAN}-{flags}")

    assert trace is not None
    assert trace.is_sampled is is_sampled
    assert str(trace) == f"00-{TRACE}-{SPAN}-{int(is_sampled):02}"


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"00-{'0' * 32}-{SPAN}-01",  # no trace
        f"00-{TRACE}-{'0' * 16}-01",  # no parent
        f"ff-{TRACE}-{SPAN}-01",  # a version that is forbidden
        f"00-{TRACE.upper()}-{SPAN}-01",  # capital letters
        f"00-{TRACE}-{SPAN}-01-more",  # more than version 00 has
        f"00-{TRACE}-{SPAN}-01-",
        f"cc-{TRACE}-{SPAN}-01.more",  # a later version, but no dash before the rest
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN[1:]}-01",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-0g",
        f"{VALID}\n",
        VALID.replace("0af7", "\N{ARABIC-INDIC DIGIT ONE}" * 4),  # digits, but not ASCII's
        None,
        1,
        [VALID],
    ],
)
def test_what_breaks_a_rule_is_no_trace(header: object) -> None:
    assert TraceContext.parse(header) is None


@pytest.mark.parametrize("header", [f"cc-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-is-new"])
def test_a_later_version_is_understood_and_passed_on_as_ours(header: str) -> None:
    assert str(TraceContext.parse(header)) == VALID


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"))
def test_what_is_passed_on_is_valid_whatever_came(header: str) -> None:
    trace = TraceContext.parse(header)

    if trace is not None:
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", str(trace))
        assert TraceContext.parse(str(trace)) == trace


def test_a_child_is_another_span_of_the_same_trace_and_always_the_same_one() -> None:
    trace = TraceContext(TRACE, SPAN, is_sampled=True)

    one, two = trace.child("one"), trace.child("two")

    assert {one.trace_id, two.trace_id} == {TRACE}
    assert len({trace.span_id, one.span_id, two.span_id}) == 3
    assert TraceContext.parse(str(one)) == one
    assert one == trace.child("one")

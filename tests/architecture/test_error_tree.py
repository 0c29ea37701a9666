"""The tree of errors, as drawn, as defined and as it leaves over HTTP, is one tree."""

import re

from brokkr.wire.problem import STATUS, status_of
from brokkr.work import errors
from brokkr.work.errors import BrokkrError

DRAWN = re.compile(r"[├└]── (\w+)(?:\s+(\d{3}))?")


def the_kinds() -> list[type[BrokkrError]]:
    return [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, BrokkrError) and each is not BrokkrError
    ]


def test_every_error_is_drawn_in_the_order_of_its_definition() -> None:
    drawn = [name for name, _ in DRAWN.findall(errors.__doc__ or "")]

    assert drawn == [each.__name__ for each in the_kinds()]


def test_every_error_has_a_status() -> None:
    without = [each.__name__ for each in the_kinds() if not set(each.__mro__) & set(STATUS)]

    assert without == []


def test_the_drawn_statuses_are_those_that_are_sent() -> None:
    kinds = {each.__name__: each for each in the_kinds()}
    drawn = {name: int(status) for name, status in DRAWN.findall(errors.__doc__ or "") if status}

    assert drawn
    assert drawn == {name: status_of(kinds[name].__new__(kinds[name])) for name in drawn}


def test_no_two_errors_have_the_same_code() -> None:
    codes = [BrokkrError.code, *(each.code for each in the_kinds())]

    assert len(codes) == len(set(codes))

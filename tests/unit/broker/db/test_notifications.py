from collections import Counter
from uuid import uuid4

import pytest

from brokkr.broker.db.notifications import News

LIMIT = 7999
"""Bytes of a payload, by PostgreSQL's documentation of NOTIFY."""


def test_what_is_told_is_heard() -> None:
    news = News(works=Counter({7: 2, 12: 1}), agents={uuid4(), uuid4()})

    [payload] = news.render("me")

    assert News.parse(payload) == ("me", news)


def test_much_news_takes_several_payloads_that_are_small_enough() -> None:
    news = News(
        works=Counter({2**63 - each: 1_000_000 for each in range(1, 1001)}),
        agents={uuid4() for _ in range(700)},
    )

    payloads = news.render("0123456789ab")

    heard = News()
    for payload in payloads:
        assert len(payload.encode()) <= LIMIT
        heard.add(News.parse(payload)[1])
    assert heard == news


def test_no_news_take_no_payload() -> None:
    assert News().render("me") == []


@pytest.mark.parametrize(
    "payload",
    ["work 7", "7", "[]", "{}", '{"from":"me"}', '{"from":"me","works":{"x":1},"agents":[]}'],
)
def test_what_another_version_says_is_refused(payload: str) -> None:
    with pytest.raises(ValueError):
        News.parse(payload)

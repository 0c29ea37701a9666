from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokkr.agent.handlers.build import phrases
from brokkr.agent.handlers.build.phrases import (
    BUILDER_REFUSED,
    BUILDER_TRANSPORT,
    GIT_TRANSPORT,
    MAX_LINE,
    REGISTRY_REFUSAL,
    REGISTRY_TRANSPORT,
    Phrase,
    last_words,
    printable,
)

ALL = [each for each in vars(phrases).values() if isinstance(each, Phrase)]

# Texts that make a pattern slow which tries again from every place.
HOSTILE = [
    "pod " * 200_000,
    "repository '" * 80_000,
    "Remote branch " * 70_000,
    "x" * 1_000_000,
    "push 50" * 140_000,
    "time" * 250_000,
    "\n" * 1_000_000,
]


@settings(deadline=timedelta(seconds=10))
@given(text=st.text() | st.sampled_from(HOSTILE))
def test_whatever_a_text_is_the_answer_is_short_and_soon(text: str) -> None:
    for phrase in ALL:
        assert len(phrase.find_in(text) or "") <= MAX_LINE
    assert len(last_words(text)) <= MAX_LINE


def test_the_last_line_that_says_it_is_found_without_its_time() -> None:
    log = "2026/11/23 19:45:24 dial tcp: one\n2026/11/23 19:45:39 dial tcp: two\nbye\n"

    assert REGISTRY_TRANSPORT.find_in(log) == "dial tcp: two"
    assert last_words(log) == "bye"


def test_colours_and_what_no_database_can_store_are_left_out() -> None:
    assert last_words("\x1b[31merror:\x1b[0m not\0 \ud800here\x07") == "error: not   here"
    assert printable("one\ntwo") == "one two"


def test_what_came_long_before_the_end_does_not_count() -> None:
    assert REGISTRY_TRANSPORT.find_in("dial tcp: at first\n" + "went on\n" * 100) is None


@pytest.mark.parametrize(
    ("phrase", "line"),
    [
        # The first lines of each git step's log.
        (GIT_TRANSPORT, "Info: ssh (/usr/bin/ssh): OpenSSH_10.0p2, OpenSSL 3.5.9 29 Sep 2026"),
        # A port is not a status.
        (REGISTRY_TRANSPORT, 'Pushing the image to registry "r:5000/x"'),
        (REGISTRY_REFUSAL, "Pushed to r:4010/x"),
        # What the user's own commands say is not about images.
        (BUILDER_TRANSPORT, "psql: connection refused"),
        (BUILDER_REFUSED, "mkdir: /out: permission denied"),
    ],
)
def test_lines_that_only_look_like_it_say_nothing(phrase: Phrase, line: str) -> None:
    assert phrase.find_in(line) is None


@pytest.mark.parametrize(
    ("phrase", "line"),
    [
        (REGISTRY_REFUSAL, "HEAD http://r/v2/x/manifests/1: unexpected status code 401 Unauth…"),
        (REGISTRY_REFUSAL, "DENIED: requested access to the resource is denied"),
        (REGISTRY_REFUSAL, "failed to find registry credentials for r, available configurations"),
        (REGISTRY_REFUSAL, "tls: failed to verify certificate: x509: unknown authority"),
        (REGISTRY_TRANSPORT, "TOOMANYREQUESTS: pull rate limit"),
        (REGISTRY_TRANSPORT, "unexpected status code 503 Service Unavailable"),
        (REGISTRY_TRANSPORT, 'Get "https://r/v2/": EOF'),
        (REGISTRY_TRANSPORT, "read tcp 1.2.3.4:5: connection reset by peer"),
        (REGISTRY_TRANSPORT, "failed to run trivy: exit status 1"),
        (BUILDER_REFUSED, "Error: initializing source docker://r/x:1: manifest unknown"),
        (BUILDER_REFUSED, "failed to solve: r/x: pull access denied, repository does not exist"),
        (BUILDER_REFUSED, "Error: pushing image: unauthorized: authentication required"),
        (BUILDER_TRANSPORT, 'pinging container registry r: Get "https://r/v2/": dial tcp: no'),
        (BUILDER_TRANSPORT, "Error: reading manifest latest in r/x: toomanyrequests: slow down"),
    ],
)
def test_what_registries_and_builders_say_is_understood(phrase: Phrase, line: str) -> None:
    assert phrase.find_in(f"before\n{line}\nafter") == line

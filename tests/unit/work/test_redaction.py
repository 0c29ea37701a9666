"""What no text that is written down may hold."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brokkr.work.redaction import (
    HELD,
    KEY_LIMIT,
    SHAPES,
    Redactor,
    find_credential,
    redact,
    redact_all,
)

RECORDED = Path(__file__).parents[2] / "data" / "buildruns"
HARMLESS = """
basic facts; Basic Authentication; X509v3 Basic Constraints: critical; bearer token required
www-authenticate: Bearer realm="https://auth.example/token",service="registry.example"
http://127.0.0.1:3000/docs postgresql://db:5432/brokkr ssh://git@git.example:22/team/app.git
git@git.example:team/app.git user@example.org //registry.example/@scope/package
https://registry.example:5000/team/app@sha256:abcdef https://x.example:8080/a@b
docker://app:v1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
commit 9fceb02d0ae598e95dc970b74767f19372d61af8; id 123e4567-e89b-12d3-a456-426614174000
invalid token: expired; unexpected token: '<'; password: wrong; Password: ; token=$TOKEN
the secret 'registry-credentials' does not exist; secret: builder-dockercfg-x7k2p; auth: ok
"pushSecret": "regcred", "cloneSecret": "gitcred" imagePullSecret: pull; secretName: x2-creds
password=${PASSWORD} --password=$(cat /run/secrets/p) token: {{ secrets.NPM }} "token": null
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc npm ci; --secret id=npmrc,src=.npmrc
WARNING! Using --password via the CLI is insecure. Use --password-stdin. --token-file a1b2
Setting up passwd:amd64 (1:4.13+dfsg1-1) ... "passwd": "shp:x:1000:1000:shp:/home:/sbin/nologin"
brokkr_is_a_name the author=someone tokens=512 a non-token character; cookie: not found
certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUU=
eyJust a word; xoxb- is a prefix; AKIA; sk_live_; curl -fsSL https://x.example -o y; login -p
curl -u $USER:$PASSWORD https://x.example; token: v1.2.3; cache key: 3f4abc99aa; sig=a
""".splitlines()
AROUND = [
    ("", ""),
    (" ", " "),
    ("\n", "\n"),
    ("it failed: ", "\r\nnext"),
    ("(", " )"),
    ("\t[", " ]"),
    ("2026-01-01T00:00:00Z ", "\nİ ünïcode"),
]


def an_example(marked: str) -> tuple[str, str, str]:
    """Take an example apart: what comes before the secret, the secret, what comes after."""
    before, _, rest = marked.partition("«")
    secret, _, after = rest.partition("»")
    return before, secret, after


EXAMPLES = [(shape, an_example(each)) for shape in SHAPES for each in shape.examples]
names = [f"{shape.name}-{index}" for index, (shape, _) in enumerate(EXAMPLES)]


def in_pieces(text: str, *cuts: int) -> str:
    redactor, out, begin = Redactor(), [], 0
    for cut in sorted(cuts):
        out.append(redactor.feed(text[begin:cut]))
        begin = cut
    return "".join([*out, redactor.feed(text[begin:]), redactor.finish()])


@pytest.mark.parametrize(("shape", "example"), EXAMPLES, ids=names)
def test_each_shape_is_taken_out_at_each_place_and_nothing_else_is(
    shape: Any, example: tuple[str, str, str]
) -> None:
    before, secret, after = example
    instead = "*** key ***" if shape.is_key_block else "***"
    for left, right in AROUND:
        text = left + before + secret + after + right
        assert redact(text) == left + before + instead + after + right


@pytest.mark.parametrize(("shape", "example"), EXAMPLES, ids=names)
def test_each_shape_is_taken_out_wherever_it_is_cut(
    shape: Any, example: tuple[str, str, str]
) -> None:
    for left in ("", "x" * (HELD - 20) + " ", "line\n"):
        text = left + "".join(example) + " and more\n"
        whole = redact(text)
        assert example[1] not in whole
        for cut in range(len(left), len(text)):
            assert in_pieces(text, cut) == whole
        assert in_pieces(text, *range(len(text))) == whole


def test_no_two_shapes_have_one_name_and_each_begins_at_an_anchor() -> None:
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
    for shape, parts in EXAMPLES:
        match = shape.head.search("".join(parts))
        assert match is not None
        assert match[0].lower().startswith(shape.anchors)


@pytest.mark.parametrize(("shape", "example"), EXAMPLES, ids=names)
def test_only_what_is_certain_is_found_as_a_credential(
    shape: Any, example: tuple[str, str, str]
) -> None:
    found = find_credential("see " + "".join(example))

    assert (found is not None) == shape.is_certain


fragment = st.one_of(
    st.sampled_from(["".join(parts) for _, parts in EXAMPLES]),
    st.sampled_from(sorted({anchor for shape in SHAPES for anchor in shape.anchors})),
    st.sampled_from(
        ["-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "MIIEq7Zk2Xw9Rt4V"]
    ),
    st.sampled_from(["\n", "\r\n", "\\n", " ", '"', "'", '\\"', "=", ": ", "***", "@", ":", "/"]),
    st.sampled_from(["a" * 1000, "/" * 100, "word ", "İ", "Ünicode", "\\", "hunter2"]),
    st.text(max_size=5),
)
texts = st.lists(fragment, max_size=12).map("".join)


@given(texts, st.lists(st.integers(0, 6000), max_size=6))
@example("token='a\\" + "'b", [9])
def test_any_cut_gives_what_the_whole_gives(text: str, cuts: list[int]) -> None:
    assert in_pieces(text, *(min(cut, len(text)) for cut in cuts)) == redact(text)


@given(texts)
def test_to_redact_twice_is_to_redact_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(st.text(), st.text(), st.sampled_from([e for s, e in EXAMPLES if s.is_certain]))
def test_what_stands_beside_a_credential_cannot_hide_it(
    before: str, after: str, example: tuple[str, str, str]
) -> None:
    start, secret, end = example

    assert secret not in redact(f"{before} {start}{secret}{end} {after}")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_credential_stays(text: str) -> None:
    assert redact(text) == text
    assert find_credential(text) is None


@pytest.mark.parametrize(
    "file", sorted(RECORDED.glob("*/*")), ids=lambda f: f"{f.parent.name}/{f.name}"
)
def test_what_was_recorded_of_builds_stays(file: Path) -> None:
    text = file.read_text()

    assert redact(text) == text


def test_of_a_password_with_a_slash_and_an_at_nothing_stays() -> None:
    assert redact("to https://u:pa/ss@wo@git.example/x") == "to https://***@git.example/x"


def test_what_stands_beside_a_credential_stays() -> None:
    text = "fatal: unable to access 'https://u:hunter2@git.example/x.git': 403"

    assert redact(text) == "fatal: unable to access 'https://***@git.example/x.git': 403"


def test_a_secret_may_be_long() -> None:
    for start in ("eyJhbGciOiJSUzI1NiJ9.", "password=", "ghp_", "LS0tLS1CRUdJTiBSU0Eg"):
        assert redact(f"{start}{'a1B2' * 50_000} end").endswith("*** end")
    assert redact(f'"token": "{"a1 B2" * 50_000}" end') == '"token": "***" end'


BEGIN = "-----BEGIN RSA PRIVATE KEY-----\n"
LINE = "MIIEq7Zk2Xw9Rt4Vb6Nm1Hs8Jd3Lf5Gp0CyQ7zK2xW9rT4vB6nM1hS8jD3lF5gP0\n"


def test_a_key_block_ends_at_its_end_line() -> None:
    text = f"{BEGIN}{LINE}{LINE}-----END RSA PRIVATE KEY-----\nbuilt\n"

    assert redact(text) == "*** key ***\nbuilt\n"


def test_a_key_block_ends_at_the_first_line_that_is_none_of_a_key() -> None:
    assert redact(f"{BEGIN}{LINE}error: no such file\n") == "*** key ***\nerror: no such file\n"


def test_a_key_block_ends_after_its_limit() -> None:
    seen = redact(f"-----BEGIN PRIVATE KEY-----{'A' * (KEY_LIMIT + 100)}")

    assert seen == f"*** key ***{'A' * 100}"


def test_a_key_block_is_seen_behind_the_times_of_a_log() -> None:
    times = "2026-01-01T00:00:00.123456789Z ", "#12 0.345 "
    for at in times:
        text = "".join(
            at + line for line in (BEGIN, LINE, "d3=\n", "-----END RSA PRIVATE KEY-----\n")
        )
        assert redact(text + at + "built\n") == f"{at}*** key ***\n{at}built\n"


def test_whole_lines_are_returned_at_once_and_little_is_held_back() -> None:
    redactor = Redactor()

    assert redactor.feed("one\ntwo") == "one\n"
    assert redactor.feed("\r") == "two\r"
    given, seen = 0, 0
    for _ in range(500):
        given += 97
        seen += len(redactor.feed("x" * 97))
        assert given - seen <= HELD


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.sampled_from([parts for _, parts in EXAMPLES]), json_values)
def test_a_credential_is_found_however_deep_it_lies(
    parts: tuple[str, str, str], beside: Any
) -> None:
    text = "".join(parts)
    value = {"beside": beside, "deep": [{"deeper": (text, {text: 1}, ValueError(text))}]}

    assert parts[1] not in repr(redact_all(value))


@pytest.mark.parametrize("quote", [lambda v: v, json.dumps, lambda v: json.dumps(json.dumps(v))])
def test_a_password_is_found_in_json_in_json(quote: Callable[[Any], Any]) -> None:
    assert "hunter2 too" not in str(redact_all(quote({"password": "hunter2 too"})))


@pytest.mark.parametrize("name", ["password", "token", "client_secret", "Authorization", "api-key"])
def test_a_value_is_taken_out_for_its_name_alone(name: str) -> None:
    assert redact_all({name: "hunter2", "tokens": 3}) == {name: "***", "tokens": 3}


WORST = [
    *sorted({anchor for shape in SHAPES for anchor in shape.anchors}),
    *("x://a:b", "//a//", "//:@", "token='", "token=\\", "--token ", "secret: a-", "password: a"),
    *(
        "a-",
        "@",
        "İ",
        "eyJa",
        "curl -u",
        "login -",
        "auth: aaaaaaaaaa-",
        "basic aaaaaaaa ",
        "?token=&",
    ),
    *("-----BEGIN PRIVATE KEY----------END ", "-----BEGIN PRIVATE KEY-----\n#1 1.1 "),
]


def seconds_for(part: str, length: int) -> float:
    text = (part * (length // len(part) + 1))[:length]
    taken = []
    for _ in range(3):
        began = time.process_time()
        redact(text)
        taken.append(time.process_time() - began)
    return min(taken)


@pytest.mark.parametrize("part", WORST)
def test_twice_the_text_takes_twice_the_time(part: str) -> None:
    # What goes back and forth would take four times as long, or more.
    ratios = (seconds_for(part, 40_000) / seconds_for(part, 20_000) for _ in range(5))

    assert any(ratio < 3 for ratio in ratios)

"""What no text that is written down may hold."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.work.redaction import redact, redact_all

HARMLESS = [
    "basic facts",
    "http://127.0.0.1:3000/docs",
    "postgresql://db:5432/brokkr",
    "user@example.org",
    "https://registry.example:5000/team/app@sha256:abcdef",
    "registry.example/app@sha256:" + "ab" * 32,
    "invalid token: expired",
    "the secret 'registry-credentials' does not exist",
    "brokkr_is_a_name",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
]

word = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=12)
base64 = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/", min_size=20, max_size=200
)
around = st.sampled_from(["", " ", "\n", "'", '"', "(", ", ", "it failed: ", "\\n", "x=", "\t"])


@st.composite
def credentials(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a text that holds a credential, and the part of it that must not be seen."""
    secret = draw(word)
    kind = draw(st.sampled_from(["adm", "agt", "gen", "vwr"]))
    return draw(
        st.sampled_from(
            [
                (f"brokkr_{kind}abcdefghij_{secret}", secret),
                (f"Authorization: Bearer {secret}", secret),
                (f"authorization: basic {secret}==", secret),
                (f"https://{secret}@git.example/x.git", secret),
                (f"https://user:{secret}@git.example/x.git", secret),
                (f"https://user:{secret[:6]}@{secret[6:]}@git.example/x", secret[6:]),
                (f"postgresql://brokkr:{secret[:6]}/{secret[6:]}@db/brokkr", secret[6:]),
                (f"password={secret}", secret),
                (f"PGPASSWORD={secret}", secret),
                (f"AWS_SECRET_ACCESS_KEY={secret}", secret),
                (f'{{"token": "{secret}"}}', secret),
                (f"{{'api_key': '{secret}'}}", secret),
                (json.dumps(json.dumps({"password": secret})), secret),
                (f"eyJhbGciOiJSUzI1NiJ9.{secret}.{secret}", secret),
            ]
        )
    )


@st.composite
def private_keys(draw: st.DrawFn) -> tuple[str, str]:
    """Draw key material: whole, cut off, with its line breaks written out, in base64."""
    secret = draw(base64)
    kind = draw(st.sampled_from(["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "]))
    end = draw(st.sampled_from([f"-----END {kind}PRIVATE KEY-----", ""]))
    line = draw(st.sampled_from(["\n", "\\n", "\r\n"]))
    return f"-----BEGIN {kind}PRIVATE KEY-----{line}{secret}{line}{end}", secret


@given(st.one_of(credentials(), private_keys()), around, around)
def test_a_credential_is_taken_out_wherever_it_stands(
    held: tuple[str, str], before: str, after: str
) -> None:
    text, secret = held

    assert secret not in redact(before + text + after)


@given(st.text())
def test_to_redact_twice_is_to_redact_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_credential_stays(text: str) -> None:
    assert redact(text) == text


def test_what_stands_beside_a_credential_stays() -> None:
    text = "fatal: unable to access 'https://u:hunter2@git.example/x.git': 403"

    assert redact(text) == "fatal: unable to access 'https://***@git.example/x.git': 403"


def test_of_a_password_with_a_slash_and_an_at_nothing_stays() -> None:
    assert redact("to https://u:pa/ss@wo@git.example/x") == "to https://***@git.example/x"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(credentials(), json_values)
def test_a_credential_is_found_however_deep_it_lies(held: tuple[str, str], beside: Any) -> None:
    text, secret = held
    value = {"beside": beside, "deep": [{"deeper": (text, {text: 1}, ValueError(text))}]}

    assert secret not in repr(redact_all(value))


@pytest.mark.parametrize("name", ["password", "token", "client_secret", "Authorization", "api-key"])
def test_a_value_is_taken_out_for_its_name_alone(name: str) -> None:
    assert redact_all({name: "hunter2", "tokens": 3}) == {name: "***", "tokens": 3}


WORST = ["://", "x://a:b", "eyJ", "bearer ", "token='", "-----BEGIN ", "a-", "@", "brokkr_"]


@pytest.mark.parametrize("part", [*WORST, "-----BEGIN PRIVATE KEY----------END "])
def test_no_text_takes_long(part: str) -> None:
    text = part * (200_000 // len(part))
    began = time.perf_counter()
    redact(text)

    assert time.perf_counter() - began < 2  # a pattern that goes back and forth takes minutes

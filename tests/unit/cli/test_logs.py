"""What never reaches the log."""

import pytest

from brokkr.cli.logs import redact


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key brokkr_agtabcdefghij_{'s' * 43} refused", "s" * 43),
        ("Authorization: Bearer eyJhbGciOi.abc-def", "eyJhbGciOi"),
        ("authorization: basic dXNlcjpwYXNzd29yZA==", "dXNlcjpw"),
        ("fatal: unable to access 'https://u:hunter2@git.example/x.git'", "hunter2"),
        ("https://token123@git.example/x", "token123"),
        ("postgresql://brokkr:s3cret@db/brokkr", "s3cret"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
    ],
)
def test_a_credential_in_a_message_is_taken_out(text: str, secret: str) -> None:
    line = redact(None, "info", {"event": "it failed", "error": text})

    assert secret not in line["error"]
    assert line["event"] == "it failed"


@pytest.mark.parametrize(
    "text", ["ssh://git@", "user@example.org", "http://127.0.0.1:3000/docs", "basic facts"]
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert redact(None, "info", {"event": text})["event"] in (text, "ssh://***@")

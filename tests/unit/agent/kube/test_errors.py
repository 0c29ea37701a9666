from datetime import timedelta
from typing import Any

import pytest

from brokkr.agent.kube.errors import (
    KubeAlreadyExists,
    KubeConflict,
    KubeError,
    KubeExpired,
    KubeForbidden,
    KubeInvalid,
    KubeKindUnknown,
    KubeNotFound,
    KubeUnavailable,
    error_of,
)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        (400, {}, KubeInvalid),
        (401, {}, KubeForbidden),
        (403, {}, KubeForbidden),
        (404, {"details": {"name": "a", "kind": "works"}}, KubeNotFound),
        (404, {"details": {}}, KubeKindUnknown),
        (404, {}, KubeKindUnknown),
        (409, {"reason": "AlreadyExists"}, KubeAlreadyExists),
        (409, {"reason": "Conflict"}, KubeConflict),
        (410, {}, KubeExpired),
        (413, {}, KubeInvalid),
        (422, {}, KubeInvalid),
        (405, {}, KubeUnavailable),
        (429, {}, KubeUnavailable),
        (500, {}, KubeUnavailable),
        (504, {}, KubeUnavailable),
    ],
)
def test_each_answer_has_its_error(
    code: int, status: dict[str, Any], error: type[KubeError]
) -> None:
    assert type(error_of(code, status)) is error


def test_the_message_is_the_servers_own() -> None:
    assert str(error_of(422, {"message": "spec.x: Required value"})) == "spec.x: Required value"
    assert str(error_of(503, {})) == "HTTP 503"


def test_the_server_may_ask_for_a_pause() -> None:
    error = error_of(429, {}, retry_after=timedelta(seconds=7))

    assert isinstance(error, KubeUnavailable)
    assert error.retry_after == timedelta(seconds=7)

from datetime import timedelta
from typing import Any

import pytest

from brokkr.agent.kube.errors import (
    KubeAlreadyExists,
    KubeBusy,
    KubeConflict,
    KubeError,
    KubeExpired,
    KubeForbidden,
    KubeInvalid,
    KubeKindUnknown,
    KubeNamespaceMissing,
    KubeNotFound,
    KubeNotPermitted,
    KubeQuotaExceeded,
    KubeTerminating,
    KubeUnauthorized,
    KubeUnavailable,
    error_of,
)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        (400, {}, KubeInvalid),
        (401, {}, KubeUnauthorized),
        (403, {}, KubeForbidden),
        (403, {"message": 'admission webhook "p" denied the request: no'}, KubeForbidden),
        (
            403,
            {"message": 'works.brokkr.io "a" is forbidden: exceeded quota: q'},
            KubeQuotaExceeded,
        ),
        (403, {"message": "forbidden: status unknown for quota: q"}, KubeQuotaExceeded),
        (403, {"details": {"causes": [{"reason": "NamespaceTerminating"}]}}, KubeTerminating),
        (404, {"details": {"name": "a", "kind": "works"}}, KubeNotFound),
        (404, {"details": {"name": "builds", "kind": "namespaces"}}, KubeNamespaceMissing),
        (404, {"details": {}}, KubeKindUnknown),
        (404, {}, KubeKindUnknown),
        (409, {"reason": "AlreadyExists"}, KubeAlreadyExists),
        (409, {"reason": "Conflict"}, KubeConflict),
        (410, {}, KubeExpired),
        (413, {}, KubeInvalid),
        (422, {}, KubeInvalid),
        (405, {}, KubeUnavailable),
        (429, {}, KubeBusy),
        (500, {}, KubeUnavailable),
        (504, {}, KubeUnavailable),
    ],
)
def test_each_answer_has_its_error(
    code: int, status: dict[str, Any], error: type[KubeError]
) -> None:
    assert type(error_of(code, status)) is error


@pytest.mark.parametrize(
    ("said", "resource"),
    [
        ('cannot create resource "works" in API group "brokkr.io"', "works.brokkr.io"),
        (
            'cannot create resource "works/status" in API group "brokkr.io"',
            "works.brokkr.io/status",
        ),
        ('cannot create resource "pods/log" in API group ""', "pods/log"),
    ],
)
def test_what_no_role_allows_is_told_by_verb_and_resource(said: str, resource: str) -> None:
    user = 'works.brokkr.io is forbidden: User "system:serviceaccount:a:b"'

    error = error_of(403, {"message": f'{user} {said} in the namespace "builds"'})

    assert isinstance(error, KubeNotPermitted)
    assert (error.verb, error.resource) == ("create", resource)


def test_the_message_is_the_servers_own() -> None:
    assert str(error_of(422, {"message": "spec.x: Required value"})) == "spec.x: Required value"
    assert str(error_of(503, {})) == "HTTP 503"


def test_the_server_may_ask_for_a_pause() -> None:
    error = error_of(429, {}, retry_after=timedelta(seconds=7))

    assert isinstance(error, KubeUnavailable)
    assert error.retry_after == timedelta(seconds=7)

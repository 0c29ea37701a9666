"""How requests are named; what they do is tested on a real API server."""

import pytest

from brokkr.agent.kube.client import _asked_for


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", "/api", None),
        ("GET", "/apis", None),
        ("GET", "/apis/brokkr.io", None),
        ("GET", "/apis/brokkr.io/v1alpha1", None),
        ("GET", "/readyz", None),
        ("GET", "/apis/brokkr.io/v1alpha1/works", ("list", "works.brokkr.io")),
        ("watch", "/apis/brokkr.io/v1alpha1/namespaces/a/works", ("watch", "works.brokkr.io")),
        ("GET", "/apis/brokkr.io/v1alpha1/namespaces/a/works/b", ("get", "works.brokkr.io")),
        ("POST", "/apis/brokkr.io/v1alpha1/namespaces/a/works", ("create", "works.brokkr.io")),
        (
            "PUT",
            "/apis/brokkr.io/v1alpha1/namespaces/a/works/b/status",
            ("update", "works.brokkr.io/status"),
        ),
        ("PATCH", "/api/v1/namespaces/a/configmaps/b", ("patch", "configmaps")),
        ("DELETE", "/api/v1/namespaces/a", ("delete", "namespaces")),
        ("GET", "/api/v1/namespaces", ("list", "namespaces")),
    ],
)
def test_a_request_is_named_as_roles_name_it(
    method: str, path: str, asked: tuple[str, str] | None
) -> None:
    assert _asked_for(method, path) == asked

import gzip
from typing import Any

import pytest

from brokkr.wire.problem import CODES, read_problem
from brokkr.work.errors import BrokerUnavailable
from brokkr.work.template import MAX_DEPTH

from .conftest import Served

A_WORK = "0197a000-0000-7000-8000-000000000001"
PROBLEM = {"type", "title", "status", "code", "family", "detail", "broker", "request_id"}


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/api/v1/nowhere", {}, 404, "no_such_endpoint"),
        ("GET", "/", {}, 404, "no_such_endpoint"),
        ("POST", f"/api/v1/work/{A_WORK}/compleet", {}, 404, "no_such_endpoint"),
        ("PUT", "/api/v1/work", {}, 405, "method_not_allowed"),
        ("PUT", f"/api/v1/work/{A_WORK}/complete", {}, 405, "method_not_allowed"),
        ("POST", "/api/v1/work", {"data": b"{"}, 400, "malformed_body"),
        ("POST", "/api/v1/work", {"data": b""}, 400, "malformed_body"),
        ("POST", "/api/v1/work", {"data": b'{"a": NaN}'}, 400, "malformed_body"),
        ("POST", "/api/v1/work", {"data": b"\xff\xfe"}, 400, "malformed_body"),
        ("POST", "/api/v1/work", {"data": b"[" * 50_000}, 400, "malformed_body"),
        ("POST", "/api/v1/work", {"data": b"[]"}, 422, "invalid"),
        ("POST", "/api/v1/work", {"data": b"null"}, 422, "invalid"),
        ("POST", "/api/v1/work", {"data": b'{"a\\u0000": 1}'}, 422, "invalid"),
        ("POST", "/api/v1/work", {"data": b'"' + b"x" * 200_000 + b'"'}, 413, "body_too_large"),
        ("POST", "/api/v1/work", {"data": b'{"priority": 1e999}'}, 422, "invalid"),
        ("POST", "/api/v1/work", {"data": b'{"priority": 99999999999999999999}'}, 422, "invalid"),
        ("GET", "/api/v1/work?limit=0", {}, 422, "invalid"),
        ("GET", "/api/v1/work?status=LOST", {}, 422, "invalid"),
        ("GET", "/api/v1/work?cursor=x", {}, 422, "invalid"),
        ("GET", "/api/v1/work?since=yesterday", {}, 422, "invalid"),
        ("GET", "/api/v1/work/not-an-id", {}, 404, "work_not_found"),
        ("GET", f"/api/v1/work/{A_WORK}", {}, 404, "work_not_found"),
        ("POST", f"/api/v1/work/{A_WORK}/complete", {"data": b"{}"}, 403, "not_permitted"),
        ("POST", f"/api/v1/work/{A_WORK}/release", {"data": b"{"}, 400, "malformed_body"),
        ("POST", f"/api/v1/work/{A_WORK}/release", {"data": b"[]"}, 422, "invalid"),
        ("DELETE", "/api/v1/agents/nobody", {}, 404, "agent_not_found"),
    ],
)
async def test_every_error_is_a_problem_document(
    served: Served,
    *,
    method: str,
    path: str,
    options: dict[str, Any],
    status: int,
    code: str,
) -> None:
    async with served.http.request(
        method,
        served.url + path,
        headers={"Authorization": f"Bearer {served.admin_key}"},
        **options,
    ) as response:
        problem = await response.json(content_type=None)

    assert response.content_type == "application/problem+json"
    assert (response.status, problem["status"], problem["code"]) == (status, status, code)
    assert problem.keys() >= PROBLEM
    assert problem["broker"] == str(served.broker.id)
    assert type(read_problem(response.status, problem)) is CODES[code]
    is_about_a_work = A_WORK in path and code not in ("no_such_endpoint", "method_not_allowed")
    if is_about_a_work:
        assert problem["work_id"] == A_WORK


@pytest.mark.setting("broker.max_body_bytes")
async def test_a_body_of_unannounced_length_is_limited_too(served: Served) -> None:
    async def chunks() -> Any:
        for _ in range(30):
            yield b"x" * 10_000

    status, problem = await served.request("POST", "/api/v1/work", data=chunks())

    assert (status, problem["limit_bytes"]) == (413, 100_000)


async def test_a_template_may_not_be_nested_without_end(served: Served) -> None:
    nested: Any = "x"
    for _ in range(MAX_DEPTH + 1):
        nested = {"a": nested}
    body = {
        "work_type": "build",
        "template": {
            "apiVersion": "shipwright.io/v1beta1",
            "kind": "Build",
            "metadata": {"name": "deep"},
            "spec": nested,
        },
        "target": {"agents": ["a"]},
    }

    status, problem = await served.request("POST", "/api/v1/work", json=body)

    assert (status, problem["field"]) == (422, "template")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x]\nb: [*a, *a]",
        "[" * 100,
        "a: b: c",
        "",
        "work_type: build\n---\nwork_type: build",
    ],
)
async def test_yaml_that_cannot_be_one_submission_is_malformed(served: Served, text: str) -> None:
    status, problem = await served.request(
        "POST", "/api/v1/work", data=text, headers={"Content-Type": "application/yaml"}
    )

    assert (status, problem["code"]) == (400, "malformed_body")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Bearer",
        "Bearer nonsense",
        "Basic YTpi",
        f"Bearer brokkr_adm{'a' * 10}_{'x' * 43}",
        f"Bearer brokkr_adm{'é' * 10}_{'x' * 43}",
    ],
)
async def test_whoever_shows_no_good_key_is_asked_for_one(
    served: Served, header: str | None
) -> None:
    async with served.http.get(
        f"{served.url}/api/v1/work", headers={"Authorization": header} if header else {}
    ) as response:
        problem = await response.json(content_type=None)

    assert (response.status, problem["code"]) == (401, "unauthenticated")
    assert problem["broker"] == str(served.broker.id)
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_strangers_body_is_not_judged(served: Served) -> None:
    status, _ = await served.request("POST", "/api/v1/work", key=None, data=b"{")

    assert status == 401


async def test_a_key_with_a_changed_secret_opens_nothing(served: Served) -> None:
    wrong = served.admin_key[:-1] + ("A" if served.admin_key[-1] != "A" else "B")

    assert (await served.request("GET", "/api/v1/work", key=wrong))[0] == 401


async def test_all_that_is_wrong_is_listed(served: Served) -> None:
    status, problem = await served.request("POST", "/api/v1/work", json={"priority": 1000})

    assert status == 422
    assert {each["field"] for each in problem["errors"]} == {
        "work_type",
        "template",
        "target",
        "priority",
    }


async def test_a_database_that_is_away_is_a_503_and_no_traceback(served: Served) -> None:
    served.broker.pool.terminate()

    status, problem = await served.request("GET", "/readyz", key=None)

    assert (status, problem["code"]) == (503, "database_unavailable")


async def test_our_own_mistake_is_a_500_that_gives_nothing_away(served: Served) -> None:
    await served.broker.pool.execute("DROP VIEW works CASCADE")

    status, problem = await served.request("GET", "/api/v1/work")

    assert (status, problem["code"]) == (500, "internal_error")
    assert problem["broker"] == str(served.broker.id)
    assert isinstance(read_problem(status, problem), BrokerUnavailable)
    assert "works" not in str(problem)


async def test_of_several_shapes_the_likeliest_one_is_judged(
    served: Served,
) -> None:
    body = {"work_type": "build", "template": {}, "target": [{"agents": "edge-7"}]}

    status, problem = await served.request("POST", "/api/v1/work", json=body)

    assert (status, problem["field"]) == (422, "target[0].agents")


async def test_nobody_is_led_to_another_path_or_host(served: Served) -> None:
    for key, status, code in (
        ("", 401, "unauthenticated"),
        (served.admin_key, 404, "no_such_endpoint"),
    ):
        async with served.http.get(
            f"{served.url}/api/v1/work/?limit=1",
            headers={"Authorization": f"Bearer {key}", "Host": "elsewhere.example"},
            allow_redirects=False,
        ) as response:
            problem = await response.json(content_type=None)
        assert (response.status, problem["code"]) == (status, code)
        assert "location" not in response.headers
        assert "elsewhere" not in str(problem)

    assert problem["detail"].endswith("did you mean /api/v1/work?")


@pytest.mark.parametrize("path", ["/api/v1/wrok", "/api/v2/work", "/nothing", "/api/v1//work"])
async def test_a_path_that_is_none_points_to_the_documentation(served: Served, path: str) -> None:
    async with served.http.get(
        served.url + path, headers={"Authorization": f"Bearer {served.admin_key}"}
    ) as response:
        problem = await response.json(content_type=None)

    assert (response.status, problem["code"]) == (404, "no_such_endpoint")
    assert problem["detail"].endswith("see /docs for what it has")


@pytest.mark.parametrize("encoding", ["gzip", "br", "x-unknown", "gzip, identity"])
async def test_a_body_that_is_encoded_is_refused_for_that(served: Served, encoding: str) -> None:
    async with served.http.post(
        f"{served.url}/api/v1/work",
        data=gzip.compress(b"{}"),
        headers={
            "Authorization": f"Bearer {served.admin_key}",
            "Content-Encoding": encoding,
            "Content-Type": "application/json",
        },
    ) as response:
        problem = await response.json(content_type=None)

    assert (response.status, problem["code"]) == (415, "body_encoded")
    assert problem["detail"] == (
        f"the content encoding {encoding!r} is not read here: send the body as it is"
    )


async def test_a_body_that_is_said_to_be_as_it_is_is_read(served: Served) -> None:
    async with served.http.post(
        f"{served.url}/api/v1/agents",
        data=b'{"name": "plain"}',
        headers={"Authorization": f"Bearer {served.admin_key}", "Content-Encoding": "identity"},
    ) as response:
        assert response.status == 201

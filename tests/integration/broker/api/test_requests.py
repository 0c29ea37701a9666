"""What every request has: an id, a trace, a measured time, a line in the log."""

import asyncio
import re
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from brokkr.broker.db.pool import connect
from brokkr.client import BrokerClient
from brokkr.wire.bodies import ClaimOne, ClaimSome, SubmitWork, TargetBody, WorkBody
from brokkr.wire.custom_resource import ANNOTATION_TRACEPARENT
from brokkr.work.errors import BrokerUnavailable
from brokkr.work.trace import TraceContext
from support.factories import a_build_template
from support.signals import eventually

from .conftest import Served

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = TraceContext.parse(TRACEPARENT)
MADE = re.compile("[0-9a-f]{32}")


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """What is logged, with the context that the real log has."""
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        yield lines


def answers_in(log: list[Any]) -> list[Any]:
    return [line for line in log if line["event"] == "request answered"]


def a_submission(agent: str = "nobody") -> SubmitWork:
    return SubmitWork(
        work_type="build", template=a_build_template(), target=TargetBody(agents=[agent])
    )


async def ask(served: Served, path: str, **headers: str) -> tuple[str, Any]:
    """Return the id that an answer has, and what it says."""
    bearer = {"Authorization": f"Bearer {served.admin_key}"}
    async with served.http.get(served.url + path, headers=bearer | headers) as response:
        return response.headers["X-Request-ID"], (
            await response.json(content_type=None) if "json" in response.content_type else None
        )


async def submitted(served: Served, *traceparents: str) -> WorkBody:
    """Submit a Work with these headers."""
    headers = [("Authorization", f"Bearer {served.admin_key}")]
    headers += [("traceparent", each) for each in traceparents]
    body = a_submission().model_dump(mode="json", exclude_unset=True)
    async with served.http.post(
        f"{served.url}/api/v1/work", json=body, headers=headers
    ) as response:
        assert response.status == 201
        return WorkBody.model_validate(await response.json())


async def test_an_answer_has_the_id_that_its_request_came_with(served: Served) -> None:
    for given in ("r-1", "Root=1-67891233-abcdef", "dGhlIGlk+/==", "x" * 128):
        assert (await ask(served, "/api/v1/work", **{"X-Request-ID": given}))[0] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "a\tb", "né", "<b>", "a;b"])
async def test_an_id_that_is_not_sane_is_replaced(served: Served, given: str) -> None:
    request_id, _ = await ask(served, "/api/v1/work", **{"X-Request-ID": given})

    assert MADE.fullmatch(request_id)


async def test_each_request_without_an_id_gets_one_of_its_own(served: Served) -> None:
    ids = {(await ask(served, "/healthz"))[0] for _ in range(20)}

    assert len(ids) == 20


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/api/v1/work?limit=x",
        "/api/v1/work/0197a000-0000-7000-8000-000000000001",
        "/api/v1/work/none",
    ],
)
async def test_a_problem_names_its_request(served: Served, path: str) -> None:
    request_id, problem = await ask(served, path)

    assert problem["request_id"] == request_id


async def test_a_mistake_of_ours_names_its_request_too(served: Served, database_url: str) -> None:
    async with connect(database_url) as db:
        await db.execute("ALTER TABLE agents RENAME TO lost")
    request_id, problem = await ask(served, "/api/v1/agents", **{"X-Request-ID": "r-1"})

    assert (request_id, problem["code"]) == ("r-1", "internal_error")
    assert problem["request_id"] == request_id
    with pytest.raises(BrokerUnavailable, match=r"its log says why \(request [0-9a-f]{32}\)"):
        await served.admin.list_agents()


async def test_an_answer_is_one_line_in_the_log(served: Served, log: list[Any]) -> None:
    await ask(served, "/api/v1/agents/edge-7?x=y", **{"X-Request-ID": "r-1"})

    [line] = answers_in(log)
    assert line["actor"].startswith("admin:")
    assert 0 < line["ms"] < 60_000
    assert line == {
        "event": "request answered",
        "log_level": "debug",
        "method": "GET",
        "route": "/api/v1/agents/{ref}",
        "status": 404,
        "request_id": "r-1",
        "actor": line["actor"],
        "ms": line["ms"],
    }


async def test_a_stranger_s_request_has_no_actor(served: Served, log: list[Any]) -> None:
    await served.request("GET", "/api/v1/work", key="brokkr_nobody")

    [line] = answers_in(log)
    assert (line["status"], line["actor"]) == (401, None)


async def while_the_database_refuses(database_url: str, *asking: Coroutine[Any, Any, Any]) -> None:
    """Ask while everything that the broker asks of one table is cancelled."""
    async with connect(database_url) as holder, holder.transaction(), connect(database_url) as db:
        await holder.execute("LOCK TABLE agents")
        answers = asyncio.gather(*asking)
        while not answers.done():
            await db.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            await asyncio.sleep(0.03)
        await answers


async def test_what_somebody_should_look_at_is_said_louder(
    served: Served, log: list[Any], database_url: str
) -> None:
    await while_the_database_refuses(database_url, ask(served, "/api/v1/agents"))

    [line] = answers_in(log)
    assert (line["status"], line["log_level"]) == (503, "info")


async def test_a_slow_answer_is_said_louder(
    served: Served, log: list[Any], database_url: str
) -> None:
    async with connect(database_url) as db, db.transaction():
        await db.execute("LOCK TABLE agents")
        asking = asyncio.create_task(ask(served, "/api/v1/agents"))
        done, _ = await asyncio.wait([asking], timeout=1.1)
        assert not done
    await asking

    [line] = answers_in(log)
    assert line["ms"] > 1000
    assert line["log_level"] == "info"


async def test_to_wait_for_work_is_not_to_be_slow(served: Served, log: list[Any]) -> None:
    agent, client = await served.an_agent()
    await client.claim_some(agent.id, ClaimSome(wait=1.5))

    line = answers_in(log)[-1]
    assert line["ms"] > 1000
    assert line["log_level"] == "debug"


async def test_all_that_is_said_during_a_request_names_it_and_no_other(
    served: Served, log: list[Any], database_url: str
) -> None:
    ids = [f"r-{number}" for number in range(8)]
    asking = [ask(served, "/api/v1/agents", **{"X-Request-ID": each}) for each in ids]
    await while_the_database_refuses(database_url, *asking)

    for request_id in ids:
        events = [line["event"] for line in log if line.get("request_id") == request_id]
        assert events == ["request not served", "request answered"]


async def test_what_nobody_s_request_causes_names_none(served: Served, log: list[Any]) -> None:
    await ask(served, "/healthz")
    structlog.get_logger().info("tests looked on")

    assert "request_id" not in log[-1]


async def test_a_work_keeps_the_trace_that_it_was_submitted_in(
    served: Served, log: list[Any]
) -> None:
    work = await submitted(served, TRACEPARENT)

    assert (await served.admin.get_work(work.id)).traceparent == TRACEPARENT
    [line] = [line for line in answers_in(log) if line["method"] == "POST"]
    assert line["trace_id"] == TRACEPARENT.split("-")[1]


@pytest.mark.parametrize(
    "traceparents",
    [
        (),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01",),
        ("not a trace",),
        (TRACEPARENT, TRACEPARENT),
    ],
)
async def test_what_is_no_trace_is_ignored(served: Served, traceparents: tuple[str, ...]) -> None:
    work = await submitted(served, *traceparents)

    assert (await served.admin.get_work(work.id)).traceparent is None


async def test_each_work_of_a_batch_keeps_the_trace(served: Served) -> None:
    items = [a_submission().model_dump(mode="json", exclude_unset=True)] * 2
    status, answer = await served.request(
        "POST", "/api/v1/work/batch", json={"items": items}, headers={"traceparent": TRACEPARENT}
    )

    assert status == 200
    for item in answer["items"]:
        work = await served.admin.get_work(item["work"]["id"])
        assert work.traceparent == TRACEPARENT


async def test_a_claim_hands_the_trace_on(served: Served) -> None:
    agent, client = await served.an_agent()
    traced = await served.admin.submit_work(a_submission(agent.name), trace=TRACE)
    untraced = await served.admin.submit_work(a_submission(agent.name))

    annotations = await claimed_annotations(client, traced)
    assert annotations[ANNOTATION_TRACEPARENT] == TRACEPARENT
    assert ANNOTATION_TRACEPARENT not in await claimed_annotations(client, untraced)


async def claimed_annotations(client: BrokerClient, work: WorkBody) -> dict[str, str]:
    claim = await client.claim_work(work.id, ClaimOne())
    annotations: dict[str, str] = claim.resource["metadata"]["annotations"]
    return annotations


async def test_a_request_that_its_client_has_left_is_noted_too(
    served: Served, log: list[Any]
) -> None:
    agent, client = await served.an_agent()
    asking = asyncio.create_task(client.claim_some(agent.id, ClaimSome(wait=30)))

    async def waits() -> bool:
        return served.broker.dispatcher.waiting == 1

    async def is_noted() -> bool:
        return any(line["route"].endswith("/work/claim") for line in answers_in(log))

    await eventually(waits)
    asking.cancel()
    await eventually(is_noted)

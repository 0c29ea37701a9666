"""Which answers are the broker's: each method of the client, and each answer of a proxy."""

import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from brokkr.client import BrokerClient
from brokkr.client.transport import retry_after_of
from brokkr.wire.bodies import (
    ClaimOne,
    ClaimSome,
    CompleteBatch,
    CompleteWork,
    Heartbeat,
    RegisterAgent,
    RelabelAgent,
    ReleaseWork,
    ReportProgress,
    RequeueWork,
    SubmitBatch,
    SubmitWork,
    TargetBody,
)
from brokkr.wire.problem import problem_of
from brokkr.wire.tenants import CreateGenerator, CreateKey, LimitGenerator
from brokkr.work.errors import (
    BrokerUnavailable,
    ClaimLost,
    DatabaseUnavailable,
    NoSuchEndpoint,
    WorkNotFound,
)
from support.factories import a_build_template
from support.hostile_broker import Answer, a_claim, a_work_body, says, served
from support.pages import PAGES, PROBLEM

WORK, AGENT, CLAIM = (uuid4() for _ in range(3))
SUBMISSION = SubmitWork(
    work_type="build", template=a_build_template(), target=TargetBody(agents=["edge"])
)


async def first_event(client: BrokerClient) -> Any:
    return [each async for each in client.follow_events(WORK, patience_seconds=0)]


METHODS: dict[str, Callable[[BrokerClient], Awaitable[Any]]] = {
    "submit_work": lambda c: c.submit_work(SUBMISSION),
    "submit_some": lambda c: c.submit_some(SubmitBatch(items=[{}, {}])),
    "get_work": lambda c: c.get_work(WORK),
    "list_work": lambda c: c.list_work(),
    "cancel_work": lambda c: c.cancel_work(WORK),
    "list_events": lambda c: c.list_events(WORK),
    "follow_events": first_event,
    "explain_work": lambda c: c.explain_work(WORK),
    "release_work": lambda c: c.release_work(WORK, ReleaseWork(claim_id=CLAIM)),
    "requeue_work": lambda c: c.requeue_work(WORK, RequeueWork()),
    "list_pending": lambda c: c.list_pending(AGENT),
    "claim_work": lambda c: c.claim_work(WORK, ClaimOne()),
    "claim_some": lambda c: c.claim_some(AGENT, ClaimSome()),
    "report_progress": lambda c: c.report_progress(
        WORK, ReportProgress(claim_id=CLAIM, phase="Running", attempt=1)
    ),
    "complete_work": lambda c: c.complete_work(WORK, CompleteWork(claim_id=CLAIM, success=True)),
    "complete_some": lambda c: c.complete_some(AGENT, CompleteBatch(items=[{}, {}])),
    "heartbeat": lambda c: c.heartbeat(AGENT, Heartbeat(incarnation=uuid4())),
    "register_agent": lambda c: c.register_agent(RegisterAgent(name="edge")),
    "list_agents": lambda c: c.list_agents(),
    "get_agent": lambda c: c.get_agent(AGENT),
    "relabel_agent": lambda c: c.relabel_agent(AGENT, RelabelAgent()),
    "drain_agent": lambda c: c.drain_agent(AGENT),
    "undrain_agent": lambda c: c.undrain_agent(AGENT),
    "delete_agent": lambda c: c.delete_agent(AGENT),
    "rotate_agent_key": lambda c: c.rotate_agent_key(AGENT),
    "create_generator": lambda c: c.create_generator(CreateGenerator(name="ci")),
    "list_generators": lambda c: c.list_generators(),
    "get_generator": lambda c: c.get_generator("ci"),
    "limit_generator": lambda c: c.limit_generator("ci", LimitGenerator()),
    "delete_generator": lambda c: c.delete_generator("ci"),
    "rotate_generator_key": lambda c: c.rotate_generator_key("ci"),
    "create_key": lambda c: c.create_key(CreateKey(role="viewer", name="x")),
    "list_keys": lambda c: c.list_keys(),
    "revoke_key": lambda c: c.revoke_key("abcdefghij"),
}


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[BrokerClient]:
    """Yield a client for a server that answers everything like this."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with served(app) as url, BrokerClient(url, "the-key") as client:
        yield client


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait not long for an answer that never comes."""
    monkeypatch.setattr("brokkr.client.transport.TIMEOUT_SECONDS", 0.15)
    monkeypatch.setattr("brokkr.client.transport.SILENCE_SECONDS", 0.15)


def test_every_method_of_the_client_is_tried() -> None:
    methods = {
        name
        for name, each in inspect.getmembers(BrokerClient, inspect.isfunction)
        if not name.startswith("_") and name != "close"
    }

    assert methods == METHODS.keys()


@pytest.mark.parametrize("page", PAGES)
async def test_whatever_is_no_brokers_answer_is_a_broker_that_is_not_there(page: str) -> None:
    async with answering(PAGES[page]) as client:
        for name, ask in METHODS.items():
            with pytest.raises(BrokerUnavailable) as caught:
                await ask(client)

            assert (name, type(caught.value)) == (name, BrokerUnavailable)
            assert caught.value.broker is None
            assert "http://127.0.0.1" in str(caught.value), name
            assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 201, 202, 206, 207])
async def test_what_is_answered_with_no_content_takes_no_other_success(status: int) -> None:
    async with answering(says(b"{}", status=status)) as client:
        for name in ("report_progress", "delete_agent", "delete_generator", "revoke_key"):
            with pytest.raises(BrokerUnavailable, match=str(status)):
                await METHODS[name](client)


async def test_an_answer_about_another_work_is_none() -> None:
    theirs = a_claim()
    body = a_work_body(theirs, "SUCCEEDED")
    explanation = {"work": body, "summary": "it has ended"}
    for answer, names in (
        (body, ("get_work", "cancel_work", "release_work", "requeue_work", "complete_work")),
        (theirs, ("claim_work",)),
        (explanation, ("explain_work",)),
    ):
        async with answering(says(json.dumps(answer).encode())) as client:
            for name in names:
                with pytest.raises(BrokerUnavailable, match="another request"):
                    await METHODS[name](client)


async def test_a_batch_with_too_few_answers_is_none() -> None:
    async with answering(says(b'{"items": [{"status": 200}]}')) as client:
        for name in ("submit_some", "complete_some"):
            with pytest.raises(BrokerUnavailable, match="another request"):
                await METHODS[name](client)


async def test_a_stream_of_something_else_is_a_broker_that_is_not_there() -> None:
    for content in (b"data: <h1>welcome</h1>\n\n", b"x" * 3_000_000):
        async with answering(says(content, content_type="text/event-stream")) as client:
            with pytest.raises(BrokerUnavailable, match="a stream of something else"):
                await METHODS["follow_events"](client)


def a_refusal(status: int, members: dict[str, Any]) -> Answer:
    return says(json.dumps(members).encode(), status=status, content_type=PROBLEM)


async def test_what_the_broker_says_is_raised_as_what_it_is() -> None:
    sent = problem_of(ClaimLost(WORK, "PENDING"), broker="b-1")
    async with answering(a_refusal(409, sent)) as client:
        with pytest.raises(ClaimLost) as caught:
            await METHODS["complete_work"](client)

    assert (caught.value.work_id, caught.value.broker) == (str(WORK), "b-1")


async def test_an_unknown_path_of_a_broker_is_no_unknown_work() -> None:
    async with answering(a_refusal(404, {"code": "no_such_endpoint"})) as client:
        for ask in METHODS.values():
            with pytest.raises(NoSuchEndpoint) as caught:
                await ask(client)

            assert not isinstance(caught.value, WorkNotFound)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7),
        ("Wed, 21 Oct 2015 07:29:30 GMT", 90),  # by the clock of the answer
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:29:30 -0000", 0),  # in no zone
        ("Wed, 21 Oct 99999999999 07:29:30 GMT", 0),
        ("soon", 0),
        ("-7", 0),
        ("7" * 5000, 0),
    ],
)
async def test_who_is_in_trouble_says_when_to_come_back(said: str, seconds: float) -> None:
    document = problem_of(DatabaseUnavailable("no answer"))
    headers = {"Retry-After": said, "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    for content, content_type, kind in (
        (json.dumps(document).encode(), PROBLEM, DatabaseUnavailable),
        (b"busy", "text/plain", BrokerUnavailable),
    ):
        busy = says(content, status=503, content_type=content_type, headers=headers)
        async with answering(busy) as client:
            with pytest.raises(kind) as caught:
                await METHODS["get_work"](client)

        assert retry_after_of(caught.value) == seconds


async def test_a_redirect_is_named_by_where_it_leads_and_not_followed() -> None:
    async with answering(PAGES["a redirect of 302"]) as client:
        with pytest.raises(BrokerUnavailable, match=r"302 Found.*redirect to http://127\.0\.0\.1"):
            await METHODS["get_work"](client)

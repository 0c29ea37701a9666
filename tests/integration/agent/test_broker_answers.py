"""
Whatever stands between an agent and its broker may answer: it costs time, and nothing else.

Each route that an agent uses is answered with each of these answers, while the agent starts,
waits, builds, reports and cancels.  Many Works are under way at once, each with an answer of
its own; what belongs to no Work, such as heartbeats, gets one answer after the other.  In the
end the real broker answers.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from brokkr.agent.kinds import WORKS
from brokkr.wire.bodies import WorkBody, WorkState
from brokkr.wire.problem import CODES, problem_of
from brokkr.work.names import attempt_name, work_name
from support.agent import Stage
from support.hostile_broker import Answer, says
from support.pages import PAGES, PROBLEM
from support.proxy import proxy
from support.shipwright import never, success
from support.signals import eventually

pytestmark = [pytest.mark.kube, pytest.mark.postgres]

_ROUTES: Final = {
    "self": re.compile(r"/api/v1/agents/self"),
    "heartbeat": re.compile(r"/api/v1/agents/[^/]+/heartbeat"),
    "claim": re.compile(r"/api/v1/agents/[^/]+/work/claim"),
    "progress": re.compile(r"/api/v1/work/([^/]+)/progress"),
    "complete": re.compile(r"/api/v1/work/([^/]+)/complete"),
    "release": re.compile(r"/api/v1/work/([^/]+)/release"),
}
_ASIDE: Final = {"submitted", "progress", "cancel_requested"}


# -- what others say in the broker's own words

_ENDS: Final = ("claim_lost", "work_not_found", "work_finished", "work_not_held")
_BAD_BODY: Final = ("invalid", "malformed_body", "body_too_large")
"""An agent leaves a result away if its broker says this of it."""
_UNABLE: Final = ("unauthenticated", "not_permitted", "no_such_endpoint", "method_not_allowed")
_OTHER: Final = ("not_found", "conflict", "limit_reached", "database_unavailable")


def _in_its_words(code: str, **members: str) -> Answer:
    """Say what a broker would, with members of the document that are given, or made up."""
    error = CODES[code].__new__(CODES[code])
    error.args = ("no",)
    document = {**problem_of(error), **members}

    async def answer(request: web.Request) -> web.StreamResponse:
        named = re.search(r"/work/([0-9a-f-]{36})/", request.path)
        about = {"work_id": named[1]} if named else {}
        return web.json_response(
            {**about, **document}, status=document["status"], content_type=PROBLEM
        )

    return answer


def strangers(broker: str) -> dict[str, Answer]:
    """Return what is a problem document of this API, and not this broker's word on this Work."""
    other, else_ = str(uuid4()), str(uuid4())
    codes = (*_ENDS, *_BAD_BODY, *_UNABLE, "agent_superseded")
    return {
        **{f"{each} of a second broker": _in_its_words(each, broker=other) for each in codes},
        **{f"{each} of nobody": _in_its_words(each) for each in (*_ENDS, "agent_superseded")},
        **{
            f"{each} of another Work": _in_its_words(each, broker=broker, work_id=else_)
            for each in _ENDS
        },
        "agent_superseded of another agent": _in_its_words(
            "agent_superseded", broker=broker, agent=else_
        ),
        # These are its own, and end nothing all the same.
        **{each: _in_its_words(each, broker=broker) for each in (*_UNABLE, *_OTHER)},
    }


# -- what stands in between


class Meddler:
    """Answers for the broker, as told; counts what it was asked."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self._in_turn: dict[str, list[Answer]] = {}
        self._by_work: dict[str, dict[str, Answer]] = {}

    def instead(self, request: web.Request) -> Answer | None:
        """Return who answers a request, if it is not the broker."""
        for route, path in _ROUTES.items():
            if found := path.fullmatch(request.path):
                work_id = found[1] if found.groups() else ""
                self.asked[route, work_id] += 1
                if work_id:
                    return self._by_work.get(route, {}).get(work_id)
                waiting = self._in_turn.get(route)
                return waiting.pop(0) if waiting else None
        return None

    def answer_in_turn(self, route: str, answers: Sequence[Answer]) -> None:
        """Answer a route with one after the other; then the broker answers again."""
        self._in_turn[route] = list(answers)

    def answer_each(self, route: str, answers: Mapping[UUID, Answer]) -> None:
        """Answer a route for each Work in a way of its own, until told otherwise."""
        self._by_work[route] = {str(work_id): each for work_id, each in answers.items()}

    async def is_through(self, route: str, *, within: float = 60) -> None:
        """Wait until all answers of a route have been given."""

        async def is_so() -> bool:
            return not self._in_turn.get(route)

        await eventually(is_so, within=within)

    async def asked_for_each(self, route: str, works: Sequence[WorkBody], *, times: int) -> None:
        """Wait until a route was asked so often for each of these."""

        async def is_so() -> bool:
            return all(self.asked[route, str(each.id)] >= times for each in works)

        await eventually(is_so, within=60)


@pytest.fixture(autouse=True)
def impatience() -> Iterator[None]:
    """Let the agents here wait for a moment where others wait for long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brokkr.client.transport.TIMEOUT_SECONDS", 1)
        patch.setattr("brokkr.agent.intake.WAIT_SECONDS", 0.5)
        patch.setattr("brokkr.agent.intake.FIRST_PAUSE_SECONDS", 0.02)
        patch.setattr("brokkr.agent.heartbeat.LONGEST_INTERVAL", timedelta(seconds=0.2))
        patch.setattr("brokkr.agent.heartbeat.AWAY_INTERVAL", timedelta(seconds=0.02))
        patch.setattr("brokkr.agent.app._FIRST_PAUSE_SECONDS", 0.02)
        patch.setattr("brokkr.agent.app._LONGEST_PAUSE_SECONDS", 0.02)
        patch.setattr("brokkr.agent.controller.workqueue.LAST_BACKOFF", timedelta(seconds=0.5))
        yield


@asynccontextmanager
async def meddling(stage: Stage, *, slots: int = 2, when_cut_off: str = "continue") -> Any:
    """Stand between the agents of this block and their broker."""
    meddler, before = Meddler(), stage.settings
    async with proxy(stage.broker.url, lambda *_: nullcontext(), instead=meddler.instead) as url:
        queue = before.work_queue.model_copy(
            update={
                "max_concurrent": slots,
                "poll_interval_seconds": 0.1,
                "when_cut_off": when_cut_off,
            }
        )
        stage.settings = before.model_copy(update={"broker_url": url, "work_queue": queue})
        try:
            yield meddler
        finally:
            stage.settings = before


@pytest.fixture
def answers(stage: Stage) -> dict[str, Answer]:
    """All that may come instead of the broker's answer."""
    return {**PAGES, **strangers(str(stage.broker.parts.id))}


async def submitted(stage: Stage, count: int) -> list[WorkBody]:
    return [await stage.submit(claim_timeout_seconds=600) for _ in range(count)]


def the_runs(works: Sequence[WorkBody], *, round: int = 1) -> list[str]:
    return sorted(attempt_name(work_name(each.id, round=round), 1) for each in works)


def names_of(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return sorted(each["metadata"]["name"] for each in runs.values())


async def story_of(stage: Stage, work: WorkBody) -> list[str]:
    events = (await stage.broker.admin.list_events(work.id)).items
    return [each.kind for each in events if each.kind not in _ASIDE]


async def all_end(
    stage: Stage, works: Mapping[str, WorkBody], status: WorkState, story: list[str]
) -> None:
    """Insist that each of these ends once, in this way; the names say which answer it had."""
    ends = {what: await stage.finished(each, within=60) for what, each in works.items()}
    stories = {what: await story_of(stage, each) for what, each in works.items()}

    assert {what: end.status for what, end in ends.items() if end.status is not status} == {}
    assert {what: told for what, told in stories.items() if told != story} == {}


def a_heartbeat_of(broker: str, lost: Sequence[str]) -> Answer:
    body = {"broker": broker, "renewed": [], "lost": list(lost), "held": []}
    return says(json.dumps(body).encode())


# -- the matrix


async def test_an_agent_that_starts_and_waits_outlasts_every_answer(
    stage: Stage, answers: dict[str, Answer]
) -> None:
    """What runs in the cluster since before is adopted; what is submitted later is claimed."""
    async with meddling(stage) as meddler, stage.shipwright(never) as played:
        async with stage.agent():
            [old] = await submitted(stage, 1)
            await stage.running(played)
        meddler.answer_in_turn("self", [*answers.values()])
        meddler.answer_in_turn("heartbeat", [*answers.values()])
        async with stage.agent() as agent:
            await meddler.is_through("self")
            await meddler.is_through("heartbeat")
            meddler.answer_in_turn("claim", [*answers.values()])
            await meddler.is_through("claim")
            [new] = await submitted(stage, 1)
            await stage.running(played, runs=2)
            for name in the_runs([old, new]):
                await played.end(name)

            await all_end(
                stage, {"old": old, "new": new}, WorkState.SUCCEEDED, ["claimed", "completed"]
            )
            assert not agent.done()
    assert names_of(played.seen) == the_runs([old, new])


async def test_builds_go_on_and_are_reported_once_whatever_is_answered(
    stage: Stage, answers: dict[str, Answer]
) -> None:
    async with (
        meddling(stage, slots=len(answers)) as meddler,
        stage.shipwright(never) as played,
        stage.agent() as agent,
    ):
        works = dict(zip(answers, await submitted(stage, len(answers)), strict=True))
        by_work = {works[what].id: each for what, each in answers.items()}
        meddler.answer_each("progress", by_work)
        await stage.running(played, runs=len(works), within=60)
        await meddler.asked_for_each("progress", [*works.values()], times=1)
        claims = [
            each["metadata"]["annotations"]["brokkr.io/claim-id"]
            for each in (await stage.kube.list(WORKS, stage.namespace))[0]
        ]
        a_second_broker = a_heartbeat_of(str(uuid4()), claims)
        meddler.answer_in_turn("heartbeat", [*answers.values(), a_second_broker])
        await meddler.is_through("heartbeat")

        meddler.answer_each("complete", by_work)
        async with asyncio.TaskGroup() as ending:
            for name in the_runs([*works.values()]):
                ending.create_task(played.end(name))
        await meddler.asked_for_each("complete", [*works.values()], times=2)
        meddler.answer_each("complete", {})

        await all_end(stage, works, WorkState.SUCCEEDED, ["claimed", "completed"])
        assert not agent.done()
    assert names_of(played.seen) == the_runs([*works.values()])


async def test_what_is_cancelled_is_reported_once_whatever_is_answered(
    stage: Stage, answers: dict[str, Answer]
) -> None:
    async with (
        meddling(stage, slots=len(answers)) as meddler,
        stage.shipwright(never) as played,
        stage.agent(),
    ):
        works = dict(zip(answers, await submitted(stage, len(answers)), strict=True))
        await stage.running(played, runs=len(works), within=60)
        by_work = {works[what].id: each for what, each in answers.items()}
        meddler.answer_each("complete", by_work)
        for each in works.values():
            await stage.broker.admin.cancel_work(each.id)
        await meddler.asked_for_each("complete", [*works.values()], times=2)
        meddler.answer_each("complete", {})

        await all_end(stage, works, WorkState.CANCELLED, ["claimed", "completed"])
    assert names_of(played.seen) == the_runs([*works.values()])


async def test_work_whose_resource_was_deleted_is_reported_once_whatever_is_answered(
    stage: Stage, answers: dict[str, Answer]
) -> None:
    async with (
        meddling(stage, slots=len(answers)) as meddler,
        stage.shipwright(never) as played,
        stage.agent(),
    ):
        works = dict(zip(answers, await submitted(stage, len(answers)), strict=True))
        await stage.running(played, runs=len(works), within=60)
        meddler.answer_each("complete", {works[what].id: each for what, each in answers.items()})
        for each in works.values():
            await stage.kube.delete(WORKS, stage.namespace, work_name(each.id, round=1))
        await meddler.asked_for_each("complete", [*works.values()], times=2)
        meddler.answer_each("complete", {})

        await all_end(stage, works, WorkState.FAILED, ["claimed", "completed"])
    assert names_of(played.seen) == the_runs([*works.values()])


async def test_what_was_stopped_for_an_outage_is_given_back_once_whatever_is_answered(
    stage: Stage, answers: dict[str, Answer]
) -> None:
    """The lease must run out for that; the agent's own word still frees the Work at once."""
    async with (
        meddling(stage, slots=len(answers), when_cut_off="stop") as meddler,
        stage.shipwright(never) as played,
        stage.agent(),
    ):
        found = [await stage.submit(claim_timeout_seconds=8) for _ in answers]
        works = dict(zip(answers, found, strict=True))
        await stage.running(played, runs=len(works), within=60)
        meddler.answer_each("release", {works[what].id: each for what, each in answers.items()})
        meddler.answer_in_turn("heartbeat", [PAGES["no answer"]] * 100_000)
        await meddler.asked_for_each("release", [*works.values()], times=2)
        played.outcome = success
        meddler.answer_in_turn("heartbeat", [])
        meddler.answer_each("release", {})

        ends = {what: await stage.finished(each, within=60) for what, each in works.items()}
    assert {what: end.status for what, end in ends.items() if not end.success} == {}
    assert names_of(played.seen) == sorted([*the_runs(found), *the_runs(found, round=2)])

"""One Work is followed through a broker and an agent: in their logs, and in its trace."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from brokkr.agent.kinds import BUILD_RUNS, WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.broker.db.keys import create_admin_key
from brokkr.broker.db.pool import connect
from brokkr.client import BrokerClient
from brokkr.local.process import free_port
from brokkr.wire.bodies import RegisterAgent, SubmitWork, TargetBody, WorkBody, WorkState
from brokkr.wire.custom_resource import ANNOTATION_TRACEPARENT
from brokkr.work.names import work_name
from brokkr.work.trace import TraceContext
from support.collector import Collector, collecting
from support.factories import a_build_template
from support.shipwright import PlayedShipwright, evicted_at_first
from support.signals import eventually
from support.system import a_broker, an_agent

pytestmark = [pytest.mark.kube, pytest.mark.postgres]

SUBMITTER = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", is_sampled=True)


@dataclass
class Stage:
    """A broker and an agent that run, and what they have said."""

    folder: Path
    url: str
    admin_key: str
    agent_key: str
    admin: BrokerClient
    kube: KubeClient
    namespace: str

    async def finished(self, work: WorkBody) -> WorkBody:
        async def is_finished() -> WorkBody | None:
            found = await self.admin.get_work(work.id)
            return found if found.status.is_finished else None

        return await eventually(is_finished, within=60)

    def log_of(self, program: str) -> list[dict[str, Any]]:
        """Return what a program has logged; each line is one JSON object."""
        lines = (self.folder / f"{program}.log").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def run_stage(
    tmp_path: Path,
    database_url: str,
    agent_kubeconfig: Path,
    kube: KubeClient,
    namespace: str,
) -> Any:
    @asynccontextmanager
    async def run() -> AsyncIterator[Stage]:
        admin_key, port = await create_admin_key(database_url), free_port()
        playing = asyncio.create_task(PlayedShipwright(kube, namespace, evicted_at_first).run())
        async with (
            a_broker(tmp_path, database_url, port=port) as (url, _),
            BrokerClient(url, admin_key) as admin,
        ):
            agent = await admin.register_agent(RegisterAgent(name="edge-7"))
            async with an_agent(
                tmp_path,
                broker_url=url,
                key=agent.key,
                kubeconfig=agent_kubeconfig,
                namespace=namespace,
            ):
                yield Stage(tmp_path, url, admin_key, agent.key, admin, kube, namespace)
        playing.cancel()

    return run


def a_submission() -> SubmitWork:
    return SubmitWork(
        work_type="build", template=a_build_template(), target=TargetBody(agents=["edge-7"])
    )


async def test_the_trace_of_a_work_begins_with_its_submitter_and_ends_with_its_result(
    run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        async with run_stage() as stage:
            submitted = await stage.admin.submit_work(a_submission(), trace=SUBMITTER)
            work = await stage.finished(submitted)
            annotations = await annotations_of(stage, work)
        # Both have stopped, so all that was kept back has been sent.
        spans = collector.of(SUBMITTER.trace_id)

    assert work.status is WorkState.SUCCEEDED
    submission, build = spans["POST /api/v1/work"], spans["build"]
    assert (submission.service, submission.parent_id) == ("brokkr-broker", SUBMITTER.span_id)
    assert submission.attributes["http.route"] == "/api/v1/work"
    assert submission.attributes["http.response.status_code"] == 201
    assert (build.service, build.parent_id) == ("brokkr-agent", submission.span_id)
    assert build.attributes["brokkr.work.id"] == str(work.id)
    assert build.error is None

    attempts = [spans["attempt 1"], spans["attempt 2"]]
    assert {each.parent_id for each in attempts} == {build.span_id}
    assert [each.error for each in attempts] == ["PodEvicted", None]
    for report in ("progress", "complete"):
        span = spans[f"POST /api/v1/work/{{work_id}}/{report}"]
        assert (span.service, span.parent_id) == ("brokkr-broker", build.span_id)

    assert work.traceparent == f"00-{SUBMITTER.trace_id}-{submission.span_id}-01"
    assert annotations == [
        work.traceparent,
        *(f"00-{SUBMITTER.trace_id}-{each.span_id}-01" for each in attempts),
    ]
    assert only_work_is_traced(collector)


async def annotations_of(stage: Stage, work: WorkBody) -> list[str]:
    """Return what stands on the Work resource and on the BuildRuns of its attempts."""
    name = work_name(work.id, round=1)
    objects = [
        await stage.kube.get(WORKS, stage.namespace, name),
        await stage.kube.get(BUILD_RUNS, stage.namespace, f"{name}-a1"),
        await stage.kube.get(BUILD_RUNS, stage.namespace, f"{name}-a2"),
    ]
    return [each["metadata"]["annotations"][ANNOTATION_TRACEPARENT] for each in objects]


def only_work_is_traced(collector: Collector) -> bool:
    """Say whether what watches the broker itself has left no spans."""
    return not any("/readyz" in span.name or "/healthz" in span.name for span in collector.spans)


async def test_a_work_can_be_followed_through_both_logs(run_stage: Any, database_url: str) -> None:
    async with run_stage() as stage:
        submitted = await stage.admin.submit_work(a_submission(), trace=SUBMITTER)
        work = await stage.finished(submitted)

        async def is_reported() -> bool:
            return any(line["event"] == "work reported" for line in stage.log_of("agent"))

        await eventually(is_reported)
        async with connect(database_url) as db:
            await db.execute("ALTER TABLE agents RENAME TO lost")
        async with aiohttp.ClientSession() as http:
            headers = {"Authorization": f"Bearer {stage.admin_key}", "X-Request-ID": "r-1"}
            async with http.get(f"{stage.url}/api/v1/agents", headers=headers) as response:
                assert response.status == 500

    about = [line for line in stage.log_of("agent") if line.get("work_id") == str(work.id)]
    assert (about[0]["event"], about[-1]["event"]) == ("work claimed", "work reported")
    assert [line["reason"] for line in about if line["event"] == "work moved on"] == [
        "AttemptStarted",
        "PodEvicted",
        "AttemptStarted",
        "BuildCompleted",
    ]
    assert {(line["round"], line["trace_id"]) for line in about} == {(1, SUBMITTER.trace_id)}
    assert [line["attempt"] for line in about if "attempt" in line][-1] == 2
    assert no_other_line_is_about_a_work(stage)

    failed = [line for line in stage.log_of("broker") if line.get("request_id") == "r-1"]
    assert [line["event"] for line in failed] == [
        "request answered",
        "Exception in ASGI application",
    ]
    assert "Traceback" in failed[1]["exception"]

    written = "".join((stage.folder / f"{each}.log").read_text() for each in ("broker", "agent"))
    assert stage.admin_key not in written
    assert stage.agent_key not in written


def no_other_line_is_about_a_work(stage: Stage) -> bool:
    """Say whether each line of the agent's that speaks of a Work names it by its id."""
    return all(
        "work_id" in line
        for line in stage.log_of("agent")
        if line["event"].startswith(("work", "attempt", "claim ", "completion"))
    )

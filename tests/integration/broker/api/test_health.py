import pytest

from brokkr.wire.bodies import ClaimOne, CompleteWork, SubmitWork, TargetBody
from support.factories import a_build_template

from .conftest import Served


async def test_health_needs_no_key(served: Served) -> None:
    for path in ("/healthz", "/readyz"):
        assert await served.request("GET", path, key=None) == (200, "ok\n")


async def test_metrics_count_the_queue_and_the_requests(served: Served) -> None:
    target = TargetBody(agents=["nobody"])
    await served.admin.submit_work(
        SubmitWork(work_type="build", template=a_build_template(), target=target)
    )

    status, text = await served.request("GET", "/metrics", key=None)

    assert status == 200
    assert 'brokkr_broker_queued_work{generator="",status="PENDING",type="build"} 1.0' in text
    assert (
        'brokkr_broker_http_request_seconds_count{method="POST",route="/api/v1/work",status="201"}'
        in text
    )


async def test_a_completion_that_is_sent_twice_is_counted_once(served: Served) -> None:
    agent, client = await served.an_agent()
    target = TargetBody(agents=[agent.name])
    work = await served.admin.submit_work(
        SubmitWork(work_type="build", template=a_build_template(), target=target)
    )
    claim = await client.claim_work(work.id, ClaimOne())
    for _ in range(2):
        await client.complete_work(work.id, CompleteWork(claim_id=claim.claim_id, success=True))

    _, text = await served.request("GET", "/metrics", key=None)

    assert 'brokkr_broker_finished_work_total{outcome="succeeded"} 1.0' in text


async def test_the_documentation_page_loads_nothing_from_elsewhere(served: Served) -> None:
    status, page = await served.request("GET", "/docs", key=None)

    assert status == 200
    assert "/api/v1/work/{work_id}/complete" in page
    assert "http://" not in page
    assert "https://" not in page


async def test_the_documentation_page_is_made_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await served.request("GET", "/docs", key=None)
    monkeypatch.delattr("brokkr.broker.api.docs._details")

    assert await served.request("GET", "/docs", key=None) == first

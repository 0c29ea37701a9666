"""What an agent answers to those who ask after its health."""

import json

import aiohttp
import pytest

from brokkr.agent.health import CannotListen, health_endpoint
from brokkr.agent.metrics import Metrics


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_an_agent_without_problems_is_ready() -> None:
    async with health_endpoint("127.0.0.1", 0, metrics=Metrics(), problems=dict) as url:
        assert (await get(f"{url}/readyz"))[0] == 200


async def test_an_agent_that_is_not_ready_says_why_and_is_alive_all_the_same() -> None:
    problems = {"broker": "has not answered a heartbeat yet"}
    async with health_endpoint("127.0.0.1", 0, metrics=Metrics(), problems=lambda: problems) as url:
        status, text = await get(f"{url}/readyz")

        assert status == 503
        assert json.loads(text)["problems"] == problems
        assert (await get(f"{url}/healthz"))[0] == 200


async def test_metrics_are_those_of_now() -> None:
    metrics = Metrics()
    metrics.claims.labels("build").inc(3)
    async with health_endpoint("127.0.0.1", 0, metrics=metrics, problems=dict) as url:
        status, text = await get(f"{url}/metrics")

    assert status == 200
    assert 'brokkr_agent_claims_total{type="build"} 3.0' in text


async def test_a_port_that_is_taken_is_said_with_the_setting_that_changes_it() -> None:
    async with health_endpoint("127.0.0.1", 0, metrics=Metrics(), problems=dict) as url:
        taken = int(url.rpartition(":")[2])
        with pytest.raises(CannotListen, match=r"agent\.health\.port"):
            async with health_endpoint("127.0.0.1", taken, metrics=Metrics(), problems=dict):
                pass

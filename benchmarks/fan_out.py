"""
What a submission costs that many agents match, and to explain why it waits.

The first submission with a target looks at every agent; those after it find the target
stored.  To explain a Work looks at every agent each time.  All over HTTP, for a target of one
agent and for one of all.
"""

import json
from time import perf_counter
from typing import Any

import uvloop

from broker_process import Http, broker_process
from brokkr.broker.db.pool import connect
from machine import middle, report_on, spread
from world import a_template, database, make_agents, throw_away_postgres

AGENTS = 10_000
NEW = 7
KNOWN = 200


async def main() -> None:
    """Run everything."""
    async with throw_away_postgres() as server, database(server) as url, connect(url) as db:
        report = await report_on("fan-out", db)
        await make_agents(db, AGENTS)
        async with broker_process(url) as broker:
            http = await Http.open(broker.url, broker.admin_key)
            for what, target in (
                ("one agent", {"agents": ["agent-1"]}),
                ("all agents", {"match_labels": {"any": "yes"}}),
            ):
                # An agent that does not exist, as an alternative, makes a target a new one.
                new = [
                    await _submit(http, [target, {"agents": [f"nobody-{number}"]}])
                    for number in range(NEW)
                ]
                await _submit(http, [target])
                known = [await _submit(http, [target]) for _ in range(KNOWN)]
                explained = [await _explain(http, target) for _ in range(NEW)]
                report.add(
                    target=what,
                    new_target_ms=middle(new) * 1000,
                    new_spread=spread([each * 1000 for each in new]),
                    known_target_ms=middle(known) * 1000,
                    known_spread=spread([each * 1000 for each in known]),
                    explain_ms=middle(explained) * 1000,
                    explain_spread=spread([each * 1000 for each in explained]),
                )
            await http.close()
        report.save()


async def _submit(http: Http, target: list[dict[str, Any]]) -> float:
    """Submit a Work and return the seconds that it took."""
    body = _body(target)
    began = perf_counter()
    answer = json.loads(await http.post("/api/v1/work", body))
    seconds = perf_counter() - began
    assert answer["eligible_agents"] == (1 if "agents" in target[0] else AGENTS)
    return seconds


async def _explain(http: Http, target: dict[str, Any]) -> float:
    """Submit a Work, have it explained, and return the seconds that the latter took."""
    work_id = json.loads(await http.post("/api/v1/work", _body([target])))["id"]
    began = perf_counter()
    answer = json.loads(await http.get(f"/api/v1/work/{work_id}/explain"))
    seconds = perf_counter() - began
    assert sum(answer["waiting"]["counts"].values()) == AGENTS
    return seconds


def _body(target: list[dict[str, Any]]) -> bytes:
    return json.dumps({"work_type": "build", "template": a_template(), "target": target}).encode()


if __name__ == "__main__":
    uvloop.run(main())

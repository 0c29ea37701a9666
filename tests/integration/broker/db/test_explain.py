"""Why a Work is where it is, as the database knows it."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from brokkr.broker.db import agents, explain
from brokkr.broker.db.pool import transaction
from brokkr.broker.db.work_queue import HandOffPolicy
from brokkr.wire.bodies import AgentBody, Capabilities, Capacity, Heartbeat, Unable
from brokkr.wire.explain import Explanation, Waiting
from brokkr.work.errors import AgentNotFound
from brokkr.work.explain import Rule
from support.queue import Queue


async def explained(
    queue: Queue, work_id: UUID, agent: str | None = None, *, for_tenant: bool = False
) -> Explanation:
    work = await queue.look(work_id)
    async with transaction(queue.pool) as db:
        return await explain.explain_work(db, work, agent=agent, for_tenant=for_tenant)


async def waiting(queue: Queue, work_id: UUID, agent: str | None = None) -> Waiting:
    found = (await explained(queue, work_id, agent)).waiting
    assert found is not None
    return found


async def rules(queue: Queue, work_id: UUID) -> dict[str, Rule]:
    return {each.name: each.rule for each in (await waiting(queue, work_id)).agents}


async def beat(
    queue: Queue,
    agent: AgentBody,
    *,
    free: int = 1,
    types: str = "build",
    unavailable: dict[str, str] | None = None,
) -> None:
    async with transaction(queue.pool) as db:
        await agents.touch_agent(
            db,
            agent.id,
            Heartbeat(
                incarnation=uuid4(),
                capacity=Capacity(max_concurrent=4, free=free),
                capabilities=Capabilities(types=types.split(","), unavailable=unavailable or {}),
            ),
        )


async def a_ready_agent(queue: Queue, name: str, **labels: str) -> AgentBody:
    agent = await queue.an_agent(name, annotations=None, **labels)
    await beat(queue, agent)
    return agent


async def test_it_is_explained_that_agents_cannot_work_in_their_clusters(queue: Queue) -> None:
    agent = await a_ready_agent(queue, "edge-1")
    claim = await queue.claim(await queue.submit(), by=agent)
    cause = "the API server does not answer"
    beat = Heartbeat(
        incarnation=uuid4(),
        capabilities=Capabilities(
            types=[],
            unavailable={"build": cause},
            unable=Unable(reason="unreachable", cause=cause, seconds=1),
        ),
    )
    async with transaction(queue.pool) as db:
        await agents.touch_agent(db, agent.id, beat)
    held = await explained(queue, claim.work_id)
    queue.policy = HandOffPolicy(base=timedelta(minutes=1))
    await queue.unworkable(claim, by=agent, reason=cause)
    pending = await explained(queue, claim.work_id)

    assert held.summary.endswith(f"the agent cannot work in its cluster: {cause}.")
    assert pending.waiting is not None
    assert pending.waiting.agents[0].sentence == f"cannot work in its cluster: {cause}"


async def test_it_is_explained_why_a_work_rests_that_agents_could_not_work_on(
    queue: Queue,
) -> None:
    queue.policy = HandOffPolicy(base=timedelta(minutes=1))
    agent = await a_ready_agent(queue, "edge-1")
    work_id = await queue.submit()
    for _ in range(2):
        await queue.unworkable(await queue.claim(work_id, by=agent), by=agent, reason="no answer")

    found = await explained(queue, work_id)

    assert re.fullmatch(
        r"It waits until .* UTC \(its last agent could not work: no answer\); after that, "
        "1 agent may claim it.",
        found.summary,
    )


async def test_each_agent_is_kept_by_its_rule_and_the_nearest_come_first(queue: Queue) -> None:
    work_id = await queue.submit({"match_labels": {"gpu": "true"}})
    await a_ready_agent(queue, "ready", gpu="true")
    await beat(queue, await queue.an_agent("busy", gpu="true"), free=0)
    unable = await queue.an_agent("unable", gpu="true")
    await beat(queue, unable, types="test", unavailable={"build": "Shipwright is not installed"})
    await queue.an_agent("unseen", gpu="true")
    await queue.drain(await a_ready_agent(queue, "drained", gpu="true"))
    await beat(queue, await queue.an_agent("backups", gpu="true"), types="backup,test")
    await a_ready_agent(queue, "plain")

    found = await explained(queue, work_id)

    assert found.waiting is not None
    assert [(each.name, each.rule.value) for each in found.waiting.agents] == [
        ("ready", "may_claim"),
        ("busy", "no_free_slot"),
        ("unable", "type_unavailable"),
        ("unseen", "not_seen"),
        ("drained", "drained"),
        ("backups", "type_not_supported"),
        ("plain", "does_not_match"),
    ]
    assert found.waiting.counts == {rule: 1 for rule in Rule if rule is not Rule.TRIED_BEFORE}
    assert found.waiting.agents[2].sentence == (
        "cannot execute build now: Shipwright is not installed"
    )
    [term] = found.waiting.agents[-1].unmet
    assert (term.term, term.wanted, term.actual) == ("match_labels.gpu", "'true'", None)
    assert found.could_ever is True
    assert found.summary == "1 agent may claim it now; it is the first of its lane."
    assert found.work.resource is None


async def test_an_agent_that_was_silent_for_two_minutes_is_not_there(queue: Queue) -> None:
    work_id = await queue.submit()
    await a_ready_agent(queue, "edge-1")
    silence = "UPDATE agents SET last_seen_at = now() - $1::interval"

    await queue.pool.execute(silence, timedelta(seconds=115))
    assert await rules(queue, work_id) == {"edge-1": Rule.MAY_CLAIM}
    await queue.pool.execute(silence, timedelta(seconds=121))
    assert await rules(queue, work_id) == {"edge-1": Rule.NOT_SEEN}


async def test_who_has_handed_it_on_is_left_out_only_while_others_can(queue: Queue) -> None:
    tried, other = [await a_ready_agent(queue, name) for name in ("tried", "other")]
    work_id = await queue.submit(max_handoffs=2)
    await queue.complete(await queue.claim(work_id, tried), tried, success=False, retryable=True)

    assert await rules(queue, work_id) == {
        "other": Rule.MAY_CLAIM,
        "tried": Rule.TRIED_BEFORE,
    }
    await queue.drain(other)
    assert await rules(queue, work_id) == {"tried": Rule.MAY_CLAIM, "other": Rule.DRAINED}


@pytest.mark.parametrize(
    ("has_agent", "summary"),
    [
        (False, "Nobody could claim it: no agent is registered."),
        (True, "Nobody could claim it: no agent of 1 matches its target."),
    ],
)
async def test_work_that_nobody_could_ever_take_is_said_to_be_that(
    queue: Queue, summary: str, *, has_agent: bool
) -> None:
    if has_agent:
        await a_ready_agent(queue, "edge-1")
    work_id = await queue.submit({"agents": ["nobody"]})

    found = await explained(queue, work_id)

    assert (found.could_ever, found.summary) == (False, summary)


async def test_work_of_a_type_that_is_unavailable_everywhere_could_still_be_taken(
    queue: Queue,
) -> None:
    work_id = await queue.submit()
    await beat(queue, await queue.an_agent(), types="test", unavailable={"build": "no disk"})

    found = await explained(queue, work_id)

    assert found.could_ever is True
    assert found.summary == (
        "Nobody can claim it now: of 1 agent for it, 1 unable to execute its type now."
    )


async def test_a_deleted_agent_is_not_spoken_of(queue: Queue) -> None:
    work_id = await queue.submit()
    await queue.delete_agent(await a_ready_agent(queue, "edge-1"))

    assert (await waiting(queue, work_id)).agents == []


async def test_work_that_is_not_due_says_until_when_and_why(queue: Queue) -> None:
    agent = await a_ready_agent(queue, "edge-1")
    later = datetime.now(UTC) + timedelta(hours=1)
    delayed = await queue.submit(not_before=later, start_within_seconds=60)
    queue.policy = type(queue.policy)(base=timedelta(hours=1), cap=timedelta(hours=2))
    handed = await queue.submit(max_handoffs=1, start_within_seconds=60)
    await queue.complete(await queue.claim(handed, agent), agent, success=False, retryable=True)

    delay, backoff = await waiting(queue, delayed), await waiting(queue, handed)

    assert (delay.not_due_until, delay.not_due_because) == (later, "delay")
    assert delay.start_deadline == later + timedelta(seconds=60)
    assert backoff.not_due_until is not None
    assert timedelta(minutes=50) < backoff.not_due_until - datetime.now(UTC)
    # It has started in time, so the deadline is over.
    assert (backoff.not_due_because, backoff.start_deadline) == ("backoff", None)
    assert (await explained(queue, delayed)).summary == (
        f"It waits until {later:%Y-%m-%d %H:%M:%S} UTC (delay); after that, 1 agent may claim it."
    )


async def test_its_place_is_what_goes_first_in_its_lane_and_for_each_agent(queue: Queue) -> None:
    await a_ready_agent(queue, "edge-1", gpu="true")
    await a_ready_agent(queue, "edge-2")
    gpu = {"match_labels": {"gpu": "true"}}
    for target, priority in ((None, 0), (None, 5), (gpu, 9), (gpu, -1), (None, -1)):
        await queue.submit(target, priority=priority)
    await queue.submit(not_before=datetime.now(UTC) + timedelta(hours=1), priority=9)
    work_id = await queue.submit()
    await queue.submit()

    found = await waiting(queue, work_id)

    assert (found.ahead.count, found.ahead.is_exact) == (2, True)
    ahead = {each.name: each.ahead.count for each in found.agents if each.ahead is not None}
    assert ahead == {"edge-1": 3, "edge-2": 2}
    assert (await explained(queue, work_id)).summary == (
        "2 agents may claim it now; 2 of its lane go first."
    )


async def test_what_an_agent_does_not_support_is_not_ahead_for_it(queue: Queue) -> None:
    agent = await a_ready_agent(queue, "edge-1")
    await queue.submit()
    await queue.pool.execute("UPDATE selectors SET work_type = 'backup'")
    work_id = await queue.submit()

    assert (await waiting(queue, work_id)).agents[0].ahead is not None
    assert await ahead_for(queue, work_id) == 0
    await queue.pool.execute("UPDATE agents SET capabilities = NULL WHERE id = $1", agent.id)
    assert await ahead_for(queue, work_id) == 1


async def ahead_for(queue: Queue, work_id: UUID) -> int:
    [agent] = (await waiting(queue, work_id)).agents
    assert agent.ahead is not None
    return agent.ahead.count


async def test_counting_stops_where_nobody_reads_on(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokkr.broker.db.explain._COUNTED_AHEAD", 3)
    await a_ready_agent(queue, "edge-1")
    works = [await queue.submit() for _ in range(6)]

    found = [(await waiting(queue, work_id)).ahead for work_id in works]

    assert [(each.count, each.is_exact) for each in found] == [
        *((0, True), (1, True), (2, True), (3, False), (3, False), (3, False)),
    ]
    assert "3 or more of its lane go first" in (await explained(queue, works[-1])).summary


async def test_one_agent_is_looked_at_by_name_or_id(queue: Queue) -> None:
    work_id = await queue.submit({"agents": ["edge-1"]})
    await a_ready_agent(queue, "edge-1")
    other = await a_ready_agent(queue, "edge-2")

    for ref in (other.name, str(other.id)):
        found = await waiting(queue, work_id, agent=ref)
        assert [each.name for each in found.agents] == ["edge-2"]
        assert found.counts == {Rule.MAY_CLAIM: 1, Rule.DOES_NOT_MATCH: 1}
    with pytest.raises(AgentNotFound):
        await explained(queue, work_id, agent="edge-3")


async def test_a_tenant_learns_which_requirement_fails_and_nothing_of_the_agents(
    queue: Queue,
) -> None:
    work_id = await queue.submit(
        {
            "match_labels": {"zone": "eu", "owner": "guess"},
            "match_expressions": [{"key": "gpu", "operator": "NotIn", "values": ["old"]}],
        }
    )
    await a_ready_agent(queue, "their-agent", zone="eu", owner="their-team", gpu="old")
    await a_ready_agent(queue, "another-agent", owner="their-team", gpu="old")

    found = await explained(queue, work_id, for_tenant=True)

    assert found.waiting is not None
    assert (found.waiting.agents, found.waiting.counts, found.could_ever) == ([], {}, False)
    assert [(each.term, each.wanted, each.actual) for each in found.waiting.unmet] == [
        ("match_labels.owner", "'guess'", None),
        ("match_expressions.gpu", "none of old", None),
    ]
    assert found.summary == (
        "Nobody could claim it: no agent matches its target; the nearest one does not meet "
        "match_labels.owner ('guess'), match_expressions.gpu (none of old)."
    )
    told = found.model_dump_json()
    assert not any(each in told for each in ("their-team", "their-agent", "another-agent"))


async def test_a_tenant_cannot_ask_of_an_agent_that_its_target_does_not_select(
    queue: Queue,
) -> None:
    work_id = await queue.submit({"agents": ["edge-1"]})
    await beat(queue, await queue.an_agent("edge-1"), types="backup")
    await a_ready_agent(queue, "edge-2")

    found = await explained(queue, work_id, "edge-1", for_tenant=True)
    assert found.waiting is not None
    assert [each.sentence for each in found.waiting.agents] == [
        "does not support work of type build"
    ]
    for ref in ("edge-2", "edge-3"):
        with pytest.raises(AgentNotFound, match=f"^there is no agent {ref}$"):
            await explained(queue, work_id, ref, for_tenant=True)


async def test_without_any_agent_a_tenant_hears_the_same(queue: Queue) -> None:
    work_id = await queue.submit({"agents": ["edge-1"]})

    assert (await explained(queue, work_id, for_tenant=True)).summary == (
        "Nobody could claim it: no agent matches its target."
    )


async def test_work_that_is_held_or_over_is_told_in_a_sentence(queue: Queue) -> None:
    agent = await a_ready_agent(queue, "edge-1")
    work_id = await queue.submit()
    claim = await queue.claim(work_id, agent)
    await queue.progress(claim, agent, message="pulling")
    await queue.cancel(work_id)

    held = await explained(queue, work_id)
    await queue.complete(claim, agent, success=False, message="no such revision")
    over = await explained(queue, work_id)

    assert held.waiting is None
    assert held.could_ever is None
    assert held.summary.startswith("edge-1 has held it since ")
    assert held.summary.endswith(
        " s of its lease are left; attempt 1 is running: pulling; its cancel was requested."
    )
    assert over.work.completed_at is not None
    assert over.summary == (
        f"It is failed since {over.work.completed_at:%Y-%m-%d %H:%M:%S} UTC on edge-1: "
        "no such revision."
    )


async def test_of_ten_thousand_agents_the_nearest_are_shown_and_all_are_counted(
    queue: Queue,
) -> None:
    await queue.pool.execute(
        "INSERT INTO agents (id, name, cluster_name, labels, annotations, last_seen_at, capacity,"
        " capabilities)"
        " SELECT gen_random_uuid(), 'edge-' || n, 'c', jsonb_build_object('zone', 'eu-' || n % 100,"
        "        'gpu', (n % 2 = 0)::text), '{}', now(), '{\"max_concurrent\": 4, \"free\": 1}',"
        '        \'{"types": ["build"]}\''
        "   FROM generate_series(1, 10000) AS n"
    )
    work_id = await queue.submit({"match_labels": {"gpu": "true", "zone": "eu-2"}})

    found = await waiting(queue, work_id)

    assert found.counts == {Rule.MAY_CLAIM: 100, Rule.DOES_NOT_MATCH: 9900}
    assert len(found.agents) == explain.SHOWN
    assert {each.rule for each in found.agents} == {Rule.MAY_CLAIM}


async def test_of_a_failed_work_it_is_said_whose_failure_it_was(queue: Queue) -> None:
    agent = await a_ready_agent(queue, "edge", role="builder")
    work_id = await queue.submit()
    claim = await queue.claim(work_id, by=agent)
    await queue.progress(claim, by=agent, attempt=3, infrastructure_retries=2)
    meanwhile = (await explained(queue, work_id)).summary

    await queue.complete(
        claim, by=agent, success=False, message="denied", result={"fault": "registry"}
    )

    assert "2 attempts were lost to the cluster and repeated" in meanwhile
    assert (await explained(queue, work_id)).summary.endswith(": denied; fault: registry.")

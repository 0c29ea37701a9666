"""
What holds in every cluster that has Shipwright and Tekton: `make test-cluster`.

Local mode is one of them: `tests/acceptance/test_cluster_suite.py` runs all of this there.
"""

import asyncio

import pytest

from brokkr.agent.kinds import BUILD_RUNS
from brokkr.wire.bodies import WorkBody, WorkState
from support.any_cluster import AGENTS, Stand, reason_of
from support.signals import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


async def test_an_image_is_built_and_pushed_and_its_digest_and_commit_are_the_result(
    stand: Stand,
) -> None:
    work = await stand.run_to_its_end(stand.a_build("succeeds"))

    assert work.status is WorkState.SUCCEEDED, work.result_message
    assert work.result is not None
    assert work.result["digest"].startswith("sha256:")
    assert work.result["git"]["commit_sha"]
    (build_run,) = await stand.build_runs_of(work)
    assert build_run["status"]["output"]["digest"] == work.result["digest"]


async def test_a_failure_that_recurs_for_sure_is_not_retried(stand: Stand) -> None:
    build = stand.a_build("fails", git={"revision": "no-such-branch"})
    work = await stand.run_to_its_end(build, max_retries=3)

    assert (work.status, work.retries_attempted) == (WorkState.FAILED, 0), work.result_message
    assert _outcomes(work) == ["GitNotFound"]


async def test_an_attempt_that_is_lost_is_retried_and_the_next_one_succeeds(stand: Stand) -> None:
    build = stand.a_build("retried", dockerfile="Dockerfile.sleeps", build_args=["SECONDS=3"])
    submitted = await stand.submit(build)
    first = await stand.running(submitted)
    place, name = first["metadata"]["namespace"], first["metadata"]["name"]
    await stand.kube.delete(BUILD_RUNS, place, name)
    work = await stand.end_of(submitted)

    assert (work.status, work.retries_attempted) == (WorkState.SUCCEEDED, 0), work.result_message
    assert work.result is not None
    assert work.result["infrastructure_retries"] == 1  # it was not the user's fault
    assert [each["reason"] for each in work.result["attempts"]] == [
        "AttemptMissing",
        "BuildCompleted",
    ]
    (second,) = await stand.build_runs_of(work)
    assert second["metadata"]["name"] != name


async def test_a_build_that_is_cancelled_while_it_runs_is_stopped_and_not_retried(
    stand: Stand,
) -> None:
    work = await stand.submit(
        stand.a_build("cancelled", dockerfile="Dockerfile.sleeps"), max_retries=3
    )
    await stand.running(work)
    await stand.broker.cancel_work(work.id)
    end = await stand.end_of(work)

    assert (end.status, end.retries_attempted) == (WorkState.CANCELLED, 0), end.result_message
    (build_run,) = await stand.build_runs_of(work)
    assert reason_of(build_run) == "BuildRunCanceled"


async def test_a_build_goes_on_while_its_agent_is_dead_and_is_reported_by_the_next(
    stand: Stand,
) -> None:
    build = stand.a_build("survives", dockerfile="Dockerfile.sleeps", build_args=["SECONDS=3"])
    submitted = await stand.submit(build, max_retries=1)
    before = await stand.running(submitted)
    await stand.agents["blue"].kill()

    async def has_ended() -> bool:
        (build_run,) = await stand.build_runs_of(submitted)
        return reason_of(build_run) == "Succeeded"

    await eventually(has_ended, within=600)
    assert (await stand.broker.get_work(submitted.id)).status is WorkState.CLAIMED
    await stand.agents["blue"].start()
    work = await stand.end_of(submitted)

    assert (work.status, work.round, work.retries_attempted) == (WorkState.SUCCEEDED, 1, 0)
    (after,) = await stand.build_runs_of(work)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


async def test_without_their_secrets_repository_and_registry_refuse_and_nothing_is_retried(
    stand: Stand,
) -> None:
    no_clone, no_push = await asyncio.gather(
        stand.run_to_its_end(stand.a_build("no-clone", git={"cloneSecret": None}), max_retries=1),
        stand.run_to_its_end(stand.a_build("no-push", output={"pushSecret": None}), max_retries=1),
    )

    assert no_clone.status is WorkState.FAILED
    assert no_push.status is WorkState.FAILED
    assert _outcomes(no_clone) == ["GitCredentials"], no_clone.result_message
    # The one if Shipwright pushes, the other if the strategy's own step does.
    assert _outcomes(no_push) in (["PushRefused"], ["RegistryRefused"]), no_push.result_message


async def test_each_agent_builds_what_its_labels_are_asked_for(stand: Stand) -> None:
    works = await asyncio.gather(
        *(stand.run_to_its_end(stand.a_build(each), colour=each) for each in AGENTS)
    )

    for colour, work in zip(AGENTS, works, strict=True):
        assert (work.status, work.agent) == (WorkState.SUCCEEDED, colour), work.result_message
        (build_run,) = await stand.build_runs_of(work)
        assert build_run["metadata"]["namespace"] == stand.agents[colour].namespace


async def test_a_work_whose_labels_no_agent_has_waits(stand: Stand) -> None:
    work = await stand.submit(stand.a_build("waits"), colour="red")
    explained = await stand.broker.explain_work(work.id)
    end = await stand.broker.cancel_work(work.id)

    assert explained.could_ever is False
    assert end.status is WorkState.CANCELLED
    assert await stand.build_runs_of(work) == []


def _outcomes(work: WorkBody) -> list[str]:
    """Return the class of each attempt that failed, and the reason of the one that did not."""
    assert work.result is not None
    return [each.get("class") or each["reason"] for each in work.result["attempts"]]

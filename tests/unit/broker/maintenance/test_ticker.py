import asyncio
from datetime import timedelta

from structlog.testing import capture_logs

from brokkr.broker.maintenance.ticker import every
from brokkr.work.errors import DatabaseUnavailable


async def test_a_job_runs_again_after_it_has_failed() -> None:
    runs: list[int] = []
    enough = asyncio.Event()

    async def job() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError("this once")
        enough.set()

    with capture_logs() as logs:
        ticking = asyncio.create_task(every(timedelta(milliseconds=1), job, name="a job"))
        await asyncio.wait_for(enough.wait(), 5)
        ticking.cancel()

    assert logs[0]["event"] == "job failed"
    assert logs[0]["job"] == "a job"


async def test_a_job_does_not_run_before_its_interval_is_over() -> None:
    runs: list[int] = []

    async def job() -> None:
        runs.append(1)

    ticking = asyncio.create_task(every(timedelta(hours=1), job, name="a job"))
    await asyncio.sleep(0.01)
    ticking.cancel()

    assert runs == []


async def test_a_job_that_hangs_is_ended_and_runs_again() -> None:
    runs: list[int] = []
    again = asyncio.Event()

    async def job() -> None:
        runs.append(1)
        if len(runs) == 2:
            again.set()
        await asyncio.Event().wait()

    short = timedelta(milliseconds=1)
    with capture_logs() as logs:
        ticking = asyncio.create_task(every(short, job, name="a job", longest=short))
        await asyncio.wait_for(again.wait(), 5)
        ticking.cancel()

    assert logs[0]["event"] == "job failed"


async def test_a_database_that_is_away_is_logged_once_and_without_a_traceback() -> None:
    runs: list[int] = []
    enough = asyncio.Event()

    async def job() -> None:
        runs.append(1)
        if len(runs) <= 3:
            raise DatabaseUnavailable("away")
        if len(runs) == 5:
            enough.set()

    with capture_logs() as logs:
        ticking = asyncio.create_task(every(timedelta(milliseconds=1), job, name="a job"))
        await asyncio.wait_for(enough.wait(), 5)
        ticking.cancel()

    assert [line["event"] for line in logs] == ["database not reached", "database reached again"]
    assert not any("exc_info" in line for line in logs)

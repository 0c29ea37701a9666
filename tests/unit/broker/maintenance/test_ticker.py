import asyncio
from datetime import timedelta

from structlog.testing import capture_logs

from brokkr.broker.maintenance.ticker import every


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

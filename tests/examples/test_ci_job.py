"""The example of a CI job: a build, its image by digest, and its exit codes."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from brokkr.client import WorkState
from brokkr.client.submission import read_template
from brokkr.local.up import CLONE_SECRET, PUSH_SECRET
from support.local import Local, build_args, value
from support.signals import eventually

pytestmark = [pytest.mark.build, pytest.mark.kube, pytest.mark.postgres]

SCRIPT = Path(__file__).parents[2] / "examples" / "ci-job" / "build_image.py"
SLEEPS = [value("dockerfile", "Dockerfile.sleeps"), build_args("SECONDS=3600")]


@asynccontextmanager
async def started(
    local: Local, folder: Path, template: dict[str, Any], *words: str, **environment: str
) -> AsyncIterator[Process]:
    """Start the script; kill it if it is still running when the block is left."""
    file = folder / "work.yaml"
    file.write_text(yaml.safe_dump(template))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), str(file), "--target", "env=quick", *words),
        env={
            **os.environ,
            "BROKKR_URL": local.system.broker_url,
            "BROKKR_KEY": local.system.admin_key,
            **environment,
        },
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def outcome(
    local: Local, folder: Path, template: dict[str, Any], *words: str, **environment: str
) -> tuple[int | None, str, str]:
    async with started(local, folder, template, *words, **environment) as process:
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


def steady(text: str) -> str:
    """Leave out what differs from run to run."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)
    return re.sub(r":\d+/|[0-9a-f]{64}", "NUMBER", text)


def work_of(line: str) -> UUID:
    return UUID(line.removeprefix("work ").split()[0])


async def test_a_build_that_succeeds_ends_with_0_and_its_image(
    local: Local, tmp_path: Path
) -> None:
    template = read_template(SCRIPT.with_name("work.yaml"))
    git = {"url": f"{local.system.git_url}/hello-image.git", "cloneSecret": CLONE_SECRET}
    template["spec"]["source"]["git"].update(git)
    template["spec"]["output"].update(image=local.image("ci-job"), pushSecret=PUSH_SECRET)
    run = {"CI_RUN_ID": str(tmp_path)}
    code, out, err = await outcome(local, tmp_path, template, **run)
    work = await local.broker.get_work(work_of(err))

    assert (code, work.status) == (0, WorkState.SUCCEEDED)
    assert work.result is not None
    assert out == f"{work.result['image_ref']}\n"
    # A job that is repeated finds its Work.
    assert await outcome(local, tmp_path, template, **run) == (0, out, err)
    readme = SCRIPT.with_name("README.md").read_text()
    (shown,) = re.findall(r"\n\n```\n(.*?)```", readme, re.DOTALL)
    assert steady(err + out) == steady(shown)


async def test_a_build_that_fails_ends_with_1_and_why(local: Local, tmp_path: Path) -> None:
    code, out, err = await outcome(
        local, tmp_path, local.a_build(values=[value("dockerfile", "nowhere")])
    )

    assert (code, out) == (1, "")
    assert "nowhere" in err.splitlines()[-1]


async def test_what_is_wrong_ends_with_2(local: Local, tmp_path: Path) -> None:
    code, _, err = await outcome(local, tmp_path, {"kind": "Pod"})

    assert (code, err.startswith("error: template.kind: ")) == (2, True)


async def test_a_broker_that_refuses_ends_with_3(local: Local, tmp_path: Path) -> None:
    code, _, err = await outcome(local, tmp_path, local.a_build(), BROKKR_KEY="wrong")

    assert (code, err.startswith("error: ")) == (3, True)


async def test_a_build_that_takes_too_long_is_cancelled(local: Local, tmp_path: Path) -> None:
    template = local.a_build(values=SLEEPS)
    code, out, err = await outcome(local, tmp_path, template, "--timeout", "1")

    assert (code, out) == (124, "")
    assert "is not finished after 1.0 s; cancelling it" in err
    await is_cancelled(local, work_of(err))


async def test_a_job_that_is_stopped_cancels_its_build(local: Local, tmp_path: Path) -> None:
    async with started(local, tmp_path, local.a_build(values=SLEEPS)) as process:
        assert process.stderr is not None
        line = (await process.stderr.readline()).decode()
        process.send_signal(signal.SIGTERM)
        code = await process.wait()

    assert code == 130
    await is_cancelled(local, work_of(line))


async def is_cancelled(local: Local, work_id: UUID) -> None:
    async def has_ended() -> bool:
        return (await local.broker.get_work(work_id)).status is WorkState.CANCELLED

    await eventually(has_ended, within=40)

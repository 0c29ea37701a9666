"""Processes come back, can be replaced while they are frozen, and are all ended."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from chaos.supervised import Exit, Supervised

_UNTIL_SUPERSEDED = """
echo $$ > owner.$$; mv owner.$$ owner
while [ "$(cat owner)" = $$ ]; do sleep 0.01; done
echo "error: a newer process is at work"; exit 1
"""


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not fact():  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.02)


@asynccontextmanager
async def supervised(folder: Path, script: str) -> AsyncIterator[Supervised]:
    process = Supervised("it", ["sh", "-c", script], folder=folder, cwd=folder)
    running = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        running.cancel()
        await asyncio.wait([running])
        assert process.alive == 0


async def test_a_frozen_process_finds_its_successor_at_work_and_ends_alone(tmp_path: Path) -> None:
    owner = tmp_path / "owner"
    async with supervised(tmp_path, _UNTIL_SUPERSEDED) as process:
        await until(owner.exists)
        first = owner.read_text()
        async with process.replaced():
            await until(lambda: owner.read_text() != first)
            assert (process.alive, process.exits) == (2, [])
        await until(lambda: process.alive == 1)

        assert process.exits == [Exit("it", 1, "error: a newer process is at work")]
        assert process.exits[0].has_reason
        assert Path(f"/proc/{owner.read_text().strip()}").exists()
        assert len(process.logs) == 2


async def test_what_is_killed_comes_back_and_has_not_ended_on_its_own(tmp_path: Path) -> None:
    async with supervised(tmp_path, "echo > started.$$; exec sleep 3600") as process:
        await until(lambda: len(list(tmp_path.glob("started.*"))) == 1)
        process.kill()
        await until(lambda: len(list(tmp_path.glob("started.*"))) == 2)

        assert process.exits == []


async def test_what_is_frozen_and_replaced_is_ended_as_well(tmp_path: Path) -> None:
    async with supervised(tmp_path, "exec sleep 3600") as process:
        await until(lambda: process.alive == 1)
        async with process.replaced():
            process.freeze()
            assert process.alive == 2


def test_an_end_without_an_error_in_the_log_has_no_reason() -> None:
    assert Exit("it", 1, '{"level": "error", "event": "no database"}').has_reason
    assert Exit("it", 1, "2026-01-01 [error    ] no API server").has_reason
    assert not Exit("it", 0, "error: none").has_reason
    assert not Exit("it", -11, "error: before a crash").has_reason
    assert not Exit("it", 1, '{"level": "info", "event": "agent started"}').has_reason


def test_an_agent_has_no_reason_to_end_but_a_newer_process() -> None:
    forbidden = "error: the cluster: forbidden"
    newer = "error: a newer process of this agent is connected; this one must stop"

    assert Exit("agent-0", 1, newer).has_reason
    assert not Exit("agent-0", 3, forbidden).has_reason
    assert Exit("real-build-runner", 1, forbidden).has_reason

"""
The table of faults, and when which one is done: all of it from the seed.

A fault is done to one part, lasts for some seconds, and is undone.  Several may be on at once.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass
from random import Random
from typing import Final

from brokkr.agent.kinds import PODS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from chaos.line import Line
from chaos.system import AGENTS, BROKERS, CLUSTERS, REAL_RUNNER, System, namespaces

Done = Callable[[System, int, Random], AbstractAsyncContextManager[None]]
"""Does harm to the n-th part of its kind for the length of the block."""

_PAUSE_SECONDS: Final = 3.0
_BUILD_WAITED_SECONDS: Final = 10.0
"""For a build to be under way, before the runner of real ones is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    One row.

    Attributes:
        parts: How many it could be done to.
        seconds: Within which it lasts; a killed process is back after half a second.
        needs: What the machine must allow, as :attr:`System.unavailable` names it.
    """

    do: Done
    parts: int = 1
    seconds: tuple[float, float] = (0.0, 0.0)
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A fault to come, so many seconds after the beginning."""

    at: float
    name: str
    part: int
    seconds: float


def schedule(seed: int, seconds: float) -> list[Scheduled]:
    """Return what is done within so many seconds; every fault once before one comes again."""
    dice = Random(f"faults {seed}")
    at, deck, found = 2.0, list[str](), list[Scheduled]()
    while True:
        at += dice.expovariate(1 / _PAUSE_SECONDS)
        if at > seconds:
            return found
        if not deck:
            deck = dice.sample(list(FAULTS), len(FAULTS))
        name = deck.pop()
        fault = FAULTS[name]
        found.append(
            Scheduled(
                round(at, 2),
                name,
                dice.randrange(fault.parts),
                round(dice.uniform(*fault.seconds), 2),
            )
        )


def _killed(name: str) -> Done:
    @asynccontextmanager
    async def do(system: System, part: int, dice: Random) -> AsyncIterator[None]:
        system.processes[f"{name}-{part}"].kill()
        yield

    return do


def _frozen(name: str) -> Done:
    @asynccontextmanager
    async def do(system: System, part: int, dice: Random) -> AsyncIterator[None]:
        process = system.processes[f"{name}-{part}"]
        process.freeze()
        try:
            yield
        finally:
            process.thaw()

    return do


@asynccontextmanager
async def _replaced(system: System, part: int, dice: Random) -> AsyncIterator[None]:
    async with system.processes[f"agent-{part}"].replaced():
        yield


async def _until_a_build_is_under_way(system: System) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_BUILD_WAITED_SECONDS):
            while not system.builds_under_way():
                await asyncio.sleep(0.1)


@asynccontextmanager
async def _pod_lost(system: System, part: int, dice: Random) -> AsyncIterator[None]:
    """Delete the Pod of a real build in mid-run, as whoever drains a node does."""
    await _until_a_build_is_under_way(system)
    async with AsyncExitStack() as stack:
        running = []
        for cluster, kubeconfig in enumerate(system.kubeconfigs):
            kube = await stack.enter_async_context(KubeClient(KubeConfig.load(kubeconfig)))
            for namespace in namespaces(cluster, real=True):
                pods, _ = await kube.list(PODS, namespace)
                running += [
                    (kube, namespace, each["metadata"])
                    for each in pods
                    if each.get("status", {}).get("phase") == "Running"
                ]
        kube, namespace, pod = dice.choice(running)
        await kube.delete(PODS, namespace, pod["name"], uid=pod["uid"])
    yield


@asynccontextmanager
async def _real_runner_killed(system: System, part: int, dice: Random) -> AsyncIterator[None]:
    await _until_a_build_is_under_way(system)
    system.processes[REAL_RUNNER].kill()
    yield


@asynccontextmanager
async def _postgres_killed(system: System, part: int, dice: Random) -> AsyncIterator[None]:
    os.kill(system.postmaster(), signal.SIGKILL)
    yield


@asynccontextmanager
async def _backend_killed(system: System, part: int, dice: Random) -> AsyncIterator[None]:
    os.kill(dice.choice(await system.backends()), signal.SIGKILL)
    yield


@asynccontextmanager
async def _backends_ended(system: System, part: int, dice: Random) -> AsyncIterator[None]:
    for pid in await system.backends():
        os.kill(pid, signal.SIGTERM)
    yield


@asynccontextmanager
async def _disk_filled(system: System, part: int, dice: Random) -> AsyncIterator[None]:
    await asyncio.to_thread(system.fill_disk)
    try:
        yield
    finally:
        system.free_disk()


@asynccontextmanager
async def _clock_stepped(system: System, part: int, dice: Random) -> AsyncIterator[None]:
    system.step_clock(part, dice.choice((-60, 60)))
    try:
        yield
    finally:
        system.step_clock(part, 0)


@asynccontextmanager
async def _watches_dropped(system: System, part: int, dice: Random) -> AsyncIterator[None]:
    system.api_lines[part].drop()
    yield


def _with(where: str, change: Callable[[Line], None], undo: Callable[[Line], None]) -> Done:
    @asynccontextmanager
    async def do(system: System, part: int, dice: Random) -> AsyncIterator[None]:
        line = (system.api_lines if where == "api" else system.broker_lines)[part]
        change(line)
        try:
            yield
        finally:
            undo(line)

    return do


def _cut(line: Line) -> None:
    line.is_cut = True
    line.drop()


def _mend(line: Line) -> None:
    line.is_cut = False


def _spoil_tokens(line: Line) -> None:
    line.spoils_tokens = True
    line.drop()


def _know_tokens(line: Line) -> None:
    line.spoils_tokens = False


def _set(name: str, *, value: object, normal: object) -> tuple[Callable[[Line], None], ...]:
    return (lambda line: setattr(line, name, value), lambda line: setattr(line, name, normal))


def _switch(name: str) -> tuple[Callable[[Line], None], ...]:
    return _set(name, value=True, normal=False)


def _both(name: str, where: str) -> dict[str, Fault]:
    """Return the rows of what is done to the lines to one kind of server."""
    n = len(AGENTS)
    change = {
        "is cut": (_cut, _mend),
        "is slow": _set("delay_seconds", value=2.0, normal=0.0),
        "delivers twice": _switch("duplicates"),
        "loses answers": _switch("loses_answers"),
        "answers 429": _set("refusals", value=(429,), normal=()),
        "answers 500": _set("refusals", value=(500, 503), normal=()),
    }
    return {
        f"{name} {what}": Fault(do=_with(where, *how), parts=n, seconds=(2, 15))
        for what, how in change.items()
    }


@asynccontextmanager
async def _refused(system: System, part: int, dice: Random) -> AsyncIterator[None]:
    async with system.without_permissions(part):
        system.api_lines[part].drop()
        yield


FAULTS: Final[dict[str, Fault]] = {
    "broker killed": Fault(do=_killed("broker"), parts=BROKERS),
    "broker frozen": Fault(do=_frozen("broker"), parts=BROKERS, seconds=(2, 12)),
    "agent killed": Fault(do=_killed("agent"), parts=len(AGENTS)),
    "agent frozen past its lease": Fault(do=_frozen("agent"), parts=len(AGENTS), seconds=(4, 30)),
    "agent frozen and replaced": Fault(do=_replaced, parts=len(AGENTS), seconds=(4, 30)),
    "PostgreSQL killed": Fault(do=_postgres_killed),
    "PostgreSQL backend killed": Fault(do=_backend_killed),
    "PostgreSQL backends ended": Fault(do=_backends_ended),
    "etcd killed": Fault(do=_killed("etcd"), parts=CLUSTERS),
    "kube-apiserver killed": Fault(do=_killed("kube-apiserver"), parts=CLUSTERS),
    "build runner killed": Fault(do=_killed("build-runner"), parts=CLUSTERS),
    "pod lost in mid-build": Fault(do=_pod_lost, needs="buildah"),
    "real build runner killed": Fault(do=_real_runner_killed, needs="buildah"),
    **_both("line to the broker", "broker"),
    "line to the broker answers pages": Fault(
        do=_with("broker", *_switch("pages")), parts=len(AGENTS), seconds=(5, 20)
    ),
    **_both("line to the API server", "api"),
    "watches dropped": Fault(do=_watches_dropped, parts=len(AGENTS)),
    "watches answered 410": Fault(
        do=_with("api", *_switch("expires_watches")),
        parts=len(AGENTS),
        seconds=(2, 10),
    ),
    "cluster refuses the agent": Fault(do=_refused, parts=len(AGENTS), seconds=(15, 45)),
    "cluster refuses the agent's token": Fault(
        do=_with("api", _spoil_tokens, _know_tokens), parts=len(AGENTS), seconds=(15, 45)
    ),
    "disk of the database filled": Fault(do=_disk_filled, seconds=(2, 10), needs="tmpfs"),
    "agent's clock stepped": Fault(
        do=_clock_stepped, parts=len(AGENTS), seconds=(5, 20), needs="libfaketime"
    ),
}

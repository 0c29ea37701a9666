"""One run: harm for a while, calm after it, and what was seen meanwhile."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import asyncpg

from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.config import KubeConfig
from brokkr.agent.kube.errors import KubeError
from chaos import invariants, observer
from chaos.faults import FAULTS, Scheduled, schedule
from chaos.invariants import History
from chaos.observer import Cluster
from chaos.stream import SORTS
from chaos.submitting import Submitter
from chaos.supervised import Exit
from chaos.system import System, command_lines, namespaces

LOOK_SECONDS: Final = 3.0
CALM_SECONDS: Final = 180.0
"""Within which all that was accepted must end once nothing is wrong any more."""
CLEAN_SECONDS: Final = 120.0
"""Within which the clusters must be empty after that."""
HEARD_SECONDS: Final = 40.0
"""Of calm, after which every agent has heard which claims it has lost."""

_AWAY = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
    KubeError,
)


@dataclass(kw_only=True)
class Findings:
    """
    What has come of a run.

    Attributes:
        faults: How often each was done.
        skipped: Which could not be done here, and why.
        outcomes: By sort of Work, how they ended.
        events: How often each kind of event has happened.
        images: How many real ones were completed, and found in the registry.
    """

    faults: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    failed_faults: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    images: int = 0
    exits: list[Exit] = field(default_factory=list)
    looks: int = 0
    overlaps_seen: int = 0
    drained_seconds: float | None = None
    cleaned_seconds: float | None = None
    violations: list[str] = field(default_factory=list)

    def add(self, wrong: Iterable[str]) -> None:
        """Note what is wrong, once, and say it."""
        for each in wrong:
            if each not in self.violations:
                self.violations.append(each)
                print(f"VIOLATION: {each}", flush=True)


class Run:
    """One run of a system."""

    def __init__(self, folder: Path, seeds: Sequence[int], seconds: float) -> None:
        """Prepare for so many seconds of the faults of each seed, one after the other."""
        self._seeds = seeds
        self._seconds = seconds
        self._system = System(folder, self._name)
        self._reported: dict[str, tuple[str, str]] = {}
        self._given_up: set[str] = set()
        self._clusters: list[Cluster] = []
        self._on: set[str] = set()
        self.findings = Findings()

    @property
    def _name(self) -> str:
        return "-".join(map(str, self._seeds))

    async def run(self) -> Findings:
        """Do all of it."""
        system = self._system
        began = time.monotonic()
        async with system.running(), AsyncExitStack() as stack:
            self._clusters = [
                Cluster(
                    await stack.enter_async_context(KubeClient(KubeConfig.load(kubeconfig))),
                    namespaces(n, real=False) + namespaces(n, real=True),
                )
                for n, kubeconfig in enumerate(system.kubeconfigs)
            ]
            say(f"everything runs after {time.monotonic() - began:.1f} s")
            if reason := system.unavailable.get("buildah"):
                self.findings.skipped["real builds"] = reason
            self._submitter = Submitter(
                self._name, system.broker_urls, system.generator_keys, system.workshop
            )
            over = asyncio.Event()
            submitting = asyncio.create_task(self._submitter.run(over))
            looking = asyncio.create_task(self._look_for_ever())
            try:
                for seed in self._seeds:
                    await self._do_harm(seed)
                say("all faults are undone; waiting until everything has ended")
                calm_since = time.monotonic()
                over.set()
                await self._drain(submitting, calm_since)
                await self._clean(calm_since)
            finally:
                for each in (submitting, looking):
                    each.cancel()
                await asyncio.gather(submitting, looking, return_exceptions=True)
            await self._judge()
        running = command_lines().values()
        folder = str(system.folder)
        self.findings.add(
            invariants.left_running([each.decode(errors="replace") for each in running], folder)
        )
        self._read_logs()
        return self.findings

    # -- harm ------------------------------------------------------------------------------

    async def _do_harm(self, seed: int) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for each in schedule(seed, self._seconds):
                await asyncio.sleep(max(0.0, began + each.at - time.monotonic()))
                tasks.create_task(self._do(each))
        await asyncio.sleep(max(0.0, began + self._seconds - time.monotonic()))

    async def _do(self, each: Scheduled) -> None:
        fault = FAULTS[each.name]
        if reason := self._system.unavailable.get(fault.needs):
            self.findings.skipped[each.name] = reason
            return
        what = f"{each.name} {each.part}"
        if what in self._on:  # what is done already cannot be done, and must not be undone twice
            return
        self._on.add(what)
        say(f"{each.at:7.1f} s  {each.name} ({each.part}) for {each.seconds:.1f} s")
        dice = Random(f"{self._name} {each.at}")
        try:
            async with fault.do(self._system, each.part, dice):
                self.findings.faults[each.name] += 1
                await asyncio.sleep(each.seconds)
        except (*_AWAY, IndexError):  # what it would have been done to is away
            self.findings.failed_faults[each.name] += 1
        finally:
            self._on.discard(what)

    # -- looking ---------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            try:
                await self._look()
            except _AWAY:
                pass  # then nothing can be seen, and the next look sees more
            except Exception as error:  # noqa: BLE001 - the rest of the run is worth seeing
                self.findings.add([f"a look went wrong: {error!r}"])
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        executions = await observer.live_executions(self._clusters)
        self._reported |= await observer.terminal_works(self._clusters)
        given_up = await observer.given_up(self._clusters)
        new = {claim: each for claim, each in given_up.items() if claim not in self._given_up}
        url = self._system.database_url
        self._submitter.queued = await observer.count_queued(url)
        ids = {each.work_id for each in executions}
        works = sorted(ids | {work_id for work_id, _ in new.values()})
        histories = await observer.read_histories(url, works)
        self.findings.looks += 1
        self.findings.overlaps_seen += len(executions) - len(ids)
        self.findings.add(invariants.forbidden_overlaps(executions, histories))
        self.findings.add(invariants.given_up_too_early(new, histories))
        self._given_up |= new.keys()
        for each in histories.values():
            self.findings.add(invariants.broken_history(each))

    async def _drain(self, submitting: asyncio.Task[None], since: float) -> None:
        async def is_drained() -> bool:
            url = self._system.database_url
            return submitting.done() and await observer.count_queued(url) == 0

        if await _within(CALM_SECONDS, is_drained):
            self.findings.drained_seconds = round(time.monotonic() - since, 1)
            say(f"everything has ended after {self.findings.drained_seconds} s of calm")
        else:
            self.findings.add([f"not everything has ended after {CALM_SECONDS:.0f} s of calm"])
        if submitting.done() and (error := submitting.exception()):
            self.findings.add([f"submitting was refused: {error!r}"])

    async def _clean(self, since: float) -> None:
        async def hears() -> bool:
            executions = await observer.live_executions(self._clusters)
            ids = [each.work_id for each in executions]
            histories = await observer.read_histories(self._system.database_url, ids)
            if time.monotonic() - since > HEARD_SECONDS:
                self.findings.add(invariants.unfenced(executions, histories))
            return not await observer.leftovers(self._clusters)

        if await _within(CLEAN_SECONDS, hears):
            self.findings.cleaned_seconds = round(time.monotonic() - since, 1)
            say(f"the clusters are empty after {self.findings.cleaned_seconds} s of calm")
        else:
            found = await observer.leftovers(self._clusters)
            self.findings.add(f"left behind: {each}" for each in found)

    # -- judging ---------------------------------------------------------------------------

    async def _judge(self) -> None:
        histories = await observer.read_histories(self._system.database_url)
        submitter = self._submitter
        found = {each.key: each.work_id for each in histories.values()}
        self.findings.add(invariants.twice_accepted(each.key for each in histories.values()))
        self.findings.add(invariants.lost_submissions(submitter.accepted, found))
        self.findings.add(invariants.lost_completions(self._reported, histories))
        for each in histories.values():
            sort = submitter.sorts[each.key]
            self.findings.add(invariants.broken_history(each))
            self.findings.add(invariants.wrong_end(each, sort))
            self.findings.add(invariants.retries_for_losses(each))
            self.findings.outcomes.setdefault(sort, Counter())[each.status.lower()] += 1
            self.findings.events.update(event.kind for event in each.events)
        await self._judge_images(histories)
        self.findings.add(
            f"left by a real build: {each}" for each in self._system.builds_under_way()
        )
        alive = {name: process.alive for name, process in self._system.processes.items()}
        self.findings.add(invariants.not_superseded(alive))

    async def _judge_images(self, histories: Mapping[str, History]) -> None:
        workshop = self._system.workshop
        if workshop is None:
            return
        built = [
            each for each in histories.values() if SORTS[self._submitter.sorts[each.key]].is_real
        ]
        has_image = {
            (each.key, each.digest): await observer.has_image(
                workshop.image_of(each.key), each.digest
            )
            for each in built
            if each.digest
        }
        self.findings.images = sum(has_image.values())
        self.findings.add(invariants.missing_images(built, has_image))

    def _read_logs(self) -> None:
        for name, process in self._system.processes.items():
            if name.startswith(("agent", "broker")) or "build-runner" in name:
                for log in process.logs:
                    with log.open(errors="replace") as lines:
                        self.findings.add(f"{log.name}: {e}" for e in invariants.complaints(lines))
            self.findings.exits += process.exits
        self.findings.add(
            f"{each.name} ended with {each.code} and no reason: {each.last_words}"
            for each in self.findings.exits
            if not each.has_reason
        )


async def _within(seconds: float, ask: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(*_AWAY):
            if await ask():
                return True
        await asyncio.sleep(1)
    return False


def say(line: str) -> None:
    """Print how far it is."""
    print(line, flush=True, file=sys.stdout)
